"""
The words in which a surface declares what it can be asked, and what it answers.

Decides nothing about any surface: each has a ``contract.py`` beside its ``routes.py``
that says it in these words, and `document` writes all of them down as one OpenAPI
document. Types are the very ones that decode requests and encode answers; limits are
the constants that are checked; and what an error is answered with is not declared at
all but asked of the surface's own table.

Knows nothing of OpenAPI's layout, nor of Starlette's routes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Annotated, Any, Final, Generic, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from ..errors import FieldError, Invalid
from ..transports.web.requests import decode_body, read_body

__all__ = [
    "BEARER",
    "CACHED",
    "COOKIE",
    "IDEMPOTENCY_KEY",
    "NO_STORE",
    "PLAYER",
    "REPLAYED",
    "TIME",
    "UUID",
    "Body",
    "Event",
    "Header",
    "IntParameter",
    "Link",
    "Operation",
    "Parameter",
    "ResponseSpec",
    "Scheme",
    "Surface",
    "header",
    "integer",
    "matching",
    "path",
    "query",
]

JSON: Final = "application/json"

_DIGITS_MAX: Final = 9

TIME: Final = Meta(extra_json_schema={"format": "date-time"})
"""What a text is besides: a time of RFC 3339."""
UUID: Final = Meta(extra_json_schema={"format": "uuid"})


def matching(pattern: str) -> Meta:
    """
    Return what says that a text matches `pattern`, without checking it.

    Regular expressions that msgspec would check itself are freed too often when the
    process ends (msgspec issue 717): it crashes, after all is done.
    """
    return Meta(extra_json_schema={"pattern": pattern})


T = TypeVar("T")

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
Type = Any  # whatever msgspec can describe: a Struct, an Annotated, a Literal, ...


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """
    A value outside the body.

    `default` is what holds where it is left out. A segment of a path that `has_slashes`
    may have some, and line feeds too.
    """

    name: str
    type: Type
    description: str
    where: Literal["query", "path", "header"]
    default: Any = UNSET  # of the parameter's own type
    required: bool = False
    has_slashes: bool = False


class IntParameter(Parameter, frozen=True, kw_only=True):
    """An integer of the query, from `least` to `most`."""

    default: int
    least: int
    most: int

    def read(self, query: Mapping[str, str]) -> int:
        """
        Return the value that a query has, the default where it has none.

        Raises:
            Invalid: It is no integer, or out of bounds.

        """
        text = query.get(self.name)
        if text is None:
            return self.default
        # `isdecimal` also takes digits of other scripts, which int() would read.
        if text.isascii() and text.isdecimal() and len(text) <= _DIGITS_MAX:
            number = int(text)
            if self.least <= number <= self.most:
                return number
        problem = f"must be an integer from {self.least} to {self.most}"
        raise Invalid(FieldError(("query", self.name), problem))


def integer(
    name: str, description: str, *, default: int, least: int, most: int
) -> IntParameter:
    """Return an optional parameter of the query that is an integer."""
    return IntParameter(
        name=name,
        type=Annotated[int, Meta(ge=least, le=most)],
        description=description,
        where="query",
        default=default,
        least=least,
        most=most,
    )


def query(
    name: str, type: Type, description: str, *, default: Any = UNSET
) -> Parameter:
    """Return an optional parameter of the query."""
    return Parameter(
        name=name, type=type, description=description, where="query", default=default
    )


def path(
    name: str, type: Type, description: str, *, has_slashes: bool = False
) -> Parameter:
    """Return a segment of the path."""
    return Parameter(
        name=name,
        type=type,
        description=description,
        where="path",
        required=True,
        has_slashes=has_slashes,
    )


def header(name: str, type: Type, description: str) -> Parameter:
    """Return an optional header of the request."""
    return Parameter(name=name, type=type, description=description, where="header")


IDEMPOTENCY_KEY: Final = header(
    "Idempotency-Key",
    Annotated[str, matching(r"^[!-~]([ -~]{0,253}[!-~])?$")],
    "Of your choice, one per effect and the same in all attempts: a repetition "
    "within 24 hours has no second effect and is answered as the first one was.",
)


class Header(msgspec.Struct, frozen=True):
    """A header of an answer; `always` says that no such answer lacks it."""

    name: str
    description: str
    type: Type = str
    always: bool = True


REPLAYED: Final = Header(
    "Idempotent-Replayed",
    "`true` where the idempotency key was used before: this is the first answer.",
    Literal["true"],
    always=False,
)
NO_STORE: Final = Header("Cache-Control", "No cache may keep it.", Literal["no-store"])
CACHED: Final = (
    Header("ETag", "What `If-None-Match` takes. It changes when the answer does."),
    Header("Cache-Control", "Ask again with `If-None-Match`, whatever is kept."),
)


class Event(msgspec.Struct, frozen=True):
    """One event of a stream, as EventSource reads it; the schema of a stream is that
    of each."""

    data: str
    event: str | UnsetType = UNSET
    id: str | UnsetType = UNSET
    retry: int | UnsetType = UNSET


class Link(msgspec.Struct, frozen=True):
    """
    Where an answer leads: its values are parameters of another operation.

    `operation` is ``surface.name``. `parameters` are OpenAPI's runtime expressions.
    """

    operation: str
    parameters: Mapping[str, str]


class ResponseSpec(msgspec.Struct, frozen=True):
    """What is answered when all is well. Without a `type` there is no body."""

    status: int
    description: str
    type: Type = None
    headers: tuple[Header, ...] = ()
    media: str = JSON
    examples: Mapping[str, Any] = {}  # JSON values, by a name for each
    links: tuple[Link, ...] = ()


class Body(Generic[T]):
    """
    The JSON body of a request.

    Args:
        type: Decodes it.
        bytes_max: Its limit.
        also: The types of other media types, where a surface takes some. `read` reads
            JSON only.
        required: Whether it has to be there; if not, no body is an empty object.
        examples: JSON values, by a name for each.

    """

    def __init__(
        self,
        type: Any,  # T, or an Annotated of it
        bytes_max: int,
        *,
        also: Mapping[str, Type] | None = None,
        required: bool = True,
        examples: Mapping[str, Any] | None = None,
    ) -> None:
        self.type = type
        self.bytes_max = bytes_max
        self.also = also or {}
        self.required = required
        self.examples = examples or {}

    async def read(self, request: Request) -> T:
        """Return a request's body. Raises as `read_body` and `decode` do."""
        body = await read_body(request, self.bytes_max)
        return self.decode(body if body or self.required else b"{}")

    def decode(self, body: bytes) -> T:
        """
        Decode a body.

        Raises:
            Malformed: It is no JSON.
            Invalid: It does not fit the type; has the first problem.

        """
        return decode_body(self._decoder, body)

    @cached_property
    def _decoder(self) -> msgspec.json.Decoder[T]:
        return msgspec.json.Decoder(self.type)


class Scheme(msgspec.Struct, frozen=True):
    """
    Where a credential rides.

    `definition` is OpenAPI's security scheme; two surfaces may name the same one.
    """

    name: str
    definition: Mapping[str, str]


BEARER: Final = Scheme(
    "bearer",
    {
        "type": "http",
        "scheme": "bearer",
        "description": "A backend key (`sk_…`) or a player's token (a JWT).",
    },
)
PLAYER: Final = Scheme(
    "player",
    {"type": "http", "scheme": "bearer", "description": "A player's token (a JWT)."},
)
COOKIE: Final = Scheme(
    "cookie",
    {
        "type": "apiKey",
        "in": "cookie",
        "name": "Authorization",
        "description": "A player's token as `bearer …`, for pages of the same site.",
    },
)


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """
    One method of one path.

    Args:
        method: Of HTTP. What takes GET takes HEAD as well.
        path: A template, in which every ``{segment}`` is one of `parameters`.
        name: Its name within the surface, in camelCase; part of its ``operationId``.
        summary: One line without a full stop.
        description: What a type cannot say, as Markdown.
        parameters: Outside the body.
        body: What is sent, if anything is.
        responses: What comes back when all is well.
        refusals: An instance of every error it may be refused with; the surface's own
            table says what becomes of each. `refusals` has them in bundles.
        security: Credentials of which one is needed; none means that it is open.
        other_paths: Other spellings of the path with the same meaning.
        websocket: What a WebSocket on the same path speaks, as Markdown.

    """

    method: Method
    path: str
    name: str
    summary: str
    description: str = ""
    parameters: tuple[Parameter, ...] = ()
    body: Body[Any] | None = None  # of any type
    responses: tuple[ResponseSpec, ...]
    refusals: tuple[Exception, ...] = ()
    security: tuple[Scheme, ...] = ()
    other_paths: tuple[str, ...] = ()
    websocket: str = ""


class Surface(msgspec.Struct, frozen=True, kw_only=True):
    """
    One surface's part of the contract.

    Args:
        name: One word, in front of the names of its operations and schemas.
        title: The heading its operations are under.
        description: What it is, as Markdown.
        refuse: Its table: the answer to an error; None where nothing is refused.
        error_type: The type of the bodies that come from there.
        error_types: The same by status, where that differs.
        failed: Its answer to a fault of ours.
        operations: In the order of reading.
        never_raised: Errors that nothing it asks for raises, so its table has no place
            for them. A test holds that every other error has one.

    """

    name: str
    title: str
    description: str
    refuse: Callable[[Any], Response] | None = None  # an Error, or one of its own
    error_type: Type = None
    error_types: Mapping[int, Type] = {}
    failed: Response | None = None
    operations: tuple[Operation, ...]
    never_raised: tuple[type[Exception], ...] = ()
