"""Bodies and headers as clients and proxies write them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from starlette.requests import Request

from streamer.errors import Invalid, Unsupported
from streamer.transports.web.requests import (
    decode_body,
    etag_matches,
    list_header_of,
    read_body,
    single_header_of,
)


def request(*headers: tuple[str, str], body: bytes = b"") -> Request:
    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    fields = [(name.lower().encode(), value.encode()) for name, value in headers]
    return Request({"type": "http", "headers": fields}, receive)


async def test_a_byte_order_mark_before_json_is_left_out() -> None:
    body = await read_body(request(body=b'\xef\xbb\xbf{"a":1}'), 100)

    assert decode_body(msgspec.json.Decoder(), body) == {"a": 1}


@pytest.mark.parametrize(
    "headers",
    [
        [("Content-Encoding", "gzip")],
        [("Content-Encoding", "identity"), ("Content-Encoding", "gzip")],
        [("Content-Type", "application/json"), ("Content-Type", "text/plain")],
        [("Content-Type", "application/json"), ("Content-Type", "application/json")],
    ],
)
async def test_an_unsupported_body_is_refused_whichever_header_says_so(
    headers: list[tuple[str, str]],
) -> None:
    with pytest.raises(Unsupported):
        await read_body(request(*headers, body=b"{}"), 100)


async def test_identity_may_be_said_twice() -> None:
    twice = [("Content-Encoding", "identity"), ("Content-Encoding", "Identity")]
    assert await read_body(request(*twice, body=b"{}"), 100) == b"{}"


def test_several_lines_of_a_list_are_one_list() -> None:
    sent = request(("If-None-Match", '"a"'), ("If-None-Match", 'W/"b", "c"'))

    assert list_header_of(sent, b"if-none-match") == '"a", W/"b", "c"'
    assert all(etag_matches(sent, tag) for tag in ('"a"', '"b"', '"c"'))
    assert not etag_matches(sent, '"d"')
    assert list_header_of(request(), b"if-none-match") is None


@pytest.mark.parametrize(
    ("name", "shown"),
    [("Idempotency-Key", "Idempotency-Key"), ("Last-Event-ID", "Last-Event-ID")],
)
def test_several_lines_of_one_value_are_refused(name: str, shown: str) -> None:
    raw = name.lower().encode()
    assert single_header_of(request((name, "a")), raw) == "a"
    assert single_header_of(request(), raw) is None
    with pytest.raises(Invalid) as refused:
        single_header_of(request((name, "a"), (name, "a")), raw)
    assert refused.value.errors[0].where == ("header", shown)
