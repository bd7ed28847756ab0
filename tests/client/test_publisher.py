"""Publishing in batches."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from streamer_client import (
    AsyncPublisher,
    BadResponse,
    Client,
    Message,
    Rejected,
    Sent,
    Unavailable,
)
from streamer_client.model import FieldProblem
from streamer_client.publisher import ATTEMPT_ROUNDS_MAX, Results

from .conftest import Running

LONG_S = 3_600.0
"""A flush interval that never passes in a test."""


def message(
    to: str | Sequence[str] = "alice", title: str = "t", **more: Any
) -> Message:
    return Message(to=to, title=title, **more)


class Fake:
    """Records batches, and answers what a test says."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.keys: list[str] = []
        self.errors: list[Exception] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.called = asyncio.Event()

    async def publish_many(
        self, messages: Sequence[Message], *, idempotency_key: str | None = None
    ) -> tuple[Results, ...]:
        assert idempotency_key is not None
        self.batches.append([str(it.title) for it in messages])
        self.keys.append(idempotency_key)
        self.called.set()
        await self.may_answer.wait()
        if self.errors:
            raise self.errors.pop(0)
        if wrong := [n for n, it in enumerate(messages) if it.title == "wrong"]:
            raise Rejected(
                422,
                "invalid",
                errors=[FieldProblem(f"/{n}/title", "is wrong") for n in wrong],
            )
        if any(it.title == "bad" for it in messages):
            raise Rejected(413, "too large")
        return tuple((Sent("alice", str(it.title)),) for it in messages)


@pytest.fixture
def fake() -> Fake:
    return Fake()


def ids(results: Sequence[Results]) -> list[str | None]:
    return [sent.id for one in results for sent in one]


async def test_messages_of_one_moment_are_one_request(fake: Fake) -> None:
    async with AsyncPublisher(fake) as publisher:
        results = await asyncio.gather(
            *(publisher.publish(message(title=str(n))) for n in range(5))
        )

    assert fake.batches == [["0", "1", "2", "3", "4"]]
    assert ids(results) == ["0", "1", "2", "3", "4"]


async def test_a_full_batch_does_not_wait(fake: Fake) -> None:
    publisher = AsyncPublisher(fake, batch_max=2, flush_s=LONG_S)
    futures = [await publisher.put(message(title=str(n))) for n in range(4)]
    await asyncio.wait(futures)

    assert fake.batches == [["0", "1"], ["2", "3"]]
    await publisher.aclose()


async def test_recipients_and_bytes_fill_a_batch_as_well(fake: Fake) -> None:
    async with AsyncPublisher(fake, batch_max=3, flush_s=LONG_S) as publisher:
        await publisher.put(message(["a", "b"], "0"))
        await publisher.put(message(["c", "d"], "1"))
        await publisher.put(message(title="2", data="x" * 700_000))
        await publisher.put(message(title="3", data="x" * 700_000))

    assert fake.batches == [["0"], ["1", "2"], ["3"]]


async def test_a_cancelled_future_does_not_withdraw_its_message(fake: Fake) -> None:
    async with AsyncPublisher(fake, flush_s=LONG_S) as publisher:
        future = await publisher.put(message())
        future.cancel()
        await asyncio.sleep(0)

        assert publisher.pending_count == 1

    assert fake.batches == [["t"]]


async def test_a_cancelled_future_makes_no_room(fake: Fake) -> None:
    fake.may_answer.clear()
    async with AsyncPublisher(fake, flush_s=0, pending_max=1) as publisher:
        (await publisher.put(message(title="0"))).cancel()
        await fake.called.wait()
        second = asyncio.create_task(publisher.put(message(title="1")))
        await asyncio.sleep(0)
        await asyncio.sleep(0)

        is_waiting = not second.done()
        fake.may_answer.set()
        await second

    assert is_waiting
    assert fake.batches == [["0"], ["1"]]


async def test_a_cancelled_future_of_a_wrong_message_is_no_error(fake: Fake) -> None:
    async with AsyncPublisher(fake) as publisher:
        (await publisher.put(message(title="wrong"))).cancel()
        other = await publisher.put(message(title="right"))

    assert ids([await other]) == ["right"]
    assert publisher.pending_count == 0


async def test_leaving_the_block_publishes_what_waits(fake: Fake) -> None:
    async with AsyncPublisher(fake, flush_s=LONG_S) as publisher:
        await publisher.put(message())
        assert publisher.pending_count == 1

    assert fake.batches == [["t"]]
    assert publisher.pending_count == 0


async def test_a_flush_publishes_at_once_and_more_may_follow(fake: Fake) -> None:
    async with AsyncPublisher(fake, flush_s=LONG_S) as publisher:
        for title in ("one", "two"):
            await publisher.flush()
            future = await publisher.put(message(title=title))
            await publisher.flush()
            assert future.done()

    assert fake.batches == [["one"], ["two"]]


async def test_a_full_queue_makes_the_producer_wait(fake: Fake) -> None:
    fake.may_answer.clear()
    async with AsyncPublisher(fake, pending_max=2, flush_s=0) as publisher:
        await publisher.put(message(title="0"))
        await publisher.put(message(title="1"))
        third = asyncio.ensure_future(publisher.put(message(title="2")))
        await fake.called.wait()
        assert not third.done()
        fake.may_answer.set()
        await third

    assert [it for batch in fake.batches for it in batch] == ["0", "1", "2"]


async def test_one_request_is_in_flight_at_a_time(fake: Fake) -> None:
    fake.may_answer.clear()
    async with AsyncPublisher(fake, batch_max=1, flush_s=0) as publisher:
        for n in range(3):
            await publisher.put(message(title=str(n)))
        await fake.called.wait()
        await asyncio.sleep(0)
        assert fake.batches == [["0"]]
        fake.may_answer.set()

    assert fake.batches == [["0"], ["1"], ["2"]]


async def test_a_batch_keeps_its_key_while_the_server_is_unavailable(
    fake: Fake,
) -> None:
    fake.errors = [Unavailable("away", attempt_count=6) for _ in range(3)]
    async with AsyncPublisher(fake) as publisher:
        await publisher.publish(message())
        await publisher.publish(message())

    assert len(fake.keys) == 5
    assert len(set(fake.keys[:4])) == 1
    assert fake.keys[4] != fake.keys[0]


async def test_an_outage_that_does_not_end_reaches_every_caller(fake: Fake) -> None:
    fake.errors = [
        Unavailable("away", attempt_count=6) for _ in range(ATTEMPT_ROUNDS_MAX)
    ]
    async with AsyncPublisher(fake) as publisher:
        results = await asyncio.gather(
            publisher.publish(message()),
            publisher.publish(message()),
            return_exceptions=True,
        )
        assert ids([await publisher.publish(message(title="later"))]) == ["later"]

    assert [type(it) for it in results] == [Unavailable, Unavailable]


async def test_a_wrong_message_is_refused_alone(fake: Fake) -> None:
    async with AsyncPublisher(fake) as publisher:
        titles = ["0", "wrong", "2", "wrong", "4"]
        results = await asyncio.gather(
            *(publisher.publish(message(title=it)) for it in titles),
            return_exceptions=True,
        )

    assert [isinstance(it, Rejected) for it in results] == [0, 1, 0, 1, 0]
    assert isinstance(results[1], Rejected)
    assert results[1].errors == (FieldProblem("/title", "is wrong"),)
    assert fake.batches[1:] == [["0", "2", "4"]]
    assert fake.keys[0] != fake.keys[1], "the same key with other content is refused"


async def test_halves_find_what_the_server_does_not_name(fake: Fake) -> None:
    async with AsyncPublisher(fake) as publisher:
        titles = ["0", "1", "bad", "3", "4", "5", "6", "7"]
        results = await asyncio.gather(
            *(publisher.publish(message(title=it)) for it in titles),
            return_exceptions=True,
        )

    assert [isinstance(it, Rejected) for it in results] == [
        it == "bad" for it in titles
    ]
    stored = [it for batch in fake.batches if "bad" not in batch for it in batch]
    assert stored == ["0", "1", "3", "4", "5", "6", "7"]


async def test_a_key_without_rights_is_asked_once(fake: Fake) -> None:
    fake.errors = [Rejected(403, "forbidden")]
    async with AsyncPublisher(fake) as publisher:
        results = await asyncio.gather(
            *(publisher.publish(message()) for _ in range(3)), return_exceptions=True
        )

    assert [type(it) for it in results] == [Rejected] * 3
    assert len(fake.batches) == 1


async def test_a_cancelled_call_does_not_withdraw_its_message(fake: Fake) -> None:
    fake.may_answer.clear()
    async with AsyncPublisher(fake, flush_s=0) as publisher:
        call = asyncio.ensure_future(publisher.publish(message()))
        await fake.called.wait()
        call.cancel()
        await asyncio.wait([call])
        assert publisher.pending_count == 1
        fake.may_answer.set()

    assert publisher.pending_count == 0


async def test_a_cancelled_close_gives_up_what_waits(fake: Fake) -> None:
    fake.may_answer.clear()
    publisher = AsyncPublisher(fake, batch_max=1, flush_s=0)
    futures = [await publisher.put(message()) for _ in range(3)]
    await fake.called.wait()
    closing = asyncio.ensure_future(publisher.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait([closing])
    await asyncio.wait(futures)

    assert [type(it.exception()) for it in futures] == [Unavailable] * 3


async def test_a_closed_publisher_accepts_nothing(fake: Fake) -> None:
    publisher = AsyncPublisher(fake)
    await publisher.aclose()
    await publisher.aclose()

    with pytest.raises(ValueError, match="closed"):
        await publisher.publish(message())


async def test_a_message_that_is_not_json_takes_no_room(fake: Fake) -> None:
    async with AsyncPublisher(fake, pending_max=1, flush_s=LONG_S) as publisher:
        with pytest.raises(TypeError):
            await publisher.put(message(data=object()))
        await publisher.put(message())

    assert fake.batches == [["t"]]


async def test_too_few_results_are_an_error_of_their_batch(fake: Fake) -> None:
    async def publish_none(*_: Any, **__: Any) -> tuple[Results, ...]:
        return ()

    fake.publish_many = publish_none  # type: ignore[method-assign]
    async with AsyncPublisher(fake) as publisher:
        with pytest.raises(BadResponse, match="0 results for 1 messages"):
            await publisher.publish(message())


async def test_a_refusal_that_names_no_message_of_the_batch_ends(fake: Fake) -> None:
    fake.errors = [Rejected(422, "invalid", errors=[FieldProblem("/7", "is wrong")])]
    async with AsyncPublisher(fake) as publisher:
        with pytest.raises(Rejected):
            await publisher.publish(message())

    assert fake.batches == [["t"]]


async def test_what_cannot_be_repeated_cannot_be_in_a_batch(fake: Fake) -> None:
    async with AsyncPublisher(fake) as publisher:
        with pytest.raises(ValueError, match="persist"):
            await publisher.put(message(persist=False))


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_max": 0},
        {"batch_max": 1_001},
        {"flush_s": -1},
        {"pending_max": 0},
        {"requests_max": 0},
    ],
    ids=str,
)
def test_arguments_out_of_range_are_errors(fake: Fake, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="is"):
        AsyncPublisher(fake, **wrong)


@pytest.mark.asyncio(loop_scope="module")
async def test_a_real_server_stores_each_message_once(shared_server: Running) -> None:
    async with (
        Client(shared_server.url, token=shared_server.key) as backend,
        AsyncPublisher(backend, batch_max=10) as publisher,
    ):
        good = [publisher.publish(message("batch", str(n))) for n in range(30)]
        wrong = publisher.publish(message("batch", "x" * 2_000))
        *results, refused = await asyncio.gather(*good, wrong, return_exceptions=True)
        page = await backend.page("batch", limit=100, oldest_first=True)

    assert isinstance(refused, Rejected)
    assert [it.where for it in refused.errors] == ["/title"]
    assert [it.title for it in page.notifications] == [str(n) for n in range(30)]
    assert [it[0].id for it in results if isinstance(it, tuple)] == [
        it.id for it in page.notifications
    ]
