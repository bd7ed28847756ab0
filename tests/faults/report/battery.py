"""
The battery: the faults, the tests that cover them, and the results of a run.

A test names the row it covers with ``@pytest.mark.row("C1")``, wherever the test is,
and passes its figures to the fixture `report`. ``pytest --battery-report FILE`` writes
the results. A row that failed, was not run or has no test is red, with the reason.
`ROWS` lists the requirements; no test can remove a row from the table.

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
    """A fault, and what must hold in spite of it."""

    fault: str
    requirement: str
    missing: str = ""
    """What the tests of the row do not show, and why."""


ROWS = {
    "A1": Row(
        "store killed (SIGKILL) again and again while clients publish",
        "each acknowledged publish is stored exactly once; offsets have no holes",
        "target size: 1,000,000 acknowledged publishes",
    ),
    "A2": Row("as A1, with fdatasync slowed by 30 ms", "as A1"),
    "A3": Row(
        "control: everysec, slow disk, SIGKILL",
        "the loss is detected, and the server reports degraded durability",
    ),
    "A4": Row(
        "power failure: an image of the disk, per fsync policy",
        "always: nothing is lost; everysec: at most the last 2 s",
        "everysec is not tested; the control is `no`",
    ),
    "A5": Row(
        "end of the append-only file truncated at any byte",
        "the store starts; each publish is stored whole or not at all",
        "positions are sampled",
    ),
    "A6": Row(
        "disk full, then space is freed",
        "nothing is acknowledged meanwhile; streams stay open; recovery is automatic",
    ),
    "A7": Row("SIGKILL while the append-only file is rewritten", "as A1"),
    "A8": Row(
        "flipped byte in the append-only file; empty directory in place of the data",
        "the store never silently starts empty",
        "the file has no checksums: a flip within a name or a text goes unnoticed",
    ),
    "A9": Row("response to a write lost, 1 to 3 times", "one entry"),
    "A10": Row(
        "callers cancelled while their command is in flight",
        "no caller receives the reply to another command",
    ),
    "B1": Row(
        "replica disconnected, primary killed, replica promoted",
        "`replicated`: no confirmed publish is lost; others are 503, outcome unknown",
    ),
    "B2": Row(
        "as B1, with min-replicas-to-write and without WAIT",
        "not sufficient: the control of B1",
    ),
    "B3": Row(
        "the log loses its tail, and its offsets are used again",
        "readers receive a gap; no hole goes unnoticed",
    ),
    "B4": Row(
        "the store moves: FAILOVER, REPLICAOF with and without cut connections, a "
        "restart, another server behind one address, a connection that leads nowhere",
        "nodes serve within 5 s of the store's being able to, without a restart; "
        "streams stay open and receive everything once; schedules are sent",
    ),
    "B5": Row(
        "the store refuses: passwords, ports, certificates, access lists, wrong types",
        "no process ends; the node is not ready and says why, in the words of the "
        "store; one line in the log, then one a minute, and one when it is over",
    ),
    "C1": Row(
        "Pub/Sub connections killed continuously",
        "every reader receives everything, in order, once",
    ),
    "C2": Row(
        "a Pub/Sub connection that answers pings and delivers nothing",
        "the probe detects it, `/readyz` reports it, the node repairs itself",
    ),
    "C3": Row(
        "a node stopped (SIGSTOP) while clients publish much",
        "all of its streams catch up",
        "a reader whose share of the backlog exceeds its send buffer is disconnected "
        "as slow, and resumes",
    ),
    "C4": Row(
        "the last announcement to an idle stream is lost",
        "the position check detects it",
    ),
    "C5": Row(
        "all interleavings of history, live messages and losses; random operations",
        "nothing is lost, duplicated or out of order; counts equal a recount",
    ),
    "C6": Row(
        "a node is killed, and its readers reconnect to another one",
        "nothing is lost or duplicated; leases of the dead node cause no 409",
        "target size: 1,000 streams",
    ),
    "C7": Row(
        "nodes with streams restarted one after the other",
        "a staged drain; nothing is lost; done within 30 s",
        "target size: 5,000 streams",
    ),
    "C8": Row("half-open connections", "slot and memory are released within 20 s"),
    "C9": Row(
        "readers that do not read",
        "they are disconnected; other readers are hardly delayed; the memory of server "
        "and kernel is bounded",
    ),
    "C10": Row("10,000 simultaneous handshakes", "no error but 503 by limit"),
    "C11": Row(
        "all clients resume right after the store was restarted",
        "nothing is lost; streams stay open; the store is not flooded",
        "target size: 10,000 clients",
    ),
    "C12": Row("handshakes aborted before the first byte", "no slot leaks"),
    "C13": Row("eight hours of churn", "no growth"),
    "C14": Row("slow and bad links", "correct, only slower"),
    "D1": Row(
        "30 % of HTTP responses lost, and clients retry with their key",
        "every publish is stored once; retries get the same id",
    ),
    "D2": Row(
        "one idempotency key used concurrently, with another body, in another app",
        "one effect; 422; independent",
    ),
    "D3": Row("SIGKILL within batches of 100", "all of a batch or none of it"),
    "D4": Row("pages walked while others insert and read", "each entry exactly once"),
    "D5": Row(
        "marks repeated, concurrent, out of order, of other players",
        "the unread count equals a recount",
    ),
    "F1": Row("a corpus of bad tokens", "none is accepted, none crashes the server"),
    "F2": Row("every route with every credential", "as the table of permissions says"),
    "F3": Row(
        "generated requests to all routes",
        "no 5xx, and no response that the contract does not declare",
    ),
    "F4": Row("fuzzed decoders of external input", "no uncaught error"),
    "F5": Row("the WebSocket conformance suite Autobahn", "only known failures"),
    "F6": Row(
        "malformed WebSocket frames",
        "the exact close code; other connections are unaffected",
    ),
    "F7": Row("deflate bombs, messages that never end", "memory stays flat"),
    "F8": Row("ambiguous HTTP", "rejected; never two responses to one request"),
    "F9": Row(
        "slow heads and bodies, silent connections",
        "closed in time; others are served",
    ),
    "F10": Row(
        "huge heads, URLs, cursors, bodies", "431, 414, 400, 413; memory stays flat"
    ),
    "F11": Row(
        "control characters in every text, header and path",
        "one event, one log line, no credential in the log",
    ),
    "F12": Row("timing of the check of a key", "reveals nothing"),
    "F13": Row(
        "the store's memory is full",
        "publishes are 503; nothing is stored in part; pages and streams continue",
    ),
    "F14": Row("an app at ten times its limit", "other apps are not affected"),
    "F15": Row(
        "a browser through disconnects, drains and refusals",
        "it reconnects and receives everything once",
    ),
    "T1": Row(
        "torture: nodes and workers on one store, under all faults of processes, "
        "links and store that a seed determines",
        "every acknowledged effect is delivered or told by a gap, in order, once; "
        "pages, counts, badges, marks, receipts, slots and schedules are right after "
        "quiet",
    ),
    "T2": Row(
        "torture: the same with a replica, planned and forced switches of the primary",
        "as T1; what was not acknowledged may be lost",
    ),
    "T3": Row(
        "controls of the torture: a message swallowed, one doubled, a count falsified",
        "the torture finds each of them",
    ),
    "T5": Row(
        "torture: three primaries with a replica each; a primary is lost, slots move, "
        "a primary is added and removed",
        "as T2",
    ),
    "T4": Row(
        "torture: an upgrade node by node, and one step back, on one store",
        "as T1, whichever of the two versions serves",
    ),
}

NOT_TESTED = {
    "B2": "documented as not sufficient; not implemented",
    "C10": "bounded by `connects_per_s_max`; not run at that size",
    "C13": "takes eight hours",
    "F5": "the suite needs Python 2, which the tests do not install",
    "F12": "the noise of a shared machine would pass any comparison. Keys are looked "
    "up by their SHA-256 digest, so there is no comparison to time",
}
"""Why a row has no test."""

Outcomes = dict[str, list["Outcome"]]


class Outcome(NamedTuple):
    """A test and its verdict: ``passed``, ``failed``, ``skipped`` or ``not run``."""

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
        # All processes of a run use the seed that the header names.
        workerinput = getattr(config, "workerinput", {})
        seed = workerinput.get("battery_seed", random.getrandbits(32))
    if config.getoption("--battery-report") and config.getoption("numprocesses", None):
        raise pytest.UsageError(
            "--battery-report needs -n 0: one process collects the outcomes"
        )
    config.stash[_SEED] = seed
    config.stash[_FIGURES] = {}
    config.stash[_OUTCOMES] = {}
    config.stash[_ROWS_OF] = {}


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Pass the seed on to a process that pytest-xdist starts."""
    node.workerinput["battery_seed"] = node.config.stash[_SEED]


def pytest_report_header(config: pytest.Config) -> str:
    return f"battery: --battery-seed {config.stash[_SEED]}"


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Callable[[object], None]:
    """Return a function that adds a figure to the summary."""
    figures = request.config.stash[_FIGURES].setdefault(request.node.nodeid, [])
    return lambda figure: figures.append(str(figure))


@pytest.fixture
def seeded(request: pytest.FixtureRequest) -> Iterator[None]:
    """Seed `random` from ``--battery-seed``, differently for each test."""
    random.seed(f"{request.config.stash[_SEED]} {request.node.nodeid}")
    yield
    random.seed()


def pytest_itemcollected(item: pytest.Item) -> None:
    # Before tests are deselected, so that the table says what was not run.
    rows = [str(mark.args[0]) for mark in item.iter_markers("row")]
    unknown = set(rows) - ROWS.keys()
    if unknown:
        raise pytest.UsageError(f"{item.nodeid}: unknown row {unknown}")
    if rows:
        item.config.stash[_ROWS_OF][item.nodeid] = rows


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Iterator[None]:
    result: pytest.TestReport = yield  # type: ignore[assignment]
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
        for node, of_test in figures.items():
            for figure in of_test:
                terminalreporter.line(f"{node.rpartition('::')[2]}: {figure}")
    if path := config.getoption("--battery-report"):
        path.write_text(render(_collect(config)))
        terminalreporter.line(f"battery: wrote {path}")
        for line in path.read_text().splitlines():
            if RED in line:
                terminalreporter.line(line)


def outcomes(config: pytest.Config) -> dict[str, Outcome]:
    """Return the outcomes of this run by the ids of the tests."""
    return config.stash[_OUTCOMES]


def _collect(config: pytest.Config) -> Outcomes:
    by_row: Outcomes = {name: [] for name in ROWS}
    by_test = with_earlier_runs(config)
    for node, rows in config.stash[_ROWS_OF].items():
        not_run = Outcome(node, "not run", "", [], 0)
        for row in rows:
            by_row[row].append(by_test.get(node, not_run))
    return by_row


def with_earlier_runs(config: pytest.Config) -> dict[str, Outcome]:
    """Return the outcomes of earlier runs, as nightly tests have one of their own."""
    assert config.cache is not None
    earlier: dict[str, Outcome] = {
        node: Outcome(*values)
        for node, values in config.cache.get("battery/outcomes", {}).items()
    }
    earlier |= outcomes(config)
    config.cache.set("battery/outcomes", {k: list(v) for k, v in earlier.items()})
    return earlier


# The page.


def render(outcomes: Outcomes) -> str:
    """Return the page with the results."""
    verdicts = {name: _verdict(name, outcomes[name]) for name in ROWS}
    green = sum(verdict.startswith(GREEN) for verdict in verdicts.values())
    lines = [
        "# Results of the fault tests",
        "",
        "Generated by test runs; do not edit. To generate it again (tests that a run "
        "does not select keep the result of their last run):",
        "",
        "```sh",
        ".venv/bin/pytest -n 0 -m row --battery-report tests/faults/README.md",
        "```",
        "",
        f"{green} of {len(ROWS)} rows are green. "
        f"{platform.system()} {platform.machine()}, Python "
        f"{platform.python_version()}. The seed determines the choices of the tests, "
        "not the scheduling of processes.",
        "",
        "| Row | Fault | Requirement | Result | Seed | Verdict |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in ROWS.items():
        cells = (
            name,
            row.fault,
            row.requirement,
            _figure(outcomes[name]),
            _seeds(outcomes[name]),
        )
        lines.append(_cells(*cells, verdicts[name]))
    lines += ["", "## Attacks, and the tests against them", ""]
    lines += ["| # | Attack | Tests |", "|---|---|---|"]
    for number, (attack, tests) in enumerate(CHECKLIST, 1):
        names = ", ".join(f"`{name.removeprefix('tests/')}`" for name in tests)
        lines.append(_cells(str(number), attack, names))
    return "\n".join([*lines, ""])


def _cells(*cells: str) -> str:
    flat = (" ".join(cell.split()).replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(flat)} |"


def _seeds(outcomes: list[Outcome]) -> str:
    return ", ".join(sorted({str(one.seed) for one in outcomes if one.seed})) or "—"


def _figure(outcomes: list[Outcome]) -> str:
    ran = [one for one in outcomes if one.verdict in ("passed", "failed")]
    passed = sum(one.verdict == "passed" for one in ran)
    figures = [figure for one in ran for figure in one.figures]
    return "; ".join([*figures, f"{passed} of {len(ran)} tests passed"]) if ran else "—"


def _verdict(name: str, outcomes: list[Outcome]) -> str:
    """A row is green if a test of it ran and none failed or was skipped."""
    reasons = []
    for one in outcomes:
        test = one.node.rpartition("::")[2]
        if one.verdict == "failed":
            reasons.append(f"`{test}` failed: {one.why[:160]}")
        elif one.verdict == "skipped":
            reasons.append(f"`{test}` skipped: {one.why}")
    not_run = sum(one.verdict == "not run" for one in outcomes)
    if not outcomes:
        reasons.append(f"no test: {NOT_TESTED.get(name, 'none was collected')}")
    elif not_run == len(outcomes):
        reasons.append("not run")
    if reasons:
        return f"{RED} {'; '.join(reasons)}"
    notes = [f"{not_run} not run"] if not_run else []
    notes += [ROWS[name].missing] if ROWS[name].missing else []
    return f"{GREEN} {'; '.join(notes)}".rstrip()
