"""`streamer bench` without a deployment: its help, and what it needs."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from streamer.cli import main
from streamer.cli.bench import bench

SCENARIOS = bench.list_commands(click.Context(bench))

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the load uses epoll")


def streamer(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def test_help_lists_every_scenario() -> None:
    result = streamer("bench", "--help")

    modules = Path(importlib.import_module("streamer.bench.scenarios").__path__[0])
    names = {path.stem for path in modules.glob("*.py")} - {"__init__"}
    assert set(SCENARIOS) == names
    for name in SCENARIOS:
        assert f"\n  {name} " in result.output


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_has_help_without_the_extra(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("rich", "hdrh", "matplotlib"):
        monkeypatch.setitem(sys.modules, package, None)

    result = streamer("bench", name, "--help")

    assert result.exit_code == 0, result.output
    assert "--url" in result.output
    assert "--rounds" in result.output


@pytest.mark.parametrize(
    ("package", "options"),
    [
        ("rich", ()),
        ("hdrh.histogram", ("--json", "x.json")),
        ("matplotlib", ("--html", "x.html")),
        ("matplotlib", ("--png", "x.png")),
    ],
)
def test_a_missing_package_is_reported_with_the_extra_to_install(
    package: str, options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)

    result = streamer("bench", "fanout", "--key", "k", *options)

    assert result.exit_code == 1
    assert f"{package} is missing" in result.output
    assert "pip install 'streamer-server[bench]'" in result.output


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--key", "k", "--ttl", "0"), "--ttl 0 requires an app of its own"),
        (("--key", "k", "--url", "https://x"), "https://x is not an http:// URL"),
        (("--key", "k", "--rounds", "0"), "0 is not in the range"),
    ],
)
def test_wrong_options_are_refused(
    options: tuple[str, ...], problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STREAMER_CLI_KEY", raising=False)

    result = streamer("bench", "page", *options)

    assert result.exit_code == 2
    assert problem in result.output


def test_the_server_does_not_load_the_bench() -> None:
    script = (
        "import sys\n"
        "import streamer.cli.serve, streamer.server, streamer.workers.supervisor\n"
        "print([name for name in sys.modules if name.startswith('streamer.bench')])"
    )

    assert subprocess.check_output([sys.executable, "-c", script]) == b"[]\n"


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_comparison_runs_the_same_scenario(name: str) -> None:
    module = importlib.import_module(f"bench.{name}")

    assert module.SCENARIO.name == name
    assert module.PEERS[0] == "streamer"
