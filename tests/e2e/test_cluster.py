"""Servers on a Redis Cluster: all works, and nothing is lost while it changes."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import itertools
import subprocess
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from streamer.store.client.connection import RedisConnection
from streamer.store.client.slots import SLOTS, parse_slots, slot_of
from streamer.store.server.server_binary import find_server, read_version

from .clusters import Cluster, ClusterNode, debian_server
from .processes import ServerProcess, StoreProcess, eventually
from .readers import Api, Follower, following

PLAYERS = [f"player{number}" for number in range(12)]
"""Enough that every primary has some."""

CHANGE_S = 60.0
"""How long a cluster may take to change on a busy machine."""


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    cluster = Cluster(tmp_path / "cluster", binary=debian_server())
    try:
        yield await cluster.start()
    finally:
        cluster.discard()


@pytest.fixture
async def replicated(tmp_path: Path) -> AsyncIterator[Cluster]:
    """Give a cluster that fails over by itself, with a primary that has no slots."""
    cluster = Cluster(
        tmp_path / "cluster",
        replicas=1,
        spares=1,
        node_timeout_ms=3_000,
        binary=debian_server(),
    )
    try:
        yield await cluster.start()
    finally:
        cluster.discard()


def key_for(server: ServerProcess) -> str:
    """Create an app with the command line; return a backend key."""
    for arguments in (("app", "create", "game"), ("key", "--app", "game")):
        result = server.run(*arguments, "--redis", server.redis)
        assert result.returncode == 0, result.stderr
    return str(result.stdout.split()[-1])


class Audience:
    """Players with an open stream each, and what they were sent."""

    def __init__(self, server: ServerProcess, backend: Api) -> None:
        self.backend = backend
        self._server = server
        self._all = contextlib.AsyncExitStack()
        self.streams: dict[str, Follower] = {}
        self.sent: dict[str, list[str]] = {player: [] for player in PLAYERS}

    async def __aenter__(self) -> Audience:
        transports = itertools.cycle(("websocket", "sse"))
        for player in PLAYERS:
            answer = await self.backend.http.post("/v1/tokens", json={"player": player})
            follower = following(
                next(transports), self._server.port, answer.json()["token"]
            )
            self.streams[player] = await self._all.enter_async_context(follower)
        return self

    async def __aexit__(self, *exc: Any) -> None:
        await self._all.__aexit__(*exc)

    async def publish(self) -> None:
        """Publish to all players, until all of it is stored."""
        ids = await self.backend.stored(*PLAYERS, title="x")
        for player, id_ in zip(PLAYERS, ids, strict=True):
            self.sent[player].append(id_)

    async def ready(self) -> int:
        return await self._server.probe("/readyz")

    @contextlib.asynccontextmanager
    async def under_load(self) -> AsyncIterator[None]:
        """Publish all the time while the block runs, from several clients."""
        stopped = asyncio.Event()

        async def load() -> None:
            while not stopped.is_set():
                await self.publish()

        clients = [asyncio.create_task(load()) for _ in range(3)]
        try:
            yield
        finally:
            stopped.set()
            await asyncio.gather(*clients)

    async def check(self) -> None:
        """Check that everything was stored once, and delivered once, without a gap."""
        for player, ids in self.sent.items():
            stored = [one["id"] for one in await self.backend.inbox(player)]
            assert sorted(stored) == sorted(ids), f"lost or doubled: {player}"
            await self.streams[player].has(stored)
            assert self.streams[player].gaps == [], player


@contextlib.asynccontextmanager
async def audience_on(
    cluster: Cluster, folder: Path, **settings: object
) -> AsyncIterator[Audience]:
    server = ServerProcess(folder, redis=cluster.url, **settings)
    try:
        await server.start()
        async with (
            Api(server.port, key_for(server)) as backend,
            Audience(server, backend) as audience,
        ):
            yield audience
        assert "Traceback" not in server.logged
    finally:
        server.discard()


async def owners(node: ClusterNode) -> Sequence[int | None]:
    """Return the port of the primary of each slot, by the word of a node."""
    map_ = parse_slots(await node.ask("CLUSTER", "SLOTS"), "127.0.0.1")
    return [place and place.port for place in map_.owners]


def slots_of(players: Sequence[str]) -> list[int]:
    """Return the slots of the players' buckets."""
    from streamer.model import App
    from streamer.store.keys import bucket_of

    return [slot_of(f"{{{bucket_of(App('game'), player)}}}") for player in players]


@pytest.mark.stack(
    "Redis Cluster",
    "three primaries: publish, stream, page, topics and schedules",
    setting="a URL that names some of its nodes",
)
async def test_everything_works_on_a_cluster(tmp_path: Path, cluster: Cluster) -> None:
    async with audience_on(cluster, tmp_path) as audience:
        await audience.publish()
        await audience.check()
        http = audience.backend.http

        # A topic is in one shard, and its players in all.
        for player in PLAYERS:
            joined = await http.put(f"/v1/players/{player}/topics/news")
            assert joined.status_code < 300, joined.text
        topic = await http.post(
            "/v1/notifications", json={"to": {"topic": "news"}, "title": "topic"}
        )
        everyone = await http.post(
            "/v1/notifications", json={"to": {"everyone": True}, "title": "everyone"}
        )
        both = [answer.json()["results"][0]["id"] for answer in (topic, everyone)]
        soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=1)
        scheduled = await http.post(
            "/v1/notifications",
            json={
                "to": {"players": PLAYERS},
                "title": "later",
                "send_at": soon.isoformat(),
            },
        )
        assert scheduled.status_code == 202, scheduled.text

        async def arrived() -> bool:
            pages = [await audience.backend.inbox(player) for player in PLAYERS]
            return all("later" in [one["title"] for one in page] for page in pages)

        await eventually(arrived)
        for player in PLAYERS:
            page = await audience.backend.inbox(player)
            # Logs of two shards are in the order of their clocks.
            assert sorted(one["title"] for one in page) == sorted(
                ["x", "topic", "everyone", "later"]
            )
            assert {one["id"] for one in page} >= set(both)
            await audience.streams[player].has([one["id"] for one in page])
        counts = await http.post("/v1/unread", json={"players": PLAYERS})
        assert [one["unread"] for one in counts.json()["unread"]] == [4] * len(PLAYERS)


async def test_the_commands_check_and_use_a_cluster(
    tmp_path: Path, cluster: Cluster
) -> None:
    server = ServerProcess(tmp_path, redis=cluster.url)
    key_for(server)

    doctor = server.run("doctor", "--redis", cluster.url)

    assert doctor.returncode == 0, doctor.stdout + doctor.stderr
    assert "a cluster of 3 primaries and 0 replicas" in doctor.stdout
    for node in cluster.primaries:
        assert f"127.0.0.1:{node.port}: durability is always" in doctor.stdout

    await cluster.primaries[1].ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    doctor = server.run("doctor", "--redis", cluster.url)
    assert doctor.returncode == 1
    told = f"127.0.0.1:{cluster.primaries[1].port}: the eviction policy is allkeys-lru"
    assert told in doctor.stdout
    trimmed = server.run("trim", "--older-than", "30d", "--redis", cluster.url)
    assert trimmed.returncode == 0, trimmed.stderr
    deleted = server.run("app", "list", "--redis", cluster.url)
    assert "game" in deleted.stdout


@pytest.mark.nightly
@pytest.mark.stack(
    "Redis Cluster", "TLS, while a slot moves under load", setting="`ssl_ca_certs`"
)
async def test_a_cluster_is_reached_over_tls_alone(tmp_path: Path) -> None:
    binary = debian_server() or find_server()
    if not speaks_tls(binary):
        pytest.skip("the server was built without TLS")
    certificate = write_certificate(tmp_path / "store.pem")
    cluster = Cluster(tmp_path / "cluster", binary=binary, certificate=certificate)
    try:
        await cluster.start()
        async with audience_on(cluster, tmp_path) as audience:
            await audience.publish()
            slot = slots_of(PLAYERS)[0]
            moved = await port_of(cluster.primaries[0], slot)
            source = next(it for it in cluster.primaries if it.known_port == moved)
            target = next(it for it in cluster.primaries if it is not source)
            async with audience.under_load():
                await cluster.move(slot, source, target)
                await audience.publish()
            await audience.check()

            # Without the certificate nobody is believed to be the store.
            url, _, _ = cluster.url.partition("?")
            server = ServerProcess(tmp_path, redis=url)
            doctor = server.run("doctor", "--redis", url)
            assert doctor.returncode == 1
            assert "certificate verify failed" in doctor.stdout
            doctor = server.run("doctor", "--redis", cluster.url)
            assert doctor.returncode == 0, doctor.stdout
            # The servers' other port is for this test.
            clients = (await source.ask("CLIENT", "LIST")).decode()
            own = [it for it in clients.splitlines() if "name=streamer" in it]
            assert own
            assert all(f"laddr=127.0.0.1:{source.tls_port} " in it for it in own)
    finally:
        cluster.discard()


async def port_of(node: ClusterNode, slot: int) -> int:
    """Return the port with TLS of the primary of a slot."""
    redis = RedisConnection(
        f"rediss://127.0.0.1:{node.tls_port}?ssl_cert_reqs=none", name="test"
    )
    try:
        owner = parse_slots(await redis.call("CLUSTER", "SLOTS"), "127.0.0.1")
        place = owner.owners[slot]
    finally:
        await redis.close()
    assert place is not None
    return place.port


def speaks_tls(binary: Path) -> bool:
    """Whether a server was built with TLS: it knows a setting for it."""
    # It complains about the first setting that it does not know, and ends.
    command = [str(binary), "--port", "0", "--tls-port", "0", "--nonsense", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "nonsense" in done.stdout + done.stderr


def write_certificate(path: Path) -> Path:
    """Write a certificate of this machine that signs itself, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "store")])
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now - day, now + day)
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + certificate.public_bytes(pem))
    return path


async def test_a_url_of_the_wrong_kind_is_refused(
    tmp_path: Path, cluster: Cluster
) -> None:
    single = StoreProcess(tmp_path / "single")
    try:
        await single.start()
        for url, told in (
            (cluster.primaries[0].url, "use redis+cluster://HOST:PORT"),
            (f"redis+cluster://127.0.0.1:{single.port}", "use redis:// for a single"),
        ):
            server = ServerProcess(tmp_path, redis=url)
            result = server.run("serve", "--redis", url, "--port", str(server.port))
            assert result.returncode == 1, result.stdout
            assert told in result.stderr
            assert "Traceback" not in result.stderr
            result = server.run("doctor", "--redis", url)
            assert result.returncode == 1
            assert told in result.stdout
    finally:
        single.discard()


async def test_a_primary_that_is_away_fails_its_own_players_only(
    tmp_path: Path, cluster: Cluster
) -> None:
    async with audience_on(cluster, tmp_path) as audience:
        ports = await owners(cluster.primaries[0])
        # What every request needs is elsewhere.
        needed = {ports[slot_of(f"streamer:{name}")] for name in ("apps", "keys")}
        lost = next(it for it in cluster.primaries if it.port not in needed)
        at = dict(zip(PLAYERS, slots_of(PLAYERS), strict=True))
        gone = {player for player in PLAYERS if ports[at[player]] == lost.port}
        assert 0 < len(gone) < len(PLAYERS)
        await audience.publish()

        await lost.kill()

        async def status(*players: str) -> int:
            return (await audience.backend.publish(*players, title="y")).status_code

        for player in PLAYERS:
            expected = 503 if player in gone else 200
            assert await status(player) == expected, player
        assert await status(*PLAYERS) == 503

        # It is ready: all nodes share the cluster, and none could do better.
        async def ready() -> bool:
            return await audience.ready() == 200

        # Not at once if it has only just started.
        await eventually(ready)

        await lost.start()

        async def again() -> bool:
            return [await status(player) for player in gone] == [200] * len(gone)

        await eventually(again)
        for player in gone:
            page = await audience.backend.inbox(player)
            await audience.streams[player].has([one["id"] for one in page])
            assert audience.streams[player].gaps == []


@pytest.mark.nightly
@pytest.mark.stack(
    "Redis Cluster",
    "a primary is killed under load, and its replica promoted",
    setting="`durability=replicated`",
)
async def test_nothing_is_lost_when_a_replica_is_promoted(
    tmp_path: Path, replicated: Cluster
) -> None:
    settings = {"durability": "replicated", "replicas_min": 1}
    async with audience_on(replicated, tmp_path, **settings) as audience:
        async with audience.under_load():
            await audience.publish()
            lost = replicated.primaries[1]
            await lost.kill()

            async def promoted() -> bool:
                return lost.port not in await owners(replicated.primaries[0])

            await eventually(promoted, within_s=CHANGE_S)
            # The new primary needs a replica that confirms: the former one.
            await lost.start()
            await audience.publish()
        await audience.check()


@pytest.mark.nightly
async def test_nothing_is_lost_when_slots_move(
    tmp_path: Path, replicated: Cluster
) -> None:
    async with audience_on(replicated, tmp_path) as audience:
        source, target = replicated.primaries[0], replicated.spares[0]
        async with audience.under_load():
            await audience.publish()
            ports = await owners(source)
            mine = {it for it in slots_of(PLAYERS) if ports[it] == source.port}
            assert mine
            # A primary is added: it gets slots that are in use.
            for slot in mine:
                await replicated.move(slot, source, target, batch=2)
            await audience.publish()
            # It is removed again, while others serve.
            for slot in mine:
                await replicated.move(slot, target, source, batch=2)
            await audience.publish()
        assert len(await owners(source)) == SLOTS
        await audience.check()


@pytest.mark.nightly
@pytest.mark.stack("Valkey", "a cluster whose slots are moved as a whole, under load")
async def test_nothing_is_lost_when_slots_move_at_once(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "cluster", spares=1, binary=find_server())
    version = read_version(find_server())
    if version is None or version < (9, 0):
        pytest.skip("the server cannot move a slot as a whole")
    try:
        await cluster.start()
        async with audience_on(cluster, tmp_path) as audience:
            source, target = cluster.primaries[0], cluster.spares[0]
            async with audience.under_load():
                await audience.publish()
                ports = await owners(source)
                mine = {it for it in slots_of(PLAYERS) if ports[it] == source.port}
                assert mine
                for slot in mine:
                    await cluster.move_at_once(slot, source, target)
                await audience.publish()
                for slot in mine:
                    await cluster.move_at_once(slot, target, source)
                await audience.publish()
            await audience.check()
    finally:
        cluster.discard()
