"""
The vocabulary in which surfaces declare their operations.

Decides nothing about any surface: each has a ``contract.py`` that declares operations
in these terms. `binding` makes routes from them, `document` an OpenAPI document. Types
are those that decode requests and encode responses, limits are the constants that are
enforced, and the responses to errors come from the surface's own table.

Knows nothing of OpenAPI's layout or of Starlette's routes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Annotated, Any, Final, Generic, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from ..errors import FieldError, Invalid, OutcomeUnknown
from ..transports.web.requests import decode_body, read_body

__all__ = [
    "BEARER",
    "CACHED",
    "COOKIE",
    "IDEMPOTENCY_KEY",
    "NO_STORE",
    "PLAYER",
    "REPLAYED",
    "STREAMED",
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
"""Adds to a string that it is a time of RFC 3339."""
UUID: Final = Meta(extra_json_schema={"format": "uuid"})


def matching(pattern: str) -> Meta:
    """
    Return metadata that documents a pattern without checking it.

    msgspec frees the regular expressions that it checks itself once too often when the
    process ends (its issue 717), which crashes the process after its work is done.
    """
    return Meta(extra_json_schema={"pattern": pattern})


T = TypeVar("T")

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
Type = Any  # any type that msgspec describes: a Struct, an Annotated, a Literal, ...


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """
    A value outside the body.

    `default` applies when the parameter is absent. A path segment that `has_slashes`
    may contain slashes and line feeds.
    """

    name: str
    type: Type
    description: str
    where: Literal["query", "path", "header"]
    default: Any = UNSET  # of the parameter's own type
    required: bool = False
    has_slashes: bool = False


class IntParameter(Parameter, frozen=True, kw_only=True):
    """An integer in the query, from `least` to `most`."""

    default: int
    least: int
    most: int

    def read(self, query: Mapping[str, str]) -> int:
        """
        Return the parameter's value in `query`, or its default.

        Raises:
            Invalid: The value is not an integer, or out of bounds.

        """
        text = query.get(self.name)
        if text is None:
            return self.default
        # `isdecimal` also accepts digits of other scripts, which int() would read.
        if text.isascii() and text.isdecimal() and len(text) <= _DIGITS_MAX:
            number = int(text)
            if self.least <= number <= self.most:
                return number
        problem = f"must be an integer from {self.least} to {self.most}"
        raise Invalid(FieldError(("query", self.name), problem))


def integer(
    name: str, description: str, *, default: int, least: int, most: int
) -> IntParameter:
    """Return an optional integer parameter of the query."""
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
    """Return a path parameter."""
    return Parameter(
        name=name,
        type=type,
        description=description,
        where="path",
        required=True,
        has_slashes=has_slashes,
    )


def header(name: str, type: Type, description: str) -> Parameter:
    """Return an optional request header."""
    return Parameter(name=name, type=type, description=description, where="header")


IDEMPOTENCY_KEY: Final = header(
    "Idempotency-Key",
    Annotated[str, matching(r"^[!-~]([ -~]{0,253}[!-~])?$")],
    "A string of your choice that identifies the request, the same in every attempt. "
    "A repeated key within 24 hours has no second effect and returns the first "
    "response.",
)


class Header(msgspec.Struct, frozen=True):
    """A response header; with `always`, every such response has it."""

    name: str
    description: str
    type: Type = str
    always: bool = True


REPLAYED: Final = Header(
    "Idempotent-Replayed",
    "`true` if this repeats the response to an earlier request with the same key.",
    Literal["true"],
    always=False,
)
NO_STORE: Final = Header(
    "Cache-Control", "The response must not be cached.", Literal["no-store"]
)
STREAMED: Final = Header(
    "Cache-Control",
    "The response must not be cached, nor compressed on its way.",
    Literal["no-store, no-transform"],
)
CACHED: Final = (
    Header("ETag", "Version of the response, for `If-None-Match`."),
    Header("Cache-Control", "Caches must revalidate with `If-None-Match`."),
)


class Event(msgspec.Struct, frozen=True):
    """One event of a stream, as EventSource parses it."""

    data: str
    event: str | UnsetType = UNSET
    id: str | UnsetType = UNSET
    retry: int | UnsetType = UNSET


class Link(msgspec.Struct, frozen=True):
    """
    An operation that takes values of this response as parameters.

    `operation` is ``surface.name``. `parameters` maps its parameters to OpenAPI runtime
    expressions.
    """

    operation: str
    parameters: Mapping[str, str]


class ResponseSpec(msgspec.Struct, frozen=True):
    """A response that is not an error. Without a `type` it has no body."""

    status: int
    description: str
    type: Type = None
    headers: tuple[Header, ...] = ()
    media: str = JSON
    examples: Mapping[str, Any] = {}  # JSON values by name
    links: tuple[Link, ...] = ()


class Body(Generic[T]):
    """
    The JSON body of a request.

    Args:
        type: What it decodes to.
        bytes_max: Its limit.
        also: Types by media type, for surfaces that accept more than JSON. `read`
            accepts JSON only.
        required: Whether the body must be present. If not, an absent body reads as an
            empty object.
        examples: JSON values by name.

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
        """Return the body of a request. Raises what `read_body` and `decode` raise."""
        body = await read_body(request, self.bytes_max)
        return self.decode(body if body or self.required else b"{}")

    def decode(self, body: bytes) -> T:
        """
        Decode a body.

        Raises:
            Malformed: The body is not JSON.
            Invalid: The body does not match the type. Has the first problem.

        """
        return decode_body(self._decoder, body)

    @cached_property
    def _decoder(self) -> msgspec.json.Decoder[T]:
        return msgspec.json.Decoder(self.type)


class Scheme(msgspec.Struct, frozen=True):
    """
    How a request carries a credential.

    `definition` is an OpenAPI security scheme. Several surfaces may use the same one.
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
        method: The HTTP method. An operation with GET also answers HEAD.
        path: A template in which every ``{segment}`` is one of `parameters`.
        name: Unique within the surface, in camelCase; part of the ``operationId``.
        summary: One line in the imperative, without a full stop.
        description: What the types cannot say, as Markdown.
        parameters: Values outside the body.
        body: The request body, if the operation takes one.
        responses: All responses that are not errors.
        refusals: An instance of every error that the operation may raise. The surface's
            own table maps them to responses; the module `refusals` has bundles.
        security: Alternative credentials. Empty if the operation needs none.
        other_paths: Other paths at which the same operation is available.
        websocket: The protocol of a WebSocket on the same path, as Markdown.
        direct: Whether plain requests are answered beneath ASGI: those whose query has
            only parameters of these names. None if no request is. See `direct`.

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
    direct: tuple[str, ...] | None = None

    @property
    def only_reads(self) -> bool:
        """Whether it declares no write whose outcome could be unknown."""
        return not any(isinstance(error, OutcomeUnknown) for error in self.refusals)


class Surface(msgspec.Struct, frozen=True, kw_only=True):
    """
    One surface's part of the contract.

    Args:
        name: One word; the prefix of the names of operations and schemas.
        title: The heading of its operations in the document.
        description: What it is, as Markdown.
        refuse: Returns the response to an error. None if no operation raises any.
        error_type: The type of the bodies of these responses.
        error_types: Exceptions to `error_type`, by status.
        failed: The response to a request that failed unexpectedly, None if the surface
            has no response of its own.
        not_utf8: The response to a path or query that is not UTF-8, likewise.
        operations: In the order of the document.
        never_raised: Errors that none of its operations raises, which `refuse` does not
            handle. A test ensures that it handles every other error.

    """

    name: str
    title: str
    description: str
    refuse: Callable[[Any], Response] | None = None  # of an Error
    error_type: Type = None
    error_types: Mapping[int, Type] = {}
    failed: Response | None = None
    not_utf8: Response | None = None
    operations: tuple[Operation, ...]
    never_raised: tuple[type[Exception], ...] = ()
