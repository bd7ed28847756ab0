"""
The Teak scheduling API as bytes: parameters in two encodings, and answers.

Decides shapes and limits of parameters; `refusals` has the errors. Pure: no I/O, no
services. The contract is the page "Direct Notification Scheduling" of Teak's
Server API (read 2026-11) and, for ``/v2/unschedule``, its successor at docs.teak.io.
Where both are silent, this is what holds:

``game_id`` is the app and ``secret_key`` one of its backend keys. Only calls with a
right secret are counted, so nobody can use up a game's rate who does not have its key;
of those all are, whatever their answer.

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
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl

import msgspec

from ...core.schedule import AHEAD_MAX_MS, parse_time
from ...model import App, Player, parse_app, parse_player
from .refusals import InvalidParameters, Problems

__all__ = [
    "BODY_BYTES_MAX",
    "SOURCE",
    "Credential",
    "Parameters",
    "ScheduleRequest",
    "UnscheduleRequest",
    "encode_ids",
    "parse_form",
    "parse_json",
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
        self.wrong: Problems = {}

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
