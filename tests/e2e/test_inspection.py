"""`streamer inspect`, `connections`, `disconnect` and `presence` on running servers."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable
from typing import Any

from click.testing import CliRunner, Result

from streamer.cli import main

from .processes import DURABLE, ServerProcess, StoreProcess, eventually
from .readers import Api, SseStream, WsStream

MakeServer = Callable[..., ServerProcess]
MakeStore = Callable[..., StoreProcess]

SCOPES = ("admin:read", "admin:write", "notifications:send")


async def run(server: ServerProcess, key: str, *arguments: str) -> Result:
    """Run a command against a server."""
    command = [*arguments, "--url", server.url, "--key", key]
    return await asyncio.to_thread(CliRunner().invoke, main, command)


async def ask(server: ServerProcess, key: str, *arguments: str) -> Any:
    """Run a command, which must succeed; return what it prints as JSON."""
    done = await run(server, key, *arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


async def test_two_nodes_answer_and_a_stopped_one_is_named(
    make_server: MakeServer, make_store: MakeStore
) -> None:
    store = await make_store(*DURABLE).start()
    one, other = [make_server(redis=store.url) for _ in range(2)]
    await asyncio.gather(one.start(), other.start())
    key, token = await one.key(scopes=SCOPES), await one.token("ann")
    here = await SseStream.open(one.port, token)
    there = await WsStream.open(other.port, token)
    for stream in (here, there):
        await stream.until("hello")
    async with Api(other.port, key) as api:
        (id_,) = await api.published("ann", title="Hi", type="odd\x1b[2J\u202e")
    for stream in (here, there):
        await stream.until("notification")

    found = await ask(one, key, "inspect", "ann")
    shown = await run(one, key, "inspect", "ann")

    assert {it["pid"] for it in found["connections"]} == {one.pid, other.pid}
    (trace,) = found["notifications"]
    assert (trace["id"], len(trace["announced"]), len(trace["written"])) == (id_, 2, 2)
    assert "ann is online" in shown.stdout
    assert f"{id_}  stored" in shown.stdout
    assert "written to websocket" in shown.stdout
    assert "odd\\x1b[2J\\u202e" in shown.stdout
    assert shown.stdout.replace("\n", "").isprintable()

    other.send_signal(signal.SIGSTOP)
    try:
        found = await ask(one, key, "inspect", "ann")
        ended = await run(one, key, "disconnect", "ann")
        listed = await run(one, key, "connections")
    finally:
        other.send_signal(signal.SIGCONT)

    (stopped,) = found["silent"]
    assert [it["pid"] for it in found["connections"]] == [one.pid]
    assert (ended.exit_code, len(ended.stdout.split())) == (1, 1)
    assert f"node {stopped} did not answer" in ended.stderr
    assert f"node {stopped} did not answer" in listed.stderr
    assert str(one.pid) in listed.stdout
    # What it was asked meanwhile it does now; its late answers disturb nobody.
    assert (await there.until("bye")).data["code"] == 4106
    assert (await ask(one, key, "inspect", "ann"))["silent"] == []
    here.cut()
    there.cut()


async def test_each_worker_is_a_node(make_server: MakeServer) -> None:
    server = make_server(workers=2)
    await server.start()
    key = await server.key(scopes=SCOPES)
    streams = []
    pids: set[int] = set()
    # That so many connections all reach the same worker has a chance of 2^-31.
    for n in range(32):
        stream = await SseStream.open(server.port, await server.token(f"p{n}"))
        await stream.until("hello")
        streams.append(stream)
        found = await ask(server, key, "connections", f"p{n}")
        pids |= {it["pid"] for it in found["connections"]}
        if len(pids) == 2:
            break
    nodes = await ask(server, key, "connections")
    online = await run(server, key, "presence")

    assert {it["pid"] for it in nodes["nodes"]} == pids
    assert sum(it["connections"].get("sse", 0) for it in nodes["nodes"]) == len(streams)
    assert len(online.stdout.splitlines()) == len(streams)
    ended = await run(server, key, "disconnect", "p0", "--stop")
    assert len(ended.stdout.split()) == 1
    assert (await streams[0].until("bye")).data["code"] == 4204

    async def is_gone() -> bool:
        shown = await run(server, key, "presence", "p0", "nobody")
        first, second = shown.stdout.splitlines()
        assert second == "nobody  offline  not seen in the last 30 days"
        return first.startswith("p0  offline  last seen ")

    await eventually(is_gone)
    for stream in streams:
        stream.cut()


async def limited(store: StoreProcess, channels: str) -> str:
    """Create a user of the store for these channels; return the store's URL for it."""
    rights = f"on >secret ~streamer:* {channels} +@all -@admin -@dangerous"
    reader, writer = await asyncio.open_connection("127.0.0.1", store.port)
    writer.write(f"ACL SETUSER limited {rights} +info +config|get\r\n".encode())
    assert await reader.readline() == b"+OK\r\n"
    writer.close()
    return store.url.replace("//", "//limited:secret@")


async def test_an_access_list_of_the_namespace_suffices(
    make_server: MakeServer, make_store: MakeStore
) -> None:
    store = await make_store(*DURABLE).start()
    server = make_server(redis=await limited(store, "&streamer@*"))
    await server.start()
    key = await server.key(scopes=SCOPES)

    found = await ask(server, key, "connections")

    assert [it["pid"] for it in found["nodes"]] == [server.pid]
    assert found["silent"] == []


async def test_a_node_that_may_not_be_asked_is_ready_and_says_so(
    make_server: MakeServer, make_store: MakeStore
) -> None:
    store = await make_store(*DURABLE).start()
    channels = "&streamer@0:*:live:* &streamer@0:*:notices"
    server = make_server(redis=await limited(store, channels))
    await server.start()

    refused = await run(server, await server.key(scopes=SCOPES), "connections")

    assert await server.probe("/readyz") == 200
    assert "503 store unavailable" in refused.stderr
    await eventually(lambda: "refuses messages between nodes: NOPERM" in server.logged)


async def test_a_refusal_is_one_line_and_exit_code_1(server: ServerProcess) -> None:
    key = await server.key()
    refused = await run(server, key, "inspect", "ann")
    unknown = await run(server, "sk_unknown", "presence", "ann")
    missing = await run(
        server,
        await server.key(scopes=SCOPES),
        *("inspect", "ann", "--id", "0197a000-0000-7000-8000-000000000000"),
    )

    assert "403 forbidden: this requires the scope admin:read" in refused.stderr
    assert "401 unauthenticated" in unknown.stderr
    assert "404 not found" in missing.stderr
    for done in (refused, unknown, missing):
        assert (done.exit_code, done.stdout) == (1, "")
        assert len(done.stderr.splitlines()) == 1
