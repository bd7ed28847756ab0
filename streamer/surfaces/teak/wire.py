"""
The Teak scheduling API as bytes: parameters in two encodings, answers, refusals.

Decides shapes, limits of parameters, and the table from errors to Teak's answers. Pure:
no I/O, no services. The contract is the page "Direct Notification Scheduling" of Teak's
Server API (read 2026-11) and, for ``/v2/unschedule``, its successor at docs.teak.io.
Where both are silent, this is what holds:

``game_id`` is the app and ``secret_key`` one of its backend keys. A wrong secret is a
404 on ``game_id``, word for word what an unknown game is: nothing can be probed. The
same goes for a player's token. Only calls that got past this are counted, so nobody can
use up a game's rate who does not have its key; of those all are, whatever their answer.

All that is wrong is told at once, by parameter, and nothing is scheduled or registered
then. A scalar that is sent twice has its last value. Identifiers may be JSON numbers.
Other parameters, those of later versions of the API among them, are ignored.

In a form ``user_ids[]=a``, ``user_ids[0]=a`` and ``user_ids=a`` all make a list, once
or repeated. A ``+`` that was not escaped arrives as a blank, and is read as the sign of
an offset where only that can be meant.

``send_time`` is UTC unless it says otherwise; absent, empty or past is at once. ``ids``
has an id for each of ``user_ids``, in their order. A user who is named twice gets one
delivery, and its id stands twice. ``/v2/unschedule`` lists what it cancelled; what is
unknown, sent or cancelled before is left out of it, with 200.

A key without the scope for an operation is a 403 on ``authorization``, which Teak knows
from ``/v2/identify``. What is no JSON and no form is a 422 on ``body``; another media
type 415, a body over its limit 413, and an unavailable store 503, all in its shape.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl

import msgspec
from starlette.responses import Response

from ... import errors
from ...core.schedule import AHEAD_MAX_MS, parse_time
from ...errors import Error, Invalid, Rejected
from ...model import App, Player, parse_app, parse_player

__all__ = [
    "BODY_BYTES_MAX",
    "SOURCE",
    "Credential",
    "InvalidParameters",
    "Parameters",
    "ScheduleRequest",
    "UnknownGame",
    "UnscheduleRequest",
    "encode_ids",
    "parse_form",
    "parse_json",
    "refusal",
]

BODY_BYTES_MAX: Final = 256 * 1024
IDENTIFIER_CHARS_MAX: Final = 255
MESSAGE_CHARS_MAX: Final = 160
USERS_MAX: Final = 100
IDS_MAX: Final = 1_000
FIELDS_MAX: Final = 2_000

SOURCE: Final = "teak"

_PRESENT: Final = "must be present"
_encode: Final = msgspec.json.Encoder().encode
_decode_object: Final = msgspec.json.Decoder(dict[str, Any]).decode  # any JSON
_INDEX: Final = re.compile(r"\[\d{0,4}\]")
_LOST_PLUS: Final = re.compile(r"(:\d\d(\.\d+)?) (\d\d:?\d\d)", re.ASCII)

Errors = dict[str, list[str]]


class InvalidParameters(Rejected):
    """Parameters are wrong. `errors` has every one with all that is said about it."""

    def __init__(self, errors: Errors) -> None:
        self.errors = errors


class UnknownGame(Rejected):
    """No game has that id and secret."""

    def __init__(self, game_id: str) -> None:
        self.game_id = game_id


class Credential(NamedTuple):
    """Who says that they are the game; nothing of it is believed yet."""

    game_id: str
    secret_key: str

    @property
    def app(self) -> App | None:
        return parse_app(self.game_id)


class ScheduleRequest(NamedTuple):
    """``/v2/schedule``, understood. `due_ms` of 0 is at once."""

    identifier: str
    message: str
    players: list[Player]
    due_ms: int


class UnscheduleRequest(NamedTuple):
    """``/v2/unschedule``: either `ids`, or `players` and `identifier`."""

    ids: list[str]
    players: list[Player]
    identifier: str


def parse_json(body: bytes) -> dict[str, Any]:
    """Return the parameters of a JSON body. Raises Wrong."""
    try:
        return _decode_object(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise InvalidParameters({"body": ["must be a JSON dictionary"]}) from None


def parse_form(body: bytes) -> dict[str, Any]:
    """Return the parameters of a form, lists where there are brackets. Raises Wrong."""
    try:
        pairs = parse_qsl(
            body.decode(),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=FIELDS_MAX,
        )
    except ValueError:
        raise InvalidParameters({"body": ["must be form encoded UTF-8"]}) from None
    lists: dict[str, list[str]] = {}
    bracketed = set()
    for name, value in pairs:
        plain = _INDEX.sub("", name)
        lists.setdefault(plain, []).append(value)
        if plain != name:
            bracketed.add(plain)
    found: dict[str, Any] = {}
    for name, values in lists.items():
        is_list = name in bracketed or name in ("user_ids", "ids")
        found[name] = values if is_list else values[-1]
    if isinstance(when := found.get("send_time"), str):
        found["send_time"] = _LOST_PLUS.sub(r"\1+\3", when)
    return found


class Parameters:
    """The parameters of a call; notes what is wrong and goes on, so all is told."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._given = given
        self.wrong: Errors = {}

    def credential(self) -> Credential:
        """Return who calls. What is missing is noted as any other parameter is."""
        return Credential(self._text("game_id"), self._text("secret_key"))

    def schedule(self, now_ms: int) -> ScheduleRequest:
        """Return what ``/v2/schedule`` is asked for; see `done`."""
        return ScheduleRequest(
            self._text("notification_identifier", IDENTIFIER_CHARS_MAX),
            self._text("notification_message", MESSAGE_CHARS_MAX),
            self._players(),
            self._time("send_time", now_ms),
        )

    def unschedule(self, _now_ms: int) -> UnscheduleRequest:
        """Return what ``/v2/unschedule`` is asked for; see `done`."""
        if self._has("ids"):
            for name in ("user_ids", "notification_identifier"):
                if self._has(name):
                    self._note(name, "must not be given together with ids")
            return UnscheduleRequest(self._list("ids", IDS_MAX), [], "")
        if not self._has("user_ids") and not self._has("notification_identifier"):
            self._note(
                "ids",
                "must be present, or user_ids together with notification_identifier",
            )
            return UnscheduleRequest([], [], "")
        identifier = self._text("notification_identifier", IDENTIFIER_CHARS_MAX)
        return UnscheduleRequest([], self._players(), identifier)

    def done(self) -> None:
        """Raise Wrong if anything was."""
        if self.wrong:
            raise InvalidParameters(self.wrong)

    def _has(self, name: str) -> bool:
        return self._given.get(name) not in (None, "", [])

    def _text(self, name: str, chars_max: int = 0) -> str:
        value = _as_text(self._given.get(name, ""))
        if value is None:
            self._note(name, "must be a string")
        elif not value.strip():
            self._note(name, _PRESENT)
        elif chars_max and len(value) > chars_max:
            self._note(name, f"must have at most {chars_max} characters")
        else:
            return value
        return ""

    def _list(self, name: str, most: int) -> list[str]:
        given = self._given.get(name)
        if given in (None, "", []):
            self._note(name, _PRESENT)
            return []
        if not isinstance(given, list):
            self._note(name, "must be an array of strings")
            return []
        if len(given) > most:
            self._note(name, f"must have at most {most} items, has {len(given)}")
            return []
        texts = [_as_text(item) for item in given]
        if any(text is None for text in texts):
            self._note(name, "must be an array of strings")
        return [text for text in texts if text is not None]

    def _players(self) -> list[Player]:
        players = []
        for text in self._list("user_ids", USERS_MAX):
            player = parse_player(text)
            if player is None:
                self._note("user_ids", f"{text[:40]!r} cannot be a player's id")
            else:
                players.append(player)
        return players

    def _time(self, name: str, now_ms: int) -> int:
        if not self._has(name):
            return 0
        given = self._given[name]
        at_ms = parse_time(given.strip()) if isinstance(given, str) else None
        if at_ms is None:
            problem = "must be an ISO8601 time, as in 2018-08-23 17:00:00"
            self._note(name, problem)
        elif at_ms - now_ms > AHEAD_MAX_MS:
            self._note(name, "must be within 30 days from now")
        else:
            return max(0, at_ms)
        return 0

    def _note(self, name: str, problem: str) -> None:
        self.wrong.setdefault(name, []).append(problem)


def _as_text(value: Any) -> str | None:  # any JSON
    # A number that Teak's own examples write as a string is one all the same.
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if value is None:
        return ""
    return value if isinstance(value, str) and _is_unicode(value) else None


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in text)


def encode_ids(ids: Sequence[str]) -> bytes:
    """Return the answer that names deliveries."""
    return _encode({"status": "ok", "ids": ids})


def refusal(error: Error, path: str) -> Response:
    """Return the answer that tells of an error, on the operation at `path`."""
    match error:
        case InvalidParameters(errors=wrong):
            return _errors(422, wrong)
        case UnknownGame(game_id=game_id):
            return _errors(404, {"game_id": [f"Unknown app id {game_id[:100]}"]})
        case errors.RateLimited(per_s=per_s, retry_after_s=retry_after_s):
            problem = f"{path} may only be called {per_s} times per second. "
            return _errors(
                429,
                {"rate_limit": [f"{problem}Please wait a second and try again"]},
                status="rate_limit",
                retry_after_s=retry_after_s,
            )
        case errors.OverQuota(retry_after_s=retry_after_s):
            # Teak has one word for it, whatever there was too much of.
            return _errors(
                429,
                {"rate_limit": [f"{error}. Please wait and try again"]},
                status="rate_limit",
                retry_after_s=retry_after_s,
            )
        case errors.Forbidden():
            return _errors(403, {"authorization": [str(error)]})
        case Invalid(errors=fields) if fields[0].where[0] == "header":
            return _errors(422, {"Idempotency-Key": [fields[0].problem]})
        case Invalid():
            return _errors(422, {"body": [str(error)]})
        case errors.Conflict():
            return _errors(422, {"Idempotency-Key": [str(error)]})
        case errors.Malformed():
            return _errors(422, {"body": [str(error)]})
        case errors.TooLarge():
            return _errors(413, {"body": [str(error)]})
        case errors.Unsupported(header=header):
            return _errors(415, {header: [str(error)]})
        case errors.Unavailable(retry_after_s=retry_after_s):
            told = {"unavailable": [str(error)]}
            return _errors(503, told, retry_after_s=retry_after_s)
    raise AssertionError(f"{error!r} has no place in the table of refusals")


def _errors(
    code: int, told: Errors, *, status: str = "error", retry_after_s: int | None = None
) -> Response:
    headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
    body = _encode({"status": status, "errors": told})
    return Response(body, code, headers, "application/json")
