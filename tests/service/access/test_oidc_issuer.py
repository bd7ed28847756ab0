"""What is asked of an issuer of people, which answers are valid, and for how long."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from streamer.errors import IssuerUnavailable
from streamer.service.access import oidc_issuer as module
from streamer.service.access.oidc_issuer import (
    ANSWER_BYTES_MAX,
    METADATA_TTL_S,
    RETRY_S,
    Client,
    CodeRefused,
    OidcIssuer,
)

from ...oidc_issuer import CLIENT_ID, CLIENT_SECRET
from ...oidc_issuer import OidcIssuer as RunningIssuer

URL = "https://push.example/console"
GUARD_S = 40
DISCOVERY = "/.well-known/openid-configuration"


class Clock:
    """A clock that stands still."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def running() -> AsyncIterator[RunningIssuer]:
    running = RunningIssuer(URL)
    await running.open()
    yield running
    await running.close()


@pytest.fixture(autouse=True)
def is_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for an answer on a busy machine, too."""
    monkeypatch.setattr(module, "TIMEOUT_S", GUARD_S)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def issuer(running: RunningIssuer, clock: Clock) -> AsyncIterator[OidcIssuer]:
    client = Client(running.url, CLIENT_ID, CLIENT_SECRET, f"{URL}/api/callback")
    issuer = OidcIssuer(client, monotonic=clock)
    yield issuer
    await issuer.close()


async def begun(issuer: OidcIssuer, challenge: str = "c") -> str:
    return await issuer.authorization_url(state="s", nonce="n", challenge=challenge)


async def test_metadata_are_asked_for_once(
    issuer: OidcIssuer, running: RunningIssuer, clock: Clock
) -> None:
    first = await begun(issuer)
    clock.now += METADATA_TTL_S - 1
    await begun(issuer)

    assert running.requests == [DISCOVERY]
    # The endpoint has a query of its own.
    assert first.startswith(f"{running.url}/authorize?kind=staff&response_type=code&")


async def test_metadata_stay_in_use_while_the_issuer_is_down(
    issuer: OidcIssuer, running: RunningIssuer, clock: Clock
) -> None:
    await begun(issuer)
    running.answer = 500, b""
    clock.now += METADATA_TTL_S

    # A login that would only meet an error does not begin; the rest goes on.
    with pytest.raises(IssuerUnavailable, match="has no metadata"):
        await begun(issuer)
    await issuer.require_sender(running.url)
    assert await issuer.logout_url("a.b.c", URL)

    running.answer = None
    clock.now += RETRY_S
    assert await begun(issuer)


async def test_an_issuer_that_fails_is_left_alone_for_a_while(
    issuer: OidcIssuer, running: RunningIssuer, clock: Clock
) -> None:
    running.answer = 500, b""
    for _ in range(3):
        with pytest.raises(IssuerUnavailable, match="has no metadata"):
            await begun(issuer)
    assert len(running.requests) == 1

    running.answer = None
    clock.now += RETRY_S
    assert await begun(issuer)


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "https://evil.example"},
        {"token_endpoint": "http://issuer.example/token"},
        {"token_endpoint": None},
        {"token_endpoint": 7},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": "https://"},
        {"end_session_endpoint": "data:text/html,x"},
    ],
)
async def test_metadata_that_cannot_be_trusted_are_refused(
    issuer: OidcIssuer, running: RunningIssuer, metadata: dict[str, Any]
) -> None:
    running.metadata = metadata

    with pytest.raises(IssuerUnavailable):
        await begun(issuer)


BROKEN = [
    (500, b"{}"),
    (302, b""),
    (200, b""),
    (200, b"[]"),
    (200, b'{"id_token": 7}'),
    (200, b"{" * 100_000),
    (200, b"\xff"),
    (200, b" " * (ANSWER_BYTES_MAX + 1)),
    (400, b"<html>"),
]


@pytest.mark.parametrize("answer", BROKEN)
async def test_a_broken_answer_is_no_metadata(
    issuer: OidcIssuer, running: RunningIssuer, answer: tuple[int, bytes]
) -> None:
    running.answer = answer

    with pytest.raises(IssuerUnavailable):
        await begun(issuer)


@pytest.mark.parametrize("answer", BROKEN)
async def test_a_broken_answer_is_no_token(
    issuer: OidcIssuer, running: RunningIssuer, answer: tuple[int, bytes]
) -> None:
    await begun(issuer)
    running.answer = answer

    with pytest.raises(IssuerUnavailable):
        await issuer.claims_of("x", verifier="v", nonce="n")


async def test_an_issuer_that_does_not_answer_is_not_waited_for(
    issuer: OidcIssuer, running: RunningIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TIMEOUT_S", 0.05)
    running.flowing.clear()

    with pytest.raises(IssuerUnavailable, match="cannot be reached"):
        await begun(issuer)


async def test_a_code_that_nobody_has_is_refused(issuer: OidcIssuer) -> None:
    with pytest.raises(CodeRefused, match="invalid_grant"):
        await issuer.claims_of("x", verifier="v", nonce="n")


async def test_a_code_is_of_no_use_without_the_verifier(
    issuer: OidcIssuer, running: RunningIssuer
) -> None:
    url = running.log_in(await begun(issuer))
    code = url.partition("code=")[2].partition("&")[0]

    with pytest.raises(CodeRefused, match="invalid_grant"):
        await issuer.claims_of(code, verifier="v", nonce="n")


@pytest.mark.parametrize("methods", [None, ["client_secret_post"], ["private_key_jwt"]])
async def test_the_secret_is_sent_as_the_issuer_takes_it(
    issuer: OidcIssuer, running: RunningIssuer, methods: list[str] | None
) -> None:
    running.metadata = {"token_endpoint_auth_methods_supported": methods}

    # The issuer gets as far as the code, so it has accepted the client.
    with pytest.raises(CodeRefused, match="invalid_grant"):
        await issuer.claims_of("x", verifier="v", nonce="n")


async def test_the_sender_of_a_response_is_checked(
    issuer: OidcIssuer, running: RunningIssuer
) -> None:
    await issuer.require_sender(running.url)
    for sender in ("https://evil.example", "", None):
        with pytest.raises(CodeRefused):
            await issuer.require_sender(sender)


async def test_an_issuer_that_does_not_name_itself_is_believed(
    issuer: OidcIssuer, running: RunningIssuer
) -> None:
    running.metadata = {"authorization_response_iss_parameter_supported": None}

    await issuer.require_sender(None)
    with pytest.raises(CodeRefused):
        await issuer.require_sender("https://evil.example")


async def test_a_logout_leads_nowhere_where_there_is_no_place_for_it(
    issuer: OidcIssuer, running: RunningIssuer
) -> None:
    running.metadata = {"end_session_endpoint": None}
    assert await issuer.logout_url("a.b.c", URL) == ""


async def test_a_logout_leads_nowhere_while_the_issuer_is_down(
    issuer: OidcIssuer, running: RunningIssuer
) -> None:
    running.answer = 500, b""
    assert await issuer.logout_url("a.b.c", URL) == ""


async def test_a_long_token_is_not_part_of_the_url(issuer: OidcIssuer) -> None:
    assert "id_token_hint=a.b.c" in await issuer.logout_url("a.b.c", URL)
    assert "id_token_hint" not in await issuer.logout_url("x" * 5_000, URL)
