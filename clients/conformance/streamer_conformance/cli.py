"""The command ``streamer-conformance``: run, list, export, table."""

from __future__ import annotations

import argparse
import asyncio
import fnmatch
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from .driver import DriverFailed
from .report import summary_of, table_of, text_of, with_table
from .runner import Result, run
from .scenarios import SCENARIOS, Scenario, export

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; exit with 1 if a scenario failed, with 2 if none could run."""
    options = _parser().parse_args(arguments)
    raise SystemExit(options.do(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="streamer-conformance",
        description="Tests a client of the streamer protocol, in any language.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    runs = commands.add_parser("run", help="play the scenarios with a client's driver")
    runs.add_argument("--driver", required=True, help="how to start the driver")
    runs.add_argument("--only", default="*", help="names of scenarios, as a pattern")
    runs.add_argument(
        "--transport", action="append", default=[], help="only this one; repeatable"
    )
    runs.add_argument("--jobs", type=int, default=2, help="drivers at once (2)")
    runs.add_argument(
        "--scale-min",
        type=float,
        default=0.0,
        metavar="S",
        help="let each second of the protocol take at least S seconds (0)",
    )
    runs.add_argument("--json", type=Path, help="write the results to this file")
    runs.add_argument("--quiet", action="store_true", help="print what failed only")
    runs.set_defaults(do=_run)

    lists = commands.add_parser("list", help="name all scenarios")
    lists.set_defaults(do=_list)

    exports = commands.add_parser("export", help="print the scenarios as JSON")
    exports.set_defaults(do=_export)

    tables = commands.add_parser("table", help="print a Markdown table of results")
    tables.add_argument("results", nargs="+", type=Path, help="files of run --json")
    tables.add_argument("--into", type=Path, help="write it into this page instead")
    tables.set_defaults(do=_table)
    return parser


def _run(options: argparse.Namespace) -> int:
    def tell(result: Result) -> None:
        if not options.quiet or result.outcome == "failed":
            print(text_of(result), flush=True)

    scenarios = _chosen(options.only)
    if not scenarios:
        print(f"no scenario has the name {options.only}", file=sys.stderr)
        return 2
    try:
        ready, results = asyncio.run(
            run(
                options.driver,
                scenarios,
                transports=options.transport,
                jobs=options.jobs,
                scale_min=options.scale_min,
                on_result=tell,
            )
        )
    except* DriverFailed as errors:
        print(errors.exceptions[0], file=sys.stderr)
        failed = True
    else:
        failed = False
    if failed:
        return 2
    print(summary_of(ready, results))
    if options.json is not None:
        document = json.dumps(_document(ready["client"], results), indent=0)
        options.json.write_text(document + "\n")
    return 1 if any(result.outcome == "failed" for result in results) else 0


def _chosen(pattern: str) -> list[Scenario]:
    return [one for one in SCENARIOS if fnmatch.fnmatchcase(one.name, pattern)]


def _document(client: str, results: Sequence[Result]) -> dict[str, object]:
    rows = [
        {
            "scenario": result.scenario.name,
            "transport": result.transport,
            "outcome": result.outcome,
        }
        for result in results
        if result.outcome != "unsupported"
    ]
    return {"client": client, "results": rows}


def _list(_: argparse.Namespace) -> int:
    for one in SCENARIOS:
        print(f"{one.name}  [{', '.join(one.transports)}]")
    return 0


def _export(_: argparse.Namespace) -> int:
    json.dump(export(), sys.stdout, indent=1, ensure_ascii=False)
    print()
    return 0


def _table(options: argparse.Namespace) -> int:
    documents = [json.loads(path.read_text("utf-8")) for path in options.results]
    if options.into is None:
        print(table_of(documents))
    else:
        page = options.into.read_text("utf-8")
        options.into.write_text(with_table(page, documents), "utf-8")
    return 0
