"""
Bodies of requests, decoded so that all that is wrong with one is told at once.

Decides how a body that does not fit its type is taken apart. msgspec stops at the first
thing that is wrong. So a good body is decoded once, as a whole; only a bad one is gone
through again, field by field and item by item, each with the type it has to be of.

Knows msgspec's types. Knows nothing of what any field means.
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
"""A path into a request, as `FieldError` has it."""

PROBLEMS_MAX: Final = 100
"""Problems told of one request. Who has more of them has one, many times."""

NAME_MAX: Final = 255

BODY_BYTES_MAX: Final = 256 * 1024
"""The limit of a body, unless it has one of its own."""

_BODY: Final[Where] = ("body",)

_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_items: Final = msgspec.json.Decoder(list[msgspec.Raw])


class _Field(NamedTuple):
    body_type: BodyType[Any]  # of any type
    required: bool


class BodyType(Generic[T]):
    """
    What a JSON value has to be, down to its fields and items.

    Args:
        type_: A type that msgspec decodes; of what it is made of, structs and lists
            are taken apart, everything else is right or wrong as a whole: not what
            its title says, if it has one.

    """

    def __init__(self, type_: Any) -> None:  # what a type checker has no name for
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
            Malformed: It is no JSON.
            Invalid: It is of another shape; has all that is wrong, up to
                `PROBLEMS_MAX`.

        """
        try:
            return decode_body(self.decoder, body)
        except Invalid:
            refuse(self.problems(body))
            raise

    def problems(self, raw: bytes, where: Where = _BODY) -> Iterator[FieldError]:
        """Yield all that is wrong with a value that is at `where`, in its order."""
        try:
            decode_body(self.decoder, raw)
        except Invalid as error:
            parts = self._problems_of_parts(raw, where)
            first = next(parts, None)
            if first is not None:
                yield first
                yield from parts
            else:
                # The parts are good; it is what they are together that is not.
                (whole,) = error.errors
                problem = f"is not {self._title}" if self._title else whole.problem
                yield FieldError((*where, *whole.where[1:]), problem)

    def good_parts(self, raw: bytes) -> dict[str, Any]:  # each of its field's type
        """Return the fields of an object that are as they have to be, decoded."""
        good = {}
        for name, value in _opened(_members, raw, {}).items():
            if field := self._fields.get(name):
                try:
                    good[name] = decode_body(field.body_type.decoder, value)
                except Invalid:
                    continue
        return good

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
                # A name of a megabyte is not said back.
                yield FieldError((*where, name[:NAME_MAX]), "is not a known field")
        for name, field in self._fields.items():
            if field.required and name not in members:
                yield FieldError((*where, name), "is missing")


class CheckedBody(Body[T]):
    """A body of which every problem is reported, not only the first."""

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
    """Return the items of a list, none where it is none. Raises Malformed."""
    items: list[bytes] = _opened(_items, raw, [])
    return items


def refuse(problems: Iterable[FieldError]) -> None:
    """Raise `Invalid` with the first `PROBLEMS_MAX` problems, if there are any."""
    if told := list(islice(problems, PROBLEMS_MAX)):
        raise Invalid(*told)


def _opened(decoder: Any, raw: bytes, otherwise: Any) -> Any:  # of the decoder's type
    try:
        return decode_body(decoder, raw)
    except Invalid:
        return otherwise


def _plain(type_: Any) -> Any:  # types, as msgspec takes them
    """Return a type without limits, and without null or absence beside it."""
    alone = _alone(type_)
    return get_args(alone)[0] if get_origin(alone) is Annotated else alone


def _alone(type_: Any) -> Any:
    """Return a type without null or absence beside it, if it is a single one then."""
    if get_origin(type_) not in (Union, types.UnionType):
        return type_
    kinds = [it for it in get_args(type_) if it not in (type(None), UnsetType)]
    return kinds[0] if len(kinds) == 1 else type_


def _title(type_: Any) -> str:
    metas = type_.__metadata__ if get_origin(type_) is Annotated else ()
    titles = [it.title for it in metas if isinstance(it, msgspec.Meta) and it.title]
    return titles[0] if titles else ""
