"""Ids in Lua, and items of the store: every spelling is that of the vectors."""

from __future__ import annotations

import itertools
import random

import pytest

from streamer.model import Position, encode_id
from streamer.store.client.cluster import redis_at
from streamer.store.client.commands import Script
from streamer.store.logs.entries import parse_entry

from ...clock import NOON_US
from ...vectors.ids import IDS, IdVector

Numbers = tuple[int, int, int]

EXACT = [vector for vector in IDS if vector.at_us < 2**53]
"""Those with a time that a number of Lua holds."""

ID_OF = """
local ids = {}
for i = 3, #ARGV, 3 do
  ids[#ids + 1] = id_of(tonumber(ARGV[i]), tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2]))
end
return ids
"""

SPLIT_ID = """
local numbers = {}
for i = 3, #ARGV do
  local at_us, offset = split_id(ARGV[i])
  numbers[#numbers + 1] = int(at_us) .. ' ' .. int(offset)
end
return numbers
"""


async def run(store_url: str, code: str, *args: str | int) -> list[bytes]:
    """Run code that follows the functions of the scripts."""
    redis = redis_at(store_url)
    text = Script("_append", includes=("_inbox",)).text + code
    reply: list[bytes] = await redis.call("EVAL", text, 0, 1, NOON_US, *args)
    await redis.close()
    return reply


async def test_scripts_write_the_ids_of_the_vectors(any_store: str) -> None:
    numbers = [number for vector in EXACT for number in vector[1:4]]

    ids = await run(any_store, ID_OF, *numbers)

    assert [id_.decode() for id_ in ids] == [vector.uuid for vector in EXACT]


async def test_scripts_read_the_stream_ids_of_the_vectors(any_store: str) -> None:
    parts = await run(any_store, SPLIT_ID, *(v.stream_id for v in EXACT))

    assert parts == [b"%d %d" % (vector.at_us, vector.offset) for vector in EXACT]


async def test_scripts_write_every_microsecond_as_the_model_does(
    store_url: str,
) -> None:
    orders = [(NOON_US + us, 1, 2) for us in range(1_000)]

    ids = await run(store_url, ID_OF, *itertools.chain(*orders))

    assert [id_.decode() for id_ in ids] == [encode_id(*order) for order in orders]


@pytest.mark.parametrize("seed", range(4))
async def test_scripts_write_random_ids_as_the_model_does(
    store_url: str, seed: int
) -> None:
    rng = random.Random(seed)
    orders: list[Numbers] = [
        (
            rng.getrandbits(rng.choice([1, 10, 51, 53])),
            rng.getrandbits(rng.choice([1, 18, 19, 32])) or 1,
            rng.getrandbits(rng.choice([1, 24, 25, 30])),
        )
        for _ in range(50)
    ]

    flat = [number for order in orders for number in order]
    ids = await run(store_url, ID_OF, *flat)

    assert [id_.decode() for id_ in ids] == [encode_id(*order) for order in orders]


@pytest.mark.parametrize("vector", IDS, ids=str)
def test_an_item_of_the_store_has_the_id_of_its_vector(vector: IdVector) -> None:
    fields = [b"t", b"%d" % vector.tag, b"n", b'"a":1}']
    entry = parse_entry(vector.epoch, [vector.stream_id.encode(), fields])

    assert entry.id == vector.uuid
    assert entry.position == Position(vector.epoch, *vector[1:4])
