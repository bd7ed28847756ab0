"""
The battery: which faults there are, which tests hold them, and what a run has shown.

A test says with ``@pytest.mark.row("C1")`` which row it holds, wherever it is, and
gives its figure to the fixture `report`. ``pytest --battery-report FILE`` writes what
the run has shown: a row that failed, did not run or has no test is red, with the
reason. `ROWS` says what has to hold; no test can take a row out of the table.

Knows nothing of servers and stores.
"""

from __future__ import annotations

import platform
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from .checklist import CHECKLIST

GREEN, RED = "🟢", "🔴"


class Row(NamedTuple):
    """A fault and what has to hold in spite of it."""

    fault: str
    holds: str
    missing: str = ""
    """What the tests of the row do not show, and why."""


ROWS = {
    "A1": Row(
        "the store killed (-9) under publishers, again and again",
        "what was acknowledged is there once; offsets have no holes",
        "the size wanted is 1,000,000 acknowledged",
    ),
    "A2": Row("the same with fdatasync slowed by 30 ms", "the same"),
    "A3": Row(
        "control: everysec, a slow disk, kill -9",
        "loss is seen, and the server says that it is degraded",
    ),
    "A4": Row(
        "the power fails: an image of the disk, per policy",
        "always: nothing is lost; everysec: the last 2 s at most",
        "everysec is not cut; the control is `no`",
    ),
    "A5": Row(
        "the end of the log cut off at any byte",
        "the store starts; each publish is there whole or not at all",
        "positions are sampled",
    ),
    "A6": Row(
        "the disk is full, then has room again",
        "nothing acknowledged meanwhile; streams stay; it recovers unaided",
    ),
    "A7": Row("kill -9 while the log is rewritten", "as A1"),
    "A8": Row(
        "a flipped byte in the log; an empty directory where data was",
        "no store is served empty without a word",
        "the log has no checksums: a flip within a name or a text goes unnoticed",
    ),
    "A9": Row("the answer to a write is lost, 1 to 3 times", "one entry"),
    "A10": Row(
        "callers that give up while their command is under way",
        "nobody gets the answer to another's command",
    ),
    "B1": Row(
        "a replica is cut off, the primary dies, the replica is promoted",
        "`replicated`: nothing confirmed is lost; unconfirmed is 503, unknown",
    ),
    "B2": Row(
        "the same with min-replicas-to-write and no WAIT",
        "is not enough: the control of B1",
    ),
    "B3": Row(
        "the log loses its tail, and its offsets are given out again",
        "readers get a gap, never a silent hole",
    ),
    "C1": Row("the feed's connections killed all the time", "whole, in order, once"),
    "C2": Row(
        "a feed that answers its pings and hears nothing",
        "found by the probe, `/readyz` says so, repaired by itself",
    ),
    "C3": Row(
        "a node stands still while much is published",
        "all of its streams catch up",
        "a reader whose share of the backlog is over its send budget is cut as slow "
        "and comes back",
    ),
    "C4": Row(
        "the last announcement to an idle stream is lost", "the position check finds it"
    ),
    "C5": Row(
        "every interleaving of history, live and loss; random operations",
        "nothing lost, doubled or out of order; counts are recounts",
    ),
    "C6": Row(
        "a node is killed, its readers go to the other",
        "nothing lost or doubled; no 409 because of a dead node's leases",
        "the size wanted is 1,000 streams",
    ),
    "C7": Row(
        "nodes restarted in turn under streams",
        "a staged drain; nothing lost; done in 30 s",
        "the size wanted is 5,000 streams",
    ),
    "C8": Row("half-open connections", "slot and memory are free within 20 s"),
    "C9": Row(
        "readers that do not read",
        "they are cut, healthy ones hardly notice, memory of ours and the kernel's "
        "is bounded",
    ),
    "C10": Row("10,000 handshakes at once", "no error but 503 by limit"),
    "C11": Row(
        "all clients resume right after the store was restarted",
        "nothing lost; streams stay open; the store is not flooded",
        "the size wanted is 10,000 clients",
    ),
    "C12": Row("handshakes aborted before the first byte", "no slot leaks"),
    "C13": Row("eight hours of churn", "no growth"),
    "C14": Row("slow and bad links", "correct, only slower"),
    "D1": Row(
        "30 % of HTTP answers are lost, clients repeat with their key",
        "every publish is stored once, repetitions get the same id",
    ),
    "D2": Row(
        "one key at once, with another body, in another app",
        "one effect; 422; independent",
    ),
    "D3": Row("kill -9 within batches of 100", "all of a batch or none"),
    "D4": Row("pages walked while others insert and read", "each entry exactly once"),
    "D5": Row(
        "marks twice, at once, out of order, of others", "unread is what a recount says"
    ),
    "F1": Row("a corpus of bad tokens", "none is believed, none crashes"),
    "F2": Row("every route with every credential", "the table of permissions"),
    "F3": Row(
        "generated requests to all routes",
        "no 5xx, no answer that is not in the contract",
    ),
    "F4": Row("fuzzed decoders of what comes from outside", "no uncaught error"),
    "F5": Row("the WebSocket conformance suite Autobahn", "only what is known fails"),
    "F6": Row(
        "hand-made WebSocket frames", "the exact close code; a neighbour notices none"
    ),
    "F7": Row("deflate bombs, messages that never end", "memory stays flat"),
    "F8": Row("ambiguous HTTP", "refused; never two answers to one request"),
    "F9": Row("slow heads and bodies, silence", "closed in time; others served"),
    "F10": Row("huge heads, URLs, cursors, bodies", "431, 414, 400, 413; memory flat"),
    "F11": Row(
        "control characters in every text, header and path",
        "one event, one line of log, no credential in it",
    ),
    "F12": Row("timing of the check of a key", "tells nothing"),
    "F13": Row(
        "the store's memory is full",
        "publishes are 503, nothing is half there, pages and streams go on",
    ),
    "F14": Row("an app at ten times its limit", "others do not feel it"),
    "F15": Row("a browser through drops, drains and refusals", "comes back, once each"),
}

NOT_HELD = {
    "B2": "documented as not sufficient; not built",
    "C10": "bounded by `connects_per_s_max`; at that size not run here",
    "C13": "takes eight hours",
    "F5": "its suite needs Python 2, which is not installed for the tests",
    "F12": "not run: on a shared machine its noise would pass any comparison. "
    "Keys are looked up by their SHA-256 digest, so there is no comparison to time",
}
"""Why a row has no test."""

Outcomes = dict[str, list["Outcome"]]


class Outcome(NamedTuple):
    """One test and how it went: ``passed``, ``failed``, ``skipped``, ``left out``."""

    node: str
    verdict: str
    why: str
    figures: list[str]
    seed: int


_FIGURES = pytest.StashKey[dict[str, list[str]]]()
_OUTCOMES = pytest.StashKey[dict[str, Outcome]]()
_ROWS_OF = pytest.StashKey[dict[str, list[str]]]()
_SEED = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("battery")
    group.addoption("--battery-report", type=Path, metavar="FILE")
    group.addoption("--battery-seed", type=int, default=None)


def pytest_configure(config: pytest.Config) -> None:
    seed = config.getoption("--battery-seed")
    if seed is None:
        # Of several processes all have the one that the header names.
        given = getattr(config, "workerinput", {})
        seed = given.get("battery_seed", random.getrandbits(32))
    if config.getoption("--battery-report") and config.getoption("numprocesses", None):
        raise pytest.UsageError("--battery-report needs -n 0: it is one process's tale")
    config.stash[_SEED] = seed
    config.stash[_FIGURES] = {}
    config.stash[_OUTCOMES] = {}
    config.stash[_ROWS_OF] = {}


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a process that pytest-xdist starts the seed."""
    node.workerinput["battery_seed"] = node.config.stash[_SEED]


def pytest_report_header(config: pytest.Config) -> str:
    return f"battery: --battery-seed {config.stash[_SEED]}"


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Callable[[object], None]:
    """Return a function that takes a figure for the summary."""
    figures = request.config.stash[_FIGURES].setdefault(request.node.nodeid, [])
    return lambda figure: figures.append(str(figure))


@pytest.fixture
def seeded(request: pytest.FixtureRequest) -> Iterator[None]:
    """Begin chance where ``--battery-seed`` says, each test at a place of its own."""
    random.seed(f"{request.config.stash[_SEED]} {request.node.nodeid}")
    yield
    random.seed()


def pytest_itemcollected(item: pytest.Item) -> None:
    # Before any is left out, so that the table can tell what it does not show.
    rows = [str(mark.args[0]) for mark in item.iter_markers("row")]
    unknown = set(rows) - ROWS.keys()
    if unknown:
        raise pytest.UsageError(f"{item.nodeid}: there is no row {unknown}")
    if rows:
        item.config.stash[_ROWS_OF][item.nodeid] = rows


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Iterator[None]:
    result: pytest.TestReport = yield  # type: ignore[misc,assignment]
    if result.when == "call" or not result.passed:
        why = result.longrepr[2] if isinstance(result.longrepr, tuple) else ""
        if result.failed:
            why = str(call.excinfo.value if call.excinfo else "").split("\n")[0]
        figures = item.config.stash[_FIGURES].get(item.nodeid, [])
        item.config.stash[_OUTCOMES][item.nodeid] = Outcome(
            item.nodeid,
            result.outcome,
            why.removeprefix("Skipped: "),
            figures,
            item.config.stash[_SEED],
        )
    return result  # type: ignore[return-value]


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if figures := {k: v for k, v in config.stash[_FIGURES].items() if v}:
        terminalreporter.section("figures")
        for node, said in figures.items():
            for figure in said:
                terminalreporter.line(f"{node.rpartition('::')[2]}: {figure}")
    if path := config.getoption("--battery-report"):
        path.write_text(render(_collect(config)))
        terminalreporter.line(f"battery: {path} written")
        for line in path.read_text().splitlines():
            if RED in line:
                terminalreporter.line(line)


def _collect(config: pytest.Config) -> Outcomes:
    by_row: Outcomes = {name: [] for name in ROWS}
    by_test = _with_earlier_runs(config) | config.stash[_OUTCOMES]
    for node, rows in config.stash[_ROWS_OF].items():
        left_out = Outcome(node, "left out", "", [], 0)
        for row in rows:
            by_row[row].append(by_test.get(node, left_out))
    return by_row


def _with_earlier_runs(config: pytest.Config) -> dict[str, Outcome]:
    """Return the outcomes of earlier runs, as nightly tests have one of their own."""
    assert config.cache is not None
    earlier = {
        node: Outcome(*values)
        for node, values in config.cache.get("battery/outcomes", {}).items()
    }
    earlier |= config.stash[_OUTCOMES]
    config.cache.set("battery/outcomes", {k: list(v) for k, v in earlier.items()})
    return earlier


# The page.


def render(outcomes: Outcomes) -> str:
    """Return the page that says what a run has shown."""
    verdicts = {name: _verdict(name, outcomes[name]) for name in ROWS}
    green = sum(verdict.startswith(GREEN) for verdict in verdicts.values())
    lines = [
        "# What has been shown",
        "",
        "Written by runs of the battery; do not edit. To write it again (a test that "
        "is left out of a run keeps what the last one has shown):",
        "",
        "```sh",
        ".venv/bin/pytest -n 0 -m row --battery-report tests/faults/README.md",
        "```",
        "",
        f"{green} of {len(ROWS)} rows are green. "
        f"{platform.system()} {platform.machine()}, Python "
        f"{platform.python_version()}. The seed settles the choices of the tests, "
        "not the order in which processes run.",
        "",
        "| Row | Fault | Has to hold | Reached | Seed | Verdict |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in ROWS.items():
        cells = (
            name,
            row.fault,
            row.holds,
            _figure(outcomes[name]),
            _seeds(outcomes[name]),
        )
        lines.append(_cells(*cells, verdicts[name]))
    lines += ["", "## Attacks, and the tests that hold them", ""]
    lines += ["| # | Attack | Held by |", "|---|---|---|"]
    for number, (attack, tests) in enumerate(CHECKLIST, 1):
        held = ", ".join(f"`{name.removeprefix('tests/')}`" for name in tests)
        lines.append(_cells(str(number), attack, held))
    return "\n".join([*lines, ""])


def _cells(*cells: str) -> str:
    flat = (" ".join(cell.split()).replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(flat)} |"


def _seeds(outcomes: list[Outcome]) -> str:
    return ", ".join(sorted({str(one.seed) for one in outcomes if one.seed})) or "—"


def _figure(outcomes: list[Outcome]) -> str:
    ran = [one for one in outcomes if one.verdict in ("passed", "failed")]
    passed = sum(one.verdict == "passed" for one in ran)
    said = [figure for one in ran for figure in one.figures]
    return "; ".join([*said, f"{passed} of {len(ran)} tests"]) if ran else "—"


def _verdict(name: str, outcomes: list[Outcome]) -> str:
    """A row is green if something of it ran and nothing failed or was skipped."""
    reasons = []
    for one in outcomes:
        test = one.node.rpartition("::")[2]
        if one.verdict == "failed":
            reasons.append(f"`{test}` failed: {one.why[:160]}")
        elif one.verdict == "skipped":
            reasons.append(f"`{test}` skipped: {one.why}")
    left_out = sum(one.verdict == "left out" for one in outcomes)
    if not outcomes:
        reasons.append(f"no test: {NOT_HELD.get(name, 'none was collected')}")
    elif left_out == len(outcomes):
        reasons.append("did not run")
    if reasons:
        return f"{RED} {'; '.join(reasons)}"
    said = [f"{left_out} left out of the run"] if left_out else []
    said += [ROWS[name].missing] if ROWS[name].missing else []
    return f"{GREEN} {'; '.join(said)}".rstrip()
