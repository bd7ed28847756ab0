"""RESULTS.md: what is generated, and what people have written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.run import results

MACHINE = {
    "processor": "2 x a processor",
    "memory": "24 GiB",
    "system": "Linux",
    "python": "3.11",
    "when": "today",
    "version": "a commit",
    "command": "python -m bench.shards --json=out.json",
}


def written(tmp_path: Path, before: str = "", **members: Any) -> str:
    result = {
        "title": "CPU per operation",
        "about": "",
        "machine": MACHINE,
        "figures": [{"key": "n", "label": "n", "unit": "", "digits": 0}],
        "rows": [],
        "absent": [],
        **members,
    }
    folder, page = tmp_path / "results", tmp_path / "RESULTS.md"
    folder.mkdir()
    (folder / "shards.json").write_text(json.dumps(result))
    page.write_text(before)
    results.write(folder, page)
    return page.read_text()


def test_sections_that_people_wrote_stay(tmp_path: Path) -> None:
    by_hand = [
        "## Where the time goes\n\nIn sending.\n",
        "## The largest run\n\n| a | b |\n|---|---|\n",
    ]
    before = "# Results\n\n## Targets\n\nold\n\n" + "\n".join(by_hand) + "\n## Old\n"

    text = written(tmp_path, before)

    assert all(section in text for section in by_hand)
    assert "## Old" not in text
    assert "\nold\n" not in text


def test_a_conclusion_is_a_table_below_the_figures(tmp_path: Path) -> None:
    conclusion = {"heading": ["cost", "linear"], "rows": [["publish", "pass"]]}

    text = written(tmp_path, conclusion=conclusion)

    assert "| cost | linear |\n|---|---:|\n| publish | pass |\n" in text
    assert "    python -m bench.shards\n" in text
