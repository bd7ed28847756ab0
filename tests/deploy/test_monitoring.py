"""The dashboard and the alert rules, against the metrics that a server exposes."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from streamer.store.keys import keys_of
from tests.e2e.processes import GUARD_S, ServerProcess, eventually, free_port
from tests.e2e.readers import SseStream

DEPLOY = Path(__file__).parents[2] / "deploy"
ALERTS = DEPLOY / "prometheus" / "alerts.yaml"
DASHBOARD = DEPLOY / "grafana" / "streamer.json"
PROMTOOL = shutil.which("promtool")

TARGET = {"job", "instance", "worker"}
"""Labels that Prometheus or the supervisor adds to every metric."""

OF_CLUSTER = {"shard"}
"""Labels that only a server on a cluster has."""

VARIABLES = {"$job", "$instance"}

AWAITED = ("closes", "store_damaged")
"""Counters without samples until something has happened."""

SELECTOR = re.compile(r"\b((?:streamer|process|up)[a-z_]*)\b(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)(=~|!=|=)"([^"]*)"')
GROUPING = re.compile(r"\b(?:by|on|group_left)\s*\(([^)]*)\)")


def alert_expressions() -> dict[str, str]:
    """Return the expression of each alert."""
    (group,) = yaml.safe_load(ALERTS.read_text())["groups"]
    return {rule["alert"]: rule["expr"] for rule in group["rules"]}


def panel_expressions() -> dict[str, str]:
    """Return the expressions of each panel, by its title and the target's letter."""
    return {
        f"{panel['title']} {panel['id']}{target['refId']}": target["expr"]
        for panel in json.loads(DASHBOARD.read_text())["panels"]
        for target in panel.get("targets", ())
    }


EXPRESSIONS = alert_expressions() | panel_expressions()


@pytest.fixture(scope="module")
def exposed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the labels of the samples of a server that has served, by their name."""
    text = asyncio.run(scrape(tmp_path_factory.mktemp("server")))
    samples: dict[str, list[dict[str, str]]] = {"up": [{}]}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples.setdefault(sample.name, []).append(dict(sample.labels))
    return samples


async def scrape(folder: Path) -> str:
    """
    Return the metrics of a server that has answered a 404, closed a stream, and met a
    damaged key.
    """
    bind = f"127.0.0.1:{free_port()}"
    server = ServerProcess(folder, metrics_bind=bind)
    try:
        await server.start()
        assert await server.probe("/nowhere") == 404
        await server.ask_store("SET", keys_of().due_apps(7), "damaged")
        stream = await SseStream.open(server.port, await server.token("alice"))
        stream.cut()
        async with httpx2.AsyncClient(trust_env=False, timeout=GUARD_S) as client:
            text = ""

            async def complete() -> bool:
                nonlocal text
                text = (await client.get(f"http://{bind}/metrics")).text
                return all(f"streamer_{name}_total{{" in text for name in AWAITED)

            await eventually(complete)
            return text
    finally:
        server.discard()


def selectors(expression: str) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """Yield each metric of an expression with its matchers."""
    for name, labels in SELECTOR.findall(re.sub(r"\s+", " ", expression)):
        yield name, MATCHER.findall(labels)


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_an_expression_names_metrics_and_labels_that_exist(
    name: str, exposed: dict[str, Any]
) -> None:
    expression = EXPRESSIONS[name]
    found = list(selectors(expression))
    assert found
    known = set(TARGET)
    for metric, matchers in found:
        assert metric in exposed, f"no server exposes {metric}"
        labels: dict[str, set[str]] = {}
        for sample in exposed[metric]:
            for label, value in sample.items():
                labels.setdefault(label, set()).add(value)
        known |= labels.keys()
        for label, operator, value in matchers:
            if value in VARIABLES or label in TARGET:
                continue
            assert label in labels, f"{metric} has no label {label}"
            if label == "status":  # any status may come
                continue
            values = value.split("|") if operator == "=~" else [value]
            assert set(values) <= labels[label], f"{metric} has no such {label}"
    grouped = {
        label.strip()
        for group in GROUPING.findall(expression)
        for label in group.split(",")
    }
    assert grouped <= known | OF_CLUSTER | {"le"}


def test_every_metric_of_the_server_is_on_the_dashboard(
    exposed: dict[str, Any],
) -> None:
    shown = {
        re.sub(r"_(bucket|count|sum)$", "", metric)
        for expression in panel_expressions().values()
        for metric, _matchers in selectors(expression)
    }
    served = {re.sub(r"_(bucket|count|sum)$", "", metric) for metric in exposed}
    assert served - shown == {"up"}


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for panel in panels
        for place in [panel["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _y in cells) == 23


@pytest.mark.skipif(not PROMTOOL, reason="promtool is not installed")
class TestPromtool:
    @staticmethod
    def promtool(*arguments: str) -> None:
        assert PROMTOOL
        result = subprocess.run(
            [PROMTOOL, *arguments], capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stdout + result.stderr

    def test_the_alert_rules_are_valid(self) -> None:
        self.promtool("check", "rules", str(ALERTS))

    def test_the_alerts_fire_when_they_should(self) -> None:
        self.promtool("test", "rules", str(ALERTS.with_name("alerts.test.yaml")))

    def test_the_queries_of_the_dashboard_are_valid(self, tmp_path: Path) -> None:
        # promtool knows no dashboards: each query becomes a rule.
        rules = [
            {
                "record": f"query:{number}",
                "expr": query.replace("$__rate_interval", "5m"),
            }
            for number, query in enumerate(panel_expressions().values())
        ]
        path = tmp_path / "rules.yaml"
        path.write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": rules}]}))
        self.promtool("check", "rules", str(path))
