"""The conformance tests: what passes them, and what they find."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
from jsonschema import Draft202012Validator

from streamer_conformance import runner
from streamer_conformance.driver import Driver
from streamer_conformance.report import table_of, with_table
from streamer_conformance.runner import Result, play, run
from streamer_conformance.scenarios import SCENARIOS, Scenario, export

ROOT: Final = Path(__file__).parents[2]
CONFORMANCE: Final = ROOT / "clients/conformance"
DRIVER: Final = f"{sys.executable} {ROOT}/clients/python/conformance_driver.py"
WRONG: Final = f"{sys.executable} {Path(__file__).with_name('wrong_driver.py')}"

FAST: Final = (
    "the cursor of hello makes the first reconnect lossless",
    "it resumes from the cursor of the last notification",
    "a notification that an earlier connection has delivered is dropped",
    "text arrives unchanged, whatever is in it",
    "after a gap of the reason trimmed the stream continues at its cursor",
    "bye 4100 (draining): it reconnects and resumes",
    "bye 4201 (forbidden): it stops and says so",
    "it does not hammer a server that greets and drops",
    "401: one new token and one attempt, at once",
    "a proxy without WebSockets (426) leads to another transport",
    "pages give what a stream would give, each once",
)

OF_ALL_MESSAGES: Final = (
    "a withdrawn notification is told, also one that is unknown",
    "a replaced notification is told before the one that replaces it",
    "a gap may be of one topic, or of what was sent to everyone",
    "marks of other devices are told",
    "bye 4201 (forbidden): it stops and says so",
    "401: one new token and one attempt, at once",
    "a mark is carried out and answered",
    "an acknowledgement is carried out",
    "a topic that was added is asked for by the next connection",
    "a clock that is set ahead or back does no harm",
    "pages give what a stream would give, each once",
    "a publish that is wrong is not repeated",
    "a page is requested again after a 503 and a lost connection",
)

FOUND_BY: Final = {
    "forget_the_cursor": "it resumes from the cursor of the last notification",
    "count_twice": "unread: a notification that is not stored adds nothing",
    "hammer": "it does not hammer a server that refuses",
    "trust_hello": "it does not hammer a server that greets and drops",
    "deliver_repeats": (
        "a notification that an earlier connection has delivered is dropped"
    ),
    "prefer_hello": "a cursor of its own is better than that of hello",
    "pass_over_what_cannot_be_read": (
        "a notification that cannot be read is not passed over"
    ),
    "never_stop": "bye 4202 (replaced by the same instance): it stops and says so",
    "ignore_delays": "the delay of a bye is waited for, plus jitter",
    "never_notice_silence": "a dead line is dropped after 2.5 heartbeats of silence",
    "never_pong": "it answers ping with pong",
    "new_instance_each_time": "each connection of a stream has the same instance",
    "ask_for_tokens_without_end": "401 twice: it stops and says so",
    "keep_the_old_token": (
        "a token that ends on an open stream is replaced, and the stream resumes"
    ),
    "decode_each_chunk_by_itself": "characters may be split between chunks",
    "never_fall_back": "a proxy without WebSockets (426) leads to another transport",
}


TOO_SOON: Final = ("hammer", "trust_hello", "ignore_delays")


def named(*names: str) -> list[Scenario]:
    found = [one for one in SCENARIOS if one.name in names]
    assert len(found) == len(names)
    return found


async def results(
    command: str, scenarios: Sequence[Scenario], **options: Any
) -> list[Result]:
    _, found = await run(command, scenarios, **options)
    return found


def failures(found: Sequence[Result]) -> list[str]:
    return [
        f"{one.scenario.name} ({one.transport}): {one.detail}"
        for one in found
        if one.outcome == "failed"
    ]


def test_names_of_scenarios_are_unique() -> None:
    counts = Counter(one.name for one in SCENARIOS)

    assert [name for name, count in counts.items() if count > 1] == []


def test_scenarios_are_data() -> None:
    assert json.loads(json.dumps(export())) == [
        {key: list(it) if isinstance(it, tuple) else it for key, it in one.items()}
        for one in export()
    ]


async def test_the_python_client_passes_what_matters_most() -> None:
    found = await results(DRIVER, named(*FAST), jobs=2)

    assert failures(found) == []
    assert Counter(one.outcome for one in found)["passed"] >= 2 * len(FAST) - 3


@pytest.mark.nightly
@pytest.mark.timeout(600)
async def test_the_python_client_passes_all_that_it_can_do() -> None:
    found = await results(DRIVER, SCENARIOS, jobs=2, scale_min=0.2)

    assert failures(found) == []
    assert Counter(one.outcome for one in found)["passed"] > 240


@pytest.mark.nightly
@pytest.mark.parametrize("fault", FOUND_BY)
async def test_a_fault_of_a_client_is_found(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenarios = named(FOUND_BY[fault])

    assert not failures(await results(f"{WRONG} nothing", scenarios, scale_min=0.2))
    # What a faulty client never does need not be waited for as long.
    monkeypatch.setattr(runner, "GUARD_S", 3.0)
    # One that is too soon has to be so on a busy machine, too.
    scale_min = 0.5 if fault in TOO_SOON else 0
    assert failures(await results(f"{WRONG} {fault}", scenarios, scale_min=scale_min))


async def test_a_client_that_forgets_its_cursor_is_found() -> None:
    scenarios = named(FOUND_BY["forget_the_cursor"])
    found = await results(
        f"{WRONG} forget_the_cursor", scenarios, transports=["websocket"], jobs=1
    )

    (failure,) = failures(found)
    assert "it resumes from None instead of 'c2'" in failure


async def test_what_a_driver_cannot_do_has_not_passed() -> None:
    found = await results(
        DRIVER, named("each EventSource is opened with a ticket"), jobs=1
    )

    assert [one.outcome for one in found] == ["unsupported"]


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("no-such-driver", "cannot start the driver"),
        ("echo hello", "the driver wrote b'hello"),
        ("""echo '{"event":"closed"}'""", "first event is not ready"),
        ("""echo '{"event":7}'""", "not an event"),
        ("""echo '{"event":"ready","protocol":2}'""", "protocol is 2, not 1"),
        (f"{sys.executable} -c 'raise ValueError(7)'", "ValueError: 7"),
    ],
)
def test_a_driver_that_does_not_start_is_an_error(command: str, problem: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "streamer_conformance", "run", "--driver", command],
        cwd=CONFORMANCE,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 2
    assert problem in done.stderr


async def test_a_failure_is_final_although_the_tests_stood_still(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    outcomes = ["failed", "passed"]

    async def play_once(_: Driver, scenario: Scenario, transport: str) -> Result:
        return Result(scenario, transport, outcomes.pop(0), "why")

    monkeypatch.setattr(runner, "_play", play_once)
    monkeypatch.setattr(runner, "STALL_S", -1.0)
    driver = Driver("not started")
    driver.ready = {"transports": ["websocket"], "capabilities": []}

    result = await play(driver, SCENARIOS[0], "websocket")

    assert result.outcome == "failed"
    assert "stood still" in result.detail
    assert outcomes == ["passed"]


async def test_messages_follow_the_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    schema = json.loads((CONFORMANCE / "driver.schema.json").read_text("utf-8"))
    seen: list[dict[str, Any]] = []
    driver = Driver(DRIVER)

    def record(function: Callable[[Any], None]) -> Callable[[Any], None]:
        def recorded(message: Any) -> None:
            seen.append(message)
            function(message)

        return recorded

    monkeypatch.setattr(driver.events, "put_nowait", record(driver.events.put_nowait))
    monkeypatch.setattr(driver, "send", record(driver.send))
    await driver.start()
    try:
        for scenario in named(*OF_ALL_MESSAGES):
            result = await play(driver, scenario, scenario.transports[0])
            assert result.outcome == "passed", result.detail
    finally:
        await driver.stop()

    # The last one is no message: it says that the driver has ended.
    wrong = [error.message for it in seen[:-1] for error in errors_of(schema, it)]
    assert wrong == []
    kinds = {it.get("event", it.get("cmd")) for it in seen[:-1]}
    assert kinds >= {"ready", "gap", "replaced", "withdrawn", "stopped", "token_wanted"}
    assert kinds >= {"connect", "mark", "ack", "subscribe", "publish", "page", "token"}


def errors_of(schema: dict[str, Any], message: dict[str, Any]) -> list[Any]:
    return list(Draft202012Validator(schema).iter_errors(message))


def test_the_table_is_that_of_the_results() -> None:
    files = sorted((CONFORMANCE / "results").glob("*.json"))
    documents = [json.loads(path.read_text("utf-8")) for path in files]
    page = (ROOT / "clients/README.md").read_text("utf-8")

    assert with_table(page, documents) == page


def test_no_client_has_failed_a_scenario() -> None:
    for path in (CONFORMANCE / "results").glob("*.json"):
        rows = json.loads(path.read_text("utf-8"))["results"]
        assert [row for row in rows if row["outcome"] != "passed"] == []


def test_a_table_names_the_transports_that_passed() -> None:
    name = SCENARIOS[0].name
    rows = [
        {"scenario": name, "transport": "websocket", "outcome": "passed"},
        {"scenario": name, "transport": "sse", "outcome": "failed"},
        {"scenario": name, "transport": "eventsource", "outcome": "unsupported"},
    ]
    lines = table_of([{"client": "Mine", "results": rows}]).splitlines()

    assert lines[0] == "| Scenario | § | Mine |"
    assert lines[2] == f"| {name} | 6 | W ~~S~~ |"
    assert lines[3].endswith("| - |")
    assert lines[-1] == "| **together** | | 1 passed, 1 failed |"
