"""
Request bodies, decoded so that one response reports every problem.

Decides how the problems of a body are found. msgspec stops at the first problem. So a
valid body is decoded once, as a whole; an invalid one is decoded again, field by field
and item by item, each with its own type.

Knows msgspec's types. Knows nothing of the meaning of fields.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import (
    Annotated,
    Any,
    Final,
    Generic,
    NamedTuple,
    TypeVar,
    Union,
    get_args,
    get_origin,
)

import msgspec
from msgspec import UnsetType

from ....contract.operation import Body
from ....errors import FieldError, Invalid
from ....transports.web.requests import decode_body

__all__ = [
    "BODY_BYTES_MAX",
    "PROBLEMS_MAX",
    "BodyType",
    "CheckedBody",
    "Where",
    "refuse",
]

T = TypeVar("T")
Where = tuple[str | int, ...]
"""A path into a request, as in `FieldError`."""

PROBLEMS_MAX: Final = 100
"""Problems reported per request. A request with more repeats one of them."""

NAME_MAX: Final = 255

BODY_BYTES_MAX: Final = 256 * 1024
"""The limit of bodies without a limit of their own."""

_BODY: Final[Where] = ("body",)

_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_items: Final = msgspec.json.Decoder(list[msgspec.Raw])


class _Field(NamedTuple):
    body_type: BodyType[Any]  # of any type
    required: bool


class BodyType(Generic[T]):
    """
    The type of a JSON value, down to its fields and items.

    Args:
        type_: A type that msgspec decodes. The fields of structs and the items of lists
            are checked one by one, any other value as a whole. If such a type has a
            title, a problem says that the value is not what the title names.

    """

    def __init__(self, type_: Any) -> None:  # a type form
        self.decoder: msgspec.json.Decoder[T] = msgspec.json.Decoder(type_)
        self._fields: dict[str, _Field] = {}
        self._item: BodyType[Any] | None = None
        self._closed = False
        self._title = _title(_alone(type_))
        plain = _plain(type_)
        if get_origin(plain) is list:
            self._item = BodyType(get_args(plain)[0])
        elif isinstance(plain, type) and issubclass(plain, msgspec.Struct):
            self._closed = plain.__struct_config__.forbid_unknown_fields
            self._fields = {
                field.encode_name: _Field(BodyType(field.type), field.required)
                for field in msgspec.structs.fields(plain)
            }

    def decode(self, body: bytes) -> T:
        """
        Decode a body.

        Raises:
            Malformed: The body is not JSON.
            Invalid: The body does not match the type. Has up to `PROBLEMS_MAX`
                problems.

        """
        try:
            return decode_body(self.decoder, body)
        except Invalid:
            refuse(self.problems(body))
            raise

    def problems(self, raw: bytes, where: Where = _BODY) -> Iterator[FieldError]:
        """Yield every problem of a value at `where`, in order."""
        try:
            decode_body(self.decoder, raw)
        except Invalid as error:
            parts = self._problems_of_parts(raw, where)
            first = next(parts, None)
            if first is not None:
                yield first
                yield from parts
            else:
                # Every part is valid; their combination is not.
                (whole,) = error.errors
                problem = f"is not {self._title}" if self._title else whole.problem
                yield FieldError((*where, *whole.where[1:]), problem)

    def valid_fields(self, raw: bytes) -> dict[str, Any]:  # of the fields' types
        """Return the valid fields of an object, decoded."""
        fields = {}
        for name, value in _opened(_members, raw, {}).items():
            if field := self._fields.get(name):
                try:
                    fields[name] = decode_body(field.body_type.decoder, value)
                except Invalid:
                    continue
        return fields

    def _problems_of_parts(self, raw: bytes, where: Where) -> Iterator[FieldError]:
        if self._item is not None:
            for i, item in enumerate(items_of(raw)):
                yield from self._item.problems(item, (*where, i))
        elif self._fields and (members := _opened(_members, raw, None)) is not None:
            yield from self._problems_of_fields(members, where)

    def _problems_of_fields(
        self, members: dict[str, bytes], where: Where
    ) -> Iterator[FieldError]:
        for name, value in members.items():
            if field := self._fields.get(name):
                yield from field.body_type.problems(value, (*where, name))
            elif self._closed:
                # A name of a megabyte is not repeated in the response.
                yield FieldError((*where, name[:NAME_MAX]), "is not a known field")
        for name, field in self._fields.items():
            if field.required and name not in members:
                yield FieldError((*where, name), "is missing")


class CheckedBody(Body[T]):
    """A body whose `decode` reports every problem, not only the first."""

    def __init__(
        self,
        type: Any,  # T, or an Annotated of it
        bytes_max: int = BODY_BYTES_MAX,
        *,
        required: bool = True,
        examples: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(type, bytes_max, required=required, examples=examples)
        self._body_type = BodyType[T](type)

    def decode(self, body: bytes) -> T:
        """Decode a body. Raises as `BodyType.decode` does."""
        return self._body_type.decode(body)


def items_of(raw: bytes) -> list[bytes]:
    """Return the items of a list, none if it is not a list. Raises Malformed."""
    items: list[bytes] = _opened(_items, raw, [])
    return items


def refuse(problems: Iterable[FieldError]) -> None:
    """Raise `Invalid` with the first `PROBLEMS_MAX` problems, if there are any."""
    if reported := list(islice(problems, PROBLEMS_MAX)):
        raise Invalid(*reported)


def _opened(decoder: Any, raw: bytes, otherwise: Any) -> Any:  # of the decoder's type
    try:
        return decode_body(decoder, raw)
    except Invalid:
        return otherwise


def _plain(type_: Any) -> Any:  # types, as msgspec takes them
    """Return a type without constraints, null and absence."""
    alone = _alone(type_)
    return get_args(alone)[0] if get_origin(alone) is Annotated else alone


def _alone(type_: Any) -> Any:
    """Return a type without null and absence, if a single type remains."""
    if get_origin(type_) not in (Union, types.UnionType):
        return type_
    kinds = [it for it in get_args(type_) if it not in (type(None), UnsetType)]
    return kinds[0] if len(kinds) == 1 else type_


def _title(type_: Any) -> str:
    metas = type_.__metadata__ if get_origin(type_) is Annotated else ()
    titles = [it.title for it in metas if isinstance(it, msgspec.Meta) and it.title]
    return titles[0] if titles else ""
