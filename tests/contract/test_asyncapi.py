"""The messages of a stream as a document: valid, and true to what is sent."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
from jsonschema import Draft202012Validator, ValidationError

from streamer import errors
from streamer.asyncapi import stream_document
from streamer.core.streams.client_messages import parse_message
from streamer.core.streams.codec import Hello, WebSocketCodec
from streamer.core.streams.cursor import tail_of
from streamer.errors import Disconnect
from streamer.model import (
    App,
    Entry,
    Gap,
    Notification,
    Position,
    Property,
    Resource,
    Topic,
    encode_fragment,
    encode_id,
    everyone_log,
    topic_log,
)

NODE: Final = Path(__file__).parent / "node"
PROTOCOL: Final = Path(__file__).parents[2] / "clients" / "PROTOCOL.md"

APP: Final = App("app")
POSITION: Final = Position(1, 1_764_000_000_000, 7, 99)
OTHER_ID: Final = encode_id(1_764_000_000_000, 6, 98)
CODEC: Final = WebSocketCodec()


@pytest.fixture(scope="module")
def written() -> dict[str, Any]:
    return stream_document()


def check(written: dict[str, Any], side: str, message: dict[str, Any]) -> None:
    """Check a message against its schema in the document."""
    described = written["components"]["messages"][f"{side}.{message['type']}"]
    schema = described["payload"] | {"components": written["components"]}
    Draft202012Validator(schema).validate(message)


@pytest.mark.skipif(
    not shutil.which("node") or not (NODE / "node_modules").exists(),
    reason="`npm ci` has not run in tests/contract/node",
)
def test_the_document_is_valid_asyncapi_3(written: dict[str, Any]) -> None:
    done = subprocess.run(
        ["node", str(NODE / "validate_asyncapi.mjs")],
        input=json.dumps(written),
        capture_output=True,
        text=True,
        check=True,
    )

    assert written["asyncapi"] == "3.0.0"
    assert [it for it in json.loads(done.stdout) if it[0] <= 1] == []


def test_the_document_is_deterministic(written: dict[str, Any]) -> None:
    assert json.dumps(stream_document()) == json.dumps(written)


def examples(heading: str, end: str) -> list[dict[str, Any]]:
    """Return the messages in a part of PROTOCOL.md."""
    part = PROTOCOL.read_text("utf-8").partition(heading)[2].partition(end)[0]
    found = re.findall(r'(?:^    |`)(\{"type":.*?\})(?=`|$)', part, re.MULTILINE)
    texts = [text.replace('"…"', f'"{OTHER_ID}"') for text in found]
    return [json.loads(re.sub(r"<[^>]*>", "c1", text)) for text in texts]


def test_the_protocol_has_messages_of_the_document(written: dict[str, Any]) -> None:
    server = examples("### From the server", "### The number of unread")
    client = examples("### From the client", "## 7.")

    for message in server:
        check(written, "server", message)
    for message in client:
        check(written, "client", message)
    documented = set(written["components"]["messages"])
    named = {f"server.{it['type']}" for it in server} | {
        f"client.{it['type']}" for it in client
    }
    assert documented == named


def note(**members: Any) -> Entry:
    content = Notification(title="t", **members)
    return Entry(*POSITION, encode_fragment(content))


FULL: Final = note(
    type="a",
    body="b",
    data={"a": [None]},
    properties=(Property("k", "v"),),
    priority="high",
    resource=Resource("/x", '"7"'),
    source="native",
)

WRITTEN: Final[list[bytes]] = [
    CODEC.hello(Hello("c", 25, 3, 17)),
    CODEC.entry(note(), tail_of([])),
    CODEC.entry(FULL, None),
    CODEC.entry(Entry(*POSITION, b"", withdraws=OTHER_ID), tail_of([])),
    CODEC.replaced(Entry(*POSITION, b'"title":"t"}', replaces=OTHER_ID)),
    CODEC.cursor("c"),
    *(CODEC.gap(gap, "c", None) for gap in Gap),
    CODEC.gap(Gap.TRIMMED, "c", topic_log(APP, Topic("news"))),
    CODEC.gap(Gap.TRIMMED, "c", everyone_log(APP)),
    CODEC.read(marks=1, unread=0, body=b'"all":true'),
    CODEC.read(marks=1, unread=0, body=b'"ids":null'),
    CODEC.read(marks=1, unread=0, body=b'"up_to":"c"'),
    CODEC.unread(3),
    CODEC.ping(),
    CODEC.pong(),
    CODEC.reply("7", None),
    CODEC.reply("7", 3),
    CODEC.error("7", "is not allowed"),
    *(CODEC.bye(it, 10) for it in vars(errors).values() if isinstance(it, Disconnect)),
]


@pytest.mark.parametrize("text", WRITTEN, ids=lambda it: it.decode()[9:40])
def test_what_is_sent_is_in_the_document(written: dict[str, Any], text: bytes) -> None:
    check(written, "server", json.loads(text))


@pytest.mark.parametrize(
    "message",
    [
        {"type": "glitter"},
        {"type": "ack"},
        {"type": "read", "ids": ["a"], "more": 1},
        {"type": "subscribe", "topics": 7},
    ],
    ids=lambda it: it["type"],
)
def test_what_the_server_refuses_is_not_in_the_document(
    written: dict[str, Any], message: dict[str, Any]
) -> None:
    assert parse_message(json.dumps(message)) is None
    with pytest.raises((ValidationError, KeyError)):
        check(written, "client", message)
