"""Entries as JSON: C and Python return the same bytes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.compiled import entries
from streamer.compiled.entries import FEW, Row, join_entries
from streamer.model import (
    OFFSET_MAX,
    TAG_MAX,
    Notification,
    encode_fragment,
    encode_id,
    iso_time,
)

from ..vectors.ids import IDS
from .twins import WAYS, go

YEAR_9999_MS = 253_402_300_799_999
YEAR_9999_US = YEAR_9999_MS * 1_000 + 999
FRAGMENT = b'"title":"Hi"}'

times = st.integers(0, YEAR_9999_US)
said = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
rows = st.tuples(
    st.tuples(times, st.integers(1, OFFSET_MAX)).map(lambda at: b"%d-%d" % at),
    st.integers(0, TAG_MAX).map(lambda tag: b"%d" % tag),
    said.map(lambda text: encode_fragment(Notification(body=text))),
    st.just(0) | st.integers(0, YEAR_9999_MS),
)


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    go(request.param, entries, monkeypatch)


def row(
    place: bytes = b"1790000000000000-1",
    tag: bytes = b"7",
    fragment: bytes = FRAGMENT,
    read_at_ms: int = 0,
) -> Row:
    return place, tag, fragment, read_at_ms


@given(st.lists(rows, min_size=FEW))
def test_both_ways_write_the_same(given_rows: list[Row]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        go("in C", entries, patch)
        in_c = join_entries(given_rows)
        go("in Python", entries, patch)

        assert in_c == join_entries(given_rows)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("count", [0, 1, FEW - 1, FEW, 20])
def test_each_entry_has_id_time_and_fragment(count: int) -> None:
    first_us = 1_790_000_000_000_000
    given_rows = [
        row(b"%d-%d" % (first_us + 999 * n, n + 1), b"%d" % n) for n in range(count)
    ]

    written = json.loads(b"[%b]" % join_entries(given_rows))

    assert written == [
        {
            "id": encode_id(first_us + 999 * n, n + 1, n),
            "created_at": iso_time((first_us + 999 * n) // 1_000),
            "title": "Hi",
        }
        for n in range(count)
    ]


@pytest.mark.usefixtures("way")
def test_each_entry_has_the_id_of_its_vector() -> None:
    vectors = [vector for vector in IDS if vector.at_us <= YEAR_9999_US]
    assert len(vectors) >= FEW

    text = join_entries(
        [row(v.stream_id.encode(), b"%d" % v.tag, FRAGMENT) for v in vectors]
    )

    ids = [entry["id"] for entry in json.loads(b"[%b]" % text)]
    assert ids == [vector.uuid for vector in vectors]


@pytest.mark.usefixtures("way")
def test_read_entries_have_the_time() -> None:
    marks = [0, 1_790_000_000_001, 0, 999, 0]

    written = json.loads(
        b"[%b]" % join_entries([row(read_at_ms=mark) for mark in marks])
    )

    assert [entry.get("read_at") for entry in written] == [
        None,
        "2026-09-21T14:13:20.001Z",
        None,
        "1970-01-01T00:00:00.999Z",
        None,
    ]


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    "odd", [b'"title":"two\nlines"}', b'"title":"\0"}', b"", b"\n\n", b"x" * 100_000]
)
def test_unexpected_fragments_are_passed_on_unchanged(
    odd: bytes,
) -> None:
    given_rows = [row(), row(fragment=odd), *[row()] * FEW]

    parts = [join_entries([one]) for one in given_rows]

    assert join_entries(given_rows) == b",".join(parts)
    assert parts[1].endswith(b'.000Z",' + odd)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    ("place", "tag"),
    [
        (b"1790000000000000", b"7"),
        (b"1790000000000000-", b"7"),
        (b"-1", b"7"),
        (b"1790000000000000-x", b"7"),
        (b"1790000000000000-1", b""),
        (b"1790000000000000-1", b"0x7"),
        (b"253402300800000000-1", b"7"),
        (b"99999999999999999999999999-1", b"7"),
    ],
)
def test_an_invalid_stream_id_or_tag_is_an_error(place: bytes, tag: bytes) -> None:
    with pytest.raises((ValueError, OverflowError)):
        join_entries([*[row()] * FEW, row(place, tag)])
