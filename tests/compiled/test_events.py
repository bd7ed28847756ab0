"""Notifications as events: C and Python return the same bytes."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.compiled import events
from streamer.compiled.events import FEW, Form, write_events
from streamer.model import (
    EPOCH_MAX,
    OFFSET_MAX,
    TAG_MAX,
    Entry,
    Notification,
    Position,
    encode_fragment,
    encode_position,
)

from ..vectors.ids import IDS
from .test_entries import FRAGMENT, YEAR_9999_US, said, times
from .twins import WAYS, go

FORMS = [Form(b"", b"", b""), Form(b"<", None, b">"), Form(b"id: ", b"\ndata: ", b"\n")]
AT = Position(7, 1_790_000_000_000_000, 1, 7)

many = st.lists(
    st.builds(
        Entry,
        st.integers(1, EPOCH_MAX),
        times,
        st.integers(1, OFFSET_MAX),
        st.integers(0, TAG_MAX),
        said.map(lambda text: encode_fragment(Notification(body=text))),
    ),
    min_size=FEW,
)


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    go(request.param, events, monkeypatch)


@given(many, st.sampled_from(FORMS))
def test_both_ways_write_the_same(entries: list[Entry], form: Form) -> None:
    with pytest.MonkeyPatch.context() as patch:
        go("in C", events, patch)
        in_c = write_events(entries, form)
        go("in Python", events, patch)

        assert in_c == write_events(entries, form)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("count", [0, 1, FEW - 1, FEW, 100])
def test_each_event_has_its_parts_in_order(count: int, form: Form) -> None:
    before, between, after = form
    entries = [
        Entry(7, AT.at_us + 999 * n, n + 1, n, b'"n":%d}' % n) for n in range(count)
    ]

    assert write_events(entries, form) == [
        b"".join(
            [
                before,
                b"" if between is None else encode_position(entry.position).encode(),
                between or b"",
                entry.json,
                after,
            ]
        )
        for entry in entries
    ]


@pytest.mark.usefixtures("way")
def test_each_event_has_the_id_and_cursor_of_its_vector() -> None:
    vectors = [vector for vector in IDS if vector.at_us <= YEAR_9999_US]
    assert len(vectors) >= FEW

    written = write_events(
        [Entry(v.epoch, v.at_us, v.offset, v.tag, FRAGMENT) for v in vectors],
        Form(b"", b" ", b""),
    )

    for event, vector in zip(written, vectors, strict=True):
        cursor, _, json = event.partition(b" ")
        assert cursor.decode() == vector.cursor
        assert json.startswith(b'{"id":"%b",' % vector.uuid.encode())


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    "odd", [b'"title":"two\nlines"}', b'"title":"\0"}', b"", b"\n\n", b"x" * 100_000]
)
def test_any_fragment_is_passed_on_unchanged(odd: bytes) -> None:
    entries = [Entry(*AT, FRAGMENT), Entry(*AT, odd), *[Entry(*AT, FRAGMENT)] * FEW]

    written = write_events(entries, Form(b"", None, b""))

    assert written == [entry.json for entry in entries]


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    "invalid",
    [
        AT._replace(epoch=2**32),
        AT._replace(epoch=-1),
        AT._replace(at_us=YEAR_9999_US + 1),
        AT._replace(at_us=2**80),
    ],
)
def test_a_position_that_cannot_be_written_is_refused(invalid: Position) -> None:
    entries = [Entry(*AT, FRAGMENT)] * FEW

    with pytest.raises((ValueError, OverflowError, struct.error)):
        write_events([*entries, Entry(*invalid, FRAGMENT)], FORMS[0])
