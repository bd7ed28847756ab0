"""
Plays scenarios: a scripted server on one side, a driver on the other.

A scenario is a list of steps (`scenarios` has them, ``README.md`` describes them). Each
step makes the server or the driver do something, or waits for a fact. The runner waits
up to `GUARD_S` for a fact and never fails because something came late. What must *not*
happen is found by what comes next: an event or an attempt that no step asked for fails
the step that meets it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import urllib.parse
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from .driver import Driver, DriverFailed
from .scenarios import (
    ABSENT,
    BACKOFF_RANDOM,
    EXPIRING,
    PAGE_PATH,
    Scenario,
    expiring_token,
    hello,
)
from .server import EventStream, Exchange, Server, Stream, WebSocketStream

__all__ = ["GUARD_S", "Outcome", "Result", "play", "run"]

GUARD_S: Final = 60.0
"""How long to wait for a fact."""
EARLY_S: Final = 0.004
"""How much too early a timer of an operating system may be."""
EARLY: Final = 0.05
"""How much too early a client may be, as a part of the duration: clocks differ."""
PULSE_S: Final = 0.01
STALL_S: Final = 1.0
"""Seconds of the protocol after which the result says that the runner stood still: a
tenth of what a client waits for a connection."""
STUCK_S: Final = 0.5
"""How long a client reads nothing until it counts as one that has stopped reading."""
FULL_MESSAGES: Final = 1_000
"""Messages of `full` after which a client counts as one that does not stop reading."""

SIGNIFICANT: Final = frozenset(
    {"notification", "withdrawn", "replaced", "gap", "stopped", "failed"}
)
"""Events that no step may pass over."""
INFORMING: Final = frozenset(
    {"notification", "withdrawn", "replaced", "gap", "read", "unread", "moved"}
)
"""Events that say what is stored, and the number."""

MESSAGE_MEMBERS: Final = {
    "auth": {"token"},
    "read": {"ids", "up_to", "all", "ref"},
    "ack": {"cursor", "ref"},
    "subscribe": {"topics", "ref"},
    "unsubscribe": {"topics", "ref"},
    "ping": set[str](),
    "pong": set[str](),
}
"""What a client may say on a WebSocket. Anything else is a close 4203."""

Outcome = str  # "passed", "failed" or "unsupported"
_T = TypeVar("_T")


class Result(NamedTuple):
    """What came of a scenario on a transport."""

    scenario: Scenario
    transport: str
    outcome: Outcome
    detail: str = ""
    """Why it failed, or what is missing."""
    took_s: float = 0.0


class Failed(Exception):
    """The client did not do what the scenario expects."""


async def run(
    command: str,
    scenarios: Sequence[Scenario],
    *,
    transports: Sequence[str] = (),
    jobs: int = 2,
    scale_min: float = 0.0,
    on_result: Callable[[Result], None] = lambda _: None,
) -> tuple[dict[str, Any], list[Result]]:
    """
    Play all of `scenarios` on all transports that they and the driver have.

    Args:
        command: How to start the driver.
        scenarios: What to play.
        transports: Only these; none means all.
        jobs: Drivers at the same time.
        scale_min: Real seconds that each second of the protocol takes at least.
        on_result: Called as soon as a result is there.

    Returns the driver's `ready`, and the results in the order of the scenarios.

    Raises:
        DriverFailed: A driver did not start.
    """
    plays = [
        (scenario._replace(scale=max(scenario.scale, scale_min)), transport)
        for scenario in scenarios
        for transport in scenario.transports
        if not transports or transport in transports
    ]
    waiting = list(enumerate(plays))[::-1]
    results: dict[int, Result] = {}
    ready: dict[str, Any] = {}

    async def work() -> None:
        driver = Driver(command)
        await driver.start()
        ready.update(driver.ready)
        try:
            while waiting:
                number, (scenario, transport) = waiting.pop()
                result = await play(driver, scenario, transport)
                results[number] = result
                on_result(result)
                if result.outcome == "failed":
                    # What a failed scenario leaves behind must not harm the next.
                    await driver.stop()
                    driver = Driver(command)
                    await driver.start()
        finally:
            await driver.stop()

    async with asyncio.TaskGroup() as group:
        for _ in range(max(1, min(jobs, len(plays)))):
            group.create_task(work())
    return ready, [results[number] for number in sorted(results)]


async def play(driver: Driver, scenario: Scenario, transport: str) -> Result:
    """
    Play one scenario on one transport, once.

    The reason of a failure says for how long this process stood still meanwhile, if
    that is longer than a client has to wait for an answer. It is a failure all the
    same: a client that fails only on a busy machine has a fault as well.
    """
    missing = scenario.missing(
        transport, driver.ready["transports"], driver.ready["capabilities"]
    )
    if missing:
        return Result(scenario, transport, "unsupported", ", ".join(missing))
    async with _Pulse() as pulse:
        result = await _play(driver, scenario, transport)
    if result.outcome == "failed" and pulse.longest_s > STALL_S * scenario.scale:
        return result._replace(detail=result.detail + _stood_still(pulse.longest_s))
    return result


def _stood_still(seconds: float) -> str:
    return (
        f"\n     the tests themselves stood still for {seconds:.2f} s meanwhile; "
        "on a busy machine use fewer --jobs, or a --scale-min"
    )


async def _play(driver: Driver, scenario: Scenario, transport: str) -> Result:
    begun_s = time.monotonic()
    server = Server(scenario.scale)
    await server.start()
    stage = _Stage(driver, server, scenario, transport)
    problem = ""
    try:
        await stage.play()
    except (Failed, DriverFailed, ValueError) as error:
        problem = f"{stage.where}: {error}"
        if driver.errors and not driver.is_running:
            problem += "\n" + "\n".join(driver.errors)
    finally:
        await server.stop()
    took_s = time.monotonic() - begun_s
    outcome = "failed" if problem else "passed"
    return Result(scenario, transport, outcome, problem, took_s)


class _Pulse:
    """Measures how long this process stands still: its longest delay of a timer."""

    def __init__(self) -> None:
        self.longest_s = 0.0
        self._last_s = time.monotonic()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> _Pulse:
        self._task = asyncio.create_task(self._measure())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task])
        self._beat()

    async def _measure(self) -> None:
        while True:
            await asyncio.sleep(PULSE_S)
            self._beat()

    def _beat(self) -> None:
        now_s = time.monotonic()
        self.longest_s = max(self.longest_s, now_s - self._last_s - PULSE_S)
        self._last_s = now_s


class _Stage:
    """One scenario while it is played."""

    def __init__(
        self, driver: Driver, server: Server, scenario: Scenario, transport: str
    ) -> None:
        self.where = "start"
        self._driver = driver
        self._server = server
        self._scenario = scenario
        self._transport = transport
        self._can_fix_random = "random" in driver.ready["capabilities"]
        self._exchange: Exchange | None = None
        self._stream: Stream | None = None
        self._request: Exchange | None = None
        self._begun_s = time.monotonic()
        self._ended_s = self._begun_s
        """When the server ended the last connection, or was last heard on it."""
        self._instances: set[str] = set()
        self._keys: set[str] = set()
        self._is_flooded = False
        self._ref: str | None = None
        """Of the last command from the stream."""
        self._stored: str | None = None
        self._number: int | None = None
        self._numbers: list[int | None] = []
        self._results: dict[int, dict[str, Any]] = {}
        self._wanted_tokens = 0
        self._next_id = 0
        self._steps: dict[str, Callable[[Any], Awaitable[None] | None]] = {
            name.removeprefix("_do_"): getattr(self, name)
            for name in dir(self)
            if name.startswith("_do_")
        }

    async def play(self) -> None:
        try:
            for number, step in enumerate(self._scenario.steps, 1):
                ((name, value),) = step.items()
                self.where = f"step {number}, {name}"
                done = self._steps[name](value)
                if done is not None:
                    await done
            self.where = "end"
            await self._check_rest()
        finally:
            await self._close()

    # What the driver does and says.

    def _do_connect(self, options: dict[str, Any]) -> None:
        command = {
            "cmd": "connect",
            "url": self._server.url,
            "token": "t0",
            "token_source": False,
            "transport": self._transport,
            "cursor": None,
            "topics": [],
            "auth": "header",
            "scale": self._scenario.scale,
            "random": BACKOFF_RANDOM if self._can_fix_random else None,
            **options,
        }
        if command["token"] == EXPIRING:
            command["token"] = expiring_token(40.0)
        self._stored = command["cursor"]
        self._begun_s = self._ended_s = time.monotonic()
        self._driver.send(command)

    def _do_do(self, command: dict[str, Any]) -> None:
        self._next_id += 1
        self._driver.send({"id": self._next_id, **command})

    def _do_tell(self, command: dict[str, Any]) -> None:
        self._driver.send(command)

    async def _do_result(self, expected: dict[str, Any]) -> None:
        wanted = self._next_id
        await self._events_until(lambda: wanted in self._results, "the result")
        self._check(self._results[wanted], expected)

    async def _do_expect(self, expected: dict[str, Any]) -> None:
        while True:
            event = await self._event(f"the event {_short(expected)}")
            if event["event"] in SIGNIFICANT or event["event"] == expected["event"]:
                self._check(event, expected)
                return

    async def _do_pass(self, kind: str) -> None:
        """Let an event of this kind pass."""
        await self._do_expect({"event": kind})

    async def _do_restart(self, _: Any) -> None:
        """Close the client, and open another one."""
        await self._close()
        self._do_connect({})

    async def _do_stored(self, cursor: str | None) -> None:
        await self._events_until(
            lambda: self._stored == cursor,
            lambda: f"the cursor {cursor!r}; it has {self._stored!r}",
        )

    async def _do_number(self, number: int | None) -> None:
        await self._events_until(
            lambda: self._number == number,
            lambda: f"the number {number}; it shows {self._number}",
        )

    def _do_numbers_among(self, numbers: list[int | None]) -> None:
        wrong = [it for it in self._numbers if it not in (*numbers, None)]
        if wrong:
            raise Failed(f"it has shown {wrong[0]}, which no message leads to")

    async def _do_token_wanted(self, token: str | None) -> None:
        await self._events_until(lambda: self._wanted_tokens > 0, "token_wanted")
        self._wanted_tokens -= 1
        answer = {"error": "no token"} if token is None else {"token": token}
        self._driver.send({"cmd": "token", **answer})

    async def _do_settled(self, _: Any) -> None:
        """Wait until the driver has carried out everything so far."""
        self._do_do({"cmd": "state"})
        await self._do_result({"ok": True})

    # What the server does and hears.

    async def _do_attempt(self, expected: dict[str, Any]) -> None:
        exchange = await self._next_attempt()
        self._exchange, self._stream = exchange, None
        self._check_request(exchange)
        wanted = expected.get("is_websocket", self._transport == "websocket")
        if exchange.is_websocket is not wanted and (
            self._transport != "auto" or "is_websocket" in expected
        ):
            found = "a WebSocket" if exchange.is_websocket else "no WebSocket"
            raise Failed(f"the attempt is {found}")
        if "cursor" in expected and exchange.cursor != expected["cursor"]:
            raise Failed(
                f"it resumes from {exchange.cursor!r} instead of {expected['cursor']!r}"
            )
        if "topics" in expected:
            topics = ",".join(exchange.query.get("topics", [])).split(",")
            if sorted(topics) != sorted(expected["topics"]):
                raise Failed(f"it asks for the topics {topics}")
        if instance := exchange.query.get("instance", [None])[0]:
            self._instances.add(instance)
        if expected.get("same_instance") and len(self._instances) != 1:
            raise Failed(f"its instances are {sorted(self._instances)}, not one")
        if expected.get("other_instance") and len(self._instances) != 2:
            raise Failed(f"its instances are {sorted(self._instances)}, not two")
        if expected.get("ticket") and "ticket" not in exchange.query:
            raise Failed("it does not use a ticket")
        self._check_waited(exchange, expected)
        if "token" in expected:
            await self._check_token(exchange, expected["token"])

    async def _check_token(self, exchange: Exchange, expected: str | None) -> None:
        token = exchange.token
        if token is None and exchange.is_websocket:
            token = await self._token_of_first_message(exchange)
        if token is None:
            raise Failed("it sends no credential")
        if expected is not None and token != expected:
            raise Failed(f"it sends the token {token!r}, not {expected!r}")

    async def _do_accept(self, _: Any) -> None:
        assert self._exchange is not None
        if self._stream is None:
            # This may accept it: the credential may be in a first message.
            await self._check_token(self._exchange, None)
        if self._stream is None:
            self._stream = await self._exchange.accept()
        self._ended_s = time.monotonic()

    async def _do_refuse(self, refusal: dict[str, Any]) -> None:
        """Refuse with a status, or in the stream where that was asked for."""
        assert self._exchange is not None
        # A server refuses a first message in the only way that there is then.
        in_stream = (
            self._exchange.query.get("refusals") == ["stream"]
            or self._exchange.token is None
        )
        delay_s = refusal.get("retry_after")
        if self._stream is not None or in_stream:
            await self._do_accept(True)
            code = refusal["code"]
            message = {"type": "bye", "code": code, "reason": refusal["reason"]}
            message["reconnect"] = code < 4200
            message["delay_ms"] = int((delay_s or 0) * 1000)
            self._do_say(message)
            self._do_end({"code": code, "reason": refusal["reason"]})
            return
        headers = {"Content-Type": "application/problem+json"}
        if delay_s is not None:
            headers["Retry-After"] = str(delay_s)
        body = {"type": "about:x", "title": refusal["reason"], "status": 0}
        body["status"] = refusal["status"]
        self._exchange.respond(refusal["status"], body, headers)
        self._ended_s = time.monotonic()

    def _do_http(self, response: dict[str, Any]) -> None:
        """Answer an attempt as a proxy might."""
        assert self._exchange is not None
        self._exchange.respond(
            response["status"], response.get("body"), response.get("headers")
        )
        self._ended_s = time.monotonic()

    def _do_drop(self, _: Any) -> None:
        assert self._exchange is not None
        self._ended_s = time.monotonic()
        (self._stream or self._exchange).drop()

    def _do_silence(self, _: Any) -> None:
        """Leave the attempt without an answer."""
        self._ended_s = time.monotonic()

    def _do_say(self, message: dict[str, Any]) -> None:
        self._open_stream.say(message)
        self._ended_s = time.monotonic()

    def _do_raw(self, text: str) -> None:
        self._open_stream.raw(text)
        self._ended_s = time.monotonic()

    def _do_fragments(self, parts: list[str]) -> None:
        stream = self._open_stream
        assert isinstance(stream, WebSocketStream)
        stream.fragments(parts)

    def _do_binary(self, text: str) -> None:
        stream = self._open_stream
        assert isinstance(stream, WebSocketStream)
        stream.binary(text.encode())
        self._ended_s = time.monotonic()

    async def _do_block(self, how: dict[str, Any]) -> None:
        """Send a message over SSE with other line ends, or byte by byte."""
        stream = self._open_stream
        assert isinstance(stream, EventStream)
        data = stream.block(how["message"], how.get("line_end", "\n")).encode()
        size = how.get("bytes", len(data))
        for at in range(0, len(data), size):
            stream.bytes(data[at : at + size])
            # Lets each piece arrive by itself, as far as the system permits it.
            await asyncio.sleep(0)

    def _do_end(self, how: dict[str, Any]) -> None:
        self._ended_s = time.monotonic()
        self._open_stream.end(how["code"], how.get("reason", ""))

    def _do_freeze(self, _: Any) -> None:
        self._open_stream.freeze()

    async def _do_gone(self, _: Any) -> None:
        await self._within(self._open_stream.gone.wait(), "the client to disconnect")

    async def _do_receive(self, expected: dict[str, Any]) -> None:
        while True:
            message = await self._within(
                self._next_message(), f"the message {_short(expected)}"
            )
            # Heartbeats may come in between.
            if message["type"] in {"ping", "pong"} - {expected["type"]}:
                continue
            self._check(message, expected)
            return

    async def _do_fallback(self, how: dict[str, Any]) -> None:
        """Fail one transport until the client tries another; leave that attempt."""
        for _ in range(how["attempts_max"]):
            exchange = await self._next_attempt()
            if not exchange.is_websocket:
                self._server.put_back(exchange)
                return
            self._exchange, self._stream = exchange, None
            for step in how["steps"]:
                ((name, value),) = step.items()
                done = self._steps[name](value)
                if done is not None:
                    await done
        raise Failed(f"after {how['attempts_max']} attempts it still uses a WebSocket")

    async def _do_full(self, message: dict[str, Any]) -> None:
        """Send a message again and again until the client reads no further."""
        self._is_flooded = True
        writer = self._open_stream.exchange.writer
        for _ in range(FULL_MESSAGES):
            self._do_say(message)
            try:
                async with asyncio.timeout(STUCK_S):
                    await writer.drain()
            except TimeoutError:
                return
        raise Failed(f"it has read {FULL_MESSAGES} messages that nobody takes")

    async def _do_marked(self, how: dict[str, Any]) -> None:
        """Take a mark from the stream or from HTTP, and answer it."""
        await self._take_command("read", how["what"], how["unread"])

    async def _do_acked(self, cursor: str) -> None:
        await self._take_command("ack", {"cursor": cursor}, None)

    async def _do_mark_lost(self, what: dict[str, Any]) -> None:
        """Lose a mark with its connection; the client opens another stream."""
        request = await self._command("read", what)
        if request is not None:
            request.drop()
            return
        self._do_drop(True)
        await self._do_attempt({})
        await self._do_accept(True)
        self._do_say(hello())

    async def _do_replied(self, expected: dict[str, Any]) -> None:
        """Take a command from the stream, and say that it was carried out."""
        await self._reply(expected, {"type": "reply"})

    async def _do_refused(self, expected: dict[str, Any]) -> None:
        """Take a command from the stream, and say that it was not carried out."""
        await self._reply(expected, {"type": "error", "problem": "is not allowed"})

    async def _reply(self, expected: dict[str, Any], reply: dict[str, Any]) -> None:
        message = await self._within(
            self._message_of(expected["type"]), f"the message {_short(expected)}"
        )
        self._check(message, expected)
        if "ref" in message:
            self._do_say({**reply, "ref": message["ref"]})

    async def _do_request(self, expected: dict[str, Any]) -> None:
        request = await self._within(
            self._server.requests.get(), f"the request {_short(expected)}"
        )
        self._request = request
        found = {
            "method": request.method,
            "path": request.path,
            "query": {name: ",".join(it) for name, it in request.query.items()},
            "headers": request.headers,
            "body": request.json() if expected.get("body") is not None else None,
            "token": request.token,
        }
        self._check(found, expected)
        if expected.get("waits") and not int(request.query.get("wait_s", ["0"])[0]):
            raise Failed("it does not permit the server to wait (wait_s)")
        if expected.get("same_key"):
            key = request.headers.get("idempotency-key")
            if not key:
                raise Failed("it sends no Idempotency-Key")
            self._keys.add(key)
            if len(self._keys) > 1:
                raise Failed("an attempt has another Idempotency-Key than the first")
        self._check_waited(request, expected)

    def _do_answer(self, response: dict[str, Any]) -> None:
        assert self._request is not None
        self._ended_s = time.monotonic()
        if response.get("drop"):
            self._request.drop()
            return
        self._request.respond(
            response["status"], response.get("body"), response.get("headers")
        )

    async def _do_wait(self, seconds: float) -> None:
        """Let so much time of the protocol pass."""
        await asyncio.sleep(seconds * self._scenario.scale)

    async def _do_idle(self, seconds: float) -> None:
        """Check that there is no attempt within so much time of the protocol."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds * self._scenario.scale):
                await self._server.attempts.get()
                raise Failed("it connects again")

    def _do_elapsed(self, seconds: float) -> None:
        """Check that at least so much time of the protocol has passed."""
        passed_s = (time.monotonic() - self._begun_s) / self._scenario.scale
        if passed_s < seconds:
            raise Failed(
                f"after {passed_s:.1f} s it has made all of these attempts; "
                f"the back-off allows them after {seconds} s"
            )

    # How.

    @property
    def _open_stream(self) -> Stream:
        assert self._stream is not None, "the scenario has not accepted the attempt"
        return self._stream

    async def _next_attempt(self) -> Exchange:
        getting = asyncio.ensure_future(self._server.attempts.get())
        reading = asyncio.ensure_future(self._until_stopped())
        try:
            async with asyncio.timeout(GUARD_S):
                await asyncio.wait(
                    (getting, reading), return_when=asyncio.FIRST_COMPLETED
                )
            if reading.done():
                raise Failed(f"instead of another attempt: {reading.result()}")
            return getting.result()
        except TimeoutError:
            raise Failed(f"no attempt within {GUARD_S:.0f} s") from None
        finally:
            for task in (getting, reading):
                task.cancel()
            await asyncio.wait((getting, reading))

    async def _until_stopped(self) -> str:
        """Read events until the client says that there will be no attempt."""
        while True:
            event = await self._any_event()
            if event["event"] in SIGNIFICANT:
                return _short(event)

    async def _token_of_first_message(self, exchange: Exchange) -> str | None:
        self._stream = await exchange.accept()
        message = await self._within(self._next_message(), "the message auth")
        if message["type"] != "auth" or not isinstance(message.get("token"), str):
            raise Failed(f"its first message is {_short(message)} instead of auth")
        return str(message["token"])

    async def _next_message(self) -> dict[str, Any]:
        message = await self._open_stream.received.get()
        if not isinstance(message, dict) or message.get("type") not in MESSAGE_MEMBERS:
            raise Failed(f"it says {_short(message)}, which is a close 4203")
        allowed = MESSAGE_MEMBERS[message["type"]] | {"type"}
        if unknown := message.keys() - allowed:
            raise Failed(f"{message['type']} has {sorted(unknown)}, which is a 4203")
        return message

    async def _take_command(
        self, kind: str, expected: dict[str, Any], unread: int | None
    ) -> None:
        request = await self._command(kind, expected)
        if request is None:
            if self._ref is not None:
                reply = {"type": "reply", "ref": self._ref}
                self._do_say(reply | ({} if unread is None else {"unread": unread}))
        elif unread is None:
            request.respond(204)
        else:
            request.respond(200, {"unread": unread})

    async def _command(self, kind: str, expected: dict[str, Any]) -> Exchange | None:
        """Take a command; return its request if it comes over HTTP."""
        over_http = asyncio.ensure_future(self._server.requests.get())
        waits: set[asyncio.Future[Any]] = {over_http}
        over_stream: asyncio.Future[dict[str, Any]] | None = None
        if isinstance(self._stream, WebSocketStream):
            over_stream = asyncio.ensure_future(self._message_of(kind))
            waits.add(over_stream)
        done, pending = await asyncio.wait(
            waits, timeout=GUARD_S, return_when=asyncio.FIRST_COMPLETED
        )
        for task in pending:
            task.cancel()
        if not done:
            raise Failed(f"no {kind} within {GUARD_S:.0f} s")
        if over_stream in done:
            assert over_stream is not None
            message = over_stream.result()
            self._check(message, expected)
            self._ref = message.get("ref")
            return None
        request = over_http.result()
        path = f"{PAGE_PATH}/{kind}"
        self._check(
            {"method": request.method, "path": request.path},
            {"method": "POST", "path": path},
        )
        self._check(request.json(), expected)
        return request

    async def _message_of(self, kind: str) -> dict[str, Any]:
        while True:
            message = await self._next_message()
            if message["type"] not in ("ping", "pong"):
                self._check(message, {"type": kind})
                return message

    async def _event(self, what: str | Callable[[], str]) -> dict[str, Any]:
        try:
            async with asyncio.timeout(GUARD_S):
                return await self._any_event()
        except TimeoutError:
            text = what if isinstance(what, str) else what()
            raise Failed(f"waited {GUARD_S:.0f} s for {text}") from None

    async def _any_event(self) -> dict[str, Any]:
        event = await self._driver.events.get()
        if isinstance(event, DriverFailed):
            raise event
        kind = event["event"]
        if kind in INFORMING:
            self._stored = event.get("stored")
            self._number = event.get("number")
            self._numbers.append(self._number)
        elif kind == "result":
            if not isinstance(event.get("id"), int):
                raise Failed(f"a result without the id of its command: {_short(event)}")
            self._results[event["id"]] = event
        elif kind == "token_wanted":
            self._wanted_tokens += 1
        return event

    async def _events_until(
        self, is_true: Callable[[], bool], what: str | Callable[[], str]
    ) -> None:
        while not is_true():
            event = await self._event(what)
            if event["event"] in SIGNIFICANT and not is_true():
                raise Failed(f"unexpected: {_short(event)}")

    async def _within(self, wait: Awaitable[_T], what: str) -> _T:
        try:
            async with asyncio.timeout(GUARD_S):
                return await wait
        except TimeoutError:
            raise Failed(f"waited {GUARD_S:.0f} s for {what}") from None

    def _check_request(self, exchange: Exchange) -> None:
        """Check what holds for every attempt."""
        line = urllib.parse.unquote(exchange.head.split(b"\r\n")[0].decode("latin-1"))
        secrets = [it for it in (exchange.token, "t0") if it]
        if any(f"={secret}" in line for secret in secrets):
            raise Failed("the URL contains the token")
        if exchange.method != "GET":
            raise Failed(f"the method is {exchange.method}")

    def _check_waited(self, exchange: Exchange, expected: dict[str, Any]) -> None:
        """Check that an attempt did not come too early."""
        least_s = expected.get("after_s", 0.0)
        if (attempt := expected.get("backoff")) is not None and self._can_fix_random:
            least_s += BACKOFF_RANDOM * min(20.0, 0.5 * 2**attempt)
        waited_s = (exchange.arrived_s - self._ended_s) / self._scenario.scale
        early_s = EARLY_S / self._scenario.scale + EARLY * least_s
        if waited_s + early_s < least_s:
            raise Failed(
                f"it comes again after {waited_s:.2f} s; allowed after {least_s:.2f} s"
            )

    def _check(self, found: Any, expected: Any, path: str = "") -> None:
        """Check that `found` has everything that is expected; it may have more."""
        if isinstance(expected, dict) and isinstance(found, dict):
            for name, value in expected.items():
                if name in ("same_key", "after_s", "backoff", "waits"):
                    continue
                if value == ABSENT:
                    if name in found:
                        raise Failed(f"{path}{name} is there: {_short(found)}")
                elif name not in found:
                    raise Failed(f"{path}{name} is missing: {_short(found)}")
                else:
                    self._check(found[name], value, f"{path}{name}.")
        elif found != expected or isinstance(found, bool) is not isinstance(
            expected, bool
        ):
            where = f"{path.removesuffix('.')} is " if path else ""
            raise Failed(f"{where}{_short(found)} instead of {_short(expected)}")

    async def _check_rest(self) -> None:
        """Check that nothing is left that no step has asked for."""
        if self._is_flooded:
            return  # What arrived before the client stopped does not matter.
        await self._do_settled(None)
        while not self._driver.events.empty():
            event = await self._any_event()
            if event["event"] in SIGNIFICANT:
                raise Failed(f"one too many: {_short(event)}")
        if not self._server.attempts.empty():
            raise Failed("one attempt too many")
        if self._wanted_tokens:
            raise Failed("it has asked for one token too many")

    async def _close(self) -> None:
        """Close the client, so that the driver is ready for the next one."""
        if not self._driver.is_running:
            return
        self._driver.send({"cmd": "close"})
        with contextlib.suppress(DriverFailed):
            try:
                async with asyncio.timeout(GUARD_S):
                    while (await self._any_event())["event"] != "closed":
                        pass
            except TimeoutError:
                raise Failed("the driver did not close the client") from None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:300]}…"
