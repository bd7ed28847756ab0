"""
Publishing as bytes: one message or a list of them, and what is answered.

Decides what a list may have, and that everything that is wrong with a request is told
at once. Pure: no I/O, no services.

A message for now is stored and answered with an id per recipient; one for later, or for
more players than fit one answer, becomes a schedule, and is alone in its request.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Annotated, Any, Final, TypeAlias

import msgspec
from msgspec import Meta

from ....errors import FieldError, Invalid
from ....model import App, Log, Position
from ....service.publishing.publisher import PLAYERS_MAX
from ....transports.web.requests import decode_body
from ..common.body_types import PROBLEMS_MAX, BodyType, Where, items_of, refuse
from .message_body import PublishBody, PublishRequest, RecipientsBody, shown_log

__all__ = [
    "BATCH_MAX",
    "DELIVERIES_MAX",
    "PUBLISH_BYTES_MAX",
    "PublishBatch",
    "decode_publish",
    "encode_results",
    "placed",
]

PUBLISH_BYTES_MAX: Final = 2 * 1024 * 1024

BATCH_MAX: Final = 1_000
"""Messages in one request."""

DELIVERIES_MAX: Final = PLAYERS_MAX
"""Recipients of all messages of one list together: it is answered when all are stored.
"""

_encode: Final = msgspec.json.Encoder().encode

_CONTENT: Final = frozenset({"type", "title", "body", "data"})
_OF_A_SCHEDULE: Final = ("send_at", "spread_s")

PublishBatch: TypeAlias = Annotated[
    list[PublishBody], Meta(min_length=1, max_length=BATCH_MAX)
]

_ONE: Final = BodyType[PublishBody](PublishBody)
_MANY: Final = BodyType[list[PublishBody]](PublishBatch)

_STAND_IN: Final = RecipientsBody(players=["-"])


def decode_publish(app: App, body: bytes) -> tuple[list[PublishRequest], bool]:
    """
    Return the messages of a body, and whether it is a list.

    Raises:
        Malformed: It is no JSON.
        Invalid: Has everything that is wrong, in the order of the messages.

    """
    many = body.lstrip()[:1] == b"["
    try:
        if many:
            messages = decode_body(_MANY.decoder, body)
        else:
            messages = [decode_body(_ONE.decoder, body)]
    except Invalid:
        refuse(_every_problem(app, body, many=many))
        raise
    wrong: list[FieldError] = []
    asked = []
    for i, message in enumerate(messages):
        where: Where = ("body", i) if many else ("body",)
        asked.append(message.read(app, where, wrong))
        if many and (message.send_at or message.spread_s or not message.persist):
            wrong += _not_in_a_list(message, where)
    if many:
        wrong += _too_many(asked)
    if wrong:
        refuse(wrong)
    return asked, many


def _every_problem(app: App, body: bytes, *, many: bool) -> Iterator[FieldError]:
    """Yield all that is wrong with a body that does not fit its type."""
    messages = items_of(body) if many else [body]
    told = False
    for i, raw in enumerate(messages):
        where: Where = ("body", i) if many else ("body",)
        for problem in _problems_of_message(app, raw, where, many=many):
            told = True
            yield problem
    if not told:
        # The messages are good; there are none, or too many.
        yield from (_MANY if many else _ONE).problems(body)


def _problems_of_message(
    app: App, raw: bytes, where: Where, *, many: bool
) -> Iterator[FieldError]:
    problems = list(islice(_ONE.problems(raw, where), PROBLEMS_MAX))
    yield from problems
    if any(problem.where == where for problem in problems):
        return  # no object at all
    good = _ONE.good_parts(raw)
    bad = {problem.where[len(where)] for problem in problems}
    good.setdefault("to", _STAND_IN)
    if bad & _CONTENT:
        # It does say something, if only it could be read.
        good.setdefault("data", None)
    message = PublishBody(**good)
    wrong: list[FieldError] = []
    message.read(app, where, wrong)
    yield from wrong
    if many:
        yield from _not_in_a_list(message, where)


def _not_in_a_list(message: PublishBody, where: Where) -> Iterator[FieldError]:
    for name in message.given(_OF_A_SCHEDULE):
        yield FieldError((*where, name), "is for a single message")
    if not message.persist:
        yield FieldError((*where, "persist"), "false is for a single message")


def _too_many(asked: Sequence[PublishRequest]) -> list[FieldError]:
    """Return what is wrong where a list has more recipients than it may."""
    count = 0
    for i, one in enumerate(asked):
        count += len(one.message.logs)
        if count > DELIVERIES_MAX:
            problem = f"goes beyond {DELIVERIES_MAX} recipients of one request"
            return [FieldError(("body", i, "to"), problem)]
    return []


def placed(error: Invalid) -> Invalid:
    """Return what services say of the only message of a list as said of a message."""
    return Invalid(
        *(
            FieldError(("body", *where[2:]), problem)
            if where[:2] == ("body", 0)
            else FieldError(where, problem)
            for where, problem in error.errors
        )
    )


def encode_results(
    sent: Sequence[Sequence[tuple[Log, Position | str | None]]], *, many: bool
) -> bytes:
    """
    Return the answer to a publish: an id per recipient, in the request's order.

    For a list of messages it is a list of such answers. Who has muted the type gets no
    notification, and has no id.
    """
    answers = [{"results": [_result(*one) for one in message]} for message in sent]
    return _encode(answers if many else answers[0])


def _result(log: Log, place: Position | str | None) -> dict[str, Any]:
    to = shown_log(log)
    if place is None:
        return {"to": to, "muted": True}
    if isinstance(place, str):
        return {"to": to, "id": place}
    return {"to": to, "id": place.id}
