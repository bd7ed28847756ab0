"""
Notifications, entries, positions, ids: the nouns, and the limits of fields.

Knows how they are written as text and bytes: the id, the cursor and the stored
fragment. Knows nothing of Redis, HTTP, connections or the vendors' terms.

The id of an entry is its own locator. It is a UUIDv7 that contains the entry's point in
the log::

    48 bits   4   12 bits   2   32 bits   30 bits
    ms       ver  fraction var  offset    tag

The time is in microseconds: `fraction` is the part of a millisecond in units of 1/4096,
rounded down (RFC 9562, section 6.2, method 3). Not every fraction is that of a whole
number of microseconds, and a UUID with another one is no id. So an id leads to its
entry without an index, and ids sort by time, offset and tag. The tag is random and
belongs to the entry alone: it reveals a store that lost its tail in a failover and has
assigned an offset a second time.

A position is a point in one log. `epoch` identifies the log's incarnation; the other
fields identify the last entry that the reader has. Encoded as an opaque string it is
the epoch's 4 bytes and the id's 16; a cursor begins with one. A bare id is a valid
cursor, too. Its epoch is 0, which means unknown and skips that comparison.
"""

from __future__ import annotations

import base64
import binascii
import enum
import os
import random
import re
import struct
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, Literal, NamedTuple

import msgspec

from .names import (
    PLAYER_CHARS_MAX,
    TOPIC_PATTERN,
    App,
    Player,
    Topic,
    parse_app,
    parse_player,
    parse_topic,
)

__all__ = [
    "EPOCH_MAX",
    "PLAYER_CHARS_MAX",
    "TOPIC_PATTERN",
    "ZERO",
    "App",
    "Entry",
    "Gap",
    "Log",
    "Notification",
    "Player",
    "Position",
    "Priority",
    "Property",
    "Resource",
    "Topic",
    "all_plain",
    "audience_log",
    "decode_fragment",
    "decode_id",
    "decode_position",
    "encode_fragment",
    "encode_id",
    "encode_position",
    "entry_json",
    "everyone_log",
    "iso_time",
    "new_epoch",
    "new_name",
    "new_tag",
    "notification_id_of",
    "notification_json",
    "parse_app",
    "parse_player",
    "parse_topic",
    "topic_log",
]


class Log(NamedTuple):
    """
    A log, by name: a player's, or an audience's (`topic_log`, `everyone_log`).

    `name` is unique within the app and part of the log's keys in the store. It is the
    player's name or, after a control character that no player's name can contain, the
    audience's.
    """

    app: App
    name: str

    @property
    def is_audience(self) -> bool:
        return self.name[0] == _AUDIENCE

    @property
    def player(self) -> Player:
        """The player whose log it is. An audience's log has none."""
        assert not self.is_audience
        return Player(self.name)

    @property
    def audience(self) -> str:
        """The audience's name without that character; see `audience_log`."""
        assert self.is_audience
        return self.name[1:]

    @property
    def topic(self) -> Topic | None:
        """The topic whose log it is, None for a player's or everyone's."""
        return Topic(self.name[2:]) if self.name.startswith(_TOPIC) else None


# Every reader of an audience keeps the audience's log: they share one object.
@lru_cache(maxsize=1024)
def audience_log(app: App, name: str) -> Log:
    """Return the log of the audience that `Log.audience` names."""
    return Log(app, _AUDIENCE + name)


@lru_cache(maxsize=1024)
def topic_log(app: App, topic: Topic) -> Log:
    """Return the log of a topic."""
    return Log(app, _TOPIC + topic)


@lru_cache(maxsize=1024)
def everyone_log(app: App) -> Log:
    """Return the log of notifications to every player of the app."""
    return Log(app, _EVERYONE)


_AUDIENCE: Final = "\x01"
_TOPIC: Final = _AUDIENCE + "t"
_EVERYONE: Final = _AUDIENCE + "e"

Priority = Literal["low", "medium", "high", "emergency"]

EPOCH_MAX: Final = 2**32 - 1
OFFSET_MAX: Final = 2**32 - 1
TAG_MAX: Final = 2**30 - 1
AT_US_MAX: Final = 2**48 * 1000 - 1
"""The last time of an id. Scripts calculate with times below 2**53, until 2255."""

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII)
_URL_SAFE = bytes.maketrans(b"+/", b"-_")

CURSOR_CHARS_MAX: Final = 2_048


class Resource(msgspec.Struct, frozen=True, omit_defaults=True):
    """The resource of a notification: a path, and its ETag at that time."""

    url: str
    etag: str | None = None


class Property(msgspec.Struct, frozen=True):
    """A key and a value in a notification's ordered list of properties."""

    key: str = ""
    value: str = ""


class Notification(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """
    A notification as published: immutable, and without the log's id and time.

    `data` is any JSON value; null is a value, and `msgspec.UNSET` is its absence.
    A field that is absent on the wire has the default given here.
    """

    type: str | None = None
    title: str | None = None
    body: str | None = None
    data: Any = msgspec.UNSET  # any JSON value, kept as published
    properties: tuple[Property, ...] = ()
    priority: Priority = "medium"
    resource: Resource | None = None
    source: str | None = None
    """The surface on which it was published, set by the server."""
    due_at: str | None = None
    """When it was due, if it was sent much later; RFC 3339."""
    expires_at: str | None = None
    """When it expires; RFC 3339."""
    collapse_key: str | None = None
    """The next notification with the same key replaces this one."""
    topic: str | None = None
    """The topic to which it was sent, set by the server."""
    everyone: bool = False
    """Whether it was sent to every player of the app, set by the server."""


class Position(NamedTuple):
    """A point in one log, directly after the entry with this offset and tag."""

    epoch: int
    at_us: int
    offset: int
    tag: int

    @property
    def is_zero(self) -> bool:
        """Whether it is before the first entry; valid in every epoch."""
        return self.offset == 0

    @property
    def order(self) -> tuple[int, int, int]:
        """Time, offset and tag: the sort key for merging several logs."""
        return self[1:]

    @property
    def id(self) -> str:
        """Id of the entry at this position."""
        return encode_id(self.at_us, self.offset, self.tag)


ZERO: Final = Position(0, 0, 0, 0)


class Gap(enum.Enum):
    """Why entries after a position cannot be delivered."""

    EPOCH = "epoch"
    """The log was lost, and another one has begun."""

    AHEAD = "ahead"
    """The position is beyond the newest entry: the log has lost its tail."""

    DIVERGED = "diverged"
    """The offset has another entry: the log has lost its tail and grown again."""

    TRIMMED = "trimmed"
    """Entries after the position were trimmed, by age or by number."""

    TOO_FAR = "too_far"
    """More entries follow than a stream replays; the pages have them."""


class Entry(NamedTuple):
    """
    A notification at its position in a log, or a control entry.

    `fragment` is as `encode_fragment` returns it. An entry with a `device` is left out
    by streams on the player's other devices; pages show it. An entry that `withdraws`
    another is no notification: it is sent to streams and shown nowhere. An entry that
    has `ended` was withdrawn, replaced or has expired; readers pass over it. `at_us` is
    when it was stored, Unix time in microseconds by the store's clock. It never goes
    back within a log.
    """

    epoch: int
    at_us: int
    offset: int
    tag: int
    fragment: bytes
    device: str = ""
    replaces: str = ""
    """Id of the notification that this one replaces."""
    withdraws: str = ""
    """Id of the notification that this entry withdraws."""
    ended: bool = False

    @property
    def position(self) -> Position:
        return Position(self.epoch, self.at_us, self.offset, self.tag)

    @property
    def order(self) -> tuple[int, int, int]:
        """See `Position.order`."""
        return self.at_us, self.offset, self.tag

    @property
    def at_ms(self) -> int:
        """The time in ms, rounded down, as all surfaces write it."""
        return self.at_us // 1_000

    @property
    def id(self) -> str:
        return encode_id(self.at_us, self.offset, self.tag)

    @property
    def is_for_all(self) -> bool:
        """Whether its event is the same for every reader of an audience."""
        return not (self.device or self.replaces)

    @property
    def is_shown(self) -> bool:
        """Whether it is a notification that has not ended."""
        return not self.ended and not self.withdraws

    @property
    def json(self) -> bytes:
        """The notification as one line of JSON, with id and time first."""
        return entry_json(self.at_us, self.offset, self.tag, self.fragment)

    @property
    def cursor_and_json(self) -> tuple[bytes, bytes]:
        """The encoded position, with which the entry's cursor begins, and the JSON."""
        epoch, at_us, offset, tag, fragment = self[:5]
        cursor = _cursor(_CURSOR_BYTES.pack(epoch, *_words(at_us, offset, tag)))
        return cursor, entry_json(at_us, offset, tag, fragment)


_PLAIN: Final = ("", "", "", False)
"""The optional fields of most entries."""


def all_plain(entries: Sequence[Entry]) -> bool:
    """Whether all are notifications for every device that replace none, not ended."""
    return [entry[5:] for entry in entries].count(_PLAIN) == len(entries)


# Seeded by the system. The global generator may have been seeded by anyone.
_names: Final = random.Random()
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Notification)


def encode_fragment(notification: Notification) -> bytes:
    """
    Return the canonical JSON of `notification` without its opening brace.

    The publisher encodes a notification once; nodes only prepend id and time
    (`Entry.json`). The result is one line: JSON escapes every control character, so no
    field can break out of an SSE event or a log line.

    Raises:
        ValueError: No field is set, or `data` cannot be written as JSON.
    """
    encoded = _encoder.encode(notification)
    if encoded == b"{}":
        raise ValueError("a notification without any field")
    return encoded[1:]


def notification_json(notification_id: str, at_ms: int, fragment: bytes) -> bytes:
    """Return the notification of a fragment as one line of JSON."""
    return b'{"id":"%b","created_at":"%b",%b' % (
        notification_id.encode(),
        iso_time(at_ms).encode(),
        fragment,
    )


def notification_id_of(json: bytes) -> bytes:
    """Return the id in the JSON of a notification, a result of `notification_json`."""
    return json[7:43]


def entry_json(at_us: int, offset: int, tag: int, fragment: bytes) -> bytes:
    """Do the same as `notification_json` for an entry of a log, in one step."""
    seconds, us = divmod(at_us, 1_000_000)
    high, low = _words(at_us, offset, tag)
    return b'{"id":"%08x-%04x-%04x-%04x-%012x","created_at":"%b.%03dZ",%b' % (
        high >> 32,
        high >> 16 & 0xFFFF,
        high & 0xFFFF,
        low >> 48,
        low & 0xFFFFFFFFFFFF,
        _iso_second_bytes(seconds),
        us // 1_000,
        fragment,
    )


def decode_fragment(fragment: bytes) -> Notification:
    """Return the notification that `encode_fragment` wrote."""
    return _decoder.decode(b"{" + fragment)


def new_epoch() -> int:
    """Return a random epoch, never 0."""
    return _random_word() % EPOCH_MAX + 1


def new_tag() -> int:
    """Return 30 random bits."""
    return _random_word() >> 2


def new_tags(count: int) -> list[int]:
    """Return `count` times 30 random bits; faster than so many calls of `new_tag`."""
    if count == 1:
        return [new_tag()]
    words = struct.unpack(f"={count}I", os.urandom(4 * count))
    return [word >> 2 for word in words]


_WORDS: Final = struct.Struct("=256I")
_random_words: Final[list[int]] = []
# A child process would otherwise assign the tags of its parent.
os.register_at_fork(after_in_child=_random_words.clear)


def _random_word() -> int:
    """Return 32 random bits of the kernel, which is asked for many at once."""
    while True:
        try:
            return _random_words.pop()
        except IndexError:
            _random_words.extend(_WORDS.unpack(os.urandom(_WORDS.size)))


def new_name() -> str:
    """Return 16 random hexadecimal digits, unique but no secret."""
    return f"{_names.getrandbits(64):016x}"


def encode_id(at_us: int, offset: int, tag: int) -> str:
    """Return the id of an entry as a dashed lower-case UUID."""
    digits = _ID_BYTES.pack(*_checked_words(at_us, offset, tag)).hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def decode_id(text: str) -> Position | None:
    """
    Return the position in an id, with epoch 0, or None if `text` is not such an id.

    Accepts a dashed UUID in either case. Does not say whether the entry exists.
    """
    if not _UUID.fullmatch(text):
        return None
    return _unpack(0, int(text.replace("-", ""), 16))


def encode_position(position: Position) -> str:
    """Return `position` as an opaque string of 27 characters, safe in a URL."""
    if position.is_zero:
        raw = bytes(20)
    else:
        _, at_us, offset, tag = position
        raw = _CURSOR_BYTES.pack(position.epoch, *_checked_words(at_us, offset, tag))
    return _cursor(raw).decode()


def decode_position(text: str) -> Position | None:
    """
    Return the position in an encoded position or a bare notification id, or None.

    The result is only a hint. It is compared with the log before it is used, so a
    forged one can only lose its sender's own position.
    """
    if len(text) != 27:
        return decode_id(text)
    try:
        raw = base64.b64decode(text.encode("ascii") + b"=", b"-_", validate=True)
    except (UnicodeEncodeError, binascii.Error):
        return None
    if len(raw) != 20 or _cursor(raw).decode() != text:
        return None  # The last digit is used by half: it has other spellings.
    if not any(raw):
        return ZERO
    return _unpack(int.from_bytes(raw[:4]), int.from_bytes(raw[4:]))


def iso_time(at_ms: int) -> str:
    """Return UTC milliseconds as RFC 3339 text, e.g. ``2026-11-20T22:52:39.123Z``."""
    seconds, ms = divmod(at_ms, 1000)
    return f"{_iso_second(seconds)}.{ms:03d}Z"


@lru_cache(maxsize=256)
def _iso_second(seconds: int) -> str:
    # All entries of one second share this text. Formatting it for each of them was a
    # seventh of a node's work for a message to one player (bench.unicast).
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"


@lru_cache(maxsize=256)
def _iso_second_bytes(seconds: int) -> bytes:
    return _iso_second(seconds).encode()


_ID_BYTES: Final = struct.Struct(">QQ")
_CURSOR_BYTES: Final = struct.Struct(">IQQ")


def _cursor(raw: bytes) -> bytes:
    # 20 bytes are 27 digits and one "=".
    return binascii.b2a_base64(raw, newline=False).translate(_URL_SAFE)[:27]


def _checked_words(at_us: int, offset: int, tag: int) -> tuple[int, int]:
    assert 0 < offset <= OFFSET_MAX
    assert 0 <= tag <= TAG_MAX
    assert 0 <= at_us <= AT_US_MAX
    return _words(at_us, offset, tag)


def _words(at_us: int, offset: int, tag: int) -> tuple[int, int]:
    """Return the two halves of an id, 64 bits each."""
    ms, us = divmod(at_us, 1_000)
    high = ms << 16 | 0x7 << 12 | us * 4_096 // 1_000
    return high, 0b10 << 62 | offset << 30 | tag


def _unpack(epoch: int, number: int) -> Position | None:
    if number >> 76 & 0xF != 0x7 or number >> 62 & 0b11 != 0b10:
        return None
    fraction, offset = number >> 64 & 0xFFF, number >> 30 & OFFSET_MAX
    # The microseconds of which this can be the fraction: it was rounded down.
    us = (fraction * 1_000 + 4_095) // 4_096
    if offset == 0 or us * 4_096 // 1_000 != fraction:
        return None
    return Position(epoch, (number >> 80) * 1_000 + us, offset, number & TAG_MAX)
