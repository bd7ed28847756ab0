"""
A trial of every command that the server sends, on keys that nobody uses.

Decides which commands a store has to allow. Knows their arguments. Knows nothing of
what they are used for.

An access list (ACL) may forbid a command, a pattern of keys or a pattern of channels,
and a host may disable commands. Some of them the server first sends when a schedule is
due or a campaign starts. So all of them are tried: by the node before it is ready, and
by `streamer doctor`. A script may do what its user may do, so the commands of scripts
are tried outside of them.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Sequence
from typing import Final, NamedTuple

import hiredis

from ...errors import StoreUnavailable
from ...model import App, Log, Player
from ..keys import Keys
from .commands import Command
from .connection import FORBIDDEN, FULL, RedisConnection, RespConnection, connect
from .replies import Reply

__all__ = ["Forbidden", "find_forbidden", "receive_announcement", "trial_commands"]

TRIAL_APP: Final = App(".trial")
"""No valid name of an app, as `PROBE_APP`, so that its keys are nobody's."""

TRIAL_PLAYER: Final = "trial"

EXPIRY_MS: Final = 60_000
PLAYERS_MAX: Final = 2_000
"""Enough to meet all buckets, and so every primary that has one."""

ANNOUNCEMENT_S: Final = 2.0
NAMED_MAX: Final = 6

_SCRIPT: Final = "return 1"
_SHA: Final = hashlib.sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()
_KINDS: Final = ("string", "hash", "list", "set", "zset", "stream", "log")


class Forbidden(NamedTuple):
    """Commands that the store forbids, and what it says of the first."""

    commands: Sequence[str]
    words: str

    def __str__(self) -> str:
        names = ", ".join(self.commands[:NAMED_MAX])
        others = len(self.commands) - NAMED_MAX
        more = f" and {others} more" if others > 0 else ""
        return f"forbids {names}{more}, which this server needs: {self.words}"


def trial_commands(keys: Keys, player: str = TRIAL_PLAYER) -> list[Command]:
    """Return every command that the server sends, with harmless arguments."""
    # The same keys every time: what a lost connection has left is deleted by the next.
    log = Log(TRIAL_APP, Player(player))
    base = keys.lease(log)
    string, hash_, list_, set_, zset, stream, hyperloglog = (
        f"{base}:{kind}" for kind in _KINDS
    )
    names = (keys.apps, keys.audiences, keys.backend_keys, keys.nodes, keys.fence)
    return [
        ("PING",),
        ("TIME",),
        ("EVAL", _SCRIPT, 1, string),
        ("EVALSHA", _SHA, 1, string),
        ("SPUBLISH", keys.channel(log), "trial"),
        *(("EXISTS", name) for name in names),
        # Strings and bitmaps.
        ("SET", string, "0", "PX", EXPIRY_MS),
        ("GET", string),
        ("GETEX", string, "PX", EXPIRY_MS),
        ("GETRANGE", string, 0, 0),
        ("SETBIT", string, 0, 0),
        ("GETBIT", string, 0),
        ("BITCOUNT", string),
        # Hashes.
        ("HSET", hash_, "count", 1),
        ("HSETNX", hash_, "name", ""),
        ("HINCRBY", hash_, "count", 1),
        ("HGET", hash_, "count"),
        ("HMGET", hash_, "count"),
        ("HGETALL", hash_),
        ("HEXISTS", hash_, "count"),
        ("HKEYS", hash_),
        ("HVALS", hash_),
        ("HLEN", hash_),
        ("HDEL", hash_, "name"),
        # Lists.
        ("LPUSH", list_, "a"),
        ("RPUSH", list_, "b"),
        ("LINDEX", list_, 0),
        ("LLEN", list_),
        ("LRANGE", list_, 0, 0),
        ("LSET", list_, 0, "a"),
        ("LTRIM", list_, 0, 0),
        ("LPOS", list_, "a"),
        ("LREM", list_, 0, "z"),
        ("LPOP", list_),
        ("RPOP", list_),
        # Sets.
        ("SADD", set_, "a", "b"),
        ("SCARD", set_),
        ("SISMEMBER", set_, "a"),
        ("SMEMBERS", set_),
        ("SREM", set_, "a"),
        # Sorted sets.
        ("ZADD", zset, 1, "a", 2, "b"),
        ("ZCARD", zset),
        ("ZCOUNT", zset, 0, 0),
        ("ZSCORE", zset, "a"),
        ("ZMSCORE", zset, "a"),
        ("ZRANGE", zset, 0, 0),
        ("ZRANGEBYSCORE", zset, 0, 0),
        ("ZREMRANGEBYSCORE", zset, 0, 0),
        ("ZREM", zset, "a"),
        # Streams.
        ("XADD", stream, "*", "n", ""),
        ("XLEN", stream),
        ("XINFO", "STREAM", stream),
        ("XRANGE", stream, "-", "+", "COUNT", 1),
        ("XREVRANGE", stream, "+", "-", "COUNT", 1),
        ("XTRIM", stream, "MAXLEN", 1),
        ("XSETID", stream, "9999999999999-1"),
        ("XDEL", stream, "0-1"),
        # HyperLogLogs.
        ("PFADD", hyperloglog, "a"),
        ("PFCOUNT", hyperloglog),
        # Lifetimes.
        ("PEXPIRE", hash_, EXPIRY_MS),
        ("PEXPIREAT", hash_, 1),
        ("PTTL", hash_),
        ("PERSIST", hash_),
        ("RENAME", list_, f"{list_}2"),
        ("DEL", string, hash_, list_, f"{list_}2", set_, zset, stream, hyperloglog),
    ]


async def find_forbidden(
    redis: RedisConnection, *, replicated: bool = False
) -> Forbidden | None:
    """
    Try every command in one packet; return those that are forbidden, or None.

    On a cluster tries them on every primary: each has an access list of its own.

    Args:
        redis: The connection to try.
        replicated: Whether writes wait for replicas, which needs one more command.

    Raises:
        StoreUnavailable: The store takes no commands, or no writes, at present.

    """
    commands: list[Command] = []
    replies: list[Reply] = []
    for server, name in await _players(redis):
        commands += (own := trial_commands(redis.keys, name))
        replies += await redis.call_many(own)
        if replicated:
            commands += (wait := [("WAIT", 0, 1)])
            replies += await server.call_many(wait)
    forbidden = dict[str, str]()
    for (command, *_), reply in zip(commands, replies, strict=True):
        if not isinstance(reply, StoreUnavailable):
            continue
        if reply.words.startswith(FULL):
            continue  # Refused for want of space, not forbidden.
        if not reply.words.startswith(FORBIDDEN):
            raise reply
        forbidden.setdefault(str(command), reply.words)
    if not forbidden:
        return None
    return Forbidden(tuple(forbidden), next(iter(forbidden.values())))


async def receive_announcement(redis: RedisConnection) -> str:
    """
    Subscribe to a channel, publish, and wait for the announcement, on every server.

    Returns why it did not arrive, or an empty text.

    Raises:
        StoreUnavailable: The store takes no connections or commands at present.

    """
    for server, player in await _players(redis, secrets.token_hex(8)):
        channel = redis.keys.channel(Log(TRIAL_APP, Player(player)))
        if problem := await _receive(server, channel):
            return problem
    return ""


async def _players(
    redis: RedisConnection, name: str = TRIAL_PLAYER
) -> list[tuple[RedisConnection, str]]:
    """Return each server, with the name of a player whose keys it has."""
    servers = await redis.servers()
    found = dict[RedisConnection, str]()
    for number in range(PLAYERS_MAX):
        player = f"{name}-{number}" if number else name
        log = Log(TRIAL_APP, Player(player))
        found.setdefault(await redis.server_of(redis.keys.channel(log)), player)
        if len(found) >= len(servers):
            break
    return list(found.items())


async def _receive(redis: RedisConnection, name: str) -> str:
    """Do what `receive_announcement` does, on one server."""
    arrived: asyncio.Queue[Reply] = asyncio.Queue()

    def on_replies(replies: list[Reply]) -> None:
        for reply in replies:
            arrived.put_nowait(reply)

    connection = RespConnection(on_replies, lambda: arrived.put_nowait(None))
    await connect(redis.address, connection, name="streamer-trial")
    try:
        async with asyncio.timeout(ANNOUNCEMENT_S):
            connection.send(("SSUBSCRIBE", name))
            reply = await arrived.get()
            if isinstance(reply, hiredis.ReplyError):
                return f"forbids SSUBSCRIBE, which this server needs: {reply}"
            await redis.call("SPUBLISH", name, "trial")
            await arrived.get()
            connection.send(("SUNSUBSCRIBE", name))
            reply = await arrived.get()
            if isinstance(reply, hiredis.ReplyError):
                return f"forbids SUNSUBSCRIBE, which this server needs: {reply}"
    except TimeoutError:
        return "delivers no announcements: what SPUBLISH sends does not arrive"
    except StoreUnavailable as error:
        if not error.words.startswith(FORBIDDEN):
            raise
        return f"forbids SPUBLISH, which this server needs: {error.words}"
    finally:
        connection.abort()
    return ""
