"""
What every surface needs of HTTP: bodies, conditional requests, the page's origin.

Decides how much of a body is read and what of it is believed. Knows Starlette's request
and the errors of ours. Knows nothing of any surface's shape.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Final, TypeVar
from urllib.parse import urlsplit

import msgspec
from starlette.convertors import PathConvertor
from starlette.datastructures import Headers, QueryParams
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import Receive

from ...errors import (
    FieldError,
    ForeignOrigin,
    Invalid,
    Malformed,
    TooLarge,
    Unsupported,
)

__all__ = [
    "FORM",
    "JSON",
    "AnyText",
    "RawResponse",
    "decode_body",
    "etag_matches",
    "header_of",
    "int_in",
    "media_type_of",
    "query_int",
    "read_body",
    "require_origin",
    "tag_matches",
    "until_disconnect",
]

T = TypeVar("T")

JSON: Final = "application/json"
FORM: Final = "application/x-www-form-urlencoded"

_MSGSPEC_PATH: Final = re.compile(r"(.*) - at `(?:key in )?\$(.*)`", re.DOTALL)
_PATH_STEP: Final = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]")


class AnyText(PathConvertor):
    """
    A segment of a path that may have slashes, and line feeds too.

    Without these, a path with one would be no surface's, and be answered by none. Of
    two in one path the first is as short as can be.
    """

    regex = "(?s:.*?)"


class RawResponse(Response):
    """
    An answer whose headers need not be put together.

    Args:
        status: Its status.
        headers: All that it has, but for what the server adds to each.
        body: Its body.

    """

    def __init__(
        self, status: int, headers: list[tuple[bytes, bytes]], body: bytes = b""
    ) -> None:
        # Instead of the parent's, which goes by words and by what is left out.
        self.status_code = status
        self.raw_headers = headers
        self.body = body
        self.background = None


async def read_body(
    request: Request, limit_bytes: int, *, media_types: Sequence[str] = (JSON,)
) -> bytes:
    """
    Return a request's body, which has to be of one of `media_types`, and plain.

    Raises:
        Unsupported: It says it is something else, or compressed.
        TooLarge: It is larger; no more than the limit was read.
        Malformed: The client went away in the middle of it.

    """
    if media_type_of(request) not in media_types:
        raise Unsupported("Content-Type", " or ".join(media_types))
    if header_of(request, b"content-encoding", "identity").lower() != "identity":
        raise Unsupported("Content-Encoding", "identity")
    declared = header_of(request, b"content-length", "")
    if declared.isdecimal() and int(declared) > limit_bytes:
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
    return b"".join(parts)


def header_of(request: HTTPConnection, name: bytes, default: T) -> str | T:
    """Return the first header of a name, which is in lower case."""
    # Starlette's own look-up, five times in a publish, was a twentieth of it.
    for key, value in request.scope["headers"]:
        if key == name:
            return str(value, "latin-1")
    return default


def media_type_of(request: Request) -> str:
    """Return what a request says that its body is; without a word it is JSON."""
    media_type = header_of(request, b"content-type", JSON)
    return media_type.partition(";")[0].strip().lower()


def decode_body(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """
    Decode a JSON body.

    Raises:
        Malformed: It is no JSON, or too deep, or not UTF-8.
        Invalid: It is JSON of another shape; says where.

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
    """Return what msgspec says was wrong, with its path as ours."""
    match = _MSGSPEC_PATH.fullmatch(text)
    if match is None:
        return FieldError(("body",), text)
    problem, path = match.groups()
    steps: list[str | int] = ["body"]
    for name, index in _PATH_STEP.findall(path):
        steps.append(int(index) if index.isdecimal() else name or index)
    return FieldError(tuple(steps), problem)


def query_int(
    request: Request, name: str, default: int, *, least: int, most: int
) -> int:
    """Return an integer of the query; see `int_in`. Raises Invalid."""
    return int_in(request.query_params, name, default, least=least, most=most)


def int_in(
    query: QueryParams, name: str, default: int, *, least: int, most: int
) -> int:
    """
    Return an integer of a query.

    Raises:
        Invalid: It is no integer, or out of bounds.

    """
    text = query.get(name)
    if text is None:
        return default
    # `isdecimal` also takes digits of other scripts, which int() would read.
    if text.isascii() and text.isdecimal() and len(text) <= 9:
        number = int(text)
        if least <= number <= most:
            return number
    problem = f"must be an integer from {least} to {most}"
    raise Invalid(FieldError(("query", name), problem))


def etag_matches(request: Request, etag: str) -> bool:
    """Whether ``If-None-Match`` names `etag` (RFC 9110, 13.1.2: compared weakly)."""
    if_none_match = request.headers.get("if-none-match")
    return if_none_match is not None and tag_matches(if_none_match, etag)


def tag_matches(if_none_match: str, etag: str) -> bool:
    """Whether the value of an ``If-None-Match`` names `etag`; see `etag_matches`."""
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return "*" in tags or etag.removeprefix("W/") in tags


async def until_disconnect(receive: Receive) -> None:
    """Return when the client of a request whose body was read has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


def require_origin(
    headers: Headers, allowed: Collection[str], *, from_cookie: bool
) -> None:
    """
    Refuse what a foreign page's browser sends in its user's name.

    A request without ``Origin`` is no page's, and is let through unless it is
    authenticated by a cookie, which a browser adds by itself.

    Raises:
        ForeignOrigin: The page is not one of ours.

    """
    origin = headers.get("origin")
    if origin is None:
        if from_cookie:
            raise ForeignOrigin("an Origin header where a cookie is the credential")
        return
    if origin in allowed:
        return
    if urlsplit(origin).netloc != headers.get("host") or origin == "null":
        raise ForeignOrigin("an allowed origin; see the setting allowed_origins")
