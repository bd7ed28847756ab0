"""The documentation: its links lead somewhere, and its tables are those of the code."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

from streamer import errors, openapi
from streamer.config import PREFIX, Config
from streamer.core.streams import client_messages
from streamer.core.streams.client_messages import Ping, Pong
from streamer.metrics import registry
from streamer_client.wire import Message, decode

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"

FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def pages() -> list[Path]:
    """Return the Markdown files of the repository, without what is ignored by git."""
    skipped = {".venv", ".hypothesis", ".pytest_cache", "node_modules", "dist"}
    found = ROOT.rglob("*.md")
    return sorted(p for p in found if not skipped & set(p.relative_to(ROOT).parts))


def anchors(page: Path) -> set[str]:
    """Return the fragments that lead into `page`, made as GitHub makes them."""
    text = FENCED.sub("", page.read_text("utf-8"))
    titles = [title.strip().lower() for title in HEADING.findall(text)]
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", pages(), ids=lambda p: str(p.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in LINK.findall(FENCED.sub("", page.read_text("utf-8"))):
        if "://" in link:
            continue
        path, _, fragment = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if fragment:
            assert fragment in anchors(target), link


def test_every_page_is_in_the_index() -> None:
    index = (DOCS / "README.md").read_text("utf-8")

    for page in DOCS.glob("*.md"):
        assert page.name == "README.md" or f"]({page.name})" in index


def rows(page: Path) -> list[list[str]]:
    """Return the rows of the page's tables whose first cell is code."""
    lines = page.read_text("utf-8").splitlines()
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in lines
        if line.startswith("| `")
    ]


KINDS: dict[str, Any] = get_type_hints(Config, include_extras=True)
SETTINGS = {row[0].strip("` "): row for row in rows(DOCS / "settings.md")}


def test_the_settings_page_has_every_setting_once() -> None:
    assert len(SETTINGS) == len(rows(DOCS / "settings.md"))
    assert SETTINGS.keys() == set(Config.__struct_fields__)


@pytest.mark.parametrize("name", Config.__struct_fields__)
def test_the_settings_page_has_the_facts_of_the_code(name: str) -> None:
    _, variable, default, value, meaning = SETTINGS[name]

    assert variable == f"`{PREFIX}{name.upper()}`"
    assert default == shown(getattr(Config(), name))
    assert expected(KINDS[name]) in value
    assert meaning.endswith(".")


def shown(default: object) -> str:
    if default in ("", ()):
        return "empty"
    if isinstance(default, tuple):
        return f"`{','.join(default)}`"
    return f"`{str(default).lower()}`"


def expected(kind: Any) -> str:
    """Return what the page says of a kind of value."""
    if get_origin(kind) is Literal:
        return ", ".join(f"`{word}`" for word in get_args(kind))
    if kind is bool:
        return "true or false"
    if hasattr(kind, "__metadata__"):
        (meta,) = kind.__metadata__
        most = "10^15" if meta.le == 10**15 else f"{meta.le:,}"
        return f"{meta.ge:,} to {most}"
    return ""


def test_the_api_page_has_every_native_operation() -> None:
    page = (DOCS / "http-api.md").read_text("utf-8")
    documented = set(re.findall(r"^\| `([A-Z]+ /[^`]*)` \|", page, re.MULTILINE))
    viewer = {"/docs/start.js", "/docs/viewer.js", "/docs/viewer.css"}

    declared = {
        f"{method.upper()} {path}"
        for path, operations in openapi.document()["paths"].items()
        for method, operation in operations.items()
        if operation["tags"][0] in ("Native", "Operations", "API description")
        if path not in viewer
    }

    assert documented == declared


def test_the_operations_page_has_every_metric() -> None:
    source = Path(registry.__file__).read_text("utf-8")
    page = (DOCS / "operations.md").read_text("utf-8")
    documented = set(re.findall(r"^\| `(streamer_\w+)", page, re.MULTILINE))

    assert documented == set(re.findall(r'"(streamer_\w+)"', source))


def test_the_readme_has_the_command_that_ci_runs() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")

    commands = re.findall(r"^python3 -m venv .*pytest$", readme, re.MULTILINE)
    script = (ROOT / ".ci" / "run").read_text("utf-8")

    assert len(commands) == 1
    assert "'^python3 -m venv .*pytest$' README.md" in script
    subprocess.run(["bash", "-n", "-c", commands[0]], check=True)


PROTOCOL = (ROOT / "clients" / "PROTOCOL.md").read_text("utf-8")


def test_the_protocol_has_the_close_codes_of_the_server() -> None:
    rows = re.findall(r"^\| (4\d\d\d) \| ([^|]+) \|", PROTOCOL, re.MULTILINE)
    values = vars(errors).values()

    assert [(int(code), reason) for code, reason in rows] == sorted(
        {(d.code, d.reason) for d in values if isinstance(d, errors.Disconnect)}
    )


def test_the_protocol_has_an_example_of_each_message_that_clients_read() -> None:
    examples = re.findall(r'^    (?:< )?(\{"type":".*\})$', PROTOCOL, re.MULTILINE)
    written = {type(decode(example)) for example in examples}

    assert written == set(get_args(Message))


def test_the_protocol_has_an_example_of_each_message_that_clients_send() -> None:
    table = re.findall(r'`(\{"type":"[^`]*\})`', PROTOCOL)
    sent = re.findall(r"^    > (\{.*\})$", PROTOCOL, re.MULTILINE)
    parsed = [client_messages.parse_message(example) for example in table + sent]

    known = (*get_args(client_messages.Command), Ping, Pong)
    assert {type(message) for message in parsed} == set(known)
