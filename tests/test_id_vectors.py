"""Ids in Python: every spelling is that of the vectors."""

from __future__ import annotations

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

from .vectors.ids import IDS, INVALID_IDS, IdVector

YEAR_9999_MS = 253_402_300_799_999
"""No later time can be written as RFC 3339."""

each = pytest.mark.parametrize("vector", IDS, ids=str)


@each
def test_an_id_is_written_and_read_as_its_vector(vector: IdVector) -> None:
    order = vector.at_ms, vector.offset, vector.tag

    assert encode_id(*order) == vector.uuid
    assert decode_id(vector.uuid) == decode_id(vector.uuid.upper())
    assert decode_id(vector.uuid) == Position(0, *order)


@each
def test_a_cursor_is_written_and_read_as_its_vector(vector: IdVector) -> None:
    position = Position(vector.epoch, vector.at_ms, vector.offset, vector.tag)

    assert encode_position(position) == vector.cursor
    assert decode_position(vector.cursor) == position
    assert decode_position(vector.uuid) == position._replace(epoch=0)


@pytest.mark.parametrize(
    "vector", [it for it in IDS if it.at_ms <= YEAR_9999_MS], ids=str
)
def test_an_entry_is_written_with_the_id_and_cursor_of_its_vector(
    vector: IdVector,
) -> None:
    entry = Entry(vector.epoch, vector.at_ms, vector.offset, vector.tag, b'"a":1}')
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


def test_ids_sort_by_time_offset_and_tag() -> None:
    for one, other in itertools.combinations(IDS, 2):
        assert (one[1:4] < other[1:4]) == (one.uuid < other.uuid)
        assert (one[1:4] < other[1:4]) == (one.ulid < other.ulid)
