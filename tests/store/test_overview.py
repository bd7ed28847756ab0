"""What a page needs of a player and of everybody, on a real store."""

from __future__ import annotations

import pytest

from streamer.model import App, Log, everyone_log
from streamer.store.entries import Retention
from streamer.store.inbox import Inbox
from streamer.store.link import Link
from streamer.store.overview import Overviews, Part
from streamer.store.views import Views

FRAGMENT = b'"title":"t"}'


@pytest.fixture
def inbox(link: Link) -> Inbox:
    return Inbox(link)


@pytest.fixture
def overviews(link: Link, inbox: Inbox) -> Overviews:
    return Overviews(link, inbox, Views(link, Retention(90 * 86_400_000)))


async def everyone_in(overviews: Overviews, log: Log) -> Part:
    return (await overviews.of(log, newest=None, oldest=None, count=5)).everyone


async def read(overviews: Overviews, app: App) -> Part:
    """Read everybody's part by the scripts."""
    asked = [(everyone_log(app), None)]
    (part,) = await overviews.parts(asked, newest=None, count=5)
    return part


async def test_a_silent_app_looks_as_the_scripts_would_say(
    overviews: Overviews, log: Log
) -> None:
    assert await everyone_in(overviews, log) == await read(overviews, log.app)


async def test_the_first_word_to_everybody_is_in_the_next_page(
    overviews: Overviews, inbox: Inbox, log: Log
) -> None:
    await everyone_in(overviews, log)

    await inbox.append(everyone_log(log.app), [FRAGMENT])
    first = await everyone_in(overviews, log)
    await inbox.append(everyone_log(log.app), [FRAGMENT])
    second = await everyone_in(overviews, log)

    assert len(first.page.entries or ()) == 1
    assert len(second.page.entries or ()) == 2
    assert second == await read(overviews, log.app)


async def test_an_app_that_lost_its_log_is_silent_again(
    overviews: Overviews, inbox: Inbox, link: Link, log: Log
) -> None:
    await inbox.append(everyone_log(log.app), [FRAGMENT])
    await everyone_in(overviews, log)

    await link.call("FLUSHALL", write=True)

    assert (await everyone_in(overviews, log)).page.head.is_zero
