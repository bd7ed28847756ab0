"""The package as Unity reads it: layout, .meta files, assemblies, WebGL, samples."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from .conftest import CORE, PACKAGE, PROGRAMS, UNITY_PART, Compile, needs_mono
from .metas import assets, meta_of

STUBS = PROGRAMS / "UnityStubs.cs"
RUNTIME = PACKAGE / "Runtime"
SAMPLES = sorted((PACKAGE / "Samples~").rglob("*.cs"))


def test_every_asset_has_a_meta_file_and_every_meta_file_an_asset() -> None:
    wanted = {meta_of(asset) for asset in assets()}

    assert wanted == set(PACKAGE.rglob("*.meta")), "run tests/clients/unity/metas.py"


def test_guids_are_unique() -> None:
    found = [
        re.search(r"^guid: ([0-9a-f]{32})$", meta.read_text(), re.MULTILINE)
        for meta in PACKAGE.rglob("*.meta")
    ]
    guids = [one[1] for one in found if one]

    assert len(guids) == len(found) == len(set(guids))


def test_the_manifest_names_what_is_there() -> None:
    manifest = json.loads((PACKAGE / "package.json").read_text())

    assert re.fullmatch(r"com\.[a-z0-9.-]+", manifest["name"])
    assert re.fullmatch(r"\d+\.\d+\.\d+", manifest["version"])
    assert re.fullmatch(r"\d{4}\.\d", manifest["unity"])
    assert manifest["dependencies"] == {}
    for sample in manifest["samples"]:
        assert (PACKAGE / sample["path"]).is_dir()
    for name in ("README.md", "CHANGELOG.md", "LICENSE.md"):
        assert (PACKAGE / name).is_file()


def test_the_changelog_has_the_version_of_the_manifest() -> None:
    manifest = json.loads((PACKAGE / "package.json").read_text())

    assert f"## [{manifest['version']}]" in (PACKAGE / "CHANGELOG.md").read_text()


def test_assemblies_refer_to_assemblies_of_the_package() -> None:
    assemblies = {
        path: json.loads(path.read_text()) for path in PACKAGE.rglob("*.asmdef")
    }
    names = {it["name"] for it in assemblies.values()}

    assert names == {"Streamer.Core", "Streamer.Unity", "Streamer.Samples.Inbox"}
    for path, assembly in assemblies.items():
        assert path.stem == assembly["name"]
        assert set(assembly["references"]) <= names - {assembly["name"]}


def test_the_core_knows_no_engine() -> None:
    (core,) = RUNTIME.rglob("Streamer.Core.asmdef")

    assert json.loads(core.read_text())["noEngineReferences"] is True
    for source in CORE:
        assert "UnityEngine" not in source.read_text(), source


def test_nothing_uses_reflection_or_serializers() -> None:
    for source in [*CORE, *UNITY_PART]:
        for word in ("System.Reflection", "Newtonsoft", "Activator", "dynamic "):
            assert word not in source.read_text(), f"{source}: {word}"


@needs_mono
def test_samples_and_examples_of_the_readme_compile(
    compile_cs: Compile, tmp_path: Path
) -> None:
    readme = (PACKAGE / "README.md").read_text()
    blocks = re.findall(r"^```csharp\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 3
    sources = [STUBS, PROGRAMS / "Backend.cs", *CORE, *UNITY_PART, *SAMPLES]
    for number, block in enumerate(blocks):
        sources.append(tmp_path / f"Example{number}.cs")
        sources[-1].write_text(block)

    compile_cs(sources, library=True)


@needs_mono
def test_package_compiles_for_webgl(compile_cs: Compile) -> None:
    sources = [STUBS, *CORE, *UNITY_PART]

    compile_cs(sources, defines=["UNITY_WEBGL"], library=True)


@pytest.mark.skipif(not shutil.which("node"), reason="node is not installed")
def test_webgl_bridge_runs() -> None:
    bridge = RUNTIME / "Plugins" / "WebGL" / "StreamerSocket.jslib"
    script = Path(__file__).parent / "bridge.js"

    subprocess.run(["node", script, bridge], check=True)


def test_webgl_bridge_has_what_the_socket_imports() -> None:
    bridge = (RUNTIME / "Plugins" / "WebGL" / "StreamerSocket.jslib").read_text()
    socket = (RUNTIME / "Unity" / "WebGLSocket.cs").read_text()
    imported = set(re.findall(r"extern \w+ (\w+)\(", socket))

    assert imported == set(re.findall(r"^  (StreamerSocket\w+): func", bridge, re.M))
