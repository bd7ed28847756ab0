"""
What all questions share: options, rounds, turns, and what becomes of the answers.

Knows peers and load processes. Knows nothing of what is asked: a `Question` says which
figures there are and has a function that gets a started peer and answers with them.

To add a question, write a module with a `Question` and ``harness.main(QUESTION)``::

    def ask(turn: Turn) -> dict[str, float]:
        turn.open_readers("ws", connections=100, players=1)
        with turn.watch() as watch:
            sent = turn.load.publish(address=turn.peer.address, …)
        return {"cpu_us": watch.server_cpu_s / sent["received"] * 1e6}
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import signal
import statistics
import sys
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..load.handle import Load, LoadFailed
from ..peers import PEERS, Absent, Peer, Remote, Setup, Transport
from .machine import fd_limit, machine
from .processes import Usage, cores
from .stacks import profiled

try:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    from . import report
except ImportError as exc:
    sys.exit(f"{exc}; the bench needs: pip install rich hdrhistogram matplotlib")

__all__ = [
    "Answer",
    "Figure",
    "LoadFailed",
    "Options",
    "Question",
    "Turn",
    "late_us",
    "main",
]

Options = argparse.Namespace
Answer = dict[str, float]

FILE_COLUMNS = 160

BUSY = 0.9
"""Share of a core from which on a load process counts as the limit."""


@dataclass(frozen=True)
class Figure:
    """One column: its key in an answer, its heading, unit, and which way is better."""

    key: str
    label: str
    unit: str = ""
    digits: int = 1
    lower_is_better: bool = True


@dataclass(frozen=True)
class Question:
    """
    What is asked, of whom.

    Args:
        name: Of its module.
        title: As a heading, may name options in braces.
        figures: What there is in an answer; the first one is compared and drawn.
        peers: Names of those who can answer.
        setup: What a server has to make room for.
        ask: Asks one started peer.
        options: Adds options of its own.
        about: What to know about the figures, a sentence or two.

    """

    name: str
    title: str
    figures: list[Figure]
    peers: list[str]
    setup: Callable[[Options], Setup]
    ask: Callable[[Turn], Answer]
    options: Callable[[argparse.ArgumentParser], None]
    about: str = ""


@dataclass
class Watch:
    """What a server has used between two moments."""

    server_cpu_s: float = 0
    store_cpu_s: float = 0
    server_rss: int = 0
    store_rss: int = 0
    wall_s: float = 0


@dataclass
class Turn:
    """One peer's turn in a round."""

    peer: Peer
    load: Load
    options: Options
    say: Callable[[str], None]
    shares: list[float] = field(default_factory=list)
    latencies: dict[str, array[int]] = field(default_factory=dict)

    @contextlib.contextmanager
    def watch(self, name: str = "") -> Iterator[Watch]:
        """Measure what the server uses in the block, one of several by its name."""
        watch = Watch()
        profile = self.options.profile
        if profile is not None and name:
            profile = profile.with_stem(f"{profile.stem}-{name}")
        with profiled(self.peer, profile):
            before, begun_s = self.peer.usage(), time.monotonic()
            yield watch
            after: Usage = self.peer.usage()
            watch.wall_s = time.monotonic() - begun_s
        watch.server_cpu_s = after.server_cpu_s - before.server_cpu_s
        watch.store_cpu_s = after.store_cpu_s - before.store_cpu_s
        watch.server_rss = after.server_rss - before.server_rss
        watch.store_rss = after.store_rss - before.store_rss

    def open_readers(
        self,
        transport: Transport,
        connections: int,
        players: int,
        *,
        sampled: int = 1,
        **plan: Any,
    ) -> dict[str, Any]:
        """Open readers, each of its player or all of one; refusals are an error."""
        self.say(f"opening {connections:,} readers")
        opened = self.load.open(
            address=self.peer.address,
            requests=self.peer.readers(transport, players),
            count=connections,
            ready=self.peer.ready(transport),
            sampled=sampled,
            **plan,
        )
        if opened["open"] < connections:
            raise LoadFailed(
                f"{opened['open']:,} of {connections:,} readers could be opened; "
                f"refused: {opened['refused']}"
            )
        self.load.rest(0.3)
        return opened

    def note_load(self, facts: dict[str, Any]) -> None:
        """Remember how busy the load was, and whether it was answered."""
        self.shares.append(max(facts["load_shares"]))
        bad = {s: n for s, n in facts.get("statuses", {}).items() if s[0] not in "23"}
        if facts.get("failed") or bad:
            raise LoadFailed(f"{facts['failed'] or facts['refusal']} {bad}")

    def note_latency(self, name: str, us: array[int]) -> Answer:
        """Keep a latency's histogram; return its p50 and p99."""
        self.latencies[name] = us
        ordered = sorted(us)
        if not ordered:
            raise LoadFailed("no message has arrived")
        return {
            "p50_us": float(ordered[len(ordered) // 2]),
            "p99_us": float(ordered[len(ordered) * 99 // 100]),
        }


def late_us(facts: dict[str, Any]) -> array[int]:
    """Return how late messages were, in microseconds."""
    return array("I", (max(0, ns) // 1000 for ns in facts["late_ns"]))


def main(question: Question) -> None:
    """Ask everybody, print a table, write the files that were asked for."""
    fd_limit()
    # Whoever is stopped takes along what it has started.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    options = _parse(question)
    console = Console()
    if not console.is_terminal:
        console = Console(width=FILE_COLUMNS)
    result = _Bench(question, options, console).run()
    report.print_table(result, console)
    report.write(result, json_path=options.json, html=options.html, png=options.png)
    if not any(row["runs"] for row in result["rows"]):
        sys.exit(1)


def _parse(question: Question) -> Options:
    parser = argparse.ArgumentParser(
        prog=f"python -m bench.{question.name}", description=question.about
    )
    add = parser.add_argument
    add("--rounds", type=int, default=5, help="how often everybody is asked (5)")
    add(
        "--peers",
        default=",".join(question.peers),
        help="who is asked, separated by commas (%(default)s)",
    )
    add("--seconds", type=float, default=5, help="how long a measurement takes (5)")
    add("--loaders", type=int, default=1, help="load processes (1)")
    add("--no-pin", action="store_true", help="leave the choice of cores to the kernel")
    add("--url", help="ask a running deployment instead of starting servers")
    add("--key", default="", help="its backend key")
    add("--token-command", default="", help="prints a token for {player}")
    add("--pid", type=int, action="append", default=[], help="its processes, if here")
    add(
        "--profile",
        type=Path,
        help="stacks of streamer while it is measured, in folded form; needs py-spy, "
        "and makes what is measured slower",
    )
    add("--json", type=Path, help="write everything for machines")
    add("--html", type=Path, help="write a report for people")
    add("--png", type=Path, help="write the picture alone")
    question.options(parser)
    return parser.parse_args()


class _Bench:
    """A run of one question."""

    def __init__(self, question: Question, options: Options, console: Console) -> None:
        self._question = question
        self._options = options
        self._rows: dict[str, dict[str, Any]] = {}
        self._absent: list[dict[str, str]] = []
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
        )

    def run(self) -> dict[str, Any]:
        question, options = self._question, self._options
        about = machine()
        kinds = self._kinds()
        with self._progress as progress:
            total = options.rounds * len(kinds)
            self._task = progress.add_task(question.name, total=total)
            for round_ in range(options.rounds):
                # Whoever is first meets the machine as the round before has left it.
                for name, make in (
                    kinds[round_ % len(kinds) :] + kinds[: round_ % len(kinds)]
                ):
                    self._take_turn(name, make, round_)
                    progress.advance(self._task)
        shown = {
            k: v for k, v in vars(options).items() if isinstance(v, int | float | str)
        }
        return {
            "question": question.name,
            "title": question.title.format(**vars(options)),
            "about": question.about,
            "machine": about,
            "options": {k: v for k, v in shown.items() if k != "key"},
            "figures": [vars(figure) for figure in question.figures],
            "rows": [
                summarise(row, self._rows)
                for row in self._rows.values()
                if "left_out" not in row
            ],
            "absent": self._absent,
            "left_out": {
                row["title"]: row["left_out"]
                for row in self._rows.values()
                if "left_out" in row
            },
        }

    def _kinds(self) -> list[tuple[str, Callable[[], Peer]]]:
        options = self._options
        if options.url:
            remote = (options.url, options.key, options.token_command, options.pid)
            self._add_row(Remote)
            return [("streamer", lambda: Remote(*remote))]
        kinds: list[tuple[str, Callable[[], Peer]]] = []
        for name in options.peers.split(","):
            if name not in PEERS:
                sys.exit(f"there is no peer {name!r}: {', '.join(PEERS)}")
            kind = PEERS[name]
            if getattr(options, "transport", "ws") not in kind.transports:
                continue
            try:
                kind().require()
            except Absent as absent:
                self._absent.append({"peer": kind.title, "install": str(absent)})
            else:
                self._add_row(kind)
                kinds.append((name, kind))
        return kinds

    def _add_row(self, kind: type[Peer]) -> None:
        self._rows[kind.name] = {
            "peer": kind.name,
            "title": kind.title,
            "does": kind.does,
            "runs": [],
            "failures": [],
        }

    def _take_turn(self, name: str, make: Callable[[], Peer], round_: int) -> None:
        row = self._rows[name]
        where = f"round {round_ + 1} of {self._options.rounds}, {row['title']}: "

        def say(what: str) -> None:
            self._progress.update(self._task, description=where + what)

        say("starting")
        try:
            row["runs"].append({"round": round_, **self._ask(make(), say)})
        except Absent as absent:
            row["left_out"] = str(absent)
        except (LoadFailed, RuntimeError, OSError) as exc:
            row["failures"].append(f"round {round_ + 1}: {exc}")
            self._progress.console.print(f"{where}{exc}", style="red", markup=False)

    def _ask(self, peer: Peer, say: Callable[[str], None]) -> dict[str, Any]:
        for_load = set() if self._options.no_pin else cores()[1]
        # A unix socket's path has to be short.
        folder = Path(tempfile.mkdtemp(prefix="bench-"))
        load = Load(self._options.loaders, for_load)
        turn = Turn(peer, load, self._options, say)
        try:
            peer.start(self._question.setup(self._options)._replace(folder=folder))
            if not self._options.no_pin:
                peer.pin()
            answer = self._question.ask(turn)
        finally:
            load.stop()
            peer.stop()
            shutil.rmtree(folder, ignore_errors=True)
        share = max(turn.shares, default=0.0)
        return {
            **answer,
            "load_share": share,
            "histograms": {n: report.encode(us) for n, us in turn.latencies.items()},
        }


def summarise(row: dict[str, Any], rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Add medians, spreads and ratios to ourselves, formed within each round."""
    runs = row["runs"]
    keys = [k for k in (runs[0] if runs else {}) if k not in ("round", "histograms")]
    medians, spreads = {}, {}
    for key in keys:
        values = [run[key] for run in runs]
        medians[key] = statistics.median(values)
        half = (max(values) - min(values)) / 2
        spreads[key] = half / medians[key] if medians[key] else 0.0
    ours = {run["round"]: run for run in rows.get("streamer", {}).get("runs", [])}
    ratios = {}
    for key in keys:
        both = [
            ours[run["round"]][key] / run[key]
            for run in runs
            if run["round"] in ours and ours[run["round"]].get(key) and run[key]
        ]
        if both:
            ratios[key] = [statistics.median(both), min(both), max(both)]
    limited = medians.get("load_share", 0) > BUSY
    return {
        **row,
        "medians": medians,
        "spreads": spreads,
        "ratios": ratios,
        "limited_by_load": limited,
    }
