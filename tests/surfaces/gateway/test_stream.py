from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest

from streamer import errors
from streamer.model import App, Gap, Log, Player
from streamer.store.client.connection import RedisConnection
from streamer.store.keys import keys_of
from streamer.surfaces.gateway.frames import GatewayCodec

from ..conftest import Mint, Server, Start, Until
from .conftest import AssertError, Casino, CasinoAt, OpenStream

LOG = Log(App("1001"), Player("12345"))
STREAM = "/gateway/sse/1001/stream"


def session(server: Server) -> Any:
    (reader,) = server.app.admission._catch_up.hub.readers(LOG)
    return reader


async def nothing_is_held(server: Server) -> bool:
    """Return whether neither the node nor the store counts the player's stream."""
    leases: int = await server.leases("12345", "1001")
    return server.app.admission.open == leases == 0


async def test_a_stream_begins_with_connected(open_stream: OpenStream) -> None:
    stream = await open_stream()

    assert stream.status == 200
    assert stream.headers["content-type"] == "text/event-stream; charset=utf-8"
    (connected,) = stream.data
    assert set(connected) == {"type", "timestamp"}
    assert connected["type"] == "connected"
    assert connected["timestamp"].endswith("Z")
    age = datetime.now(UTC) - datetime.fromisoformat(connected["timestamp"])
    assert abs(age) < timedelta(seconds=60)


async def test_what_is_published_after_connected_arrives_at_once(
    open_stream: OpenStream, casino: Casino
) -> None:
    await casino.publish(data={"n": 0})
    streams = [await open_stream() for _ in range(2)]

    published = await casino.publish(type="bonus_granted", data={"n": 1})

    for stream in streams:
        (_, event) = await stream.take(2)
        at = event["event_data"].pop("time")
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", at)
        assert event == {
            "brand_id": 1001,
            "player_id": 12345,
            "event_type": "notification",
            "event_data": {
                "message_id": published,
                "event": "bonus_granted",
                "event_details": {"n": 1},
                "is_read": False,
            },
        }
    (shown, _) = await casino.shown()
    assert (shown["message_id"], shown["time"]) == (published, at)


async def test_frames_are_data_lines_only(
    open_stream: OpenStream, casino: Casino
) -> None:
    stream = await open_stream()
    await casino.publish(type="a\r\nid: 1", body="b\n\ndata: c\r")
    await casino.publish(type="last")

    await stream.take(3)

    for block in stream.text.split("\n\n")[:-1]:
        assert block.startswith("data: {"), block
        assert len(block.splitlines()) == 1


async def test_events_of_other_players_and_brands_do_not_arrive(
    open_stream: OpenStream,
    casino: Casino,
    client: httpx2.AsyncClient,
    backend_key: str,
) -> None:
    stream = await open_stream()
    await casino.publish("2", data={"n": 1})
    await client.post(
        "/v1/notifications",
        headers={"Authorization": f"Bearer {backend_key}"},
        json={"to": {"players": ["12345"]}, "body": "x"},
    )
    await casino.publish(data={"n": 2})

    (_, event) = await stream.take(2)

    assert event["event_data"]["event_details"] == {"n": 2}


async def test_a_read_mark_has_no_frame(
    open_stream: OpenStream, casino: Casino
) -> None:
    stream = await open_stream()
    await casino.mark(await casino.publish(data={"n": 1}))
    await casino.publish(data={"n": 2})

    frames = await stream.take(3)

    assert ["event_data" in frame for frame in frames] == [False, True, True]


async def test_a_keepalive_is_a_comment_and_a_frame_every_15_s(
    open_stream: OpenStream, server: Server
) -> None:
    stream = await open_stream()
    reader = session(server)
    now_s = time.monotonic() + 3_600
    reader.tick(now_s, time.time())
    await stream.take(2)

    reader.tick(now_s + 14.9, time.time())
    reader.tick(now_s + 15, time.time())
    (_, _, keepalive) = await stream.take(3)

    assert keepalive["type"] == "keepalive"
    stamp = keepalive["timestamp"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", stamp)
    assert stream.text.count("\n\n") == 3
    assert stream.text.split("\n\n")[2].split("\n")[0] == f": keepalive {stamp}"


async def test_the_accept_header_must_name_event_streams(
    open_stream: OpenStream, token: str
) -> None:
    for accept in ("text/event-stream", "text/html, Text/Event-Stream;q=0.9"):
        stream = await open_stream({"x-auth-token": token, "accept": accept})
        assert stream.status == 200
    for headers in ({}, {"accept": "*/*"}, {"accept": "application/json"}):
        stream = await open_stream({"x-auth-token": token, **headers})
        await stream.end()
        assert stream.status == 406
        assert '"status":"error"' in stream.text


async def test_several_accept_headers_are_one_list(
    open_stream: OpenStream, token: str
) -> None:
    stream = await open_stream(
        {
            "x-auth-token": token,
            "accept": "application/json\r\nAccept: text/event-stream",
        }
    )
    assert stream.status == 200


async def test_a_stream_without_the_right_is_the_same_401(
    open_stream: OpenStream,
    mint: Mint,
    token: str,
    brand_key: str,
    examples: dict[str, Any],
) -> None:
    for path, sent in (
        (STREAM, ""),
        (STREAM, "x"),
        (STREAM, mint("12345")),
        (STREAM, brand_key),
        (STREAM, mint("1", "notification:player:self:write", app="1001")),
        ("/gateway/sse/1002/stream", token),
        (f"/gateway/sse/{mint.name()}/stream", token),
    ):
        stream = await open_stream(
            {"x-auth-token": sent, "accept": "text/event-stream"}, path=path
        )
        await stream.end()
        assert stream.status == 401, path
        assert stream.text.replace('","', '", "').replace('":', '": ') == (
            '{"status": "error", "message": '
            f'"{examples["errors"]["401"]["message"]}"}}'
        )


async def test_errors_are_never_sent_within_a_stream(
    server: Server, assert_error: AssertError
) -> None:
    answer = await server.get(f"{STREAM}?refusals=stream")

    assert_error(answer, 401)


@pytest.mark.parametrize(
    ("setting", "status"),
    [({"listeners_per_player_max": 1}, 409), ({"connections_max": 1}, 503)],
)
async def test_limits_have_the_gateways_error_format(
    start: Start,
    open_stream: OpenStream,
    casino_at: CasinoAt,
    assert_error: AssertError,
    until: Until,
    setting: dict[str, int],
    status: int,
) -> None:
    server = await start(**setting)
    casino = casino_at(server)
    held = await open_stream(at=server)
    headers = {**casino.headers, "accept": "text/event-stream"}

    answer = await server.get(STREAM, headers)

    assert_error(answer, status)
    await held.close()
    await until(lambda: nothing_is_held(server))
    again = await open_stream(at=server)
    assert again.status == 200


async def test_a_reader_that_does_not_read_is_disconnected(
    start: Start, open_stream: OpenStream, casino_at: CasinoAt, until: Until
) -> None:
    server = await start()
    casino = casino_at(server)
    stream = await open_stream(at=server)
    reader = session(server)
    stream.pause()
    while reader._sink.waiting_since_s() is None:
        await casino.publish(data={"n": "x" * 30_000})

    reader.tick(time.monotonic() + 11, time.time())

    assert reader.ended == errors.SLOW
    await until(lambda: nothing_is_held(server))
    assert len(stream.data) == 1


async def test_a_drain_ends_the_stream_without_a_frame(
    start: Start, open_stream: OpenStream
) -> None:
    server = await start(drain_s=0)
    stream = await open_stream(at=server)

    await server.app.drain()
    await stream.end()

    assert len(stream.data) == 1
    refused = await open_stream(at=server)
    assert refused.status == 503


async def test_an_error_frame_announces_the_end_of_the_token(
    open_stream: OpenStream, server: Server, examples: dict[str, Any]
) -> None:
    stream = await open_stream()

    session(server).tick(time.monotonic(), time.time() + 3_601)
    await stream.end()

    assert stream.data[1:] == [
        {"type": "error", "message": examples["errors"]["401"]["message"]}
    ]


async def test_lost_events_are_reported(
    open_stream: OpenStream, casino: Casino, redis: RedisConnection
) -> None:
    await casino.publish(data={"n": 1})
    stream = await open_stream()
    await redis.call("DEL", *keys_of().inbox(LOG), write=True)

    await casino.publish(data={"n": 2})
    (_, lost) = await stream.take(2)

    assert lost["type"] == "error"
    assert "list" in lost["message"]
    await casino.publish(data={"n": 3})
    await stream.until(
        lambda s: s.data[-1].get("event_data", {}).get("event_details") == {"n": 3}
    )


async def test_a_client_that_disconnects_leaves_no_reader_and_no_lease(
    open_stream: OpenStream, server: Server, until: Until
) -> None:
    stream = await open_stream()
    assert await server.leases("12345", "1001") == 1

    await stream.close()

    await until(lambda: nothing_is_held(server))
    assert server.readers("12345", "1001") == 0


@pytest.mark.parametrize(
    "disconnect",
    [
        errors.SLOW,
        errors.DRAINING,
        errors.REPLACED,
        errors.RESYNC,
        errors.STORE_UNAVAILABLE,
    ],
)
def test_only_the_end_of_a_token_has_a_farewell_frame(disconnect: Any) -> None:
    codec = GatewayCodec(LOG, lambda: 0)

    assert codec.bye(disconnect, 100) == b""
    assert codec.bye(errors.TOKEN_INVALID, 0).startswith(b'data: {"type":"error"')


def test_every_gap_has_the_same_frame() -> None:
    codec = GatewayCodec(LOG, lambda: 0)

    assert len({codec.gap(gap, "cursor", None) for gap in Gap}) == 1
