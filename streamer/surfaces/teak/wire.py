"""
The Teak scheduling API as bytes: parameters in two encodings, and responses.

Decides the types and limits of parameters; `refusals` has the errors. Pure: no I/O, no
services. The specification is the page "Direct Notification Scheduling" of Teak's
Server API (read 2026-11) and its successor at docs.teak.io with its OpenAPI document,
which has ``/v2/unschedule``. Where both specify nothing, these rules apply:

``game_id`` is the app and ``secret_key`` one of its backend keys. The rate counts only
calls with the right secret, whatever their response. So nobody can use up the rate of a
game without its key.

A response reports every problem, by parameter, and then nothing is scheduled or
registered. A repeated scalar has its last value. Identifiers may be JSON numbers. Other
parameters, among them those of later versions of the API, are ignored.

The page requires ``notification_message``, and its successor does not have it: there
the text is on a dashboard. Here the first call with an identifier registers its text,
and later calls may omit it. An empty message is an absent one.

``device_ids`` and ``personalization_data`` are checked, and have no effect: every
delivery goes to the device that the user used last, and texts are not templates. The
response says so in ``errors``, by parameter and user, beside the deliveries; there the
OpenAPI document has the devices that could not be resolved.

In a form, ``user_ids[]=a``, ``user_ids[0]=a`` and ``user_ids=a`` all make a list, once
or repeated. A value may be a list itself: a JSON array, or ids with commas between
them. So an id that contains a comma, or begins with a bracket, a brace or a quotation
mark, must be sent in a JSON array; and ``null`` is no id. An unescaped ``+``
arrives as a space; it is read as the sign of an offset where nothing else is possible.

``send_time`` is UTC unless it has an offset. If it is absent, null or past, the message
is sent at once. An empty one is refused: it is no time, and what was sent by mistake
cannot be taken back. ``ids`` has an id for each of ``user_ids``, in order, and
``scheduled`` the same by user, each spelled as it was sent. A user who is named twice
gets one delivery, whose id is repeated. ``/v2/unschedule`` returns the ids of the
cancelled deliveries; unknown, sent and previously cancelled ones are omitted, with 200.
Beside ``ids`` an identifier is permitted, as in the OpenAPI document, and has no
effect. An empty list is an absent one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
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
    "encode_cancelled",
    "encode_scheduled",
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
_FIRST: Final = f"{_PRESENT} in the first call with a notification_identifier"
_LISTS: Final = ("user_ids", "ids")
_MAPS: Final = {
    "device_ids": "an object with a device id for each user",
    "personalization_data": "an object with an object of strings for each user",
}
_MEMBER: Final = re.compile(rf"({'|'.join(_MAPS)})\[([^\]]*)\](.*)", re.DOTALL)
_WITHOUT_EFFECT: Final = {
    "device_ids": "no device can be chosen: delivered to the one that was used last",
    "personalization_data": "the message has no template tags: it is sent as it is",
}
_encode: Final = msgspec.json.Encoder().encode
_decode_object: Final = msgspec.json.Decoder(dict[str, Any]).decode  # any JSON
_decode_json: Final = msgspec.json.Decoder().decode  # any JSON
_JSON_STARTS: Final = ("[", "{", '"')
_INDEX: Final = re.compile(r"\[\d{0,4}\]")
_LOST_PLUS: Final = re.compile(r"(:\d\d(\.\d+)?) (\d\d:?\d\d)", re.ASCII)


class Credential(NamedTuple):
    """The credential of a call, not yet checked."""

    game_id: str
    secret_key: str

    @property
    def app(self) -> App | None:
        return parse_app(self.game_id)


class ScheduleRequest(NamedTuple):
    """
    A parsed ``/v2/schedule``.

    `message` is None if the registered one is to be sent. `users` are the players as
    the caller spells them. `due_ms` of 0 sends at once.
    """

    identifier: str
    message: str | None
    users: list[str]
    players: list[Player]
    due_ms: int
    without_effect: dict[str, dict[str, str]]
    """What has no effect, and why: by parameter, and by user."""


class UnscheduleRequest(NamedTuple):
    """A parsed ``/v2/unschedule``: either `ids`, or `players` and `identifier`."""

    ids: list[str]
    players: list[Player]
    identifier: str


def parse_json(body: bytes) -> dict[str, Any]:
    """Return the parameters of a JSON body. Raises InvalidParameters."""
    try:
        return _decode_object(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise InvalidParameters({"body": ["must be a JSON dictionary"]}) from None


def parse_form(body: bytes) -> dict[str, Any]:
    """Return the parameters of a form. Raises InvalidParameters."""
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
    maps: dict[str, dict[str, Any]] = {}
    bracketed = set()
    for name, value in pairs:
        if member := _MEMBER.fullmatch(name):
            # As in ``device_ids[7]``, where 7 is a user and no index.
            of, user, key = member.groups()
            maps.setdefault(of, {})[user] = {key: value} if key else value
            continue
        plain = _INDEX.sub("", name)
        lists.setdefault(plain, []).append(value)
        if plain != name:
            bracketed.add(plain)
    parameters: dict[str, Any] = {}
    for name, values in lists.items():
        if name in _LISTS:
            parameters[name] = _listed(values)
        elif name in _MAPS:
            whole = _object(values[-1])
            members = maps.pop(name, {})
            parameters[name] = (
                {**(whole or {}), **members}
                if members and isinstance(whole, dict | None)
                else whole
            )
        else:
            parameters[name] = values if name in bracketed else values[-1]
    parameters |= maps
    if isinstance(when := parameters.get("send_time"), str):
        parameters["send_time"] = _LOST_PLUS.sub(r"\1+\3", when)
    return parameters


def _listed(values: Sequence[str]) -> Any:  # what `Parameters` checks
    """Return the items of a form's values, each of which may be a list."""
    items: list[Any] = []
    for value in values:
        if not value or value == "null":
            continue
        if not value.lstrip().startswith(_JSON_STARTS):
            items += [item.strip() for item in value.split(",")]
            continue
        try:
            decoded = _decode_json(value)
        except (msgspec.DecodeError, RecursionError):
            return value
        if isinstance(decoded, dict):
            return value
        items += decoded if isinstance(decoded, list) else [decoded]
    return items


def _object(value: str) -> Any:  # what `Parameters` checks
    """Return the object that a form's value is as JSON; any other value unchanged."""
    try:
        return _decode_object(value) if value else None
    except (msgspec.DecodeError, RecursionError):
        return value


class Parameters:
    """The parameters of a call. Collects problems until `raise_problems`."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values
        self.problems: Problems = {}

    def credential(self) -> Credential:
        """Return the credential. Missing parts are problems like any other."""
        return Credential(self._text("game_id"), self._text("secret_key"))

    def schedule(self, now_ms: int) -> ScheduleRequest:
        """Return the parsed ``/v2/schedule``, valid if there are no problems."""
        identifier = self._text("notification_identifier", IDENTIFIER_CHARS_MAX)
        message = None
        if not identifier or self._values.get("notification_message") not in (None, ""):
            message = self._text("notification_message", MESSAGE_CHARS_MAX)
        self._check_map("device_ids", _is_text)
        self._check_map("personalization_data", _is_text_map)
        users, players = self._users()
        due_ms = self._time("send_time", now_ms)
        said = {
            name: dict.fromkeys(named, why)
            for name, why in _WITHOUT_EFFECT.items()
            if (named := self._users_in(name, users, players))
        }
        return ScheduleRequest(identifier, message, users, players, due_ms, said)

    def require_message(self) -> None:
        """Note that the message is absent and none is registered."""
        self._note("notification_message", _FIRST)

    def unschedule(self, _now_ms: int) -> UnscheduleRequest:
        """Return the parsed ``/v2/unschedule``, valid if there are no problems."""
        if self._has("ids"):
            if self._has("user_ids"):
                self._note("user_ids", "cannot be combined with ids")
            if self._has("notification_identifier"):
                self._text("notification_identifier", IDENTIFIER_CHARS_MAX)
            return UnscheduleRequest(self._list("ids", IDS_MAX), [], "")
        if not self._has("user_ids") and not self._has("notification_identifier"):
            self._note(
                "ids",
                "must be present, or user_ids together with notification_identifier",
            )
            return UnscheduleRequest([], [], "")
        identifier = self._text("notification_identifier", IDENTIFIER_CHARS_MAX)
        return UnscheduleRequest([], self._users()[1], identifier)

    def raise_problems(self) -> None:
        """Raise InvalidParameters if there are problems."""
        if self.problems:
            raise InvalidParameters(self.problems)

    def _has(self, name: str) -> bool:
        return self._values.get(name) not in (None, "", [])

    def _text(self, name: str, chars_max: int = 0) -> str:
        value = _as_text(self._values.get(name, ""))
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
        value = self._values.get(name)
        if value in (None, "", []):
            self._note(name, _PRESENT)
            return []
        if not isinstance(value, list):
            self._note(name, "must be an array of strings")
            return []
        if len(value) > most:
            self._note(name, f"must have at most {most} items, has {len(value)}")
            return []
        texts = [_as_text(item) for item in value]
        if any(text is None for text in texts):
            self._note(name, "must be an array of strings")
        return [text for text in texts if text is not None]

    def _users(self) -> tuple[list[str], list[Player]]:
        users, players = self._list("user_ids", USERS_MAX), []
        for text in users:
            player = parse_player(text)
            if player is None:
                self._note("user_ids", f"{text[:40]!r} is not a valid player id")
            else:
                players.append(player)
        return users, players

    def _users_in(
        self, name: str, users: Sequence[str], players: Sequence[Player]
    ) -> list[str]:
        """Return those of the users who are keys of a map, in any spelling."""
        value = self._values.get(name)
        if self.problems or not isinstance(value, dict):
            return []
        # An empty object asks for nothing.
        keys = {parse_player(key) for key, item in value.items() if item != {}}
        pairs = zip(users, players, strict=True)
        return [user for user, player in pairs if player in keys]

    def _check_map(self, name: str, is_valid: Callable[[Any], bool]) -> None:
        value = self._values.get(name)
        if value is None:
            return
        if not isinstance(value, dict) or not all(map(is_valid, value.values())):
            self._note(name, f"must be {_MAPS[name]}")

    def _time(self, name: str, now_ms: int) -> int:
        value = self._values.get(name)
        if value is None:
            return 0
        at_ms = parse_time(value.strip()) if isinstance(value, str) else None
        if at_ms is None:
            problem = "must be an ISO8601 time, as in 2018-08-23 17:00:00"
            self._note(name, problem)
        elif at_ms - now_ms > AHEAD_MAX_MS:
            self._note(name, "must be within 30 days from now")
        else:
            return max(0, at_ms)
        return 0

    def _note(self, name: str, problem: str) -> None:
        self.problems.setdefault(name, []).append(problem)


def _as_text(value: Any) -> str | None:  # any JSON
    # Teak's own examples have numbers as strings, so both are accepted.
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if value is None:
        return ""
    return value if isinstance(value, str) and _is_unicode(value) else None


def _is_text(value: Any) -> bool:  # any JSON
    return value is not None and _as_text(value) is not None


def _is_text_map(value: Any) -> bool:  # any JSON
    return isinstance(value, dict) and all(map(_is_text, value.values()))


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in text)


def encode_scheduled(request: ScheduleRequest, ids: Sequence[str]) -> bytes:
    """Return the response to a request, with the ids of its deliveries in order."""
    scheduled = dict(zip(request.users, ids, strict=True))
    body: dict[str, Any] = {"status": "ok", "ids": ids, "scheduled": scheduled}
    if request.without_effect:
        body["errors"] = request.without_effect
    return _encode(body)


def encode_cancelled(ids: Sequence[str]) -> bytes:
    """Return a response with the ids of cancelled deliveries."""
    return _encode({"status": "ok", "ids": ids})
