"""What came of a run, as text and as a Markdown table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from .runner import Result
from .scenarios import SCENARIOS

__all__ = ["summary_of", "table_of", "text_of", "with_table"]

BEGIN: Final = "<!-- begin of the table -->"
END: Final = "<!-- end of the table -->"

_MARKS: Final = {"passed": "ok  ", "failed": "FAIL", "unsupported": "--  "}
_LETTERS: Final = {
    "websocket": "W",
    "sse": "S",
    "eventsource": "E",
    "poll": "P",
    "auto": "A",
}


def text_of(result: Result) -> str:
    """Return a line for people, with the reason if there is one."""
    line = (
        f"{_MARKS[result.outcome]} {result.transport:11} {result.took_s:5.2f} s  "
        f"{result.scenario.name}"
    )
    if result.outcome == "unsupported":
        return f"{line}  (not supported: {result.detail})"
    return f"{line}\n     {result.detail}" if result.detail else line


def summary_of(ready: dict[str, Any], results: Sequence[Result]) -> str:
    """Return the last line of a run."""
    counts = Counter(result.outcome for result in results)
    return (
        f"{ready['client']}: {counts['passed']} passed, {counts['failed']} failed, "
        f"{counts['unsupported']} not supported"
    )


def table_of(documents: Sequence[dict[str, Any]]) -> str:
    """
    Return the table of scenarios and clients.

    A cell names the transports that passed by their letters, those that failed in
    strikethrough, and is a dash where the client cannot play the scenario.
    """
    names = [document["client"] for document in documents]
    found = [
        {(row["scenario"], row["transport"]): row["outcome"] for row in one["results"]}
        for one in documents
    ]
    lines = [
        f"| Scenario | § | {' | '.join(names)} |",
        "|---|---|" + "---|" * len(names),
    ]
    for scenario in SCENARIOS:
        cells = [
            _cell([(it, one.get((scenario.name, it))) for it in scenario.transports])
            for one in found
        ]
        lines.append(f"| {scenario.name} | {scenario.section} | {' | '.join(cells)} |")
    totals = []
    for one in found:
        counts = Counter(one.values())
        totals.append(f"{counts['passed']} passed, {counts['failed']} failed")
    lines.append(f"| **together** | | {' | '.join(totals)} |")
    return "\n".join(lines)


def with_table(page: str, documents: Sequence[dict[str, Any]]) -> str:
    """
    Return `page` with the table between its marks, instead of the one before.

    Raises:
        ValueError: The page has no marks.
    """
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no {BEGIN} and {END}")
    return f"{head}{BEGIN}\n\n{table_of(documents)}\n\n{END}{tail}"


def _cell(outcomes: Sequence[tuple[str, str | None]]) -> str:
    parts = []
    for transport, outcome in outcomes:
        if outcome == "passed":
            parts.append(_LETTERS[transport])
        elif outcome == "failed":
            parts.append(f"~~{_LETTERS[transport]}~~")
    return " ".join(parts) or "-"
