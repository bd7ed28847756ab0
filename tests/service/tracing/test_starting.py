"""Whether a process makes traces, by the standard variables."""

from __future__ import annotations

import os
import sys

import pytest

from streamer.service.tracing import starting
from streamer.service.tracing.starting import start

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
NOBODY = "http://user:password@127.0.0.1:9"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [it.getMessage() for it in caplog.records if it.name == starting.__name__]


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {ENDPOINT: " "},
        {"OTEL_SERVICE_NAME": "s", "OTEL_TRACES_SAMPLER": "always_on"},
        {ENDPOINT: NOBODY, "OTEL_SDK_DISABLED": "TRUE"},
        {ENDPOINT: NOBODY, "OTEL_TRACES_EXPORTER": "none"},
    ],
    ids=str,
)
def test_there_are_none_unless_they_are_wanted(
    variables: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    assert start(variables, "n") is None
    assert warnings(caplog) == []


@pytest.mark.parametrize(
    "variables",
    [
        {ENDPOINT: NOBODY},
        {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": NOBODY},
        {ENDPOINT: NOBODY, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
        {ENDPOINT: NOBODY, "OTEL_TRACES_EXPORTER": "otlp"},
    ],
    ids=str,
)
async def test_an_endpoint_turns_them_on(
    variables: dict[str, str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    tracing = start(os.environ, "n")

    assert tracing is not None
    await tracing.close()
    assert warnings(caplog) == []


async def test_no_client_can_fill_the_log_with_its_headers(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENDPOINT, NOBODY)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    tracing = start(os.environ, "n")
    assert tracing is not None

    for name, value in [
        (b"tracestate", b"no member"),
        (b"tracestate", b"a=" + b"x" * 9_000),
        (b"tracestate", b",".join(b"k%d=v" % i for i in range(40))),
        (b"baggage", b"no member,a=\xff"),
    ]:
        parent = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        headers = [(b"traceparent", parent), (name, value)]
        tracing.end_request(tracing.request("GET", headers, {}), "GET /")

    assert [it.getMessage() for it in caplog.records] == []
    await tracing.close()


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER is zipkin"),
        (
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "PROTOCOL is grpc; use http",
        ),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "-1"}, "max_queue_size"),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_said_and_the_server_goes_on(
    variables: dict[str, str],
    problem: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {ENDPOINT: NOBODY, **variables}.items():
        monkeypatch.setenv(name, value)

    assert start(os.environ, "n") is None

    (warning,) = warnings(caplog)
    assert "no traces are sent to 127.0.0.1:9: " in warning
    assert problem in warning
    assert "password" not in warning


@pytest.mark.parametrize(
    "missing",
    [
        "opentelemetry.exporter.otlp.proto.http.trace_exporter",
        "opentelemetry.sdk.trace",
    ],
)
def test_without_the_extra_it_is_named(
    missing: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delitem(sys.modules, "streamer.service.tracing.otel", raising=False)

    assert start({ENDPOINT: NOBODY}, "n") is None

    (warning,) = warnings(caplog)
    assert "pip install 'streamer-server[otel]'" in warning
