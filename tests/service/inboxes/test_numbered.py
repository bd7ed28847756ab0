"""Lists by number of inboxes with audiences."""

from __future__ import annotations

import pytest

from streamer.service.inboxes.numbered import NumberedInbox
from streamer.store.keys import keys_of
from streamer.store.logs.numbered import NumberedLists

from .world import FRAGMENT, World, ids


@pytest.mark.parametrize("is_filtered", [False, True])
async def test_a_damaged_audience_is_left_out_of_a_list(
    world: World, is_filtered: bool
) -> None:
    lists = NumberedLists(world.redis, world.inbox.settings)
    listing = NumberedInbox(lists, world.merged, world.audiences)
    await world.join(world.news)
    await world.join(world.guild)
    sent = []
    for log in (world.log, world.news, world.guild):
        world.us += 1
        sent += await world.append(log)
    damaged = keys_of().inbox(world.news).state
    await world.redis.call("SET", damaged, "not a hash", write=True)

    page = await listing.page(
        world.me,
        world.log.player,
        count=10,
        matches=FRAGMENT.__eq__ if is_filtered else None,
    )

    assert [it.entry.id for it in page.entries] == ids([sent[2], sent[0]])
    assert page.total == 2
