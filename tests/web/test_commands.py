"""What the pages about conformance print: commands that run, and right messages."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from .conftest import CHROMIUM, NIGHTLY_S, ROOT, environment

CLIENTS = ROOT / "clients"
WEB_DRIVER = CLIENTS / "web" / "conformance" / "driver.js"
GODOT = ROOT / "tests" / "clients" / "godot"
# A driver of somebody else: that of the web client, which has fewer transports here.
MY_DRIVER = """
const write = process.stdout.write.bind(process.stdout);
const fewer = `"transports":${process.env.TRANSPORTS}`;
process.stdout.write = (text) => write(text.replace(/"transports":\\[.*?\\]/, fewer));
import(%s);
"""
# `python` which plays some scenarios only, because all of them take minutes.
PYTHON = """#!/bin/sh
case "$*" in
"-m streamer_conformance run "*) exec {python} "$@" --only "{only}" ;;
*) exec {python} "$@" ;;
esac
"""
ONLY = "it resumes from the cursor of the last notification"
WITHOUT_A_DRIVER = "…"


def printed(page: Path, heading: str) -> list[str]:
    """Return the commands of a section: its indented lines."""
    section = page.read_text("utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"^    (.+)$", section, re.MULTILINE)


def shell(script: str, cwd: Path, **variables: str) -> str:
    """Run a script as a shell that people type into; return what it prints."""
    done = subprocess.run(
        ["bash", "-e", "-O", "expand_aliases", "-c", script],
        cwd=cwd,
        env={**environment(), **variables},
        capture_output=True,
        text=True,
        timeout=NIGHTLY_S,
        check=False,
    )
    assert done.returncode == 0, script + done.stdout[-20_000:] + done.stderr
    return done.stdout


def test_messages_on_the_page_follow_the_schema() -> None:
    folder = CLIENTS / "conformance"
    schema = json.loads((folder / "driver.schema.json").read_text("utf-8"))
    # One of them is wrapped, after commas.
    page = re.sub(r",\n {5}", ",", (folder / "README.md").read_text("utf-8"))
    messages = [json.loads(it) for it in re.findall(r"^    (\{.*\})$", page, re.M)]

    kinds = [it.get("event", it.get("cmd")) for it in messages]
    assert kinds == ["ready", "connect", "notification", "gap", "unread", "stopped"]
    for message in messages:
        errors = Draft202012Validator(schema).iter_errors(message)
        assert [error.message for error in errors] == []


@pytest.mark.nightly
@pytest.mark.timeout(2 * NIGHTLY_S)
def test_somebody_elses_client_is_tested_as_the_page_says(tmp_path: Path) -> None:
    install, first, hammer, to_file, lists, exports = printed(
        CLIENTS / "conformance" / "README.md", "Run it"
    )
    # Nothing else of the repository is needed.
    shutil.copytree(CLIENTS / "conformance", tmp_path / "clients" / "conformance")
    (tmp_path / "my-driver.js").write_text(MY_DRIVER % json.dumps(str(WEB_DRIVER)))
    prefix = tmp_path / "prefix"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    variables = {
        "PATH": f"{prefix}/bin:{Path(sys.executable).parent}:/usr/bin:/bin",
        "PYTHONPATH": str(prefix / "lib" / version / "site-packages"),
        # What it needs is installed already.
        **{"PIP_PREFIX": str(prefix), "PIP_NO_DEPS": "1", "PIP_NO_INDEX": "1"},
        **{"PIP_NO_BUILD_ISOLATION": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    }

    def run(command: str, *transports: str) -> str:
        command = command.replace(WITHOUT_A_DRIVER, "node my-driver.js")
        listed = json.dumps(transports)
        return shell(command, tmp_path, **variables, TRANSPORTS=listed)

    run(install)
    assert (prefix / "bin" / "streamer-conformance").is_file()

    everything = run(first, "poll")
    outcomes = {line.split()[0] for line in everything.splitlines()[:-1]}
    assert outcomes == {"ok", "--"}
    assert re.search(r"^Web: [1-9]\d* passed, 0 failed, ", everything, re.MULTILINE)

    some = run(hammer, "websocket", "sse").splitlines()[:-1]
    assert some
    assert all(re.match(r"ok +sse .* hammer", line) for line in some), some

    run(to_file, "poll")
    results = json.loads((tmp_path / "results.json").read_text())["results"]
    assert {row["outcome"] for row in results} == {"passed"}

    names = run(lists).splitlines()
    run(exports)
    scenarios = json.loads((tmp_path / "scenarios.json").read_text())
    assert [name.split("  [")[0] for name in names] == [it["name"] for it in scenarios]
    assert len(names) > 100


@pytest.mark.nightly
@pytest.mark.timeout(2 * NIGHTLY_S)
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
@pytest.mark.skipif(
    not (GODOT / "node_modules").exists(),
    reason="`npm ci` has not run in tests/clients/godot",
)
@pytest.mark.skipif(
    not (shutil.which("mcs") and shutil.which("mono")), reason="mono is not installed"
)
def test_the_table_of_clients_is_made_as_the_page_says(tmp_path: Path) -> None:
    page = tmp_path / "clients" / "README.md"
    conformance = page.parent / "conformance"
    # The repository, in which the results and the page can be replaced.
    conformance.mkdir(parents=True)
    for source, folder in ((ROOT, tmp_path), (CLIENTS, page.parent)):
        for entry in source.iterdir():
            if not (folder / entry.name).exists() and entry.name != "README.md":
                (folder / entry.name).symlink_to(entry)
    for entry in (CLIENTS / "conformance").iterdir():
        if entry.name != "results":
            (conformance / entry.name).symlink_to(entry)
    (conformance / "results").mkdir()
    shutil.copy(CLIENTS / "README.md", page)
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "python").write_text(PYTHON.format(python=sys.executable, only=ONLY))
    (tools / "python").chmod(0o755)
    commands = printed(page, "What the clients do")

    shell(
        "\n".join(commands),
        tmp_path,
        PATH=f"{tools}:{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
    )

    text = page.read_text("utf-8")
    rows = [line for line in text.splitlines() if line.startswith(f"| {ONLY} |")]
    assert rows == [f"| {ONLY} | 7 | W | W S | W | W S E |"]
    together = "1 passed, 0 failed | 2 passed, 0 failed | 1 passed, 0 failed | 3 passed"
    assert together in text
