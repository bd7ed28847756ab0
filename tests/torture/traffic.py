"""
What a game does: a careful backend publishes and withdraws, and players act.

Every request is repeated until it is answered, on another node each time, with the same
idempotency key where it has one, as the protocol asks for. The history has when a
request was first sent and when it was answered: what happened in between is not
certain, and the check allows both.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx2

from .history import (
    EVERYONE,
    Acknowledgement,
    History,
    Mark,
    Membership,
    Publication,
    Scheduled,
    Withdrawal,
    own,
    topic_log,
)

ATTEMPT_S = 4.0
"""How long a caller waits for one response."""

COLLAPSE_KEYS = ("score", "news")
TTLS_S = (1, 2, 3)


@dataclass(frozen=True)
class Cast:
    """Who takes part: the players, the topics, and their tokens."""

    players: tuple[str, ...]
    topics: tuple[str, ...]
    """All players join the first one and stay; some come to the others and go."""
    backend_key: str
    tokens: dict[str, str]


class Http:
    """Requests that are repeated until a node has answered them."""

    def __init__(
        self,
        history: History,
        fronts: Iterator[int],
        credential: str,
        dice: random.Random,
    ) -> None:
        self._history = history
        self._fronts = fronts
        self._dice = dice
        self._client = httpx2.AsyncClient(
            headers={"Authorization": f"Bearer {credential}"},
            timeout=ATTEMPT_S,
            trust_env=False,
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def ask(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        key: str = "",
        params: dict[str, str] | None = None,
        expected: Sequence[int] = (200,),
    ) -> httpx2.Response:
        """Return the response; a status that is not expected is a trouble."""
        headers = {"Idempotency-Key": key} if key else {}
        for attempt in range(1_000):
            port = next(self._fronts)
            try:
                response = await self._client.request(
                    method,
                    f"http://127.0.0.1:{port}{path}",
                    json=body,
                    params=params,
                    headers=headers,
                )
            except httpx2.TransportError as error:
                self._note(method, path, key, type(error).__name__)
                wait_s = 0.1
            else:
                status = response.status_code
                if status in expected:
                    return response
                self._note(method, path, key, status)
                if status == 500:
                    self._history.trouble("500", f"{method} {path}: {response.text}")
                elif status != 503 and status != 429 and not _may_pass(response):
                    self._history.trouble(
                        "unexpected", f"{method} {path} {body}: {response.text}"
                    )
                    return response
                # Longer waits are for outages, not for a run of seconds.
                wait_s = min(float(response.headers.get("retry-after", 1)), 0.4)
            await asyncio.sleep(wait_s * self._dice.uniform(0.5, 1.5 + attempt / 20))
        raise AssertionError(f"never answered: {method} {path}")

    def _note(self, method: str, path: str, key: str, outcome: object) -> None:
        self._history.note("no answer", request=f"{method} {path}", key=key, by=outcome)


def _may_pass(response: httpx2.Response) -> bool:
    return response.status_code == 409 and "retry-after" in response.headers


class Backend:
    """One worker of the game's backend; it does one thing after the other."""

    def __init__(
        self, name: str, cast: Cast, history: History, http: Http, dice: random.Random
    ) -> None:
        self._name = name
        self._cast = cast
        self._history = history
        self._http = http
        self._dice = dice
        self._count = 0

    async def act(self) -> None:
        """Do one thing, chosen at random."""
        acts: dict[Callable[[], Awaitable[object]], float] = {
            self.publish: 12,
            self.withdraw: 2,
            self.withdraw_and_publish: 2,
            self.repeat: 1,
            self.schedule: 1,
            self.cancel: 0.5,
        }
        (chosen,) = self._dice.choices([*acts], weights=[*acts.values()])
        await chosen()

    def _key(self) -> str:
        self._count += 1
        return f"{self._name}.{self._count}"

    def _any_logs(self) -> tuple[str, ...]:
        dice, cast = self._dice, self._cast
        kind = dice.choices(["own", "several", "topic", "everyone"], [5, 2, 5, 3])[0]
        if kind == "everyone":
            return (EVERYONE,)
        if kind == "topic":
            return (topic_log(dice.choice(cast.topics)),)
        count = 1 if kind == "own" else min(3, len(cast.players))
        return tuple(own(player) for player in dice.sample(cast.players, count))

    async def publish(self, *logs: str, plain: bool = False) -> list[Publication]:
        """Publish to these logs, or to some at random; return when acknowledged."""
        dice = self._dice
        logs = logs or self._any_logs()
        key = self._key()
        body: dict[str, Any] = {"to": _recipients(logs), "title": key}
        ends = "" if plain else dice.choices(["", "ttl", "collapse"], [6, 2, 3])[0]
        if ends == "ttl":
            body["ttl_s"] = dice.choice(TTLS_S)
        elif ends == "collapse":
            body["collapse_key"] = dice.choice(COLLAPSE_KEYS)
        made = [
            Publication(
                key,
                log,
                time.time(),
                body.get("ttl_s", 0),
                body.get("collapse_key", ""),
            )
            for log in logs
        ]
        self._history.publications += made
        await self._send(made, body)
        return made

    async def _send(self, made: list[Publication], body: dict[str, Any]) -> None:
        key = made[0].key
        response = await self._http.ask("POST", "/v1/notifications", body=body, key=key)
        if response.status_code != 200:
            return
        for one, result in zip(made, response.json()["results"], strict=True):
            if one.id and one.id != result["id"]:
                self._history.trouble(
                    "doubled", f"{key} has the ids {one.id} and {result['id']}"
                )
            one.id = result["id"]
            if not one.acked:
                one.acked_at = time.time()

    async def repeat(self) -> None:
        """Send a request that was acknowledged once more, as after a lost response."""
        mine = [
            one
            for one in self._history.publications[-60:]
            if one.acked and one.key.startswith(f"{self._name}.") and not one.scheduled
        ]
        if not mine:
            return
        key = self._dice.choice(mine).key
        same = [one for one in mine if one.key == key]
        whole = [one for one in self._history.publications if one.key == key]
        if len(same) != len(whole):
            return
        body: dict[str, Any] = {
            "to": _recipients([one.log for one in whole]),
            "title": key,
        }
        if whole[0].ttl_s:
            body["ttl_s"] = whole[0].ttl_s
        if whole[0].collapse_key:
            body["collapse_key"] = whole[0].collapse_key
        await self._send(whole, body)

    async def withdraw(self) -> Withdrawal | None:
        """Withdraw one of the last messages, or delete it from its player's inbox."""
        taken = {one.id for one in self._history.withdrawals}
        last = [
            one
            for one in self._history.publications[-40:]
            if one.acked and one.id not in taken
        ]
        if not last:
            return None
        return await self.withdraw_this(self._dice.choice(last))

    async def withdraw_this(self, one: Publication) -> Withdrawal:
        player = one.log[1:] if one.log[0] == "@" else ""
        ending = Withdrawal(one.id, one.log, player, time.time())
        self._history.withdrawals.append(ending)
        if player:
            path = f"/v1/players/{player}/notifications/{one.id}"
        elif one.log == EVERYONE:
            path = f"/v1/everyone/notifications/{one.id}"
        else:
            path = f"/v1/topics/{one.log[1:]}/notifications/{one.id}"
        # 404 is the answer for one that has ended in the meantime.
        answer = await self._http.ask("DELETE", path, expected=(204, 404))
        ending.status, ending.acked_at = answer.status_code, time.time()
        return ending

    async def withdraw_and_publish(self) -> None:
        """Withdraw a message and publish the next one to the same log at once."""
        ending = await self.withdraw()
        if ending is not None:
            await self.publish(ending.log)

    async def schedule(self) -> None:
        """Schedule a message for some players, a second or two ahead."""
        dice, key = self._dice, self._key()
        players = tuple(
            dice.sample(self._cast.players, min(2, len(self._cast.players)))
        )
        due_at = round(time.time() + dice.uniform(0.5, 2.5), 3)
        one = Scheduled(key, players, due_at, time.time())
        self._history.schedules.append(one)
        body = {
            "to": {"players": players},
            "title": key,
            "send_at": datetime.fromtimestamp(due_at, UTC).isoformat(),
        }
        answer = await self._http.ask(
            "POST", "/v1/notifications", body=body, key=key, expected=(200, 202)
        )
        if answer.status_code in (200, 202):
            # It was due already when a node accepted it: 200 is a publish.
            one.id = answer.json().get("schedule", {}).get("id", "")
            one.acked_at = time.time()

    async def cancel(self) -> None:
        open_ = [
            one
            for one in self._history.schedules[-10:]
            if one.id and one.cancel_sent_at > time.time()
        ]
        if not open_:
            return
        one = self._dice.choice(open_)
        one.cancel_sent_at, one.cancelled = time.time(), None
        answer = await self._http.ask(
            "DELETE", f"/v1/schedules/{one.id}", expected=(200, 204, 404, 409)
        )
        one.cancelled = answer.status_code in (200, 204)


class PlayerActs:
    """What one player does, one thing after the other, through the pages."""

    def __init__(
        self, player: str, cast: Cast, history: History, http: Http, dice: random.Random
    ) -> None:
        self.player = player
        self._cast = cast
        self._history = history
        self._http = http
        self._dice = dice
        self._path = f"/v1/players/{player}"
        self._joins = cast.players.index(player) % 2 == 0
        self._joined: dict[str, Membership] = {}

    async def enter(self) -> None:
        """Appear for the first time, and join the topic of all players."""
        await self._http.ask("GET", f"{self._path}/notifications")
        await self.join(self._cast.topics[0])

    async def act(self) -> None:
        acts: dict[Callable[[], Awaitable[object]], float] = {
            self.mark: 4,
            self.unmark: 2,
            self.mark_up_to: 2,
            self.mark_all: 1,
            self.delete: 1,
            self.acknowledge: 2,
            self.walk: 1,
        }
        if self._joins:
            acts[self.come_or_go] = 1
        (chosen,) = self._dice.choices([*acts], weights=[*acts.values()])
        await chosen()

    async def page(self, **params: str) -> dict[str, Any]:
        answer = await self._http.ask(
            "GET", f"{self._path}/notifications", params={"limit": "20", **params}
        )
        return dict(answer.json()) if answer.status_code == 200 else _EMPTY

    async def _some_ids(self) -> tuple[str, ...]:
        shown = [one["id"] for one in (await self.page())["notifications"]]
        return tuple(self._dice.sample(shown, min(len(shown), 3)))

    async def send_mark(self, mark: Mark, word: str, body: dict[str, Any]) -> None:
        self._history.marks.append(mark)
        await self._http.ask("POST", f"{self._path}/notifications/{word}", body=body)
        mark.acked_at = time.time()

    async def mark(self) -> None:
        if ids := await self._some_ids():
            mark = Mark(self.player, "ids", ids, time.time())
            await self.send_mark(mark, "read", {"ids": ids})

    async def unmark(self) -> None:
        if ids := await self._some_ids():
            mark = Mark(self.player, "unread", ids, time.time())
            await self.send_mark(mark, "unread", {"ids": ids})

    async def mark_all(self) -> None:
        sent_at = time.time()
        known = self._acked_before(sent_at)
        mark = Mark(self.player, "all", known, sent_at)
        await self.send_mark(mark, "read", {"all": True})
        mark.limit_at = mark.acked_at

    async def mark_up_to(self) -> None:
        """Mark up to the cursor of a page, or to any message, if it ended or not."""
        publications = [
            one
            for one in self._history.publications[-50:]
            if one.acked and one.log in (own(self.player), EVERYONE, self._topic)
        ]
        if publications and self._dice.random() < 0.5:
            last = self._dice.choice(publications)
            known = {
                one.id
                for one in self._history.publications
                if one.acked
                and (
                    one.acked_at < last.sent_at
                    or (one.log == last.log and one.id <= last.id)
                )
            }
            mark = Mark(self.player, "up_to", tuple(known), time.time(), last.acked_at)
            await self.send_mark(mark, "read", {"up_to": last.id})
            return
        before = time.time()
        page = await self.page()
        if page["cursor"]:
            known_ids = self._acked_before(before)
            mark = Mark(self.player, "up_to", known_ids, time.time(), time.time())
            await self.send_mark(mark, "read", {"up_to": page["cursor"]})

    @property
    def _topic(self) -> str:
        return topic_log(self._cast.topics[0])

    def _acked_before(self, at: float) -> tuple[str, ...]:
        return tuple(one.id for one in self._history.publications if one.acked_at < at)

    async def delete(self) -> None:
        if not (ids := await self._some_ids()):
            return
        log = next((o.log for o in self._history.publications if o.id == ids[0]), "")
        ending = Withdrawal(ids[0], log, self.player, time.time())
        self._history.withdrawals.append(ending)
        answer = await self._http.ask(
            "DELETE", f"{self._path}/notifications/{ids[0]}", expected=(204, 404)
        )
        ending.status, ending.acked_at = answer.status_code, time.time()

    async def acknowledge(self) -> None:
        sent_at = time.time()
        page = await self.page()
        if not page["cursor"]:
            return
        ids = tuple(one["id"] for one in page["notifications"])
        ack = Acknowledgement(self.player, ids, sent_at)
        self._history.acknowledgements.append(ack)
        await self._http.ask(
            "POST",
            f"{self._path}/notifications/ack",
            body={"cursor": page["cursor"]},
            expected=(204,),
        )
        ack.acked_at = time.time()

    async def walk(self) -> None:
        """Read the inbox in small pages while it changes: nothing comes twice."""
        for order in ("", "oldest"):
            ids = [one["id"] for one in await self.all_pages(order, limit=4)]
            if len(ids) != len(set(ids)):
                doubled = sorted({one for one in ids if ids.count(one) > 1})
                self._history.trouble(
                    "disorder",
                    f"a walk of {self.player} ({order or 'newest'}) repeats {doubled}",
                )

    async def all_pages(
        self, order: str, *, limit: int, **filters: str
    ) -> list[dict[str, Any]]:
        """Return the whole inbox in one order, page by page, or what filters leave."""
        params = {"limit": str(limit), **filters} | ({"order": order} if order else {})
        shown: list[dict[str, Any]] = []
        while True:
            page = await self.page(**params)
            shown += page["notifications"]
            if not page["next"]:
                return shown
            params["after" if order else "before"] = page["next"]

    async def join(self, topic: str) -> None:
        one = Membership(self.player, topic, time.time())
        self._history.memberships.append(one)
        await self._http.ask("PUT", f"{self._path}/topics/{topic}", expected=(204,))
        one.join_acked_at = time.time()
        self._joined[topic] = one

    async def come_or_go(self) -> None:
        topic = self._dice.choice(self._cast.topics[1:])
        one = self._joined.pop(topic, None)
        if one is None:
            await self.join(topic)
            return
        one.leave_sent_at = time.time()
        await self._http.ask("DELETE", f"{self._path}/topics/{topic}", expected=(204,))
        one.leave_acked_at = time.time()


_EMPTY: dict[str, Any] = {"notifications": [], "next": None, "unread": 0, "cursor": ""}


def _recipients(logs: Sequence[str]) -> dict[str, Any]:
    if logs[0] == EVERYONE:
        return {"everyone": True}
    if logs[0][0] == "#":
        return {"topic": logs[0][1:]}
    return {"players": [log[1:] for log in logs]}
