"""
The driver of this client for the conformance tests (``clients/conformance``).

    streamer-conformance run --driver "python clients/python/conformance_driver.py"

Uses the client as an application does. The only thing that no application has is the
clock, which runs faster.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from contextlib import AbstractAsyncContextManager
from typing import Any

import msgspec

from streamer_client import (
    Client,
    CursorMoved,
    Error,
    Event,
    Gap,
    Notification,
    Read,
    Refused,
    Replaced,
    Stream,
    Unread,
    Withdrawn,
)
from streamer_client.backoff import Clock

READY = {
    "event": "ready",
    "protocol": 1,
    "client": "Python",
    "transports": ["websocket", "sse", "poll"],
    "capabilities": [
        *("ack", "auto", "clock", "int64", "mark", "nul", "page", "pause"),
        *("publish", "queue", "random", "statuses", "subscribe", "token_source"),
    ],
}


class FastClock:
    """A clock on which each second counts as ``1 / scale``, and which can be set."""

    def __init__(self, scale: float, fraction: float | None) -> None:
        self._scale = scale
        self._fraction = fraction
        self._begun_s = time.monotonic()
        self._begun_at_s = time.time()
        self._set_ahead_s = 0.0

    @property
    def clock(self) -> Clock:
        return Clock(
            self._now_s, self._sleep, self._random, self._unix_s, self._timeout
        )

    def set_ahead(self, seconds: float) -> None:
        self._set_ahead_s += seconds

    def _now_s(self) -> float:
        passed_s = time.monotonic() - self._begun_s
        return passed_s / self._scale + self._set_ahead_s

    def _unix_s(self) -> float:
        return self._begun_at_s + self._now_s()

    async def _sleep(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s * self._scale)

    def _timeout(self, delay_s: float) -> AbstractAsyncContextManager[object]:
        return asyncio.timeout(delay_s * self._scale)

    def _random(self) -> float:
        return random.random() if self._fraction is None else self._fraction


class Session:
    """One client and its stream, from `connect` to `close`."""

    def __init__(self, command: dict[str, Any]) -> None:
        self.clock = FastClock(command["scale"], command.get("random"))
        self.tokens: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.client = Client(
            command["url"],
            token=command["token"],
            token_source=self._token if command["token_source"] else None,
            clock=self.clock.clock,
        )
        self.stream = self.client.notifications(
            command["cursor"],
            topics=command["topics"],
            transport=command["transport"],
        )
        self.may_take = asyncio.Event()
        self.may_take.set()
        self._commands: set[asyncio.Task[None]] = set()
        self._taking = asyncio.create_task(self._take())

    async def close(self) -> None:
        await self.client.aclose()
        for task in (self._taking, *self._commands):
            task.cancel()
            await asyncio.wait([task])

    def run(self, command: dict[str, Any]) -> None:
        """Carry out a command that has a result, beside everything else."""
        task = asyncio.create_task(self._run(command))
        self._commands.add(task)
        task.add_done_callback(self._commands.discard)

    async def _token(self) -> str:
        say(event="token_wanted")
        answer = await self.tokens.get()
        if "token" not in answer:
            raise RuntimeError(answer.get("error", "no token"))
        return str(answer["token"])

    async def _take(self) -> None:
        try:
            async for event in self.stream:
                say_event(event, self.stream)
                await self.may_take.wait()
        except Refused as error:
            say(event="stopped", code=error.code, reason=error.reason)
        except Exception as error:
            say(event="stopped", code=None, reason=repr(error))

    async def _run(self, command: dict[str, Any]) -> None:
        try:
            result = await self._result(command)
        except Error as error:
            result = {"ok": False, "error": str(error)}
        say(event="result", id=command["id"], **{"ok": True, **result})

    async def _result(self, command: dict[str, Any]) -> dict[str, Any]:
        match command["cmd"]:
            case "mark":
                marks = {it: command[it] for it in MARKS if it in command}
                return {"unread": await self.stream.mark_read(**marks)}
            case "ack":
                await self.stream.ack(command["cursor"])
            case "subscribe":
                await self.stream.subscribe(*command["topics"])
            case "unsubscribe":
                await self.stream.unsubscribe(*command["topics"])
            case "publish":
                body = dict(command["body"])
                results = await self.client.publish(
                    body.pop("to")["players"],
                    idempotency_key=command.get("key"),
                    **body,
                )
                return {"body": {"results": plain(results)}}
            case "page":
                query = dict(command.get("query", {}))
                if "limit" in query:
                    query["limit"] = int(query["limit"])
                return {"body": plain(await self.client.page(**query))}
        return {}


MARKS = ("ids", "up_to", "all")


def plain(value: Any) -> Any:
    """Return `value` as the JSON that an application would make of it."""
    return msgspec.to_builtins(value)


def say(**event: Any) -> None:
    print(json.dumps(event), flush=True)


def say_event(event: Event, stream: Stream) -> None:
    after = {"stored": stream.cursor, "number": stream.unread}
    match event:
        case Notification():
            note = plain(event)
            # Members with their default values are those that are missing.
            for field in msgspec.structs.fields(event):
                if field.name in note and note[field.name] in (None, (), [], False):
                    if field.name != "data":
                        del note[field.name]
            note.pop("cursor", None)
            say(event="notification", notification=note, cursor=event.cursor, **after)
        case Withdrawn(id=id):
            say(event="withdrawn", notification_id=id, **after)
        case Replaced(id=id, by=by):
            say(event="replaced", notification_id=id, by=by, **after)
        case Gap(reason=reason, topic=topic, everyone=everyone):
            say(event="gap", reason=reason, topic=topic, everyone=everyone, **after)
        case Read():
            marks = plain(event)
            which = {it: marks[it] for it in (*MARKS, "read") if it in marks}
            say(event="read", **which, **after)
        case Unread():
            say(event="unread", **after)
        case CursorMoved():
            say(event="moved", **after)


async def main() -> None:
    say(**READY)
    reader = asyncio.StreamReader(limit=2**24)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    session: Session | None = None
    while line := await reader.readline():
        command = json.loads(line)
        name = command["cmd"]
        if name == "connect":
            session = Session(command)
        elif session is None:
            say(event="closed") if name == "close" else say(
                event="failed", error="there is no client"
            )
        elif name == "token":
            session.tokens.put_nowait(command)
        elif name == "sleep":
            session.clock.set_ahead(command["s"])
        elif name == "pause":
            session.may_take.clear()
        elif name == "resume":
            session.may_take.set()
        elif name == "close":
            await session.close()
            session = None
            say(event="closed")
        elif name in ("mark", "ack", "subscribe", "unsubscribe", "publish", "page"):
            session.run(command)
        elif name == "state":
            say(event="result", id=command["id"], ok=True)
        else:
            say(event="failed", error=f"unknown command {name}")


if __name__ == "__main__":
    asyncio.run(main())
