from __future__ import annotations

import msgspec
import pytest

from streamer.core.streams.cursor import Cursor
from streamer.errors import Invalid
from streamer.model import (
    ZERO,
    Entry,
    Notification,
    Position,
    Property,
    Resource,
    encode_fragment,
    encode_position,
)
from streamer.surfaces.rallyhere import wire

TEXT_MAX = 4_096


def shown(notification: Notification) -> dict[str, object]:
    """Return a notification in RallyHere's form."""
    entry = Entry(7, 1_700_000_000_123_999, 1, 5, encode_fragment(notification))
    written: dict[str, object] = msgspec.json.decode(wire.encode_notification(entry))
    return written


def test_fields_come_in_the_order_of_the_page() -> None:
    written = shown(Notification(body="b", resource=Resource("/r", "e")))

    assert list(written) == [
        "message",
        "rh_url",
        "custom_data",
        "etag",
        "notification_id",
        "created",
    ]
    assert written["created"] == "2023-11-14T22:13:20.123Z"


@pytest.mark.parametrize(
    ("notification", "message"),
    [
        (Notification(body="b", title="t", type="y"), "b"),
        (Notification(body="", title="t", type="y"), ""),
        (Notification(title="t", type="y"), "t"),
        (Notification(title="", type="y"), "y"),
        (Notification(type="y"), "y"),
        (Notification(data=None), ""),
    ],
)
def test_a_message_is_the_body_or_title_or_type(
    notification: Notification, message: str
) -> None:
    assert shown(notification)["message"] == message


@pytest.mark.parametrize("character", ["x", "é", "\U0001f600"])
def test_a_long_text_is_cut_at_a_character(character: str) -> None:
    fits = character * TEXT_MAX
    cut = character * (TEXT_MAX - 1) + "…"

    for text, expected in ((fits, fits), (fits + character, cut)):
        written = shown(
            Notification(
                body=text,
                resource=Resource(text),
                properties=(Property("k", text),),
            )
        )
        assert written["message"] == expected
        assert written["rh_url"] == expected
        assert written["custom_data"] == {"k": expected}


def test_empty_values_are_omitted() -> None:
    written = shown(
        Notification(
            body="b",
            title="",
            properties=(Property("k", ""), Property("l", "v")),
            resource=Resource("", ""),
        )
    )

    assert written["custom_data"] == {"l": "v"}
    assert "rh_url" not in written
    assert "etag" not in written


def test_a_property_takes_precedence_over_the_type() -> None:
    written = shown(Notification(type="t", properties=(Property("type", "mine"),)))

    assert written["custom_data"] == {"type": "mine"}


def test_an_etag_depends_on_the_query_and_the_bytes() -> None:
    query = wire.PageQuery.parse({})
    other = wire.PageQuery.parse({"page_size": "11"})

    etag = query.etag(b"{}")

    assert etag == wire.PageQuery.parse({"start_at": ""}).etag(b"{}")
    assert etag != query.etag(b"{ }")
    assert etag != other.etag(b"{}")


def test_an_explicit_default_is_the_same_page() -> None:
    assert wire.PageQuery.parse({"page_size": "10", "start_at": ""}) == (
        wire.PageQuery.parse({})
    )


def test_a_cursor_and_its_id_name_one_position() -> None:
    place = Position(7, 1_700_000_000_123, 9, 5)
    entry = Entry(*place, b"")

    by_cursor = wire.PageQuery.parse({"start_at": encode_position(place)}).start_at
    by_id = wire.PageQuery.parse({"start_at": entry.id}).start_at

    assert by_cursor == Cursor(place)
    assert by_id == Cursor(place._replace(epoch=0))


def test_the_position_before_every_entry_is_a_cursor() -> None:
    query = wire.PollQuery.parse({"exclude_before": encode_position(ZERO)})

    assert query.start == Cursor(ZERO)


def test_every_invalid_parameter_is_reported() -> None:
    with pytest.raises(Invalid) as caught:
        wire.PollQuery.parse(
            {
                "max_page_size": "0",
                "offset_reset_strategy": "x",
                "deadline": "901",
            }
        )

    assert [error.where[1] for error in caught.value.errors] == [
        "max_page_size",
        "offset_reset_strategy",
        "deadline",
    ]
