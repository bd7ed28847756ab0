"""
Lists: one way to ask for a page of an inbox, against the first page of a plain one.

A plain inbox has `KEPT` notifications of its own. The inbox that is asked has topics, a
length and read marks by the options, and its newest notifications are of all logs in
turns. Both are asked in turns, in one run, and the ratios are of one run. The first
request to each inbox is measured apart: the server remembers where a filter has found
its first match.
"""

from __future__ import annotations

import http.client
import json
from typing import Any, Final

import click

from ..deployment import StreamerTarget
from ..load.handle import LoadError
from ..requests import RequestParts, get
from ..scenario import Figure, Measurements, Options, Scenario, Trial, option
from ..target import Requirements, Unsupported

__all__ = ["SCENARIO"]

SIZE: Final = 200
KEPT: Final = 30
RECENT: Final = 10
"""Notifications of each log among the newest, which are of all logs in turns."""

PARTS: Final = 4
"""How often the two inboxes take turns."""

ASKED: Final = {
    "page": "",
    "unchanged": "",
    "unread": "&unread=true",
    "filter": "&type=rare",
    "oldest": "&order=oldest",
    "older": "",
}


def requirements(options: Options) -> Requirements:
    return Requirements(players=2 * options.players, stored=True)


class _Client:
    """Asks one request at a time, to prepare what is measured."""

    def __init__(self, target: StreamerTarget) -> None:
        self._target = target
        self._connection = http.client.HTTPConnection(*target.address, timeout=60)

    def ask(self, method: str, path: str, body: Any = None, player: int = -1) -> Any:
        """Ask as a player, or as the backend; return the response, and its body."""
        target = self._target
        credential = target.key if player < 0 else target.token(player)
        headers = {"Authorization": f"Bearer {credential}"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        text = None if body is None else json.dumps(body)
        self._connection.request(method, path, text, headers)
        response = self._connection.getresponse()
        content = response.read()
        if response.status >= 300:
            raise LoadError(f"{method} {path}: {response.status} {content!r}")
        return response, json.loads(content or b"null")

    def publish(self, to: Any, count: int) -> None:
        """Publish `count` notifications, in lists of up to 500."""
        while count > 0:
            part = min(count, 500)
            message = {"to": to, "type": "common", "body": "x" * SIZE}
            if self._target.ttl_s:
                message["ttl_s"] = self._target.ttl_s
            self.ask("POST", "/v1/notifications", [message] * part)
            count -= part


def _fill(client: _Client, target: StreamerTarget, numbers: range, o: Options) -> None:
    """Fill the inboxes of players, with topics that are shared by all of them."""
    # One log after the other, so that the newest are of all logs in every inbox.
    logs: list[tuple[Any, int]] = [
        ({"players": [target.player(number)]}, o.kept) for number in numbers
    ]
    logs += [({"topic": topic}, o.kept_in_topic) for topic in _topics(target, o)]
    for to, count in logs:
        client.publish(to, count - RECENT)
    for _ in range(min(RECENT, o.kept)):
        for to, _ in logs:
            client.publish(to, 1)


def _topics(target: StreamerTarget, o: Options) -> list[str]:
    return [f"bench/{target.app}/{n}" for n in range(o.topics)]


def _request(
    client: _Client, target: StreamerTarget, number: int, o: Options
) -> RequestParts:
    path = "/v1/players/me/notifications"
    query = f"?limit={o.limit}{ASKED[o.ask]}"
    headers = target.authorization(number)
    if o.ask in ("unchanged", "older"):
        response, page = client.ask("GET", path + query, player=number)
        if o.ask == "unchanged":
            headers += f"If-None-Match: {response.headers['ETag']}\r\n"
        elif page["next"] is None:
            raise LoadError("the inbox has no older page; it needs more --kept")
        else:
            query += f"&before={page['next']}"
    return [get(path + query, headers)]


def measure(trial: Trial) -> Measurements:
    o, target = trial.options, trial.target
    if not isinstance(target, StreamerTarget):
        raise Unsupported(f"{target.title} has no inboxes")
    client = _Client(target)
    trial.say("filling the inboxes")
    numbers = range(o.players, 2 * o.players)
    target.token(2 * o.players - 1)
    for number in numbers:
        client.ask("GET", "/v1/players/me/notifications", player=number)
        for topic in _topics(target, o):
            name = topic.replace("/", "%2F")
            path = f"/v1/players/{target.player(number)}/topics/{name}"
            client.ask("PUT", path)
    for number in range(o.players):
        client.publish({"players": [target.player(number)]}, KEPT)
    _fill(client, target, numbers, o)
    if o.read:
        path = "/v1/players/me/notifications/read"
        for number in numbers:
            client.ask("POST", path, {"all": True}, player=number)
    plain: list[RequestParts] = [[target.page(n)] for n in range(o.players)]
    asked = [_request(client, target, number, o) for number in numbers]

    cpu = {"plain": [0.0, 0.0, 0.0], "asked": [0.0, 0.0, 0.0]}
    trial.say("asking each inbox once")
    with trial.watch() as used_first:
        facts = _send(trial, asked, seconds=60, count=len(asked))
    first_count = facts["answered"]
    trial.say("warming up")
    for requests in (plain, asked):
        _send(trial, requests, seconds=1)
    trial.say("measuring in turns")
    for _ in range(PARTS):
        for name, requests in (("plain", plain), ("asked", asked)):
            with trial.watch() as used:
                facts = _send(trial, requests, seconds=o.seconds / PARTS)
            sums = cpu[name]
            sums[0] += used.server_cpu_s
            sums[1] += used.store_cpu_s
            sums[2] += facts["answered"]
    if not all(answered for _, _, answered in cpu.values()):
        raise LoadError("no request was answered; more --seconds are needed")
    node, store, count = cpu["asked"]
    plain_node, plain_store, plain_count = cpu["plain"]
    figures = {
        "cpu_us": node / count * 1e6,
        "store_us": store / count * 1e6,
        "first_cpu_us": used_first.server_cpu_s / first_count * 1e6,
        "first_store_us": used_first.store_cpu_s / first_count * 1e6,
        "plain_cpu_us": plain_node / plain_count * 1e6,
        "plain_store_us": plain_store / plain_count * 1e6,
    }
    figures["cpu_ratio"] = figures["cpu_us"] / max(figures["plain_cpu_us"], 1e-9)
    figures["store_ratio"] = figures["store_us"] / max(figures["plain_store_us"], 1e-9)
    return figures


def _send(
    trial: Trial, requests: list[RequestParts], *, seconds: float, count: int = 10**9
) -> Any:
    concurrency = trial.options.concurrency
    facts = trial.load.publish(
        address=trial.target.address,
        templates=requests,
        connections=concurrency,
        window=concurrency,
        seconds=seconds,
        count=count,
    )
    trial.note_load(facts)
    return facts


SCENARIO = Scenario(
    name="lists",
    title="{ask} of {limit} with {topics} topics and {kept} notifications",
    figures=[
        Figure("cpu_us", "CPU per request", "µs", 0, of_process=True),
        Figure("store_us", "CPU of the store", "µs", 0, of_process=True, of_store=True),
        Figure("plain_cpu_us", "of a plain page", "µs", 0, of_process=True),
        Figure(
            "plain_store_us", "of the store", "µs", 0, of_process=True, of_store=True
        ),
        Figure("first_cpu_us", "the first time", "µs", 0, of_process=True),
        Figure(
            "first_store_us", "of the store", "µs", 0, of_process=True, of_store=True
        ),
        Figure("cpu_ratio", "ratio", "", 2, of_process=True),
        Figure("store_ratio", "ratio", "", 2, of_process=True, of_store=True),
    ],
    requirements=requirements,
    measure=measure,
    options=[
        option("--ask", "page", "What is asked.", choices=[*ASKED]),
        option("--topics", 16, "Topics of each player."),
        option("--kept", KEPT, "Notifications in each player's own log."),
        option("--kept-in-topic", KEPT, "Notifications in each topic's log."),
        option("--limit", 20, "The limit of the page, up to 100."),
        click.Option(["--read"], is_flag=True, help="Mark everything as read before."),
        option("--players", 20, "Number of players, in turn."),
        option("--concurrency", 16, "Requests in flight at a time."),
    ],
    about="A plain page is the first 20 of 30 notifications without topics, in the "
    "same run and in turns.",
)
