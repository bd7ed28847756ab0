"""
Two deployments on one store, in two databases or two namespaces, with the same names.

Whatever one of them does, the other neither hears nor shows. Each test ends with an
event of the other deployment, which would have come after anything that leaked.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
import pytest_asyncio

from streamer.config import Config
from streamer.errors import StoreUnavailable
from streamer.model import App as AppName
from streamer.model import Log, Player
from streamer.store.access.apps import Apps
from streamer.store.client.connection import RedisConnection
from streamer.store.deployment import enter_deployment
from streamer.store.presence.leases import alive_nodes

from ..conftest import empty
from .conformance import Conformance
from .conftest import Mint, Server, Until, client_of, running
from .event_stream import EventStream

ROOT = Path(__file__).parents[2]
DEMO = AppName("demo")


class Deployment:
    """One deployment: a node, its app ``demo``, and the player ``ann``."""

    def __init__(self, server: Server, key: str, mint: Mint) -> None:
        self.server = server
        self.backend = {"Authorization": f"Bearer {key}"}
        self.ann = mint.bearer("ann", topics=("news",))
        self.streams: list[EventStream] = []

    async def stream(self) -> EventStream:
        port = await self.server.listen()
        stream = await EventStream.open(port, "/v1/stream", self.ann)
        self.streams.append(stream)
        await stream.take(1)
        return stream

    async def send(self, title: str, *, key: str = "", **message: Any) -> Any:
        headers = {**self.backend, **({"Idempotency-Key": key} if key else {})}
        message = {"to": {"players": ["ann"]}, "title": title, **message}
        answer = await self.server.client.post(
            "/v1/notifications", headers=headers, json=message
        )
        assert answer.status_code in (200, 202), answer.text
        return answer.json()

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        answer = await self.server.client.request(
            method, path, headers=self.ann, json=body
        )
        assert answer.status_code < 300, answer.text
        return answer.json() if answer.content else None

    async def page(self) -> Any:
        return await self.ask("GET", "/v1/players/me/notifications")

    async def titles(self) -> list[str]:
        return [one["title"] for one in (await self.page())["notifications"]]


class Two(NamedTuple):
    """The two deployments of a test."""

    here: Deployment
    there: Deployment


Begin = Callable[..., Awaitable[Deployment]]


@pytest_asyncio.fixture(loop_scope="module")
async def begin(session_store: str, conformance: Conformance) -> AsyncIterator[Begin]:
    """Return a function that begins a deployment with an app, and starts its node."""
    empty(session_store)
    async with AsyncExitStack() as stack:

        async def begin(url: str, **settings: Any) -> Deployment:
            config = msgspec.structs.replace(Config(), **settings)
            redis = RedisConnection(url, namespace=config.namespace, name="test")
            stack.push_async_callback(redis.close)
            await enter_deployment(redis)
            apps = Apps(redis)
            mint = Mint({"demo": await apps.create(DEMO)})
            app = await stack.enter_async_context(running(url, config))
            client = await stack.enter_async_context(client_of(app, conformance))
            server = Server(app, client, redis, mint, config)
            stack.push_async_callback(server.close)
            deployment = Deployment(server, await apps.add_key(DEMO), mint)
            stack.push_async_callback(close_streams, deployment)
            return deployment

        yield begin


async def close_streams(deployment: Deployment) -> None:
    for stream in deployment.streams:
        await stream.close()


@pytest.fixture(params=["databases", "namespaces"])
def places(
    request: pytest.FixtureRequest, session_store: str
) -> list[tuple[str, dict[str, Any]]]:
    """Return the URL and the settings of two deployments that share a store."""
    if request.param == "databases":
        return [(session_store, {}), (f"{session_store}?db=1", {})]
    return [(session_store, {"namespace": name}) for name in ("live", "staging")]


@pytest_asyncio.fixture(loop_scope="module")
async def two(begin: Begin, places: list[tuple[str, dict[str, Any]]]) -> Two:
    (here, of_here), (there, of_there) = places
    return Two(await begin(here, **of_here), await begin(there, **of_there))


@pytest.mark.parametrize(
    "to", [{"players": ["ann"]}, {"topic": "news"}, {"everyone": True}], ids=str
)
async def test_streams_and_pages_have_what_their_own_deployment_published(
    two: Two, to: dict[str, Any]
) -> None:
    for deployment in two:
        await deployment.ask("PUT", "/v1/players/me/topics/news")
    streams = [await deployment.stream() for deployment in two]

    await two.here.send("here", to=to)
    await two.there.send("there", to=to)

    for stream, deployment, title in zip(streams, two, ("here", "there"), strict=True):
        _, shown = await stream.take(2)
        assert shown["title"] == title
        assert await deployment.titles() == [title]


async def test_an_ephemeral_notification_stays_in_its_deployment(two: Two) -> None:
    stream = await two.there.stream()

    await two.here.send("here", persist=False)
    await two.there.send("there", persist=False)

    _, shown = await stream.take(2)
    assert shown["title"] == "there"


async def test_read_marks_stay_in_their_deployment(two: Two) -> None:
    stream = await two.there.stream()
    for deployment in two:
        await deployment.send("first")
    await stream.take(2)

    await two.here.ask("POST", "/v1/players/me/notifications/read", {"all": True})
    await two.there.send("second")

    *_, shown = await stream.take(3)
    assert shown["title"] == "second"
    assert "event: read" not in stream.text
    assert (await two.here.page())["unread"] == 0
    assert (await two.there.page())["unread"] == 2


async def test_a_schedule_is_sent_by_its_own_deployment_only(
    begin: Begin, places: list[tuple[str, dict[str, Any]]], until: Until
) -> None:
    (here, of_here), (there, of_there) = places
    # Nobody sends the schedules of this one.
    idle = await begin(here, background=False, **of_here)
    busy = await begin(there, **of_there)
    soon = datetime.now(UTC) + timedelta(seconds=1)
    later = (soon + timedelta(milliseconds=1)).isoformat()

    held = await idle.send("here", send_at=soon.isoformat())
    await busy.send("there", send_at=later)

    async def is_sent() -> bool:
        return await busy.titles() == ["there"]

    await until(is_sent)
    answer = await idle.server.client.get(
        f"/v1/schedules/{held['schedule']['id']}", headers=idle.backend
    )
    assert answer.json()["state"] == "pending"
    assert await idle.titles() == []


async def test_a_connection_takes_no_slot_of_the_other_deployment(
    begin: Begin, places: list[tuple[str, dict[str, Any]]]
) -> None:
    two = [
        await begin(url, listeners_per_player_max=1, **settings)
        for url, settings in places
    ]

    streams = [await deployment.stream() for deployment in two]

    ann = Log(DEMO, Player("ann"))
    for deployment, stream in zip(two, streams, strict=True):
        redis = deployment.server.redis
        assert stream.status == 200
        assert await redis.call("HLEN", redis.keys.lease(ann)) == 1
        node = deployment.server.app.admission.node
        assert await alive_nodes(redis) == [node.encode()]


async def test_keys_tokens_and_idempotency_keys_are_valid_in_one_deployment(
    two: Two,
) -> None:
    answers = [await deployment.send("t", key="same") for deployment in two]

    assert answers[0]["results"][0]["id"] != answers[1]["results"][0]["id"]
    for deployment, other in (two, two[::-1]):
        client = deployment.server.client
        sent = await client.post(
            "/v1/notifications",
            headers=other.backend,
            json={"to": {"players": ["ann"]}, "title": "t"},
        )
        shown = await client.get("/v1/players/me/notifications", headers=other.ann)
        assert sent.status_code == shown.status_code == 401


async def test_the_documented_rights_in_a_shared_store_suffice(
    begin: Begin, session_store: str, until: Until
) -> None:
    """Those of the operations page, and not one key or channel more."""
    page = (ROOT / "docs" / "operations.md").read_text("utf-8")
    (line,) = re.findall(r"^ACL SETUSER streamer .*$", page, re.MULTILINE)
    admin = RedisConnection(session_store, name="test")
    await admin.call(*line.split()[:1], *line.replace("PASSWORD", "pw").split()[1:])
    await admin.call("ACL", "LOG", "RESET")
    url = session_store.replace("unix://", "unix://streamer:pw@")

    try:
        deployment = await begin(url)
        await deployment.ask("PUT", "/v1/players/me/topics/news")
        stream = await deployment.stream()
        for to in ({"players": ["ann"]}, {"topic": "news"}, {"everyone": True}):
            await deployment.send("now", to=to, collapse_key="c", ttl_s=60)
        soon = datetime.now(UTC) + timedelta(seconds=1)
        await deployment.send("later", send_at=soon.isoformat())
        await until(lambda: '"later"' in stream.text)
        await deployment.ask("POST", "/v1/players/me/notifications/read", {"all": True})
        await until(lambda: "event: read" in stream.text)
        assert len(await deployment.titles()) == 4
        assert await admin.call("ACL", "LOG") == []
        redis = RedisConnection(url)
        for foreign in (("GET", "other:x"), ("SPUBLISH", "other@0:x", "m")):
            with pytest.raises(StoreUnavailable) as refused:
                await redis.call(*foreign)
            assert refused.value.words.startswith("NOPERM")
        await redis.close()
    finally:
        await close_streams(deployment)
        deployment.streams.clear()
        await admin.call("ACL", "DELUSER", "streamer")
        await admin.close()
