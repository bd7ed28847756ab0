"""Random input for every decoder of external data."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streamer.core.streams.batch_writer import ONE_BY_ONE, BatchWriter
from streamer.core.streams.client_messages import MarkRead
from streamer.core.streams.codec import WebSocketCodec
from streamer.core.streams.session import Session, SessionLimits
from streamer.core.streams.subscription import Start
from streamer.errors import Disconnect, Invalid, Malformed
from streamer.model import (
    Position,
    decode_id,
    decode_position,
    encode_position,
    parse_app,
    parse_player,
)
from streamer.surfaces.gateway import wire as gateway
from streamer.surfaces.lootlocker import wire as lootlocker
from streamer.surfaces.native import credentials
from streamer.surfaces.native.campaigns import wire as campaign_wire
from streamer.surfaces.native.inboxes import wire as inbox_wire
from streamer.surfaces.native.publishing import message_body, schedule_wire
from streamer.surfaces.native.publishing import wire as publish_wire
from streamer.surfaces.rallyhere import wire as rallyhere
from streamer.surfaces.walletwerk import wire as walletwerk
from streamer.transports.web.requests import decode_body

pytestmark = pytest.mark.row("F4")

LIMITS = SessionLimits(heartbeat_s=25, send_buffer_bytes=10_000, send_age_s=10)

BODIES = [
    message_body.PublishBody,
    publish_wire.PublishBatch,
    schedule_wire.MoveBody,
    inbox_wire.MarkBody,
    inbox_wire.MarkUnreadBody,
    inbox_wire.AckBody,
    inbox_wire.UnreadBody,
    credentials.TokenBody,
    credentials.TicketBody,
    campaign_wire.CampaignBody,
    campaign_wire.Cards,
    campaign_wire.StatusBody,
    rallyhere.NotificationCreates,
    lootlocker.LootLockerSendBody,
    lootlocker.LootLockerMarkBody,
    gateway.GatewayMarkBody,
    walletwerk.CampaignSendBody,
    walletwerk.CampaignScheduleBody,
]

WORDS = [
    *("to", "players", "title", "body", "data", "type", "priority", "properties"),
    *("ids", "up_to", "all", "read", "auth", "token", "ping", "pong", "ref"),
    *("notifications", "message", "rh_url", "custom_data", "etag", "at", "key"),
]
leaves: st.SearchStrategy[Any] = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(WORDS)
)
documents = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(WORDS) | st.text(), inner, max_size=6)
    ),
    max_leaves=12,
)
texts = st.text() | documents.map(json.dumps)


class NullSink:
    """A sink that records how the stream ends."""

    batch_writer: BatchWriter = ONE_BY_ONE

    ended: Disconnect | None = None

    def write(self, event: bytes, most: int) -> bool:
        json.loads(event)
        return True

    def write_events(self, events: list[bytes], most: int) -> bool:
        return all(self.write(event, most) for event in events)

    def buffered(self) -> int:
        return 0

    def waiting_since_s(self) -> float | None:
        return None

    def close(self, disconnect: Disconnect) -> None:
        self.ended = disconnect

    def abort(self, disconnect: Disconnect) -> None:
        self.ended = disconnect


def a_message(text: str) -> None:
    """Decode a message of a client, or end its stream."""
    sink = NullSink()
    session = Session(
        Start.LATEST, codec=WebSocketCodec(), sink=sink, limits=LIMITS, pinged_at_s=0
    )

    command = session.receive(text, 0)

    assert isinstance(command, MarkRead) or command is None or sink.ended is None


def body_of(kind: Any) -> Callable[[bytes], None]:
    def a_body(body: bytes) -> None:
        """Decode a body, or refuse it."""
        try:
            decode_body(msgspec.json.Decoder(kind), body)
        except (Invalid, Malformed) as error:
            assert str(error) is not None

    return a_body


def a_position(text: str) -> None:
    for decode in (decode_position, decode_id):
        position = decode(text)
        assert position is None or isinstance(position, Position)
        if isinstance(position, Position):
            assert decode_position(encode_position(position)) == position


def a_name(text: str) -> None:
    for parse in (parse_app, parse_player):
        name = parse(text)
        assert name is None or str(name)


def each(count: int, decode: Any, inputs: st.SearchStrategy[Any], *known: Any) -> None:
    """Decode `known` and `count` random inputs. Only an uncaught error is wrong."""
    tried = given(inputs)(decode)
    for one in known:
        tried = example(one)(tried)
    settings(max_examples=count)(tried)()


@pytest.fixture(params=[1, pytest.param(10, marks=pytest.mark.nightly)])
def times(request: pytest.FixtureRequest) -> int:
    """Return how many times as many inputs as in a short run are tried."""
    found: int = request.param
    return found


def test_any_message_is_decoded_or_ends_the_stream(times: int) -> None:
    deep, long = "[" * 60_000, "9" * 60_000
    each(200 * times, a_message, texts, deep, long, '{"type":"read","ids":["\ud800"]}')


@pytest.mark.parametrize("kind", BODIES, ids=lambda kind: f"{kind.__module__}")
def test_any_body_is_decoded_or_refused(kind: Any, times: int) -> None:
    bodies = st.binary() | texts.map(lambda it: it.encode("utf-8", "surrogatepass"))
    lone = (b'{"to":{"players":["\xed\xa0\x80"]}}', b'{"title":"\\ud800"}')
    each(60 * times, body_of(kind), bodies, b"[" * 100_000, *lone)


def test_any_text_is_a_position_or_none(times: int) -> None:
    similar = st.text("0123456789abcdefAZaz-_=", max_size=40)
    each(400 * times, a_position, st.text(max_size=60) | similar)


def test_any_text_is_a_name_or_none(times: int) -> None:
    each(200 * times, a_name, st.text())
