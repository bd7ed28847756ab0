"""Streams of players with audiences: on time, in order, once, in all events."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from streamer.core.access.rights import Caller
from streamer.core.streams.cursor import Cursor
from streamer.core.streams.subscription import Start, State
from streamer.errors import StoreUnavailable
from streamer.model import (
    App,
    Log,
    Notification,
    Player,
    Position,
    Topic,
    encode_fragment,
    everyone_log,
    topic_log,
)
from streamer.service.inboxes.audiences import PlayerAudiences
from streamer.service.inboxes.inbox import InboxOperations
from streamer.service.inboxes.merge import MergedInbox
from streamer.service.streams.catch_up import CatchUp
from streamer.service.streams.poll_waiter import PollWaiter
from streamer.store.client import pubsub as pubsub_module
from streamer.store.client.connection import RedisConnection
from streamer.store.logs.inbox import Inbox
from streamer.store.logs.page_reads import PageReads
from streamer.store.logs.settings import LogSettings
from streamer.store.logs.views import Views
from streamer.store.server.embedded import Embedded

from ...conftest import Until
from ..conftest import Client

NEVER_S = 3_600
NEWS = Topic("news")

MakeCatchUp = Callable[..., Awaitable[CatchUp]]


class IgnoringChanges(CatchUp):
    """Ignores announcements of changed audiences."""

    def on_audiences_changed(self, log: Log) -> None:
        pass


Publish = Callable[..., Awaitable[Position]]


@pytest.fixture
async def make_catch_up(
    store_url: str, inbox: Inbox, audiences: PlayerAudiences, until: Until
) -> AsyncIterator[MakeCatchUp]:
    """Return a function that runs a `CatchUp`; position checks are off by default."""
    async with AsyncExitStack() as stack:

        async def make(
            *,
            url: str = store_url,
            inbox: Inbox = inbox,
            audiences: PlayerAudiences = audiences,
            check_s: int = NEVER_S,
            kind: type[CatchUp] = CatchUp,
        ) -> CatchUp:
            catch_up = kind(url, inbox, audiences, replay_max=500, check_s=check_s)
            running = asyncio.create_task(catch_up.run())
            stack.push_async_callback(end, running)
            await until(lambda: catch_up.connected)
            return catch_up

        yield make


async def end(running: asyncio.Task[None]) -> None:
    # An error of the task itself is raised here.
    if not running.done():
        running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


@pytest.fixture
async def catch_up(make_catch_up: MakeCatchUp) -> CatchUp:
    return await make_catch_up()


@pytest.fixture
def publish(inbox: Inbox) -> Publish:
    return publisher_of(inbox)


def publisher_of(inbox: Inbox) -> Publish:
    """Return a function that sends a notification to a log."""

    async def publish(log: Log, title: str) -> Position:
        everyone = log.is_audience and log.topic is None
        sent = Notification(title=title, topic=log.topic, everyone=everyone)
        (position,) = (await inbox.append(log, [encode_fragment(sent)])).stored
        return position

    return publish


def cursor_at(position: Position) -> Cursor:
    cursor = Cursor.parse(position.id)
    assert cursor is not None
    return cursor


def news_log(log: Log) -> Log:
    return topic_log(log.app, NEWS)


async def test_notifications_to_topics_and_everyone_come_live(
    catch_up: CatchUp,
    audiences: PlayerAudiences,
    publish: Publish,
    log: Log,
    make_client: type[Client],
    until: Until,
) -> None:
    await audiences.join(log, NEWS)
    client = make_client()
    async with catch_up.stream_audiences.follow(log, client.session):
        await until(lambda: client.begin == 0)

        await publish(news_log(log), "n")
        await publish(everyone_log(log.app), "e")
        await publish(topic_log(log.app, Topic("other")), "o")
        await publish(log, "own")

        await until(lambda: client.has(1) and len(client.titles) == 2)
    assert client.titles == {"news": ["n"], "everyone": ["e"]}


async def test_the_cursor_is_sent_after_notifications_of_audiences(
    catch_up: CatchUp,
    publish: Publish,
    log: Log,
    make_client: type[Client],
    until: Until,
) -> None:
    client = make_client()
    async with catch_up.stream_audiences.follow(log, client.session):
        await until(lambda: client.begin == 0)
        for n in range(20):
            await publish(everyone_log(log.app), f"e{n}")

        await until(lambda: client.of("cursor"))

        # Once for several, at most once per second.
        assert len(client.of("cursor")) < 5
        await until(lambda: client.cursor is not None and client.cursor.audiences)


async def test_a_cursor_resumes_without_loss_or_repetition(
    catch_up: CatchUp,
    audiences: PlayerAudiences,
    publish: Publish,
    log: Log,
    make_client: type[Client],
    until: Until,
) -> None:
    await audiences.join(log, NEWS)
    logs = [log, news_log(log), everyone_log(log.app)]
    rng = random.Random(5)
    published = 0
    got: list[Any] = []
    cursor: Cursor | Start = Start.LATEST
    for _ in range(6):
        client = make_client(cursor)
        async with catch_up.stream_audiences.follow(log, client.session):
            await until(lambda c=client: c.begin is not None)
            for _ in range(6):
                published += 1
                await publish(rng.choice(logs), str(published))
            missing = published - len(got)
            await until(lambda c=client, m=missing: len(c.of("notification")) >= m)
            client.session.send_cursor()
        got += [m["notification"]["title"] for m in client.of("notification")]
        assert client.cursor is not None
        cursor = client.cursor
        assert sorted(map(int, got)) == list(range(1, published + 1))
        # Notifications while no reader is there.
        for one in logs:
            published += 1
            await publish(one, str(published))


@pytest.mark.parametrize("of", ["own", "news", "everyone"])
async def test_a_bare_id_of_any_log_resumes_without_loss(
    catch_up: CatchUp,
    audiences: PlayerAudiences,
    publish: Publish,
    log: Log,
    make_client: type[Client],
    until: Until,
    of: str,
) -> None:
    await audiences.join(log, NEWS)
    logs = {"own": log, "news": news_log(log), "everyone": everyone_log(log.app)}
    for one in logs.values():
        await publish(one, "before")
    position = await publish(logs[of], "seen")
    for one in logs.values():
        await publish(one, "after")

    client = make_client(cursor_at(position))
    async with catch_up.stream_audiences.follow(log, client.session):
        await until(lambda: client.begin is not None and len(client.titles) == 2)
        await until(lambda: all(h[-1] == "after" for h in client.titles.values()))
        await until(lambda: client.has(2 if of != "own" else 3))

    assert client.gaps == []
    if of != "own":
        assert client.titles[of] == ["after"]


@pytest.mark.parametrize("announced", [True, False])
async def test_a_topic_that_is_joined_while_live_is_followed_from_then_on(
    make_catch_up: MakeCatchUp,
    audiences: PlayerAudiences,
    publish: Publish,
    log: Log,
    make_client: type[Client],
    until: Until,
    announced: bool,
) -> None:
    # Without the announcement the position check finds the topic; nothing is lost.
    catch_up = await make_catch_up(
        kind=CatchUp if announced else IgnoringChanges,
        check_s=NEVER_S if announced else 1,
    )
    await publish(news_log(log), "before")
    client = make_client()
    async with catch_up.stream_audiences.follow(log, client.session):
        await until(lambda: client.begin == 0)

        await audiences.join(log, NEWS)
        await publish(news_log(log), "at once")
        await until(lambda: client.titles.get("news"))
        await publish(news_log(log), "then")

        await until(lambda: len(client.titles["news"]) == 2)
    assert client.titles == {"news": ["at once", "then"]}
    assert client.gaps == []


@pytest.mark.parametrize("how", ["leave", "mute"])
async def test_a_topic_that_is_left_or_muted_is_not_followed_any_more(
    catch_up: CatchUp,
    audiences: PlayerAudiences,
    publish: Publish,
    log: Log,
    make_client: type[Client],
    until: Until,
    how: str,
) -> None:
    await audiences.join(log, NEWS)
    client = make_client()
    async with catch_up.stream_audiences.follow(log, client.session):
        await until(lambda: client.begin == 0)
        assert len(client.session.audience_subscriptions) == 2

        if how == "leave":
            await audiences.leave(log, NEWS)
        else:
            await audiences.views.mute(log, news_log(log), muted=True)
        await until(lambda: len(client.session.audience_subscriptions) == 1)
        await publish(news_log(log), "n")
        await publish(everyone_log(log.app), "e")

        await until(lambda: client.titles)
        assert client.titles == {"everyone": ["e"]}
    assert not catch_up.hub.logs


async def test_an_unmuted_topic_goes_on_where_it_was_muted(
    catch_up: CatchUp,
    audiences: PlayerAudiences,
    publish: Publish,
    log: Log,
    make_client: type[Client],
    until: Until,
) -> None:
    await audiences.join(log, NEWS)
    client = make_client()
    async with catch_up.stream_audiences.follow(log, client.session):
        await until(lambda: client.begin == 0)
        await publish(news_log(log), "before")
        await until(lambda: client.titles.get("news"))
        await audiences.views.mute(log, news_log(log), muted=True)
        await until(lambda: len(client.session.audience_subscriptions) == 1)
        await publish(news_log(log), "meanwhile")

        await audiences.views.mute(log, news_log(log), muted=False)

        await until(lambda: len(client.titles["news"]) > 1)
        await publish(news_log(log), "after")
        await until(lambda: "after" in client.titles["news"])
    assert client.titles["news"] == ["before", "meanwhile", "after"]


async def test_a_topic_that_is_joined_again_is_followed_from_then_on(
    catch_up: CatchUp,
    audiences: PlayerAudiences,
    publish: Publish,
    log: Log,
    make_client: type[Client],
    until: Until,
) -> None:
    await audiences.join(log, NEWS)
    client = make_client()
    async with catch_up.stream_audiences.follow(log, client.session):
        await until(lambda: client.begin == 0)
        await audiences.leave(log, NEWS)
        await until(lambda: len(client.session.audience_subscriptions) == 1)
        await publish(news_log(log), "meanwhile")

        await audiences.join(log, NEWS)
        await publish(news_log(log), "after")

        await until(lambda: client.titles.get("news"))
    assert client.titles["news"] == ["after"]


@pytest.mark.parametrize("by", ["cursor", "id"])
@pytest.mark.parametrize("of", ["own", "news", "everyone"])
async def test_a_poll_is_woken_only_by_entries_after_its_cursor(
    catch_up: CatchUp,
    audiences: PlayerAudiences,
    publish: Publish,
    log: Log,
    until: Until,
    of: str,
    by: str,
) -> None:
    await audiences.join(log, NEWS)
    logs = {"own": log, "news": news_log(log), "everyone": everyone_log(log.app)}
    for one in reversed(logs.values()):
        await publish(one, "before")
    after = await inboxes_of(audiences)._merged.entries_after(
        log, Start.EARLIEST, count=9
    )
    assert len(after.entries) == 3
    last = Cursor.parse(after.entries[-1].id)
    assert last is not None
    waiter = PollWaiter(after.cursor if by == "cursor" else last, "poll")
    async with catch_up.stream_audiences.follow(log, waiter):
        followers: list[Any] = [waiter, *waiter.audience_subscriptions]
        await until(
            lambda: all(one.own_subscription().state is State.LIVE for one in followers)
        )
        assert not waiter.woken.is_set()

        await publish(logs[of], "after")

        await until(waiter.woken.is_set)


@pytest.mark.parametrize("of", ["own", "news", "everyone", "live"])
async def test_an_id_whose_notification_has_ended_resumes_without_a_gap(
    catch_up: CatchUp,
    audiences: PlayerAudiences,
    inbox: Inbox,
    publish: Publish,
    log: Log,
    make_client: type[Client],
    until: Until,
    of: str,
) -> None:
    await audiences.join(log, NEWS)
    logs = {
        "own": log,
        "news": news_log(log),
        "everyone": everyone_log(log.app),
        "live": topic_log(log.app, Topic("live")),
    }
    for one in logs.values():
        if one != log:  # Its log is the shortest: the id is beyond its head.
            await publish(one, "before")
            await publish(one, "before")
    position = await publish(logs[of], "ended")
    await inbox.withdraw(logs[of], position)
    for one in logs.values():
        await publish(one, "after")

    client = make_client(cursor_at(position), topics=("live",))
    async with catch_up.stream_audiences.follow(log, client.session):
        await until(lambda: client.offsets and client.titles.get("news"))
        await until(lambda: client.titles.get("everyone"))
        if of == "live":
            await until(lambda: client.titles.get("live"))

    assert client.gaps == []
    assert all(titles[-1] == "after" for titles in client.titles.values())
    assert "ended" not in client.titles.get(of, [])


async def test_a_stream_subscribes_to_topics_of_its_own(
    catch_up: CatchUp,
    publish: Publish,
    log: Log,
    make_client: type[Client],
    until: Until,
) -> None:
    live, other = topic_log(log.app, Topic("live")), topic_log(log.app, Topic("other"))
    await publish(live, "before")
    client = make_client(topics=("live",))
    async with catch_up.stream_audiences.follow(log, client.session):
        await until(lambda: client.begin == 0)
        await publish(live, "l1")
        await until(lambda: client.titles.get("live") == ["l1"])

        await catch_up.stream_audiences.listen_to(log, client.session, [Topic("other")])
        await publish(live, "l2")
        await publish(other, "o1")
        await until(lambda: client.titles.get("other") == ["o1"])
        await catch_up.stream_audiences.listen_to(log, client.session, [])

        assert [sub.log for sub in client.session.audience_subscriptions] == [
            everyone_log(log.app)
        ]
    assert client.titles["live"] == ["l1"]


async def test_a_topic_of_the_stream_that_its_player_joins_is_followed_once_and_stays(
    catch_up: CatchUp,
    audiences: PlayerAudiences,
    publish: Publish,
    log: Log,
    make_client: type[Client],
    until: Until,
) -> None:
    client = make_client(topics=("news",))
    async with catch_up.stream_audiences.follow(log, client.session):
        await until(lambda: client.begin == 0)
        await audiences.join(log, NEWS)
        await until(
            lambda: all(s.is_member for s in client.session.audience_subscriptions)
        )

        await catch_up.stream_audiences.listen_to(log, client.session, [])
        await publish(news_log(log), "n")

        await until(lambda: client.titles.get("news"))
        assert client.titles == {"news": ["n"]}


async def test_entries_before_the_player_joined_the_topic_stay_uncounted(
    make_catch_up: MakeCatchUp,
    audiences: PlayerAudiences,
    publish: Publish,
    log: Log,
    make_client: type[Client],
    until: Until,
) -> None:
    # So no read of the store comes in between, which would correct the count.
    catch_up = await make_catch_up(kind=IgnoringChanges)
    client = make_client(topics=("news",))
    async with catch_up.stream_audiences.follow(log, client.session):
        await until(lambda: client.begin == 0)
        for title in "123":
            await publish(news_log(log), title)
        await until(lambda: client.titles.get("news") == ["1", "2", "3"])
        _, news = client.session.audience_subscriptions
        # Entries that the group gets count for its members.
        assert news.group is not None

        await audiences.join(log, NEWS)
        views = await audiences.views_of(log)
        await catch_up.stream_audiences.refresh(log, client.session, views)

        assert news.is_member
        assert client.session.unread == 0


async def test_changes_of_topics_at_the_same_time_repeat_nothing(
    catch_up: CatchUp,
    audiences: PlayerAudiences,
    publish: Publish,
    log: Log,
    make_client: type[Client],
    until: Until,
) -> None:
    client = make_client()
    async with catch_up.stream_audiences.follow(log, client.session):
        await until(lambda: client.begin == 0)
        for n in range(20):
            topics = [Topic(f"t{n}"), Topic(f"u{n}")]
            for topic in topics[:1]:
                catch_up.hub.mark_stale(log)
                await asyncio.gather(
                    catch_up.stream_audiences.listen_to(log, client.session, topics),
                    audiences.join(log, topic) if n < 10 else asyncio.sleep(0),
                    catch_up.stream_audiences.listen_to(
                        log, client.session, topics[::-1]
                    ),
                )
            followed = [sub.log for sub in client.session.audience_subscriptions]
            assert len(followed) == len(set(followed))
    assert not catch_up.hub.logs
    assert not catch_up._pubsub._subscribers


async def test_a_reader_subscribes_to_its_topics_at_once(
    make_catch_up: MakeCatchUp,
    log: Log,
    make_client: type[Client],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    catch_up = await make_catch_up()
    pubsub = catch_up._pubsub
    begin, wait = pubsub.begin_subscribe, pubsub.wait_confirmed
    begun: list[str] = []
    begun_before_waits: list[int] = []

    def note_begin(log: Log) -> asyncio.Future[None]:
        begun.append(log.topic or "")
        return begin(log)

    async def note_wait(subscribing: asyncio.Future[None]) -> None:
        begun_before_waits.append(len(begun))
        await wait(subscribing)

    monkeypatch.setattr(pubsub, "begin_subscribe", note_begin)
    monkeypatch.setattr(pubsub, "wait_confirmed", note_wait)
    client = make_client(topics=("one", "two", "three"))
    async with catch_up.stream_audiences.follow(log, client.session):
        # The player's own log, then everyone's and the topics.
        assert begun == ["", "", "one", "two", "three"]
        assert begun_before_waits == [1, 5, 5, 5, 5]


async def test_a_topic_that_cannot_be_subscribed_to_changes_nothing(
    make_catch_up: MakeCatchUp,
    log: Log,
    make_client: type[Client],
    until: Until,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    catch_up = await make_catch_up()
    client = make_client(topics=("live",))
    async with catch_up.stream_audiences.follow(log, client.session):
        await until(lambda: client.begin == 0)
        audience_subscriptions = client.session.audience_subscriptions

        begin = catch_up._pubsub.begin_subscribe

        def lose(log: Log) -> asyncio.Future[None]:
            begin(log)
            lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            lost.cancel()
            return lost

        with monkeypatch.context() as patched:
            patched.setattr(catch_up._pubsub, "begin_subscribe", lose)
            with pytest.raises(StoreUnavailable):
                await catch_up.stream_audiences.listen_to(
                    log, client.session, [Topic("other")]
                )

        assert client.session.topics == ("live",)
        assert client.session.audience_subscriptions == audience_subscriptions
    assert not catch_up._pubsub._subscribers


async def test_readers_of_two_nodes_get_the_same(
    make_catch_up: MakeCatchUp,
    audiences: PlayerAudiences,
    publish: Publish,
    log: Log,
    make_client: type[Client],
    until: Until,
) -> None:
    nodes = [await make_catch_up(), await make_catch_up()]
    clients = [make_client(), make_client()]
    async with AsyncExitStack() as stack:
        for node, client in zip(nodes, clients, strict=True):
            await stack.enter_async_context(
                node.stream_audiences.follow(log, client.session)
            )
        await until(lambda: all(client.begin == 0 for client in clients))
        await audiences.join(log, NEWS)
        await publish(news_log(log), "n")
        await publish(everyone_log(log.app), "e")

        await until(lambda: all(len(client.titles) == 2 for client in clients))
        inboxes = inboxes_of(audiences)
        me = Caller(log.app, log.player, frozenset({"notification:player:self:*"}))
        page = await inboxes.page(me, log.player, count=5)
        name = (page.entries or [])[0].entry.id

        marked = await inboxes.mark_ids(me, log.player, [name])

        def is_told(client: Any) -> bool:
            return any(read["ids"] == [name] for read in client.of("read"))

        await until(lambda: all(is_told(client) for client in clients))
    assert marked.unread == 1
    for client in clients:
        # Joining was a change of the marks, too, without ids to name.
        *_, read = client.of("read")
        assert (read["ids"], read["unread"]) == ([name], 1)
        assert read["marks_version"] == marked.marks


def inboxes_of(audiences: PlayerAudiences) -> InboxOperations:
    inbox = audiences._inbox
    redis = inbox._redis
    page_reads = PageReads(redis, inbox, audiences.views)
    return InboxOperations(inbox, MergedInbox(inbox, page_reads, audiences), audiences)


async def test_hello_and_each_mark_have_the_whole_unread_count(
    catch_up: CatchUp,
    audiences: PlayerAudiences,
    publish: Publish,
    log: Log,
    make_client: type[Client],
    until: Until,
) -> None:
    await audiences.join(log, NEWS)
    for _ in range(2):
        await publish(news_log(log), "n")
        await publish(everyone_log(log.app), "e")
    position = await publish(log, "own")
    client = make_client()
    inboxes = inboxes_of(audiences)
    me = Caller(log.app, log.player, frozenset({"notification:player:self:*"}))
    async with catch_up.stream_audiences.follow(log, client.session):
        await until(lambda: client.begin == 1)
        assert client.of("hello")[0]["unread"] == 5

        own = position.id
        await inboxes.mark_ids(me, log.player, [own])
        await until(lambda: len(client.of("read")) == 1)
        await inboxes.mark_unread(me, log.player, [own])
        await until(lambda: len(client.of("read")) == 2)
        await inboxes.mark_all(me, log.player)
        await until(lambda: len(client.of("read")) == 3)

    assert [read["unread"] for read in client.of("read")] == [4, 5, 0]
    assert client.of("unread") == []


async def test_a_withdrawal_from_an_audience_reaches_its_readers(
    catch_up: CatchUp,
    inbox: Inbox,
    publish: Publish,
    log: Log,
    make_client: type[Client],
    until: Until,
) -> None:
    everyone = everyone_log(log.app)
    client = make_client()
    async with catch_up.stream_audiences.follow(log, client.session):
        await until(lambda: client.begin == 0)
        position = await publish(everyone, "e")
        await inbox.withdraw(everyone, position)

        await until(lambda: client.of("withdrawn"))
    (withdrawn,) = client.of("withdrawn")
    assert withdrawn == {"type": "withdrawn", "id": position.id}


async def test_a_players_deletion_in_an_audience_reaches_its_streams(
    catch_up: CatchUp,
    audiences: PlayerAudiences,
    publish: Publish,
    log: Log,
    make_client: type[Client],
    until: Until,
) -> None:
    client, other = make_client(), make_client()
    beside = Log(log.app, Player("beside"))
    me = Caller(log.app, log.player, frozenset({"notification:player:self:*"}))
    async with (
        catch_up.stream_audiences.follow(log, client.session),
        catch_up.stream_audiences.follow(beside, other.session),
    ):
        await until(lambda: client.begin == other.begin == 0)
        position = await publish(everyone_log(log.app), "e")
        name = position.id

        await inboxes_of(audiences).delete(me, log.player, name)

        await until(lambda: client.of("unread"))
        assert client.of("withdrawn")[0]["id"] == name
        assert client.of("unread") == [{"type": "unread", "unread": 0}]
        assert other.of("withdrawn") == []


async def test_an_interrupted_store_costs_no_reader_anything(
    make_catch_up: MakeCatchUp,
    start_store: Callable[[], Awaitable[Embedded]],
    make_client: type[Client],
    until: Until,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Subscribing again happens in batches; this takes several.
    monkeypatch.setattr(pubsub_module, "BATCH", 8)
    store = await start_store()
    redis = RedisConnection(store.url)
    inbox = Inbox(redis)
    audiences = PlayerAudiences(Views(redis, LogSettings()), inbox)
    publish = publisher_of(inbox)
    catch_up = await make_catch_up(url=store.url, inbox=inbox, audiences=audiences)
    app = App("cut")
    logs = [Log(app, Player(f"p{n}")) for n in range(20)]
    topics = [Topic(f"t{n % 5}") for n in range(20)]
    clients = {log: make_client() for log in logs}
    async with AsyncExitStack() as stack:
        for log, topic in zip(logs, topics, strict=True):
            await audiences.join(log, topic)
            await stack.enter_async_context(
                catch_up.stream_audiences.follow(log, clients[log].session)
            )
        await until(lambda: all(c.begin == 0 for c in clients.values()))
        published = []
        for round_ in range(2):
            await store.stop()
            await until(lambda: not catch_up.connected)
            store = await start_store()
            # Before Pub/Sub is back, so that it is not announced to anyone.
            for audience in [*(topic_log(app, Topic(f"t{n}")) for n in range(5))]:
                await publish(audience, f"{round_}")
            await publish(everyone_log(app), f"{round_}")
            published.append(f"{round_}")

            def have_all(published: list[str] = published) -> bool:
                return all(
                    client.titles == {"everyone": published, topic: published}
                    for client, topic in zip(clients.values(), topics, strict=True)
                )

            await until(have_all)
    assert not any(c.ended or c.gaps for c in clients.values())
    await redis.close()


async def test_a_reader_that_leaves_while_joining_leaves_nothing_behind(
    catch_up: CatchUp,
    audiences: PlayerAudiences,
    publish: Publish,
    make_client: type[Client],
) -> None:
    rng = random.Random(3)
    app = App("churn")
    logs = [Log(app, Player(f"p{n}")) for n in range(4)]
    for n, log in enumerate(logs):
        await audiences.join(log, Topic(f"t{n % 2}"))
    came = 0

    async def visit(limit_s: float | None) -> None:
        nonlocal came
        log = rng.choice(logs)
        client = make_client(topics=("live",))
        with contextlib.suppress(TimeoutError, StoreUnavailable):
            async with asyncio.timeout(limit_s):
                async with catch_up.stream_audiences.follow(log, client.session):
                    came += 1
                    topic = Topic(f"t{rng.randrange(4)}")
                    await catch_up.stream_audiences.listen_to(
                        log, client.session, [topic]
                    )
                    change = rng.choice([audiences.join, audiences.leave])
                    await change(log, topic)
                    await asyncio.sleep(rng.random() * 0.05)
        followed = [sub.log for sub in client.session.audience_subscriptions]
        assert not followed

    async def visit_often() -> None:
        for n in range(7):
            await visit(rng.random() * 0.01 * 2**n)
        # However busy the machine is, and whatever the cuts have ended: some get in.
        before = came
        while came == before:
            await visit(None)
            await asyncio.sleep(0.01)  # a refusal comes at once

    async def disturb() -> None:
        for _ in range(3):
            await asyncio.sleep(0.1)
            catch_up.reconnect()

    disturber = asyncio.create_task(disturb())
    await asyncio.gather(*(visit_often() for _ in range(12)))
    await disturber

    assert len(catch_up.hub) == 0
    assert not catch_up.hub.logs
    pubsub = catch_up._pubsub
    # Subscriptions that a refresh was about to add are dropped when it is done.
    async with asyncio.timeout(60):
        while pubsub._subscribers:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    pubsub.on_watch(asyncio.get_running_loop().time() + 60)
    assert not pubsub._logs


class Reading:
    """A player that leaves and resumes from its last cursor, and keeps all it got."""

    def __init__(self, log: Log, make_client: Any) -> None:
        self.log = log
        self.make_client = make_client
        self.ids: set[str] = set()
        self.client: Any = None
        self.cursor: Cursor | Start = Start.LATEST
        self.doubled = 0

    async def come(self, catch_up: CatchUp) -> None:
        self.client = self.make_client(self.cursor)
        await catch_up.stream_audiences.join(self.log, self.client.session)

    def go(self, catch_up: CatchUp) -> None:
        catch_up.stream_audiences.leave(self.log, self.client.session)
        here = [m["notification"]["id"] for m in self.client.of("notification")]
        # On one connection nothing comes twice, in any events.
        assert len(here) == len(set(here))
        self.ids.update(here)
        assert not self.client.gaps
        self.cursor = self.client.cursor or self.cursor

    def has(self) -> set[str]:
        here = {m["notification"]["id"] for m in self.client.of("notification")}
        return self.ids | here


# Many rounds find a defect that shows once in forty times.
@pytest.mark.parametrize(
    "seed",
    [11, *(pytest.param(seed, marks=pytest.mark.nightly) for seed in range(20, 40))],
)
async def test_in_any_events_a_reader_gets_all_that_its_pages_show(
    catch_up: CatchUp,
    audiences: PlayerAudiences,
    publish: Publish,
    redis: RedisConnection,
    make_client: type[Client],
    until: Until,
    seed: int,
) -> None:
    rng = random.Random(seed)
    app = App("whatever")
    topics = [Topic(f"t{n}") for n in range(3)]
    logs = [Log(app, Player(f"p{n}")) for n in range(6)]
    merged = inboxes_of(audiences)._merged
    readers = [Reading(log, make_client) for log in logs]
    for reader in readers:
        await reader.come(catch_up)
        await until(lambda r=reader: r.client.begin is not None)

    async def speak() -> None:
        audience_logs = [
            everyone_log(app),
            *(topic_log(app, topic) for topic in topics),
        ]
        for n in range(150):
            await publish(
                rng.choice(audience_logs if rng.random() < 0.6 else logs), f"{n}"
            )

    async def wander(reader: Reading) -> None:
        for _ in range(25):
            chance, topic = rng.random(), rng.choice(topics)
            if chance < 0.35:
                await audiences.join(reader.log, topic)
            elif chance < 0.45:
                await audiences.leave(reader.log, topic)
            elif chance < 0.6 and reader in readers[::2]:
                # These readers keep their audiences: one that joins again or unmutes is
                # not due the entries in between.
                muted = rng.random() < 0.5
                audience = topic_log(app, topic)
                await audiences.views.mute(reader.log, audience, muted=muted)
            elif chance < 0.75 and reader not in readers[::2]:
                reader.go(catch_up)
                while True:
                    with contextlib.suppress(StoreUnavailable):
                        await reader.come(catch_up)
                        break
                    await asyncio.sleep(0.01)
            elif chance < 0.8:
                await redis.call("CLIENT", "KILL", "TYPE", "pubsub", write=True)
            elif chance < 0.9 and reader not in readers[::2]:
                with contextlib.suppress(StoreUnavailable):
                    await catch_up.stream_audiences.listen_to(
                        reader.log, reader.client.session, [topic]
                    )
            await asyncio.sleep(rng.random() * 0.02)

    await asyncio.gather(speak(), *(wander(reader) for reader in readers))

    for reader in readers:
        shown = {found.entry.id async for found in merged.walk(reader.log)}
        await until(lambda r=reader, s=shown: s <= r.has())
        await until(lambda r=reader: r.client.begin is not None)
        reader.go(catch_up)
    assert not catch_up.hub.logs


async def test_an_audiences_first_entry_is_due_to_a_reader_that_left_before_it(
    catch_up: CatchUp,
    publish: Publish,
    redis: RedisConnection,
    log: Log,
    make_client: type[Client],
    until: Until,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reader = Reading(log, make_client)
    await reader.come(catch_up)
    await until(lambda: reader.client.begin is not None)
    take = catch_up.on_entry
    monkeypatch.setattr(
        catch_up,
        "on_entry",
        lambda of, entry: None if of.is_audience else take(of, entry),
    )
    first = await publish(everyone_log(log.app), "first")
    own = await publish(log, "own")
    await until(lambda: own.id in reader.has())
    reader.go(catch_up)
    monkeypatch.undo()

    await reader.come(catch_up)

    await until(lambda: first.id in reader.has())
    reader.go(catch_up)


async def test_a_topic_that_is_joined_after_the_first_look_is_followed(
    catch_up: CatchUp,
    redis: RedisConnection,
    audiences: PlayerAudiences,
    log: Log,
    make_client: type[Client],
    until: Until,
    publish: Publish,
) -> None:
    # The views come with the lease, maybe before Pub/Sub has confirmed: only the read
    # that follows finds the topic.
    await audiences.views_of(log)
    pending_join = catch_up.stream_audiences.begin_join(log)
    replies = await redis.call_many(pending_join.commands)
    await audiences.join(log, NEWS)
    client = make_client()

    await catch_up.stream_audiences.finish_join(pending_join, client.session, replies)
    try:
        await until(lambda: len(client.session.audience_subscriptions) == 2)
        await until(lambda: client.begin is not None)
        await publish(topic_log(log.app, NEWS), "later")
        await until(lambda: client.titles.get("news") == ["later"])
    finally:
        catch_up.stream_audiences.leave(log, client.session)


async def test_an_aborted_join_leaves_no_subscription(
    catch_up: CatchUp, log: Log
) -> None:
    pending_join = catch_up.stream_audiences.begin_join(log)

    catch_up.stream_audiences.abort_join(pending_join)

    assert not catch_up._pubsub._subscribers


async def test_the_head_of_an_audience_comes_from_its_live_readers(
    catch_up: CatchUp,
    audiences: PlayerAudiences,
    log: Log,
    make_client: type[Client],
    until: Until,
    publish: Publish,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = Log(log.app, Player("other"))
    await audiences.views_of(other)
    await publish(everyone_log(log.app), "long ago")
    position = await publish(log, "last seen")
    await audiences.views_of(log)
    first, late = make_client(), make_client(Cursor(position, {}))
    calls: list[object] = []

    async def never(*args: object) -> Position:
        calls.append(args)
        return position

    async with catch_up.stream_audiences.follow(other, first.session):
        await until(lambda: first.begin is not None)
        monkeypatch.setattr(audiences, "position_before", never)
        async with catch_up.stream_audiences.follow(log, late.session):
            await until(lambda: late.begin is not None)
            await publish(everyone_log(log.app), "now")
            await until(lambda: late.titles)

    assert late.titles == {"everyone": ["now"]}
    assert not calls


async def test_entries_since_a_bare_id_are_due_even_if_others_have_them(
    catch_up: CatchUp,
    audiences: PlayerAudiences,
    log: Log,
    make_client: type[Client],
    until: Until,
    publish: Publish,
) -> None:
    other = Log(log.app, Player("other"))
    await audiences.views_of(log)
    position = await publish(log, "last seen")
    first, late = make_client(), make_client(cursor_at(position))
    async with catch_up.stream_audiences.follow(other, first.session):
        await until(lambda: first.begin is not None)
        await publish(everyone_log(log.app), "since")
        await until(lambda: first.titles)
        # The hub knows the head, which is too late for this reader.
        async with catch_up.stream_audiences.follow(log, late.session):
            await until(lambda: late.titles)

    assert late.titles == {"everyone": ["since"]}
