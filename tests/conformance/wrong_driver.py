"""
A driver with a fault, which the conformance tests have to find.

    python wrong_driver.py FAULT

It is the driver of the Python client, in which one thing is done wrong.
"""

from __future__ import annotations

import asyncio
import runpy
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from streamer_client import backoff, connection, links, stream, transports, wire
from streamer_client.backoff import Ending
from streamer_client.credential import Credential
from streamer_client.seen import SeenIds
from streamer_client.sse import EventParser
from streamer_client.stream import Stream

DRIVER: Final = Path(__file__).parents[2] / "clients/python/conformance_driver.py"

_query = Stream._query
_on_hello = Stream._on_hello
_decode = wire.decode
_after = backoff.Reconnect.after


def replace(owner: Any, name: str, value: Any) -> None:
    """Replace something of the client, which has no idea of it."""
    assert hasattr(owner, name)
    setattr(owner, name, value)


def forget_the_cursor() -> None:
    replace(Stream, "_query", lambda self: {"instance": self._instance})


def count_twice() -> None:
    replace(Stream, "_is_counted", lambda *_: True)


def hammer() -> None:
    replace(backoff, "full_jitter_s", lambda *_: 0.0)


def trust_hello() -> None:
    """Regard a connection as proved as soon as it is greeted."""

    def mark_open(self: backoff.Reconnect, now_s: float) -> None:
        self._opened_at_s, self._was_open = now_s, True
        self.mark_proved()

    replace(backoff.Reconnect, "mark_open", mark_open)


def deliver_repeats() -> None:
    replace(SeenIds, "is_repeat", lambda *_: False)


def prefer_hello() -> None:
    """Replace the cursor by that of each `hello`."""

    async def on_hello(self: Stream, hello: Any) -> None:
        await _on_hello(self, hello)
        self._received_cursor = hello.cursor

    replace(Stream, "_on_hello", on_hello)


def pass_over_what_cannot_be_read() -> None:
    def lenient(data: str | bytes) -> Any:
        try:
            return _decode(data)
        except Exception:
            return None

    replace(links, "decode", lenient)


def never_stop() -> None:
    """Reconnect after whatever code."""

    def after(self: backoff.Reconnect, ending: Ending, now_s: float) -> Any:
        return _after(self, Ending(None, ending.reason), now_s)

    replace(backoff.Reconnect, "after", after)


def ignore_delays() -> None:
    def after(self: backoff.Reconnect, ending: Ending, now_s: float) -> Any:
        return _after(self, ending._replace(delay_s=None), now_s)

    replace(backoff.Reconnect, "after", after)


def never_notice_silence() -> None:
    async def receive(link: links.Link, *_: Any) -> Any:
        return await link.receive()

    replace(stream, "receive", receive)


def never_pong() -> None:
    async def send_pong(_: links.Link) -> None:
        pass

    replace(stream, "send_pong", send_pong)
    replace(connection, "send_pong", send_pong)


def new_instance_each_time() -> None:
    replace(
        Stream, "_query", lambda self: _query(self) | {"instance": uuid.uuid4().hex}
    )


def ask_for_tokens_without_end() -> None:
    def token_refused(self: backoff.Reconnect, _: Ending) -> backoff.NewToken:
        return backoff.NewToken()

    replace(backoff.Reconnect, "_token_refused", token_refused)


def keep_the_old_token() -> None:
    renew = Credential.renew

    async def renew_once(self: Credential, refused: str | None) -> str:
        await renew(self, refused)
        self._token = self._token if refused is None else refused
        return str(self._token)

    replace(Credential, "renew", renew_once)


def decode_each_chunk_by_itself() -> None:
    feed = EventParser.feed

    def feed_chunk(self: EventParser, data: bytes) -> Any:
        return feed(self, data.decode("utf-8", "replace").encode())

    replace(EventParser, "feed", feed_chunk)


def never_fall_back() -> None:
    replace(transports.Choice, "after", lambda *_: False)


def nothing() -> None:
    """Do everything right."""


FAULTS: Final[dict[str, Callable[[], None]]] = {
    fault.__name__: fault
    for fault in (
        *(forget_the_cursor, count_twice, hammer, trust_hello, deliver_repeats),
        *(prefer_hello, pass_over_what_cannot_be_read, never_stop, ignore_delays),
        *(never_notice_silence, never_pong, new_instance_each_time),
        *(ask_for_tokens_without_end, keep_the_old_token),
        *(decode_each_chunk_by_itself, never_fall_back, nothing),
    )
}


if __name__ == "__main__":
    FAULTS[sys.argv[1]]()
    asyncio.run(runpy.run_path(str(DRIVER))["main"]())
