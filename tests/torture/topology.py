"""
The deployment under test: stores, nodes, and the proxies between all of them.

::

    client -> front (proxy) -> node -> door (proxy) -> store

Each node has a front and a door of its own. `Topology` has what every deployment needs,
and every fault that any store can have. A subclass says which stores there are and
which one is the primary, and adds the faults that only it can have; another kind of
deployment (Sentinel, Cluster) is another subclass. A fault is a method of its name.

Store and server are separate programs here, and each may be another one:
``STREAMER_TEST_STORE`` names the store, `executable` the `streamer` command.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import shutil
import signal
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from streamer.errors import Unavailable
from streamer.store.client.slots import parse_slots, slot_of
from streamer.store.keys import BUCKETS

from ..e2e.clusters import Cluster, ClusterNode, debian_server
from ..e2e.processes import (
    DURABLE,
    KEY,
    ServerProcess,
    StoreProcess,
    command,
    eventually,
)
from ..e2e.proxy import ProxiedConnection, TcpProxy
from .history import History
from .plan import ON_CLUSTER, ONE_STORE, WITH_REPLICA, Fault

START_S = 60
"""The longest wait for a node to become ready, and to end."""

HEARTBEAT_S = 2
"""Setting of the nodes: a reader notices a dead connection after 2.5 times as long."""

BUCKET_SLOTS = sorted({slot_of(f"{{{bucket}}}") for bucket in range(BUCKETS)})

REFUSED_COMMANDS = ("evalsha", "zrange", "time", "spublish", "ssubscribe", "xadd")


class Proxy(TcpProxy):
    """A proxy whose target may change, and whose connections can become half-open."""

    def __init__(self, target_port: int) -> None:
        super().__init__(target_port)
        self.tamper = self._pass_on

    @staticmethod
    def _pass_on(pair: ProxiedConnection, chunk: bytes, up: bool) -> bytes:
        return b"" if "dead" in pair.seen else chunk

    def half_open(self) -> None:
        """Pass nothing on any more on the connections that exist."""
        for pair in self.connections:
            pair.seen["dead"] = 1


class Balancer(TcpProxy):
    """One port for all nodes: each connection goes to the next node that runs."""

    def __init__(self, nodes: list[Node]) -> None:
        self._turn = itertools.cycle(nodes)
        self._nodes = len(nodes)
        super().__init__(0)

    @property
    def target_port(self) -> int:
        for node in itertools.islice(self._turn, self._nodes):
            if not node.ended:
                break
        return node.front.port

    @target_port.setter
    def target_port(self, port: int) -> None:
        pass


class Store(StoreProcess):
    """A store on a port of its own, of the program that the tests run on."""

    def _spawn(self, command: list[str], env: dict[str, str] | None = None) -> None:
        wanted = os.environ.get("STREAMER_TEST_STORE", "redis-server")
        program = shutil.which(wanted) or command[0]
        super()._spawn([program, *command[1:]], env)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        redis = Redis(port=self.port, socket_timeout=5)
        try:
            yield redis
        finally:
            await redis.aclose()

    async def ask(self, *words: object) -> Any:
        async with self.connection() as redis:
            return await redis.execute_command(*words)

    async def role(self) -> str:
        """Return ``master`` or ``slave``; empty if it does not answer."""
        try:
            return str((await self.ask("ROLE"))[0].decode())
        except (RedisError, OSError):
            return ""

    async def in_step(self) -> bool:
        """Whether it is a replica that has everything."""
        try:
            info = await self.ask("INFO", "replication")
        except (RedisError, OSError):
            return False
        return bool(info.get("master_link_status") == "up")


class Node(ServerProcess):
    """One node, with its front and its door."""

    front: Proxy
    door: Proxy

    def __init__(
        self, folder: Path, *, executable: str, workers: int, **settings: Any
    ) -> None:
        super().__init__(folder, **settings, workers=workers)
        self.name = folder.name
        self.workers = workers
        self.executable = executable
        self.ends_soon = False
        """Whether a fault is what ends it."""
        self.lock = asyncio.Lock()

    def words(self, *arguments: str) -> list[str]:
        if self.executable:
            return [self.executable, *arguments]
        return command(*arguments)

    async def open(self, store_port: int) -> None:
        self.door = Proxy(store_port)
        self.front = Proxy(self.port)
        await self.door.start()
        await self.front.start()
        self.redis = self.door.redis_url

    async def ready(self) -> None:
        # The start of a process may take long on a busy machine.
        await eventually(lambda: _is_ready(self), within_s=START_S)

    def spawn(self) -> None:
        settings = {
            f"STREAMER_{name.upper()}": str(value)
            for name, value in self._settings.items()
        }
        self._spawn(
            [*self.words("serve"), "--port", str(self.port), "--redis", self.redis],
            self.environment() | settings,
        )

    def children(self) -> list[int]:
        path = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        return [int(pid) for pid in path.read_text().split()]

    async def say(self, *arguments: str) -> str:
        """Run another `streamer` command on the store; return what it printed."""
        process = await asyncio.create_subprocess_exec(
            *self.words(*arguments, "--redis", self.redis),
            env=self.environment(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        printed, _ = await process.communicate()
        assert process.returncode == 0, printed.decode()
        return printed.decode()

    async def close(self) -> None:
        self.ends_soon = True
        await asyncio.to_thread(self.discard)
        await self.front.close()
        await self.door.close()


class Topology:
    """
    One store and some nodes, each with one worker but the last, which has two.

    Args:
        folder: Where the processes have their files.
        history: Where faults are noted.
        executable: The `streamer` command of another checkout; empty means this one.
        settings: Settings of the nodes.
    """

    KINDS: tuple[str, ...] = ONE_STORE
    DURABILITY = "always"
    loses_unconfirmed = False
    """Whether what was not acknowledged may have been delivered and be lost."""

    def __init__(
        self,
        folder: Path,
        history: History,
        *,
        executable: str = "",
        nodes: int = 2,
        **settings: Any,
    ) -> None:
        self.history = history
        self._folder = folder
        self._store_lock = asyncio.Lock()
        self.nodes = [
            Node(
                folder / f"node{number}",
                executable=executable,
                workers=2 if number == nodes - 1 else 1,
                **{
                    "durability": self.DURABILITY,
                    "heartbeat_s": HEARTBEAT_S,
                    "drain_s": 1,
                    "access_log": "false",
                    **settings,
                },
            )
            for number in range(nodes)
        ]
        self.balancer = Balancer(self.nodes)
        self._supervisor: asyncio.Task[None] | None = None
        self.backend_key = ""

    # What a deployment consists of; other deployments override these.

    def make_stores(self) -> list[Store]:
        return [Store(self._folder / "store", *DURABLE)]

    async def start_stores(self) -> None:
        self.stores = self.make_stores()
        for store in self.stores:
            await store.start()
        self.primary = self.stores[0]

    async def restore_stores(self) -> None:
        """Return when the stores are whole again."""
        for store in self.stores:
            if store.ended:
                await store.start()

    async def open_node(self, node: Node) -> None:
        """Give a node its proxies and the URL of the store."""
        await node.open(self.primary.port)

    # Start and end.

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        try:
            await self.start_stores()
            for node in self.nodes:
                await self.open_node(node)
            first = self.nodes[0]
            await first.say("app", "create", "demo")
            printed = await first.say("key", "--app", "demo")
            found = re.search(r"sk_\S+", printed) or KEY.search(printed)
            assert found, printed
            self.backend_key = found[0].strip()
            await asyncio.gather(*(node.start() for node in self.nodes))
            await self.balancer.start()
            self._supervisor = asyncio.create_task(self._supervise())
            yield
        finally:
            if self._supervisor is not None:
                self._supervisor.cancel()
                await asyncio.wait([self._supervisor])
                await self.balancer.close()
            for node in self.nodes:
                if hasattr(node, "front"):
                    with suppress(ProcessLookupError, AssertionError):
                        node.send_signal(signal.SIGCONT)
                    await node.close()
            for store in getattr(self, "stores", ()):
                store.discard()

    async def _supervise(self) -> None:
        """Start nodes again that ended by themselves, as an init system does."""
        while True:
            for node in self.nodes:
                if node.ended and not node.ends_soon:
                    last = node.logged.strip().splitlines()[-1:]
                    self.history.trouble(
                        "ended", f"{node.name} ended by itself: {last}"
                    )
                    node._process = None
                    node.spawn()
            await asyncio.sleep(0.25)

    def fronts(self) -> Iterator[int]:
        """Yield the ports of the fronts in turn, without end."""
        return itertools.cycle([node.front.port for node in self.nodes])

    async def heal(self) -> bool:
        """End all faults; return whether every node is ready within the guard."""
        await self.restore_stores()
        for node in self.nodes:
            for proxy in (node.front, node.door):
                proxy.come_back()
                proxy.resume()
        try:
            for node in self.nodes:
                await node.ready()
        except AssertionError:
            states = [(n.name, await n.probe("/readyz")) for n in self.nodes]
            self.history.trouble("stuck", f"not ready without faults: {states}")
            return False
        return True

    # Faults.

    async def inject(self, fault: Fault) -> None:
        """Cause a fault and undo it when its time is over."""
        self.history.note("fault", kind=fault.kind, node=fault.node, for_s=fault.for_s)
        self.history.faults_injected += 1
        await getattr(self, fault.kind)(self.nodes[fault.node], fault)
        self.history.note("fault over", kind=fault.kind, node=fault.node)

    async def _replace(
        self, node: Node, number: int, *, after_s: float, ends: bool = True
    ) -> None:
        async with node.lock:
            if node.ended:
                return
            node.ends_soon = True
            try:
                workers = node.children()
                node.send_signal(number)
                if not ends:
                    await asyncio.sleep(after_s)
                    if not node.ended:
                        return
                    self.history.note(f"{node.name} ended by signal {number}")
                await eventually(lambda: node.ended, within_s=START_S)
                await node.end()
                # Workers whose supervisor was killed end by themselves, and have its
                # port until then.
                await eventually(
                    lambda: not any(map(_is_running, workers)), within_s=START_S
                )
                await asyncio.sleep(after_s if ends else 0)
                node.spawn()
            finally:
                node.ends_soon = False

    async def kill(self, node: Node, fault: Fault) -> None:
        await self._replace(node, signal.SIGKILL, after_s=fault.for_s / 2)

    async def term(self, node: Node, fault: Fault) -> None:
        await self._replace(node, signal.SIGTERM, after_s=0)

    async def hup(self, node: Node, fault: Fault) -> None:
        await self._replace(node, signal.SIGHUP, after_s=1.5, ends=False)

    async def kill_worker(self, node: Node, fault: Fault) -> None:
        node = self.nodes[-1]
        async with node.lock:
            if not node.ended and (children := node.children()):
                with suppress(ProcessLookupError):
                    os.kill(children[fault.choice % len(children)], signal.SIGKILL)

    async def stop(self, node: Node, fault: Fault) -> None:
        async with node.lock:
            if node.ended:
                return
            pids = [node.pid, *node.children()]
            for number in (signal.SIGSTOP, signal.SIGCONT):
                for pid in pids:
                    with suppress(ProcessLookupError):
                        os.kill(pid, number)
                await asyncio.sleep(fault.for_s if number == signal.SIGSTOP else 0)

    async def client_cut(self, node: Node, fault: Fault) -> None:
        node.front.cut()

    async def client_stall(self, node: Node, fault: Fault) -> None:
        await self._stall(node.front, fault)

    async def client_half_open(self, node: Node, fault: Fault) -> None:
        node.front.half_open()

    async def door_cut(self, node: Node, fault: Fault) -> None:
        node.door.cut()

    async def door_stall(self, node: Node, fault: Fault) -> None:
        await self._stall(node.door, fault)

    async def door_half_open(self, node: Node, fault: Fault) -> None:
        node.door.half_open()

    async def door_refuse(self, node: Node, fault: Fault) -> None:
        node.door.go_away()
        await asyncio.sleep(fault.for_s)
        node.door.come_back()

    async def _stall(self, proxy: Proxy, fault: Fault) -> None:
        proxy.stall()
        await asyncio.sleep(fault.for_s)
        proxy.resume()

    async def store_kill(self, node: Node, fault: Fault) -> None:
        await self._restart(signal.SIGKILL, fault)

    async def store_restart(self, node: Node, fault: Fault) -> None:
        await self._restart(signal.SIGTERM, fault)

    async def _restart(self, number: int, fault: Fault) -> None:
        async with self._store_lock:
            await self.primary.stop(number)
            await asyncio.sleep(fault.for_s / 2)
            await self.primary.start()

    async def client_kill(self, node: Node, fault: Fault) -> None:
        await self._tell("CLIENT", "KILL", "TYPE", "normal")

    async def client_kill_pubsub(self, node: Node, fault: Fault) -> None:
        await self._tell("CLIENT", "KILL", "TYPE", "pubsub")

    async def client_pause(self, node: Node, fault: Fault) -> None:
        what = ("ALL", "WRITE")[fault.choice % 2]
        await self._tell("CLIENT", "PAUSE", int(fault.for_s * 1000), what)

    async def script_flush(self, node: Node, fault: Fault) -> None:
        await self._tell("SCRIPT", "FLUSH")

    async def store_full(self, node: Node, fault: Fault) -> None:
        await self._meanwhile(
            ("CONFIG", "SET", "maxmemory", "1"),
            ("CONFIG", "SET", "maxmemory", "0"),
            fault,
        )

    async def refuse_channels(self, node: Node, fault: Fault) -> None:
        await self._meanwhile(
            ("ACL", "SETUSER", "default", "resetchannels"),
            ("ACL", "SETUSER", "default", "allchannels"),
            fault,
        )

    async def refuse_command(self, node: Node, fault: Fault) -> None:
        refused = REFUSED_COMMANDS[fault.choice % len(REFUSED_COMMANDS)]
        self.history.note("refused command", command=refused)
        await self._meanwhile(
            ("ACL", "SETUSER", "default", f"-{refused}"),
            ("ACL", "SETUSER", "default", "+@all"),
            fault,
        )

    async def _tell(self, *words: object) -> None:
        async with self._store_lock:
            # The connection that asks may be killed, too.
            with suppress(RedisError, OSError):
                await self.primary.ask(*words)

    async def _meanwhile(
        self, begin: tuple[str, ...], end: tuple[str, ...], fault: Fault
    ) -> None:
        async with self._store_lock:
            await self.primary.ask(*begin)
            await asyncio.sleep(fault.for_s)
            await self.primary.ask(*end)


def _is_running(pid: int) -> bool:
    try:
        # After the name, which is in parentheses; Z is a process that has ended.
        return (
            Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        )
    except FileNotFoundError:
        return False


async def _is_ready(node: Node) -> bool:
    return await node.probe("/readyz") == 200


class OneStore(Topology):
    """One durable store."""


class StoreWithReplica(Topology):
    """
    A primary and a replica, which change their roles.

    All nodes know the store by one address, that of their door. After a switch the door
    leads to the other store; connections that exist stay connected to the old primary,
    as they do behind a DNS name or a virtual address.
    """

    KINDS = WITH_REPLICA
    DURABILITY = "replicated"
    loses_unconfirmed = True

    def make_stores(self) -> list[Store]:
        options = (*DURABLE, "--repl-diskless-sync-delay", "0")
        return [Store(self._folder / f"store{number}", *options) for number in (0, 1)]

    async def start_stores(self) -> None:
        await super().start_stores()
        await self._follow(self._other)
        await eventually(self._other.in_step)

    @property
    def _other(self) -> Store:
        one, two = self.stores
        return two if self.primary is one else one

    async def _follow(self, replica: Store) -> None:
        await replica.ask("REPLICAOF", "127.0.0.1", self.primary.port)

    def _elect(self, store: Store) -> None:
        self.primary = store
        self.history.note("primary", store=store.port)
        for node in self.nodes:
            node.door.lead_to(store.port)

    async def restore_stores(self) -> None:
        async with self._store_lock:
            await super().restore_stores()
            if await self._other.role() != "slave":
                await self._follow(self._other)
            await eventually(self._other.in_step)

    async def _restart(self, number: int, fault: Fault) -> None:
        await super()._restart(number, fault)
        async with self._store_lock:
            await eventually(self._other.in_step)

    async def failover(self, node: Node, fault: Fault) -> None:
        """A planned failover, in which nothing is lost and no connection is closed."""
        async with self._store_lock:
            await eventually(self._other.in_step)
            other = self._other
            await self.primary.ask("FAILOVER")
            await eventually(lambda: _is_primary(other))
            self._elect(other)
            await eventually(self._other.in_step)

    async def switch(self, node: Node, fault: Fault) -> None:
        """Exchange the roles by REPLICAOF, with connections that stay open."""
        async with self._store_lock:
            await eventually(self._other.in_step)
            other = self._other
            await other.ask("REPLICAOF", "NO", "ONE")
            self._elect(other)
            await self._follow(self._other)
            await eventually(self._other.in_step)

    async def promote(self, node: Node, fault: Fault) -> None:
        """Kill the primary and promote the replica; the old primary returns later."""
        async with self._store_lock:
            await eventually(self._other.in_step)
            other = self._other
            await self.primary.kill()
            await other.ask("REPLICAOF", "NO", "ONE")
            self._elect(other)
            await asyncio.sleep(fault.for_s / 2)
            await self._other.start()
            await self._follow(self._other)
            await eventually(self._other.in_step)

    async def replica_cut(self, node: Node, fault: Fault) -> None:
        await self._tell("CLIENT", "KILL", "TYPE", "replica")


async def _is_primary(store: Store) -> bool:
    return await store.role() == "master"


class StoreCluster(Topology):
    """
    A Redis Cluster of three primaries, each with a replica, that fails over by itself.

    Nodes reach its servers without a door: the servers name each other. One change of
    the cluster comes after the other.
    """

    KINDS = ON_CLUSTER
    DURABILITY = "replicated"
    loses_unconfirmed = True
    NODE_TIMEOUT_MS = 3_000
    """Longer than a busy machine stops a server: only `promote` replaces one."""

    async def start_stores(self) -> None:
        self.cluster = Cluster(
            self._folder / "cluster",
            replicas=1,
            node_timeout_ms=self.NODE_TIMEOUT_MS,
            binary=debian_server(),
        )
        self.members = list(self.cluster.nodes)
        """The servers that belong to the cluster at present."""
        self.stores = self.members  # type: ignore[assignment]
        self._added = 0
        await self.cluster.start()

    async def open_node(self, node: Node) -> None:
        await node.open(self.members[0].port)
        node.redis = self.cluster.url

    async def restore_stores(self) -> None:
        async with self._store_lock:
            for member in self.members:
                if member.ended:
                    await member.start()
            await self._settled()

    async def promote(self, node: Node, fault: Fault) -> None:
        """Kill a primary; its replica is promoted, and it comes back as the replica."""
        async with self._store_lock:
            await self._settled()
            owners = await self._owners()
            lost = self._chosen(owners.values(), fault.choice)
            await lost.kill()
            await eventually(lambda: self._has_no_slots(lost), within_s=START_S)
            self.history.note("promoted", instead_of=lost.port)
            await lost.start()
            await self._settled()

    async def move_slots(self, node: Node, fault: Fault) -> None:
        """Move slots that are in use to another primary, key by key."""
        async with self._store_lock:
            await self._settled()
            owners = await self._owners()
            source = self._chosen(owners.values(), fault.choice)
            others = [it for it in owners.values() if it is not source]
            target = self._chosen(others, fault.choice // 8)
            moved = await self._move_some(source, target, 4)
            self.history.note("moved", slots=moved, to=target.port)

    async def add_and_remove(self, node: Node, fault: Fault) -> None:
        """Add a primary with a replica, give it slots of all others, and remove it."""
        async with self._store_lock:
            await self._settled()
            owners = await self._owners()
            primary, replica = fresh = [self._fresh() for _ in range(2)]
            self.members += fresh
            for server in fresh:
                await server.start()
                server.id = (await server.ask("CLUSTER", "MYID")).decode()
                known = self.members[0]
                await server.ask(
                    *("CLUSTER", "MEET", "127.0.0.1", known.port, known.bus_port)
                )
            await eventually(self._all_have_met, within_s=START_S)
            await replica.ask("CLUSTER", "REPLICATE", primary.id)
            await self._settled()
            moved = {
                source: await self._move_some(source, primary, 2)
                for source in set(owners.values())
            }
            self.history.note("added", primary=primary.port, slots=[*moved.values()])
            await asyncio.sleep(fault.for_s)
            for source, slots in moved.items():
                for slot in slots:
                    await self._move(slot, primary, source)
            for server in (replica, primary):
                self.members.remove(server)
                for member in self.members:
                    if member is not primary:
                        await member.ask("CLUSTER", "FORGET", server.id)
                await server.kill()
            self.history.note("removed", primary=primary.port)
            await self._settled()

    async def _tell(self, *words: object) -> None:
        async with self._store_lock:
            for member in self.members:
                # The connection that asks may be killed, too.
                with suppress(RedisError, Unavailable):
                    await member.ask(*map(str, words))

    def _fresh(self) -> ClusterNode:
        self._added += 1
        return ClusterNode(
            self._folder / "cluster" / f"added{self._added}",
            len(self.cluster.nodes) + self._added,
            *DURABLE,
            node_timeout_ms=self.NODE_TIMEOUT_MS,
            binary=debian_server(),
        )

    @staticmethod
    def _chosen(servers: Iterable[ClusterNode], choice: int) -> ClusterNode:
        among = sorted(set(servers), key=lambda it: it.port)
        return among[choice % len(among)]

    async def _owners(self) -> dict[int, ClusterNode]:
        """Return who has each slot that the server uses for buckets, by one server."""
        by_port = {member.port: member for member in self.members}
        for member in self.members:
            if not member.ended:
                map_ = parse_slots(await member.ask("CLUSTER", "SLOTS"), "127.0.0.1")
                break
        owners = {slot: map_.owners[slot] for slot in BUCKET_SLOTS}
        return {slot: by_port[place.port] for slot, place in owners.items() if place}

    async def _has_no_slots(self, server: ClusterNode) -> bool:
        try:
            return server not in (await self._owners()).values()
        except (RedisError, Unavailable):
            return False

    async def _all_have_met(self) -> bool:
        """Whether each server knows each other one, and no handshake is under way."""
        ids = {member.id for member in self.members}
        for member in self.members:
            lines = (await member.ask("CLUSTER", "NODES")).decode().splitlines()
            if any("handshake" in line for line in lines):
                return False
            if not ids <= {line.partition(" ")[0] for line in lines}:
                return False
        return True

    async def _settled(self) -> None:
        """Wait until all servers are well and agree, and each primary has a replica."""

        async def agree() -> bool:
            try:
                maps = []
                with_replica: set[int] = set()
                for member in self.members:
                    info = await member.ask("CLUSTER", "INFO")
                    if b"cluster_state:ok" not in info:
                        return False
                    role = await member.ask("ROLE")
                    if role[0] == b"slave":
                        if role[3] != b"connected":
                            return False
                        with_replica.add(role[2])
                    reply = await member.ask("CLUSTER", "SLOTS")
                    maps.append(parse_slots(reply, "127.0.0.1").owners)
            except (RedisError, Unavailable):
                return False
            owners = {place.port for place in maps[0] if place is not None}
            return all(it == maps[0] for it in maps) and owners <= with_replica

        await eventually(agree, within_s=START_S)

    async def _move_some(
        self, source: ClusterNode, target: ClusterNode, count: int
    ) -> list[int]:
        """Move some slots that have keys; return them."""
        mine = [slot for slot, it in (await self._owners()).items() if it is source]
        used = [
            slot
            for slot in mine
            if await source.ask("CLUSTER", "COUNTKEYSINSLOT", slot)
        ]
        for slot in used[:count]:
            await self._move(slot, source, target)
        return used[:count]

    async def _move(self, slot: int, source: ClusterNode, target: ClusterNode) -> None:
        await target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        await source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)
        while keys := await source.ask("CLUSTER", "GETKEYSINSLOT", slot, 3):
            await source.ask(
                *("MIGRATE", "127.0.0.1", target.port, "", 0, 5_000, "KEYS", *keys)
            )
        # The others hear of it from these two.
        for server in (target, source):
            await server.ask("CLUSTER", "SETSLOT", slot, "NODE", target.id)


TOPOLOGIES: dict[str, type[Topology]] = {
    "one": OneStore,
    "replica": StoreWithReplica,
    "cluster": StoreCluster,
}
