"""The package as it is published: what it contains, and that its types are right."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from .conftest import ROOT, WEB, run

CONSUMER = """
import { StreamerClient, StreamerError, type Notification } from "streamer-client";
import { parseJson } from "streamer-client/json";

const client = new StreamerClient({ url: "http://a", token: "t", parse: parseJson });
client.on("notification", (value) => { const one: Notification = value; one.title; });
client.on("unread", (value) => value.toFixed());
client.on("status", ({ error }) => { const e: StreamerError | undefined = error; e; });
for await (const { type, value } of client) if (type === "gap") value.reason;
// @ts-expect-error: there is no such event
client.on("notfication", () => {});
// @ts-expect-error: a number is no type
client.inbox.page({ type: 7 });
"""
CONFIG = {
    "compilerOptions": {
        **{"strict": True, "noEmit": True, "target": "es2022", "types": []},
        **{"module": "nodenext", "lib": ["es2022", "dom", "dom.asynciterable"]},
    },
    "files": ["consumer.mts"],
}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `npm install` would unpack."""
    folder = tmp_path_factory.mktemp("package")
    (packed,) = json.loads(run("npm", "pack", "--json", "--pack-destination", folder))
    modules = folder / "node_modules"
    with tarfile.open(folder / packed["filename"]) as archive:
        archive.extractall(modules, filter="data")
    return (modules / "package").rename(modules / "streamer-client")


def test_it_contains_the_modules_their_types_and_nothing_else(package: Path) -> None:
    files = {str(f.relative_to(package)) for f in package.rglob("*") if f.is_file()}
    modules = {str(f.relative_to(WEB)) for f in WEB.glob("src/**/*.js")}
    types = {f"types/{name[4:-3]}.d.ts" for name in modules}

    pages = {"README.md", "INBOX.md", "LICENSE"}
    assert files == {"package.json", *pages, *modules, *types}


def test_what_it_exports_exists(package: Path) -> None:
    exports = json.loads((package / "package.json").read_text())["exports"]

    for target in exports.values():
        for path in target.values() if isinstance(target, dict) else (target,):
            assert (package / path).is_file(), path


def test_its_types_are_right_for_strict_typescript(package: Path) -> None:
    project = package.parents[1]
    (project / "consumer.mts").write_text(CONSUMER)
    (project / "tsconfig.json").write_text(json.dumps(CONFIG))

    run(WEB / "node_modules" / ".bin" / "tsc", "-p", project, cwd=project)


def test_it_has_the_version_and_the_licence_of_the_server() -> None:
    package = json.loads((WEB / "package.json").read_text())
    project = (ROOT / "pyproject.toml").read_text()

    assert f'version = "{package["version"]}"' in project
    assert (WEB / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()


def test_it_needs_nothing_and_its_lock_names_no_host() -> None:
    package = json.loads((WEB / "package.json").read_text())
    lock = (WEB / "package-lock.json").read_text()

    assert "dependencies" not in package
    assert '"resolved"' not in lock
