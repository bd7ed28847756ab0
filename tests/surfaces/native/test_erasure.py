"""
Erasing a player: after it nothing in the store has the name or the texts.

The proof leaves a trace in every kind of key that can have one, finds them all by
reading every key and value, erases, and finds none.
"""

from __future__ import annotations

import copy
import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from streamer.errors import StoreUnavailable
from streamer.model import Log, Player
from streamer.store.access.apps import Apps
from streamer.store.client.connection import RedisConnection
from streamer.store.keys import keys_of
from streamer.store.privacy.erasures import (
    Erasure,
    ErasureList,
    Erasures,
    parse_list,
    print_list,
)
from streamer.store.privacy.files import list_path
from streamer.store.privacy.traces import OWN, SEARCHED

from ..conftest import AddKey, Mint, OpenEvents, Server, Until

NAME = "hildegard/7"
TEXT = "a text for her alone"
LATER = (datetime.now(UTC) + timedelta(days=1)).isoformat()

READS: dict[bytes, Any] = {
    b"string": ("GET",),
    b"hash": ("HGETALL",),
    b"list": ("LRANGE", 0, -1),
    b"set": ("SMEMBERS",),
    b"zset": ("ZRANGE", 0, -1, "WITHSCORES"),
    b"stream": ("XRANGE", "-", "+"),
}


async def everything(redis: RedisConnection) -> dict[bytes, bytes]:
    """Return every key with its content as text."""
    keys = await redis.call("KEYS", "*")
    kinds = await redis.call_many([("TYPE", key) for key in keys])
    found = {}
    for key, kind in zip(keys, kinds, strict=True):
        if kind == b"none":
            continue  # It was deleted since the keys were read.
        name, *rest = READS[kind]
        value = await redis.call(name, key, *rest)
        found[key] = value if isinstance(value, bytes) else repr(value).encode()
    return found


async def with_text(redis: RedisConnection, *texts: str) -> set[str]:
    """Return the kinds of the keys that contain one of the texts."""
    kinds = set()
    for key, value in (await everything(redis)).items():
        if any(text.encode() in key + value for text in texts):
            parts = keys_of().split(key)
            kinds.add(parts.kind if parts else key.decode())
    return kinds


async def last_erasures(
    redis: RedisConnection, until: Until, count: int
) -> ErasureList:
    """Return the last erasures, when the server has nothing left to do for them."""
    erasures = Erasures(redis)

    async def at_rest() -> bool:
        return not await erasures.in_files()

    await until(at_rest)
    listed = await erasures.listed()
    return listed._replace(erasures=listed.erasures[-count:])


def contents(folder: Path) -> dict[str, bytes]:
    """Return the content of each file in a folder, by its name."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class Backend:
    def __init__(self, client: httpx2.AsyncClient, key: str) -> None:
        self.client = client
        self.headers = {"Authorization": f"Bearer {key}"}

    async def ask(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        headers = {**self.headers, **more}
        answer = await self.client.request(method, path, headers=headers, json=body)
        assert answer.status_code < 400, answer.text
        return answer.json() if answer.content else None

    async def publish(self, to: Any, key: str = "", **message: Any) -> Any:
        more = {"Idempotency-Key": key} if key else {}
        body = {"to": to, "title": TEXT, **message}
        return await self.ask("POST", "/v1/notifications", body, **more)

    async def unread(self, player: str) -> int:
        page = await self.ask("GET", f"/v1/players/{player}/notifications")
        count: int = page["unread"]
        return count

    async def erase(self, player: str, reason: str = "") -> Any:
        path = f"/v1/players/{player}/erasure"
        return await self.ask("POST", path, {"reason": reason} if reason else None)


@pytest_asyncio.fixture(loop_scope="module")
async def backend(client: httpx2.AsyncClient, add_key: AddKey) -> Backend:
    scopes = ("admin", "notifications:send", "notifications:read")
    more = ("schedules:write", "campaigns:read", "campaigns:write", "tokens:mint")
    return Backend(client, await add_key(*scopes, *more))


def text_for(name: str) -> str:
    """Return the text that one player alone gets; it does not contain the name."""
    return f"a text for {name.upper()} alone"


async def leave_traces(backend: Backend, server: Server, mint: Mint, name: str) -> None:
    """Leave what the server stores of a player, in every kind of key."""
    to, text = {"players": [name]}, text_for(name)
    me = f"/v1/players/{name}"
    await backend.publish(
        to, f"gift for {name}", ttl_s=3_600, collapse_key="k", title=text
    )
    first = (await backend.publish(to, title=text))["results"][0]["id"]
    await backend.ask("POST", f"{me}/notifications/read", {"ids": [first]})
    await backend.ask("POST", f"{me}/notifications/ack", {"cursor": first})
    await backend.ask("PUT", f"{me}/topics/news")
    await backend.ask("PUT", f"{me}/mutes/types/ad")
    await backend.publish({"topic": "news"}, title="for all")
    await backend.ask("POST", f"{me}/notifications/read", {"all": True})
    await backend.publish(to, title=text, send_at=LATER)
    await backend.publish({"players": [name, "bob"]}, title="for two", send_at=LATER)
    await backend.ask("PUT", "/v1/campaigns/spring", {"name": "Spring"})
    card = {"id": "c1", "player": name, "status": "active"}
    for player in ("bob", name):
        cards = [{**card, "player": player}]
        await backend.ask("PUT", "/v1/campaigns/spring/cards", cards)
    headers = mint.bearer(name)
    await server.client.post("/v1/tickets", headers=headers)
    # Of a schedule with a label, which only vendors' paths give.
    log = server.log(name)
    await server.redis.call("ZADD", keys_of().named(log, "label"), 1, "id", write=True)
    # What another part keeps of when the player was last seen.
    key = keys_of().of_player(log, "seen")
    await server.redis.call("SET", key, 1, write=True)


@pytest.mark.parametrize("setting", ["hash", "name"])
async def test_nothing_names_an_erased_player(
    start: Any,
    add_key: AddKey,
    mint: Mint,
    open_events: OpenEvents,
    redis: RedisConnection,
    setting: str,
) -> None:
    server = await start(log_players=setting)
    scopes = ("admin", "notifications:send", "notifications:read")
    more = ("schedules:write", "campaigns:read", "campaigns:write")
    backend = Backend(server.client, await add_key(*scopes, *more))
    name = f"{NAME}-{setting}"
    await leave_traces(backend, server, mint, name)
    stream = await open_events(
        "/v1/stream?device=phone&instance=i", mint.bearer(name), at=server
    )
    found = await with_text(redis, name, text_for(name))
    assert found - {"audit"} == {*OWN, *SEARCHED} - {"reads", "done", "ends"} | (
        found & {"reads", "done", "ends"}
    )

    erased = await backend.erase(name, "asked by letter")

    assert erased["removed"]["schedules"] == 1
    assert erased["removed"]["cards"] == 1
    assert erased["removed"]["recipients"] == 1
    assert erased["removed"]["tickets"] == 1
    assert await with_text(redis, name, text_for(name)) == set()
    await stream.until(lambda it: it.data[-1].get("code") == 4205)

    # It is no more known than anybody: nothing is unread, and nothing comes later.
    assert await backend.unread(name) == 0
    audit = (await backend.ask("GET", f"/v1/audit?player={name}"))["entries"]
    assert [it["action"] for it in audit] == ["player.erase", "mute"]
    assert audit[0]["reason"] == "asked by letter"


async def test_the_nodes_forget_an_erased_player(
    start: Any, add_key: AddKey, mint: Mint, open_events: OpenEvents, until: Until
) -> None:
    servers = [await start(), await start()]
    backend = Backend(servers[0].client, await add_key("admin"))
    for server in servers:
        stream = await open_events("/v1/stream", mint.bearer("flora"), at=server)
        await stream.close()

    async def closed() -> list[str]:
        path = "/v1/admin/players/flora/inspection"
        return [it["node"] for it in (await backend.ask("GET", path))["closed"]]

    async def is_known_to_both() -> bool:
        return len(await closed()) == 2

    await until(is_known_to_both)

    await backend.erase("flora")

    assert await closed() == []


async def test_what_others_have_stays(
    backend: Backend, server: Server, mint: Mint, redis: RedisConnection
) -> None:
    await leave_traces(backend, server, mint, "carla")
    # Names that contain the erased one, or are equal to parts of keys.
    others = ("carl", "carla2", "x:carla", "carla/1")
    for other in others:
        await backend.publish({"players": [other]}, f"key-{other}")
        await backend.publish({"players": [other]}, send_at=LATER)
        await backend.ask("PUT", f"/v1/players/{other}/mutes/types/ad")
    schedules = len((await backend.ask("GET", "/v1/schedules?limit=100"))["schedules"])

    await backend.erase("carla")

    for other in others:
        assert await backend.unread(other) == 1
    left = (await backend.ask("GET", "/v1/schedules?limit=100"))["schedules"]
    assert len(left) == schedules - 1
    assert (await backend.ask("GET", "/v1/players/bob/notifications"))["unread"] == 0


async def test_the_marks_of_an_erased_player_leave_the_tallies(
    backend: Backend,
) -> None:
    for player in ("dora", "emil"):
        await backend.ask("PUT", f"/v1/players/{player}/topics/votes")
    found = (await backend.publish({"topic": "votes"}))["results"][0]["id"]
    for player in ("dora", "emil"):
        me = f"/v1/players/{player}/notifications"
        await backend.ask("POST", f"{me}/read", {"all": True})
        await backend.ask("POST", f"{me}/ack", {"cursor": found})
    path = f"/v1/topics/votes/notifications/{found}/receipt"
    before = await backend.ask("GET", path)
    assert (before["read"], before["acknowledged"]) == (2, 2)

    for _ in range(2):
        await backend.erase("dora")

    after = await backend.ask("GET", path)
    assert (after["read"], after["acknowledged"]) == (1, 1)


async def test_tokens_of_an_erased_player_are_revoked(
    backend: Backend, mint: Mint, client: httpx2.AsyncClient, redis: RedisConnection
) -> None:
    await backend.publish({"players": ["fritz"]})

    await backend.erase("fritz")

    log = Log(mint.name(), Player("fritz"))
    (before_s,) = await Apps(redis).revoked_before_s([log])
    assert before_s > 0
    assert await with_text(redis, "fritz") == set()


async def test_a_new_inbox_begins_after_an_erasure(backend: Backend) -> None:
    await backend.publish({"players": ["gina"]})
    old = await backend.ask("GET", "/v1/players/gina/notifications")
    await backend.erase("gina")

    new = (await backend.publish({"players": ["gina"]}))["results"][0]["id"]

    page = await backend.ask("GET", "/v1/players/gina/notifications")
    assert [it["id"] for it in page["notifications"]] == [new]
    path = f"/v1/players/gina/notifications?order=oldest&after={old['cursor']}"
    assert (await backend.ask("GET", path))["gap"] == "epoch"


async def test_an_erasure_that_was_interrupted_is_completed(
    backend: Backend,
    server: Server,
    mint: Mint,
    redis: RedisConnection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await leave_traces(backend, server, mint, "ida-lost")
    erasing = server.app._components.erasing
    real = erasing._traces.remove_own
    steps: list[str] = []

    class Crash(Exception):
        pass

    async def crash(log: Log) -> Any:
        steps.append("crash")
        await real(log)
        raise Crash

    monkeypatch.setattr(erasing._traces, "remove_own", crash)
    with pytest.raises(Crash):
        await erasing.erase_for("cli root", server.log("ida-lost"))
    monkeypatch.undo()
    assert "streamer:erasing" in await with_text(redis, "ida-lost")

    await erasing.complete_all()

    assert await with_text(redis, "ida-lost") == set()


async def test_a_node_completes_what_another_one_has_begun(
    backend: Backend, server: Server, start: Any, redis: RedisConnection, until: Until
) -> None:
    await backend.publish({"players": ["ines-left"]})
    await Erasures(redis).begin(server.log("ines-left"))

    await start()

    async def gone() -> bool:
        return not await with_text(redis, "ines-left")

    await until(gone)


async def test_what_a_player_published_meanwhile_got_is_erased_too(
    backend: Backend, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    await backend.publish({"players": ["jana-now"]})
    erasing = server.app._components.erasing
    real = erasing._traces.remove_own
    published: list[Any] = []

    async def publish_after(log: Log) -> Any:
        removed = await real(log)
        if not published:
            published.append(await backend.publish({"players": ["jana-now"]}, "once"))
        return removed

    monkeypatch.setattr(erasing._traces, "remove_own", publish_after)
    await backend.erase("jana-now")

    assert published
    assert await backend.unread("jana-now") == 0


async def test_the_list_of_erasures_finds_a_player_in_an_older_store(
    backend: Backend, server: Server, redis: RedisConnection, until: Until
) -> None:
    erasing = server.app._components.erasing
    await backend.erase("karl-back")
    listed = await last_erasures(redis, until, 1)
    assert b"karl-back" not in print_list(listed)
    await backend.publish({"players": ["karl-back", "lena-stays"]})

    # The store knows of the erasure: the player has come back since.
    assert await erasing.replay(parse_list(print_list(listed))) == 0
    assert await backend.unread("karl-back") == 1

    # An older store does not.
    await redis.call("DEL", "streamer:erasures", write=True)
    assert await erasing.replay(parse_list(print_list(listed))) == 1
    assert await with_text(redis, "karl-back") == set()
    assert await backend.unread("lena-stays") == 1


async def test_a_list_spares_who_is_of_a_newer_app_with_the_same_name(
    backend: Backend, server: Server, redis: RedisConnection, until: Until
) -> None:
    erasing = server.app._components.erasing
    await backend.erase("rosa-again")
    listed = await last_erasures(redis, until, 1)
    # The app was deleted, and with it what the store knew of the erasure; another one
    # of that name began later.
    await redis.call("DEL", "streamer:erasures", write=True)
    app = listed.erasures[0].app
    record = await Apps(redis).get(app)
    assert record is not None
    earlier = listed.erasures[0]._replace(at_ms=record.created_at_ms - 1)
    await backend.publish({"players": ["rosa-again"]})

    assert await erasing.replay(listed._replace(erasures=[earlier])) == 0

    assert await backend.unread("rosa-again") == 1


async def test_a_list_of_another_store_is_set_aside_once(
    server: Server, redis: RedisConnection, until: Until, mint: Mint, tmp_path: Path
) -> None:
    erasing = copy.copy(server.app._components.erasing)
    erasing._data_dir = tmp_path
    own = await last_erasures(redis, until, 1)
    gone = Erasure(mint.name("demo"), "0" * 32, await redis.now_ms())
    foreign = print_list(ErasureList(secrets.token_bytes(32), [gone]))
    path = list_path(tmp_path, "streamer")
    path.write_bytes(foreign)

    for _ in range(2):
        await erasing._replay_beside()

    (aside,) = contents(tmp_path).keys() - {path.name}
    assert contents(tmp_path)[aside] == foreign
    assert parse_list(path.read_bytes()).key == own.key


async def test_a_list_that_was_repeated_half_way_is_completed(
    backend: Backend,
    server: Server,
    redis: RedisConnection,
    until: Until,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = ("olga-one", "olga-two")
    for name in names:
        await backend.erase(name)
    listed = await last_erasures(redis, until, 2)
    await redis.call("DEL", "streamer:erasures", write=True)
    await backend.publish({"players": list(names)})
    erasing = server.app._components.erasing

    async def fail(log: Log) -> Any:
        raise StoreUnavailable("is away", write=True)

    with monkeypatch.context() as patched:
        patched.setattr(erasing._traces, "remove_own", fail)
        with pytest.raises(StoreUnavailable):
            await erasing.replay(listed)

    await erasing.replay(listed)

    assert await with_text(redis, *names) == set()


async def test_a_list_removes_what_the_audit_log_says_of_who_is_gone(
    start: Any, add_key: AddKey, redis: RedisConnection, until: Until
) -> None:
    server = await start(log_players="name")
    backend = Backend(server.client, await add_key("admin"))
    await backend.erase("petra")
    listed = await last_erasures(redis, until, 1)
    await redis.call("DEL", "streamer:erasures", write=True)
    # A backup from before the erasure has nothing else of the player.
    reason = {"reason": "petra wrote again"}
    await backend.ask("POST", "/v1/admin/players/petra/disconnect", reason)
    assert await with_text(redis, "petra") == {"audit"}

    await server.app._components.erasing.replay(listed)

    assert await with_text(redis, "petra") == set()


async def test_a_player_who_is_only_a_recipient_is_found_by_the_list(
    backend: Backend, server: Server, redis: RedisConnection, until: Until
) -> None:
    await backend.erase("mia-listed")
    await backend.erase("nora-card")
    listed = await last_erasures(redis, until, 2)
    await redis.call("DEL", "streamer:erasures", write=True)
    await backend.publish({"players": ["mia-listed", "bob"]}, send_at=LATER)
    await backend.ask("PUT", "/v1/campaigns/spring", {"name": "Spring"})
    card = {"id": "c9", "player": "nora-card", "status": "active"}
    await backend.ask("PUT", "/v1/campaigns/spring/cards", [card])

    assert await server.app._components.erasing.replay(listed) == 2

    assert await with_text(redis, "mia-listed", "nora-card") == set()


async def test_erasing_takes_the_scope(
    client: httpx2.AsyncClient, mint: Mint, add_key: AddKey
) -> None:
    path = "/v1/players/ann/erasure"
    keys = [await add_key(), await add_key("admin:read")]
    for headers in (
        *({"Authorization": f"Bearer {key}"} for key in keys),
        mint.bearer("ann", "notification:player:*"),
    ):
        assert (await client.post(path, headers=headers)).status_code == 403
    key = {"Authorization": f"Bearer {await add_key('admin:write')}"}
    answer = await client.post(path, headers=key)
    assert answer.json() == {"removed": {"keys": 0}, "files": "external"}


async def test_a_body_that_is_not_valid_erases_nothing(backend: Backend) -> None:
    await backend.publish({"players": ["olga"]})
    for body in ({"reason": 7}, {"why": "x"}, {"reason": "r" * 501}):
        answer = await backend.client.post(
            "/v1/players/olga/erasure", headers=backend.headers, json=body
        )
        assert answer.status_code == 422

    assert await backend.unread("olga") == 1


def test_a_list_that_is_damaged_is_refused() -> None:
    for text in (b"", b"{}", b'{"key":"00"}', b'{"key":"' + b"0" * 64 + b'"}\n{}'):
        with pytest.raises(ValueError):
            parse_list(text)


async def test_idempotency_keys_are_not_searched_for_a_players_name(
    backend: Backend, redis: RedisConnection
) -> None:
    """A player called 1 would get, and erase, what others have recorded."""
    sent = await backend.publish({"players": ["bob"]}, "order-1-for-bob")
    later = await backend.publish({"players": ["bob"]}, "1", send_at=LATER)

    await backend.erase("1")

    assert await backend.publish({"players": ["bob"]}, "order-1-for-bob") == sent
    again = await backend.publish({"players": ["bob"]}, "1", send_at=LATER)
    assert again == later
    keys = await redis.call("KEYS", "*request*")
    assert keys and not any(b"order" in key for key in keys)
