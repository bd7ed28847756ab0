"""
`streamer inspect`, `connections`, `disconnect` and `presence`: what support needs.

Knows the responses of the administration API and how they look on a terminal. Players'
names, devices and reasons come from other people, so control characters are escaped
before they are printed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import click

from .remote import RemoteServer, key_option, path_of, printable, url_option
from .tables import table

__all__ = ["connections", "disconnect", "inspect", "presence"]

Item = Mapping[str, Any]

PAGE: Final = 500
"""Players per request for those that are online."""

_json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print the response as JSON."
)


@click.command()
@click.argument("player")
@click.option(
    "--notifications",
    type=click.IntRange(0, 50),
    default=10,
    show_default=True,
    help="How many of the newest notifications to trace.",
)
@click.option("--id", "notification", help="Trace only the notification with this id.")
@_json_option
@url_option
@key_option("admin:read")
def inspect(
    player: str,
    notifications: int,
    notification: str | None,
    as_json: bool,
    url: str,
    key: str,
) -> None:
    """
    Show why a player did not get a notification.

    Prints the player's open connections, the last ones that were closed or refused, and
    the way of each of the newest notifications. Times are in UTC. A live node that does
    not answer within a second is named on stderr; what it knows is missing.
    """
    server = RemoteServer(url, key)
    about = path_of("admin", "players", player)
    if notification is not None:
        found = server.get(f"{about}/{path_of('notifications', notification, 'trace')}")
        text = "\n".join(_trace(found["trace"], ""))
    else:
        found = server.get(f"{about}/inspection", notifications=notifications)
        text = "\n".join(_inspection(found))
    _print(found, text, as_json=as_json)


@click.command()
@click.argument("player", required=False)
@_json_option
@url_option
@key_option("admin:read")
def connections(player: str | None, as_json: bool, url: str, key: str) -> None:
    """
    List the open connections of a player, or the nodes.

    Without a player, prints each node with its number of connections of the key's app.
    """
    server = RemoteServer(url, key)
    if player is None:
        found = server.get("admin/nodes")
        text = _table(("NODE", *_NODE_COLUMNS), map(_node_row, found["nodes"]))
    else:
        found = server.get(path_of("admin", "players", player, "connections"))
        text = _connections(found["connections"]) or "no open connection"
    _print(found, text, as_json=as_json)


@click.command()
@click.argument("player")
@click.option("--connection", help="Close only the connection with this id.")
@click.option(
    "--stop",
    is_flag=True,
    help="Let the clients stay away (4204) instead of reconnecting at once (4106).",
)
@click.option("--reason", default="", help="Why, for the server's log.")
@_json_option
@url_option
@key_option("admin:write")
def disconnect(
    player: str,
    connection: str | None,
    stop: bool,
    reason: str,
    as_json: bool,
    url: str,
    key: str,
) -> None:
    """
    Close the connections of a player.

    Prints the id of each connection that was closed. The player's tokens stay valid; to
    keep a player out, revoke them with `streamer token revoke`. The exit code is 1 if a
    live node did not answer, because its connections may still be open.
    """
    body: dict[str, object] = {"reconnect": not stop, "reason": reason}
    if connection is not None:
        body["connection"] = connection
    server = RemoteServer(url, key)
    found = server.post(path_of("admin", "players", player, "disconnect"), body)
    closed = found["disconnected"]
    _print(found, "\n".join(closed) or "no open connection", as_json=as_json)
    if found["silent"]:
        raise click.exceptions.Exit(1)


@click.command()
@click.argument("players", nargs=-1)
@_json_option
@url_option
@key_option("admin:read")
def presence(players: tuple[str, ...], as_json: bool, url: str, key: str) -> None:
    """
    Show whether players are online, and when they were last seen.

    Without players, lists all that are online. With --json it prints one JSON object
    per player and line.
    """
    server = RemoteServer(url, key)
    items: Iterator[Item]
    if players:
        items = _presence_of(server, players)
    else:
        items = _all_online(server)
    for item in items:
        click.echo(json.dumps(item) if as_json else _presence(item))


def _presence_of(server: RemoteServer, players: Sequence[str]) -> Iterator[Item]:
    for first in range(0, len(players), PAGE):
        portion = players[first : first + PAGE]
        found = server.post("admin/presence", {"players": list(portion)})
        yield from found["presence"]


def _all_online(server: RemoteServer) -> Iterator[Item]:
    after: str | None = ""
    silent: set[str] = set()
    while after is not None:
        page = server.get("admin/presence", limit=PAGE, after=after or None)
        for item in page["online"]:
            yield {"player": item["player"], "online": True, **item}
        silent.update(page["silent"])
        after = page["next"]
    _warn(silent)


def _print(found: Item, text: str, *, as_json: bool) -> None:
    click.echo(json.dumps(found) if as_json else text)
    _warn(found["silent"])


def _warn(silent: Sequence[str] | set[str]) -> None:
    for node in sorted(silent):
        text = f"node {node} did not answer; what it knows is missing"
        click.echo(click.style(printable(text), fg="red"), err=True)


def _inspection(found: Item) -> Iterator[str]:
    name = printable(found["player"])
    if found["online"]:
        yield f"{name} is online"
    elif seen := found.get("last_seen_at"):
        yield f"{name} is offline, last seen {_time(seen)} ({_ago(seen)})"
    else:
        yield f"{name} is offline, and was not seen in the last 30 days"
    yield from _section("Connections", _connections(found["connections"]))
    yield from _section(
        "Closed", _table(_CLOSED_COLUMNS, map(_closed_row, found["closed"]))
    )
    yield from _section(
        "Refused", _table(_REFUSED_COLUMNS, map(_refused_row, found["refused"]))
    )
    traces = "\n".join(
        line for trace in found["notifications"] for line in _trace(trace, "  ")
    )
    yield from _section("Notifications, newest first", traces)


def _section(title: str, text: str) -> Iterator[str]:
    yield ""
    yield title
    yield text or "  none"


_NODE_COLUMNS = ("HOST", "PID", "VERSION", "UP SINCE", "STATE", "CONNECTIONS")
_CONNECTION_COLUMNS = (
    *("ID", "TRANSPORT", "STATE", "CONNECTED", "HEARD", "LAG", "BUFFER"),
    *("NODE", "CLIENT", "DEVICE"),
)
_CLOSED_COLUMNS = ("AT", "TRANSPORT", "AFTER", "CODE", "REASON", "NODE", "CLIENT")
_REFUSED_COLUMNS = ("AT", "TRANSPORT", "REFUSAL", "REASON", "NODE", "CLIENT")


def _table(columns: Sequence[str], rows: Iterator[Sequence[str]]) -> str:
    """Return a table, "" without rows."""
    listed = [tuple(map(printable, row)) for row in rows]
    return table([columns, *listed], "  ") if listed else ""


def _node_row(it: Item) -> Sequence[str]:
    counts = it["connections"].items()
    return (
        it["node"],
        it["host"],
        str(it["pid"]),
        it["version"],
        _time(it["started_at"]),
        "draining" if it["draining"] else "running",
        ", ".join(f"{count} {name}" for name, count in sorted(counts)) or "0",
    )


def _connections(items: Sequence[Item]) -> str:
    rows = (
        (
            it["id"],
            it["transport"],
            it["state"],
            _time(it["connected_at"]),
            _time(it["last_heard_at"]) if "last_heard_at" in it else "-",
            str(it.get("lag", "-")),
            _buffer(it),
            _where(it),
            it.get("client", "-"),
            it.get("device", "-"),
        )
        for it in items
    )
    return _table(_CONNECTION_COLUMNS, rows)


def _buffer(it: Item) -> str:
    size = f"{it['buffer_bytes']} B"
    return f"{size}, stuck for {it['stuck_ms']} ms" if "stuck_ms" in it else size


def _closed_row(it: Item) -> Sequence[str]:
    lasted = _parsed(it["closed_at"]) - _parsed(it["connected_at"])
    return (
        _time(it["closed_at"]),
        it["transport"],
        _span(lasted.total_seconds()),
        str(it.get("code", "-")),
        it["reason"],
        _where(it),
        it.get("client", "-"),
    )


def _refused_row(it: Item) -> Sequence[str]:
    return (
        _time(it["at"]),
        it["transport"],
        it["refusal"],
        it["reason"],
        _where(it),
        it.get("client", "-"),
    )


def _trace(it: Item, indent: str) -> Iterator[str]:
    words = [it["id"], it["state"]]
    if "type" in it:
        words.append(f"<{it['type']}>")
    if "topic" in it:
        words.append(f"to the topic {it['topic']}")
    elif "everyone" in it:
        words.append("to everyone")
    yield printable(indent + "  ".join(words))
    steps = [(it["stored_at"], "stored")]
    steps += [(one["at"], f"announced to {_where(one)}") for one in it["announced"]]
    for one in it["written"]:
        how = " after a read of the log" if one["replayed"] else ""
        text = f"written to {one['transport']} {one['connection']} on {_where(one)}"
        steps.append((one["at"], text + how))
    if "acknowledged_at" in it:
        steps.append((it["acknowledged_at"], "acknowledged"))
    if "read_at" in it:
        steps.append((it["read_at"], "read"))
    if it["state"] == "expired" and "expires_at" in it:
        steps.append((it["expires_at"], "expired"))
    # Stable: what happened in the same millisecond stays in the order of the steps.
    for at, text in sorted(steps, key=lambda step: step[0]):
        yield printable(f"{indent}  {_time(at)}  {text}")
    if it["acknowledged"] and "acknowledged_at" not in it:
        yield f"{indent}  acknowledged; no node remembers when"
    if not it["written"]:
        yield f"{indent}  no node remembers writing it to a connection"


def _presence(it: Item) -> str:
    name = printable(it["player"])
    if it["online"]:
        count = it["connections"]
        return f"{name}  online  {count} connection{'s' if count > 1 else ''}"
    if "last_seen_at" in it:
        seen = it["last_seen_at"]
        return f"{name}  offline  last seen {_time(seen)} ({_ago(seen)})"
    return f"{name}  offline  not seen in the last 30 days"


def _where(it: Item) -> str:
    return f"{it['host']}:{it['pid']}"


def _parsed(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _time(text: str) -> str:
    """Return a time without its date if that is today's, in UTC."""
    at = _parsed(text).astimezone(UTC)
    is_today = at.date() == datetime.now(UTC).date()
    shown = at.strftime("%H:%M:%S" if is_today else "%Y-%m-%d %H:%M:%S")
    return f"{shown}.{at.microsecond // 1_000:03d}"


def _ago(text: str) -> str:
    return f"{_span((datetime.now(UTC) - _parsed(text)).total_seconds())} ago"


def _span(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{max(seconds, 0):.1f} s"
