"""
The files of the embedded store after an erasure: its log, and the list beside it.

Decides how a rewrite of the append-only log is awaited, and where the list of erasures
is repeated and read again. The log has the commands that were sent, and so the names
and texts that were deleted since. A rewrite leaves what the store has then.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any, Final

from redis.exceptions import ResponseError

from ..client.connection import RedisConnection
from ..server.server_binary import StoreFailed

__all__ = ["list_path", "read_list", "rewrite_log", "set_list_aside", "write_list"]

POLL_S: Final = 0.05

_BUSY: Final = "in progress"


async def rewrite_log(redis: RedisConnection) -> None:
    """
    Rewrite the append-only log; return when it is replaced by one that was begun now.

    The log of slow commands is emptied, too. For the embedded store.

    Raises:
        StoreFailed: The store could not write the new log.
        StoreUnavailable: The store cannot be reached.

    """
    await redis.call("SLOWLOG", "RESET")
    while True:
        before = await _persistence(redis)
        try:
            await redis.call("BGREWRITEAOF")
            break
        except ResponseError as error:
            # One that has begun before may contain what was deleted since.
            if _BUSY not in str(error):
                raise
            await asyncio.sleep(POLL_S)
    while True:
        now = await _persistence(redis)
        if now["aof_rewrites"] != before["aof_rewrites"] or _has_failed(now):
            if not _is_rewriting(now):
                break
        # The store has no event for this.
        await asyncio.sleep(POLL_S)
    if _has_failed(now):
        raise StoreFailed("the store could not rewrite its log: is its disk full?")


def _is_rewriting(facts: dict[str, Any]) -> bool:
    names = ("aof_rewrite_in_progress", "aof_rewrite_scheduled")
    return any(facts[name] == "1" for name in names)


def _has_failed(facts: dict[str, Any]) -> bool:
    return not _is_rewriting(facts) and facts["aof_last_bgrewrite_status"] != "ok"


async def _persistence(redis: RedisConnection) -> dict[str, Any]:
    text = (await redis.call("INFO", "persistence")).decode()
    pairs = (line.split(":", 1) for line in text.splitlines() if ":" in line)
    return {name: value.strip() for name, value in pairs}


def list_path(data_dir: Path, namespace: str) -> Path:
    """Return the file beside the store that repeats the list of erasures."""
    return data_dir / f"erasures-{namespace}.jsonl"


def read_list(data_dir: Path, namespace: str) -> bytes | None:
    """
    Return the content of that file, None if there is none.

    Raises:
        StoreFailed: It cannot be read.

    """
    path = list_path(data_dir, namespace)
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise StoreFailed(f"cannot read {path}: {exc.strerror}") from exc


def set_list_aside(data_dir: Path, namespace: str, *, stays: bool = False) -> Path:
    """
    Rename that file, so that it is not replaced; return its new path.

    With `stays` it also stays where it is, until it is replaced.

    Raises:
        StoreFailed: It cannot be renamed.

    """
    path = list_path(data_dir, namespace)
    aside = path.with_name(f"{path.stem}.{time.time_ns()}.jsonl")
    try:
        if stays:
            os.link(path, aside)
        else:
            path.rename(aside)
    except OSError as exc:
        raise StoreFailed(f"cannot rename {path}: {exc.strerror}") from exc
    return aside


def write_list(data_dir: Path, namespace: str, text: bytes) -> None:
    """
    Replace that file, durably. Only the owner may read it.

    Raises:
        StoreFailed: It cannot be written.

    """
    path = list_path(data_dir, namespace)
    part = path.with_suffix(".part")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as exc:
        raise StoreFailed(f"cannot write {path}: {exc.strerror}") from exc
