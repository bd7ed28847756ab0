"""
Publish requests and responses as bytes: one message or a list of them.

Decides what a list may contain, and that the response reports every problem of a
request. Pure: no I/O, no services.

A message to be sent at once is stored, and the response has an id per recipient. A
message to be sent later, or to more players than fit one response, becomes a schedule;
it must be the only message of its request.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Annotated, Any, Final, TypeAlias

import msgspec
from msgspec import Meta

from ....errors import FieldError, Invalid
from ....model import App, Position
from ....service.publishing.publisher import PLAYERS_MAX
from ....transports.web.requests import decode_body
from ..common.body_types import PROBLEMS_MAX, BodyType, Where, items_of, refuse
from .message_body import PublishBody, PublishRequest, Recipient, RecipientsBody

__all__ = [
    "BATCH_MAX",
    "DELIVERIES_MAX",
    "PUBLISH_BYTES_MAX",
    "PublishBatch",
    "decode_publish",
    "encode_results",
    "of_single_message",
]

PUBLISH_BYTES_MAX: Final = 2 * 1024 * 1024

BATCH_MAX: Final = 1_000
"""Messages per request."""

DELIVERIES_MAX: Final = PLAYERS_MAX
"""Recipients of all messages of a request, which responds when all are stored."""

_encode: Final = msgspec.json.Encoder().encode

_TO_EXAMPLE: Final = (
    'write {"players": ["alice"]}, {"topic": "news"} or {"everyone": true}'
)

_CONTENT: Final = frozenset({"type", "title", "body", "data"})
_SINGLE_ONLY: Final = ("send_at", "spread_s")

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
        Malformed: The body is not JSON.
        Invalid: Has every problem, in the order of the messages.

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
    problems: list[FieldError] = []
    requests = []
    for i, message in enumerate(messages):
        where: Where = ("body", i) if many else ("body",)
        requests.append(message.read(app, where, problems))
        if many and (message.send_at or message.spread_s or not message.persist):
            problems += _not_in_a_list(message, where)
    if many:
        problems += _too_many(requests)
    if problems:
        refuse(problems)
    return requests, many


def _every_problem(app: App, body: bytes, *, many: bool) -> Iterator[FieldError]:
    """Yield every problem of a body that does not match its type."""
    messages = items_of(body) if many else [body]
    has_problems = False
    for i, raw in enumerate(messages):
        where: Where = ("body", i) if many else ("body",)
        for problem in _problems_of_message(app, raw, where, many=many):
            has_problems = True
            yield _with_example(problem)
    if not has_problems:
        # Every message is valid; there are none, or too many.
        yield from (_MANY if many else _ONE).problems(body)


def _with_example(problem: FieldError) -> FieldError:
    """Say how recipients are written, where they have another form."""
    is_of_form = problem.problem.startswith(("Expected ", "is not a known field"))
    if "to" in problem.where[-2:] and is_of_form:
        return problem._replace(problem=f"{problem.problem}; {_TO_EXAMPLE}")
    return problem


def _problems_of_message(
    app: App, raw: bytes, where: Where, *, many: bool
) -> Iterator[FieldError]:
    problems = list(islice(_ONE.problems(raw, where), PROBLEMS_MAX))
    yield from problems
    if any(problem.where == where for problem in problems):
        return  # not an object
    fields = _ONE.valid_fields(raw)
    invalid = {problem.where[len(where)] for problem in problems}
    fields.setdefault("to", _STAND_IN)
    if invalid & _CONTENT:
        # The message has content, though it is invalid.
        fields.setdefault("data", None)
    message = PublishBody(**fields)
    contradictions: list[FieldError] = []
    message.read(app, where, contradictions)
    yield from contradictions
    if many:
        yield from _not_in_a_list(message, where)


def _not_in_a_list(message: PublishBody, where: Where) -> Iterator[FieldError]:
    for name in message.changed_fields(_SINGLE_ONLY):
        yield FieldError((*where, name), "requires a single message")
    if not message.persist:
        yield FieldError((*where, "persist"), "false requires a single message")


def _too_many(requests: Sequence[PublishRequest]) -> list[FieldError]:
    """Return the problem of a list that has too many recipients."""
    count = 0
    for i, request in enumerate(requests):
        count += len(request.message.logs)
        if count > DELIVERIES_MAX:
            problem = f"exceeds the limit of {DELIVERIES_MAX} recipients per request"
            return [FieldError(("body", i, "to"), problem)]
    return []


def of_single_message(error: Invalid) -> Invalid:
    """Return the problems of the only message of a list as those of a message."""
    return Invalid(
        *(
            FieldError(("body", *where[2:]), problem)
            if where[:2] == ("body", 0)
            else FieldError(where, problem)
            for where, problem in error.errors
        )
    )


def encode_results(
    requests: Sequence[PublishRequest],
    sent: Sequence[Sequence[Position | str | None]],
    *,
    many: bool,
) -> bytes:
    """
    Return the response to a publish request: a result per recipient, in its order.

    Recipients are spelled as in the request, since backends join on them. For a list of
    messages it is a list of such objects. A recipient that has muted the type has no
    id, since it gets no notification.
    """
    results = [
        {"results": list(map(_result, request.to, stored))}
        for request, stored in zip(requests, sent, strict=True)
    ]
    return _encode(results if many else results[0])


def _result(to: Recipient, stored: Position | str | None) -> dict[str, Any]:
    if stored is None:
        return {"to": to, "muted": True}
    if isinstance(stored, str):
        return {"to": to, "id": stored}
    return {"to": to, "id": stored.id}
