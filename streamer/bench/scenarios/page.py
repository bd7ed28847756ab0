"""
Pages: the first 20 notifications of an inbox, or a 304 because nothing has changed.

Two measurements: how many requests are possible with a fixed number in flight at all
times; how long a request takes at half of that rate.
"""

from __future__ import annotations

import http.client
from typing import Any

import click

from ..load.handle import LoadError
from ..scenario import (
    Figure,
    Measurements,
    Options,
    Scenario,
    Trial,
    latency_figures,
    option,
)
from ..target import Requirements, Target

__all__ = ["SCENARIO"]

SIZE = 200
KEPT = 30


def requirements(options: Options) -> Requirements:
    return Requirements(players=options.players, stored=True)


def measure(trial: Trial) -> Measurements:
    options, target = trial.options, trial.target
    trial.say("filling the inboxes")
    trial.note_load(
        trial.load.publish(
            address=target.address,
            templates=target.publish_stored(SIZE, options.players, 1),
            players=options.players,
            connections=16,
            window=16,
            seconds=60,
            count=KEPT * options.players,
        )
    )
    etags = [""] * options.players
    if options.unchanged:
        etags = [_etag(target, number) for number in range(options.players)]
    requests = [[target.page(number, etag=etag)] for number, etag in enumerate(etags)]
    order: dict[str, Any] = {
        "address": target.address,
        "templates": requests,
        "connections": options.concurrency,
    }
    trial.say("warming up")
    trial.note_load(trial.load.publish(**order, rate=50, seconds=1))

    trial.say("measuring the maximum")
    with trial.watch() as used:
        full = trial.load.publish(
            **order, window=options.concurrency, seconds=options.seconds
        )
    trial.note_load(full)
    expected = "304" if options.unchanged else "200"
    if set(full["statuses"]) != {expected}:
        raise LoadError(f"expected responses with {expected}: {full['statuses']}")

    trial.say("measuring latency at half of the maximum")
    rate = full["answered"] / full["wall_s"] / 2
    half = trial.load.publish(**order, rate=rate, seconds=options.seconds)
    trial.note_load(half)
    return {
        "cpu_us": used.server_cpu_s / full["answered"] * 1e6,
        "store_us": used.store_cpu_s / full["answered"] * 1e6,
        "per_s": full["answered"] / full["wall_s"],
        **trial.note_latency("answer", half["duration_us"]),
    }


def _etag(target: Target, number: int) -> str:
    head, _, _ = target.page(number).decode().partition("\r\n\r\n")
    first, *lines = head.split("\r\n")
    connection = http.client.HTTPConnection(*target.address, timeout=10)
    try:
        headers = dict(line.split(": ", 1) for line in lines)
        connection.request("GET", first.split()[1], headers=headers)
        response = connection.getresponse()
        response.read()
        return response.headers["ETag"] or ""
    finally:
        connection.close()


SCENARIO = Scenario(
    name="page",
    title="The first page of 20, {concurrency} requests at a time",
    figures=[
        Figure("cpu_us", "CPU per request", "µs", 0, of_process=True),
        Figure("store_us", "CPU of the store", "µs", 0, of_process=True, of_store=True),
        Figure("per_s", "max. per second", "", 0, lower_is_better=False),
        *latency_figures("at half of it"),
    ],
    requirements=requirements,
    measure=measure,
    options=[
        click.Option(
            ["--unchanged"], is_flag=True, help="Send the ETag, so that it is a 304."
        ),
        option("--players", 100, "Number of players, in turn."),
        option("--concurrency", 16, "Requests in flight at a time."),
    ],
    about="With --unchanged the request carries the ETag, and the response is a 304.",
)
