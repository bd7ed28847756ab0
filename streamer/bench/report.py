"""
Results as a table on a terminal, as JSON, as HTML and as a chart.

Knows results as `runner` makes them. A latency's whole distribution is written, in the
encoding of HdrHistogram, so that others can merge and redraw it.
"""

from __future__ import annotations

import base64
import html
import io
import json
import math
import re
import textwrap
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from .scenario import PERCENTILES

__all__ = [
    "Latencies",
    "Result",
    "cells",
    "draw",
    "heading",
    "notes",
    "print_table",
    "write",
]

LATENCY_MAX_US = 120_000_000
NOT_MEASURED = "not measured"
PARTS = ("load", "server", "store")
COLOURS = {"load": "#94a3b8", "server": "#c2410c", "store": "#0f766e"}
BUSY = 0.9

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70em; margin: 2em auto; }
table { border-collapse: collapse; } td, th { padding: .3em .8em; text-align: right; }
td:first-child, th:first-child { text-align: left; } tr { border-top: 1px solid #ccc; }
code { background: #eee; } img { max-width: 100%; }
"""

Result = dict[str, Any]

Latencies = dict[tuple[str, int], dict[str, "array[int]"]]
"""By target and round, then by name: latencies in microseconds."""


def heading(result: Result) -> list[str]:
    """Return the headings of the table's columns."""
    heads = [""]
    for figure in result["figures"]:
        unit = f", {figure['unit']}" if figure["unit"] else ""
        heads.append(f"{figure['label']}{unit}")
    ratio = ["streamer : this"] if _compares(result) else []
    return [*heads, *ratio, "load's core"]


def _compares(result: Result) -> bool:
    """Whether there is a row of streamer, and others that it is compared with."""
    return len(result["rows"]) > 1 and any(row["ratios"] for row in result["rows"])


def cells(result: Result) -> list[list[str]]:
    """Return the rows of the table: medians ± half of their range, and the ratio."""
    first = result["figures"][0]["key"]
    table = []
    for row in result["rows"]:
        line = [row["title"]]
        line += [_cell(row, figure) for figure in result["figures"]]
        ratio = row["ratios"].get(first)
        if _compares(result):
            is_streamer = row["peer"] == "streamer"
            line.append(f"{ratio[0]:.2f} x" if ratio and not is_streamer else "")
        share = row["medians"].get("load_share", 0)
        line.append(f"{share:.0%}{' (the limit)' if row['limited_by_load'] else ''}")
        table.append(line)
    return table


def notes(result: Result) -> list[str]:
    """Return the notes below the table."""
    lines = [f"{row['title']}: {row['does']}." for row in result["rows"] if row["does"]]
    lines += [
        f"{absent['peer']} is not installed; to install it: `{absent['install']}`."
        for absent in result["absent"]
    ]
    lines += [f"{title}: {why}." for title, why in result.get("left_out", {}).items()]
    for row in result["rows"]:
        if row["runs"]:
            lines.append(f"{row['title']}: {_limit(row)}.")
        if row.get("errors"):
            counts = ", ".join(f"{n:,} x {kind}" for kind, n in row["errors"].items())
            lines.append(f"{row['title']}: errors: {counts}.")
        lines += [f"{row['title']} failed in {failure}" for failure in row["failures"]]
    return lines


def _limit(row: Result) -> str:
    """Return what limited a row, as a sentence."""
    shares = {name: row["medians"].get(f"{name}_share") for name in PARTS}
    seen = ", ".join(
        f"{name} {share:.0%}" for name, share in shares.items() if share is not None
    )
    unseen = [name for name, share in shares.items() if share is None]
    if not seen:
        return "what the limit was is not measured"
    seen += f"; {' and '.join(unseen)} not measured" if unseen else ""
    if row.get("limit"):
        return f"the {row['limit']} was the limit (busy: {seen})"
    if unseen:
        return f"the load was not the limit (busy: {seen})"
    return f"neither load, server nor store was the limit (busy: {seen})"


def print_table(result: Result, console: Console) -> None:
    """Print the table and the notes; only the notes if nothing was measured."""
    table = _table(result)
    about = result["machine"]
    runs = max((len(row["runs"]) for row in result["rows"]), default=0)
    if not runs:
        for note in notes(result):
            console.print(note, markup=False, highlight=False)
        return
    console.print(result["title"], markup=False, highlight=False)
    console.print(table)
    if conclusion := result.get("conclusion"):
        console.print(_table_of(conclusion["heading"], conclusion["rows"]))
    for note in [
        f"{_method(runs)} {result['about']}",
        f"{about['processor']}, {about['memory']}, load average {about['load']}, "
        f"{about['version']}.",
        *notes(result),
    ]:
        console.print(note, markup=False, highlight=False)


def _table(result: Result) -> Table:
    """Return a row for each of several servers, or one for each figure of a single."""
    heads, lines = heading(result), cells(result)
    if len(lines) == 1:
        ((title, *values),) = lines
        heads, lines = ["", title], list(map(list, zip(heads[1:], values, strict=True)))
    return _table_of(heads, lines)


def _table_of(heads: list[str], lines: list[list[str]]) -> Table:
    table = Table()
    first, *others = heads
    table.add_column(first)
    for head in others:
        table.add_column(head, justify="right")
    for line in lines:
        table.add_row(*line)
    return table


def write(
    result: Result,
    latencies: Latencies,
    *,
    json_path: Path | None,
    html_path: Path | None,
    png_path: Path | None,
) -> None:
    """Write the files that have a path."""
    for path in (json_path, html_path, png_path):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
    if json_path is not None:
        text = json.dumps(_with_histograms(result, latencies), indent=1)
        json_path.write_text(text + "\n")
    if html_path is not None:
        html_path.write_text(_page(result, latencies))
    if png_path is not None:
        png_path.write_bytes(draw(result, latencies))


def draw(result: Result, latencies: Latencies) -> bytes:
    """
    Return the result as a PNG.

    Several servers are compared in the first figure. Of a single one, the picture has
    the latencies by percentile, and how busy load, server and store were.
    """
    import matplotlib

    matplotlib.use("Agg")
    measured = [row for row in result["rows"] if row["runs"]]
    if len(measured) == 1 and not _compares(result):
        return _draw_one(result, measured[0], latencies)
    return _draw_comparison(result)


def _draw_one(result: Result, row: Result, latencies: Latencies) -> bytes:
    from matplotlib import pyplot

    canvas, (left, right) = pyplot.subplots(
        1, 2, figsize=(11, 4.8), width_ratios=(3, 2), layout="constrained"
    )
    _draw_latencies(left, _pooled(row, latencies))
    _draw_busy(right, row)
    shown = [
        f"{figure['label']}: {_cell(row, figure)} {figure['unit']}".strip()
        for figure in result["figures"]
        if _is_headline(figure) and figure["key"] in row["medians"]
    ]
    title = textwrap.fill(result["title"], 110)
    canvas.suptitle(
        title + "\n" + textwrap.fill("   ".join(shown), 130),
        fontsize=10,
    )
    canvas.supxlabel(textwrap.fill(f"{row['title']}: {_limit(row)}", 130), fontsize=9)
    return _png(canvas)


def _is_headline(figure: Result) -> bool:
    """Whether a figure stands above the picture: it is not a latency in it."""
    return not re.search(r"(^|_)p\d+_(us|s)$", figure["key"])


def _pooled(row: Result, latencies: Latencies) -> dict[str, list[int]]:
    """Return the latencies of all rounds by name, ascending, in microseconds."""
    pooled: dict[str, list[int]] = {}
    for run in row["runs"]:
        for name, us in latencies.get((row["peer"], run["round"]), {}).items():
            pooled.setdefault(name, []).extend(us)
    return {name: sorted(us) for name, us in pooled.items()}


def _draw_latencies(axes: Any, pooled: Mapping[str, Sequence[int]]) -> None:
    """Draw latencies by percentile; the far ones have as much room as the near ones."""
    ticks = [0, 50, 90, 95, 99, 99.9]
    for name, us in pooled.items():
        percents = [100 * (1 - 10 ** (-i / 40)) for i in range(121)]
        # Of less than a thousand values there is no 99.9th percentile.
        last = 100 * (1 - 1 / len(us))
        percents = [p for p in percents if p <= last]
        at = [us[min(len(us) - 1, int(len(us) * p / 100))] / 1_000 for p in percents]
        (line,) = axes.plot([_far(p) for p in percents], at, label=name)
        for percent in [p for p in PERCENTILES if p <= last]:
            ms = us[min(len(us) - 1, len(us) * percent // 100)] / 1_000
            axes.plot([_far(percent)], [ms], "o", color=line.get_color(), markersize=4)
            axes.annotate(
                f"{ms:,.1f}" if ms >= 1 else f"{ms:.2f}",
                (_far(percent), ms),
                textcoords="offset points",
                xytext=(0, 7),
                ha="center",
                fontsize=8,
            )
    axes.set_xticks([_far(p) for p in ticks], [f"p{p:g}" if p else "" for p in ticks])
    axes.set_xlim(0, _far(99.9))
    axes.set_yscale("log")
    axes.margins(y=0.15)
    for of in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        of(lambda ms, _: f"{ms:g}")
    axes.tick_params(axis="y", which="both", labelsize=8)
    axes.set_ylabel("ms")
    axes.set_title("latency by percentile, all rounds", fontsize=9)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if pooled:
        axes.legend(fontsize=8, frameon=False, loc="upper left")


def _far(percent: float) -> float:
    """Return where a percentile stands: 90, 99 and 99.9 are equally far apart."""
    return -math.log10(max(1e-9, 1 - percent / 100))


def _draw_busy(axes: Any, row: Result) -> None:
    shares = [row["medians"].get(f"{name}_share") for name in PARTS]
    bars = axes.barh(
        PARTS,
        [100 * (share or 0) for share in shares],
        color=[COLOURS[name] for name in PARTS],
    )
    labels = [NOT_MEASURED if share is None else f"{share:.0%}" for share in shares]
    axes.bar_label(bars, labels=labels, padding=4, fontsize=8)
    axes.axvline(100 * BUSY, color="#64748b", linestyle="--", linewidth=1)
    axes.set_xlim(0, 130)
    axes.set_xticks([0, 50, 100 * BUSY, 100], ["0", "50", "limit", ""])
    axes.set_xlabel("% of a core per process")
    axes.set_title("how busy they were at most", fontsize=9)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)


def _draw_comparison(result: Result) -> bytes:
    """Return a bar chart of the first figure as a PNG."""
    from matplotlib import pyplot

    figure = result["figures"][0]
    rows = [row for row in result["rows"] if figure["key"] in row["medians"]]
    rows.sort(key=lambda row: -row["medians"][figure["key"]])
    values = [row["medians"][figure["key"]] for row in rows]
    spans = [
        row["spreads"][figure["key"]] * row["medians"][figure["key"]] for row in rows
    ]
    colours = ["#c2410c" if row["peer"] == "streamer" else "#94a3b8" for row in rows]
    canvas, axes = pyplot.subplots(figsize=(8, 0.9 + 0.5 * max(len(rows), 1)))
    bars = axes.barh([row["title"] for row in rows], values, xerr=spans, color=colours)
    axes.bar_label(bars, fmt=f"%.{figure['digits']}f", padding=6)
    axes.set_xlabel(f"{figure['label']}, {figure['unit']}".rstrip(", "))
    axes.set_title(result["title"], fontsize=10)
    axes.margins(x=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    canvas.tight_layout()
    return _png(canvas)


def _png(canvas: Any) -> bytes:
    from matplotlib import pyplot

    out = io.BytesIO()
    canvas.savefig(out, format="png", dpi=120)
    pyplot.close(canvas)
    return out.getvalue()


def _with_histograms(result: Result, latencies: Latencies) -> Result:
    rows = []
    for row in result["rows"]:
        runs = []
        for run in row["runs"]:
            by_name = latencies[row["peer"], run["round"]]
            histograms = {name: _encode(us) for name, us in by_name.items()}
            runs.append({**run, "histograms": histograms})
        rows.append({**row, "runs": runs})
    return {**result, "rows": rows}


def _encode(us: array[int]) -> str:
    """Return microseconds as an encoded histogram with three digits of precision."""
    from hdrh.histogram import HdrHistogram

    histogram = HdrHistogram(1, LATENCY_MAX_US, 3)
    for value, count in Counter(us).items():
        histogram.record_value(max(1, min(value, LATENCY_MAX_US)), count)
    return str(histogram.encode().decode())


def _method(rounds: int) -> str:
    if rounds == 1:
        return "One round."
    return f"Medians of {rounds} rounds, ± half of their range."


def _cell(row: Result, figure: Result) -> str:
    value = row["medians"].get(figure["key"])
    if value is None:
        return NOT_MEASURED
    shown = f"{value:,.{figure['digits']}f}"
    # One round has no range, and of nothing there is no part.
    if len(row["runs"]) < 2 or not value:
        return shown
    return f"{shown} ± {row['spreads'][figure['key']]:.0%}"


def _page(result: Result, latencies: Latencies) -> str:
    picture = base64.b64encode(draw(result, latencies)).decode()
    table = _html_table(heading(result), cells(result))
    if conclusion := result.get("conclusion"):
        table += _html_table(conclusion["heading"], conclusion["rows"])
    items = "".join(f"<li>{html.escape(note)}</li>" for note in notes(result))
    facts = "".join(
        f"<li>{name}: <code>{html.escape(value)}</code></li>"
        for name, value in result["machine"].items()
    )
    title = html.escape(result["title"])
    return (
        f"<!doctype html><meta charset=utf-8><title>{title}</title>"
        f"<style>{_STYLE}</style><h1>{title}</h1><p>{html.escape(result['about'])}</p>"
        f"<img alt='' src='data:image/png;base64,{picture}'>"
        f"{table}<ul>{items}</ul><ul>{facts}</ul>\n"
    )


def _html_table(heads: list[str], lines: list[list[str]]) -> str:
    first = "".join(f"<th>{html.escape(head)}</th>" for head in heads)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in line) + "</tr>"
        for line in lines
    )
    return f"<table><tr>{first}</tr>{body}</table>"
