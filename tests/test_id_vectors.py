"""Ids in Python: every spelling is that of the vectors."""

from __future__ import annotations

import base64
import itertools

import pytest

from streamer.model import (
    Entry,
    Position,
    decode_id,
    decode_position,
    encode_id,
    encode_position,
    parse_player,
)
from streamer.surfaces.lootlocker.wire import encode_ulid

from .clock import NOON_US
from .vectors.ids import IDS, INVALID_IDS, IdVector

YEAR_9999_US = 253_402_300_799_999_999
"""No later time can be written as RFC 3339."""

each = pytest.mark.parametrize("vector", IDS, ids=str)


@each
def test_an_id_is_written_and_read_as_its_vector(vector: IdVector) -> None:
    order = vector.at_us, vector.offset, vector.tag

    assert encode_id(*order) == vector.uuid
    assert decode_id(vector.uuid) == decode_id(vector.uuid.upper())
    assert decode_id(vector.uuid) == Position(0, *order)


@each
def test_a_cursor_is_written_and_read_as_its_vector(vector: IdVector) -> None:
    position = Position(vector.epoch, vector.at_us, vector.offset, vector.tag)

    assert encode_position(position) == vector.cursor
    assert decode_position(vector.cursor) == position
    assert decode_position(vector.uuid) == position._replace(epoch=0)


@pytest.mark.parametrize(
    "vector", [it for it in IDS if it.at_us <= YEAR_9999_US], ids=str
)
def test_an_entry_is_written_with_the_id_and_cursor_of_its_vector(
    vector: IdVector,
) -> None:
    entry = Entry(vector.epoch, vector.at_us, vector.offset, vector.tag, b'"a":1}')
    cursor, text = entry.cursor_and_json

    assert cursor.decode() == vector.cursor
    assert text == entry.json
    assert text.startswith(b'{"id":"%b",' % vector.uuid.encode())


@each
def test_a_ulid_is_another_spelling_of_the_same_bits(vector: IdVector) -> None:
    assert encode_ulid(vector.uuid) == vector.ulid
    assert parse_player(vector.ulid) == vector.uuid


@pytest.mark.parametrize(("what", "text"), INVALID_IDS)
def test_an_invalid_id_is_refused(what: str, text: str) -> None:
    assert decode_id(text) is None, what


def test_every_microsecond_has_an_id_of_its_own() -> None:
    texts = [encode_id(NOON_US + us, 1, 2) for us in range(1_000)]

    assert texts == sorted(set(texts))
    assert [decode_id(text) for text in texts] == [
        Position(0, NOON_US + us, 1, 2) for us in range(1_000)
    ]


def test_only_the_fractions_of_whole_microseconds_are_of_ids() -> None:
    head, _, tail = encode_id(NOON_US, 1, 2).partition("-7000-")
    texts = [f"{head}-7{fraction:03x}-{tail}" for fraction in range(4_096)]

    places = [place for text in texts if (place := decode_id(text))]

    assert [place.at_us for place in places] == [NOON_US + us for us in range(1_000)]


def test_a_cursor_without_a_whole_microsecond_is_refused() -> None:
    valid = encode_position(Position(7, NOON_US, 1, 2))
    raw = bytearray(base64.urlsafe_b64decode(valid + "="))
    raw[11] |= 1  # The fraction is 1/4096 of a millisecond.

    assert decode_position(valid) == Position(7, NOON_US, 1, 2)
    assert decode_position(base64.urlsafe_b64encode(raw).decode()[:27]) is None


def test_ids_sort_by_time_offset_and_tag() -> None:
    for one, other in itertools.combinations(IDS, 2):
        assert (one[1:4] < other[1:4]) == (one.uuid < other.uuid)
        assert (one[1:4] < other[1:4]) == (one.ulid < other.ulid)
