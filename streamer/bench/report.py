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
from array import array
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

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
    return len(result["rows"]) > 1


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
        lines += [f"{row['title']} failed in {failure}" for failure in row["failures"]]
    return lines


def print_table(result: Result, console: Console) -> None:
    """Print the table and the notes; only the notes if nothing was measured."""
    table = Table(title=result["title"], caption_justify="left")
    first, *others = heading(result)
    table.add_column(first)
    for head in others:
        table.add_column(head, justify="right")
    for line in cells(result):
        table.add_row(*line)
    about = result["machine"]
    runs = max((len(row["runs"]) for row in result["rows"]), default=0)
    if not runs:
        for note in notes(result):
            console.print(note, markup=False, highlight=False)
        return
    console.print(table)
    for note in [
        f"Medians of {_rounds(runs)}, ± half of their range. {result['about']}",
        f"{about['processor']}, {about['memory']}, {about['version']}.",
        *notes(result),
    ]:
        console.print(note, markup=False, highlight=False)


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
        html_path.write_text(_page(result))
    if png_path is not None:
        png_path.write_bytes(draw(result))


def draw(result: Result) -> bytes:
    """Return a bar chart of the first figure as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
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


def _rounds(number: int) -> str:
    return f"{number} round{'' if number == 1 else 's'}"


def _cell(row: Result, figure: Result) -> str:
    value = row["medians"].get(figure["key"])
    if value is None:
        return ""
    spread = row["spreads"][figure["key"]]
    return f"{value:,.{figure['digits']}f} ± {spread:.0%}"


def _page(result: Result) -> str:
    picture = base64.b64encode(draw(result)).decode()
    heads = "".join(f"<th>{html.escape(head)}</th>" for head in heading(result))
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in line) + "</tr>"
        for line in cells(result)
    )
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
        f"<table><tr>{heads}</tr>{body}</table><ul>{items}</ul><ul>{facts}</ul>\n"
    )
