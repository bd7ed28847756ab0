"""
HTTP for every surface: bodies, headers, conditional requests, origins.

Bounds and validates request bodies. Knows Starlette's requests and the error tree.
Knows nothing of any surface.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Collection, Iterable, Sequence
from typing import Final, TypeVar
from urllib.parse import unquote_to_bytes

import msgspec
from starlette.convertors import PathConvertor
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import Receive, Scope

from ...errors import (
    FieldError,
    ForeignOrigin,
    Invalid,
    Malformed,
    TooLarge,
    Unsupported,
)
from ...origins import parse_origin

__all__ = [
    "FORM",
    "JSON",
    "AnyText",
    "RawResponse",
    "decode_body",
    "etag_matches",
    "header_of",
    "list_header_of",
    "media_type_of",
    "read_body",
    "refuse_misspelled",
    "require_origin",
    "require_utf8",
    "single_header_of",
    "tag_matches",
    "until_disconnect",
]

T = TypeVar("T")

JSON: Final = "application/json"
_JSON: Final = JSON.encode()
FORM: Final = "application/x-www-form-urlencoded"

TYPOS_MAX: Final = 2
"""Edits up to which an unknown parameter is a known one, misspelled."""

ORIGIN_SHOWN_MAX: Final = 100
"""Characters of an origin, and of a host, that a refusal shows."""

UNKNOWN_CHECKED_MAX: Final = 32
"""Unknown parameters that are compared; bounds what a long query costs."""

_MSGSPEC_PATH: Final = re.compile(r"(.*) - at `(?:key in )?\$(.*)`", re.DOTALL)
_NOT_ASCII: Final = re.compile(rb"%[89A-Fa-f]|[\x80-\xff]")
_PATH_STEP: Final = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]")


class AnyText(PathConvertor):
    """
    A path parameter that may contain slashes and line feeds.

    Starlette's own stops at a line feed, so that a path with one would match no route
    of any surface. Of two such parameters in one path the first matches as little as
    possible.
    """

    regex = "(?s:.*?)"


class RawResponse(Response):
    """
    A response with encoded headers.

    Args:
        status: The status.
        headers: All headers except those that the server adds to every response.
        body: The body.

    """

    def __init__(
        self, status: int, headers: list[tuple[bytes, bytes]], body: bytes = b""
    ) -> None:
        # Without the parent's constructor, which encodes headers and adds missing ones.
        self.status_code = status
        self.raw_headers = headers
        self.body = body
        self.background = None


async def read_body(
    request: Request, limit_bytes: int, *, media_types: Sequence[str] = (JSON,)
) -> bytes:
    """
    Return the body of a request, of one of `media_types` and without compression.

    A byte-order mark, which editors and libraries of Windows write, is left out.

    Raises:
        Unsupported: The body is of another type, or compressed.
        TooLarge: The body exceeds the limit; no more than the limit was read.
        Malformed: The client disconnected before the end of the body.

    """
    # One loop instead of a lookup per field.
    media_type: str | None = None
    encodings, declared = "", b""
    for name, value in request.scope["headers"]:
        if name == b"content-length":
            declared = declared or value
        elif name == b"content-type":
            is_json = value == _JSON and media_type is None
            media_type = JSON if is_json else media_type_of(request)
        elif name == b"content-encoding":
            encodings = list_header_of(request, name) or ""
    if (JSON if media_type is None else media_type) not in media_types:
        raise Unsupported("Content-Type", " or ".join(media_types))
    if encodings and set(map(str.strip, encodings.lower().split(","))) != {"identity"}:
        raise Unsupported("Content-Encoding", "identity")
    if declared.isdigit() and int(declared) > limit_bytes:
        raise TooLarge(limit_bytes)
    parts: list[bytes] = []
    left_bytes, more = limit_bytes, True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise Malformed("it ends early")
        part = message.get("body", b"")
        left_bytes -= len(part)
        if left_bytes < 0:
            raise TooLarge(limit_bytes)
        parts.append(part)
        more = message.get("more_body", False)
    return b"".join(parts).removeprefix(codecs.BOM_UTF8)


def header_of(request: HTTPConnection, name: bytes, default: T) -> str | T:
    """Return the first header with a name, which has to be in lower case."""
    # A twentieth of a publish faster than Starlette's lookup, with five of them.
    for key, value in request.scope["headers"]:
        if key == name:
            return str(value, "latin-1")
    return default


def list_header_of(request: HTTPConnection, name: bytes) -> str | None:
    """
    Return a header whose value is a list, None without one.

    Several lines of one name are one list (RFC 9110 section 5.3).
    """
    values = [value for key, value in request.scope["headers"] if key == name]
    return str(b", ".join(values), "latin-1") if values else None


def single_header_of(request: HTTPConnection, name: bytes) -> str | None:
    """
    Return a header whose value is no list, None without one.

    Raises:
        Invalid: It occurs more than once: a proxy may have read the other one.

    """
    only: bytes | None = None
    for key, value in request.scope["headers"]:
        if key == name:
            if only is not None:
                shown = name.decode().title().removesuffix("-Id")
                shown += "-ID" if name.endswith(b"-id") else ""
                problem = "must not occur more than once"
                raise Invalid(FieldError(("header", shown), problem))
            only = value
    return None if only is None else str(only, "latin-1")


def media_type_of(request: Request) -> str:
    """Return the media type of a request's body, JSON if it has no Content-Type."""
    # Of two, which is not allowed, the result is no type.
    media_type = list_header_of(request, b"content-type") or JSON
    if media_type == JSON:
        return JSON
    return media_type.partition(";")[0].strip().lower()


def require_utf8(scope: Scope) -> None:
    """
    Refuse a request whose path or query is not UTF-8.

    Decoders replace each invalid byte with the same character, and would make one
    player of ``%C3%28`` and ``%FF%28``.

    Raises:
        Invalid: The path, or the query, is not percent-encoded UTF-8.

    """
    if "\ufffd" in scope["path"] and not _is_utf8(scope["raw_path"]):
        raise Invalid(FieldError(("path",), "is not percent-encoded UTF-8"))
    query: bytes = scope.get("query_string", b"")
    if _NOT_ASCII.search(query) and not (query.isascii() and _is_utf8(query)):
        raise Invalid(FieldError(("query",), "is not percent-encoded UTF-8"))


def _is_utf8(quoted: bytes) -> bool:
    try:
        unquote_to_bytes(quoted).decode()
    except UnicodeDecodeError:
        return False
    return True


def decode_body(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """
    Decode a JSON body.

    Raises:
        Malformed: The body is not JSON, is not UTF-8, or is nested too deeply.
        Invalid: The JSON does not match the decoder's type; names the place.

    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise Invalid(field_error(str(error))) from error
    except msgspec.DecodeError as error:
        raise Malformed(str(error)) from error
    except RecursionError as error:
        raise Malformed("it is nested too deeply") from error
    except UnicodeDecodeError as error:
        raise Malformed("it is not UTF-8") from error


def field_error(text: str) -> FieldError:
    """Return msgspec's error message as a `FieldError`, with its path parsed."""
    match = _MSGSPEC_PATH.fullmatch(text)
    if match is None:
        return FieldError(("body",), text)
    problem, path = match.groups()
    steps: list[str | int] = ["body"]
    for name, index in _PATH_STEP.findall(path):
        steps.append(int(index) if index.isdecimal() else name or index)
    return FieldError(tuple(steps), problem)


def etag_matches(request: Request, etag: str) -> bool:
    """Whether ``If-None-Match`` matches `etag`, weakly (RFC 9110 section 13.1.2)."""
    if_none_match = list_header_of(request, b"if-none-match")
    return if_none_match is not None and tag_matches(if_none_match, etag)


def tag_matches(if_none_match: str, etag: str) -> bool:
    """Whether a value of ``If-None-Match`` matches `etag`; see `etag_matches`."""
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return "*" in tags or etag.removeprefix("W/") in tags


def refuse_misspelled(names: Iterable[str], known: Collection[str]) -> None:
    """
    Refuse parameters of a query that are misspelled; other unknown ones are ignored.

    A newer client may meet an older server, so an unknown parameter is no error. One
    within `TYPOS_MAX` edits of a known one is: ignored, ``curser=`` would lose
    notifications without a word.

    Raises:
        Invalid: Names are misspelled; has each of them, with the known one.

    """
    unknown = [name for name in dict.fromkeys(names) if name not in known]
    problems = []
    for name in unknown[:UNKNOWN_CHECKED_MAX]:
        distance, meant = min(
            (_edit_distance(name.casefold(), other.casefold()), other)
            for other in known
        )
        if distance <= TYPOS_MAX:
            problem = f"is not a parameter; did you mean {meant!r}?"
            problems.append(FieldError(("query", name), problem))
    if problems:
        raise Invalid(*problems)


def _edit_distance(one: str, other: str) -> int:
    """Return the Levenshtein distance, or any number above `TYPOS_MAX` if it is."""
    if abs(len(one) - len(other)) > TYPOS_MAX:
        return TYPOS_MAX + 1
    row = list(range(len(other) + 1))
    for i, char in enumerate(one, 1):
        before, row[0] = row[0], i
        for j, other_char in enumerate(other, 1):
            replaced = before + (char != other_char)
            before = row[j]
            row[j] = min(replaced, row[j] + 1, row[j - 1] + 1)
    return row[-1]


async def until_disconnect(receive: Receive) -> None:
    """Wait until the client disconnects; the request's body must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass


def require_origin(connection: HTTPConnection, allowed: Collection[str]) -> None:
    """
    Refuse a request whose credential is a cookie, unless its page may use it.

    Browsers add cookies by themselves, to requests of any page.

    Raises:
        ForeignOrigin: The origin is neither the request's own host nor allowed, or
            there is none.

    """
    text = list_header_of(connection, b"origin")  # Two are no origin.
    if text is None:
        raise ForeignOrigin("an Origin header where a cookie is the credential")
    host = header_of(connection, b"host", "")
    origin = parse_origin(text)
    is_tls = connection.scope["scheme"] in ("https", "wss")
    is_own = origin is not None and origin.is_own("https" if is_tls else "http", host)
    if not is_own and text not in allowed:
        raise ForeignOrigin(
            f"an allowed origin: {text[:ORIGIN_SHOWN_MAX]!r} is neither that of this "
            f"host ({host[:ORIGIN_SHOWN_MAX]!r}) nor in the setting allowed_origins"
        )
