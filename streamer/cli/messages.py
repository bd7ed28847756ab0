"""
`streamer publish` and `streamer tail`: a client for the shell.

Knows the Python client and how its events look on a terminal. Knows nothing of the
server: both commands work against a remote server and use no settings of this machine.

The text comes from other people, so control characters are escaped before they are
printed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

import click
import msgspec

from streamer_client import (
    Client,
    CursorMoved,
    Error,
    Event,
    Gap,
    Notification,
    Replaced,
    Sent,
    Stream,
    Withdrawn,
)

from .remote import key_option, printable, url_option

__all__ = ["publish", "tail"]


@click.command()
@click.option(
    "--player", "to", multiple=True, required=True, help="Recipient; repeatable."
)
@click.option("--type", help="Type of the notification, for programs.")
@click.option("--title", help="Title, one line.")
@click.option("--body", help="Text of the notification.")
@click.option("--data", metavar="JSON", help="Arbitrary data, for programs.")
@click.option(
    "--priority",
    type=click.Choice(["low", "medium", "high", "emergency"]),
    help="Priority. Default: medium.",
)
@click.option(
    "--idempotency-key",
    help="Makes retries safe: the same key publishes only once.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
@url_option
@key_option("notifications:send")
def publish(url: str, key: str, as_json: bool, data: str | None, **fields: Any) -> None:
    """
    Publish a notification to one or more players.

    Prints the id of each player's copy, one per line.
    """
    fields["data"] = msgspec.UNSET if data is None else _parse_json(data)
    with _readable_errors():
        sent = asyncio.run(_publish(url, key, fields))
    for result in sent:
        click.echo(_json(result) if as_json else result.id)


@click.command()
@click.option(
    "--cursor",
    help="Resume after this cursor; 'earliest' starts at the oldest notification kept. "
    "Default: new notifications only.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
@url_option
@click.option(
    "--token",
    envvar="STREAMER_CLI_TOKEN",
    show_envvar=True,
    required=True,
    help="Token of the player.",
)
def tail(url: str, token: str, cursor: str | None, as_json: bool) -> None:
    """
    Print a player's notifications as they arrive, until Ctrl-C.

    Reconnects automatically. Notifications go to stdout. Everything else goes to
    stderr: gaps, withdrawn and replaced notifications, with --json also read marks and
    counts, and on exit the cursor. Pass it to --cursor to resume without loss.
    """
    with _readable_errors():
        asyncio.run(_tail(url, token, cursor, as_json))


async def _publish(url: str, key: str, fields: dict[str, Any]) -> tuple[Sent, ...]:
    async with Client(url, token=key.strip()) as client:
        return await client.publish(**fields)


async def _tail(url: str, token: str, cursor: str | None, as_json: bool) -> None:
    async with Client(url, token=token.strip()) as client:
        stream = client.notifications(cursor)
        try:
            with _closed_by_signals(stream):
                async for event in stream:
                    _show(event, as_json)
        finally:
            if stream.cursor is not None:
                click.echo(f"cursor: {stream.cursor}", err=True)


@contextlib.contextmanager
def _closed_by_signals(stream: Stream) -> Iterator[None]:
    """
    Close `stream` on SIGINT and SIGTERM, so that the loop over it ends normally.

    The current event is still printed, so that the cursor matches the output.
    """
    loop = asyncio.get_running_loop()
    closing: list[asyncio.Task[None]] = []  # The loop holds tasks only weakly.

    def close() -> None:
        closing.append(loop.create_task(stream.aclose()))

    handled = []
    for number in (signal.SIGINT, signal.SIGTERM):
        # On other systems than Unix, a KeyboardInterrupt ends the command.
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, close)
            handled.append(number)
    try:
        yield
    finally:
        for number in handled:
            loop.remove_signal_handler(number)


@contextlib.contextmanager
def _readable_errors() -> Iterator[None]:
    """Turn an expected error into one line and exit status 1."""
    try:
        yield
    except (Error, ValueError) as error:
        raise click.ClickException(printable(str(error))) from error
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:
        # The reader of a pipe, such as `head`, has ended. Python would report an error
        # when it flushes the buffer at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _show(event: Event, as_json: bool) -> None:
    if isinstance(event, Notification):
        click.echo(_json(event) if as_json else _line(event))
    elif text := _describe(event, as_json):
        click.echo(click.style(printable(text), fg="red"), err=True)


def _describe(event: Event, as_json: bool) -> str:
    """Return the text for an event that is not a notification; "" prints nothing."""
    if isinstance(event, CursorMoved):
        return ""
    if as_json:
        return _json(event)
    match event:
        case Gap(reason):
            return f"gap: {reason}; some notifications are missing"
        case Withdrawn(id):
            return f"withdrawn: {id}"
        case Replaced(id, by):
            return f"replaced: {id} by {by}"
        case _:
            return ""


def _line(notification: Notification) -> str:
    """Return `notification` as one line: time, priority, type, text, the rest."""
    parts = [f"{notification.created_at.astimezone():%Y-%m-%d %H:%M:%S}"]
    if notification.priority != "medium":
        parts.append(f"[{notification.priority}]")
    if notification.type is not None:
        parts.append(f"<{notification.type}>")
    words = [text for text in (notification.title, notification.body) if text]
    if words:
        parts.append(" - ".join(words))
    if notification.data is not msgspec.UNSET:
        parts.append(f"data={_json(notification.data)}")
    parts += [f"{pair.key}={pair.value}" for pair in notification.properties]
    if notification.resource is not None:
        parts.append(f"-> {notification.resource.url}")
    return printable(" ".join(parts))


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _parse_json(text: str) -> Any:
    try:
        return msgspec.json.decode(text.removeprefix("\ufeff"))
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise click.BadParameter(str(error), param_hint="--data") from error
