"""Keys: the page that documents them lists each one, and its example is right."""

from __future__ import annotations

import re
from typing import Any, Final

import pytest

from streamer.model import App, Log
from streamer.store import keys

APP: Final = App("app")
PLAYER: Final = Log(APP, "player")
DIGEST: Final = bytes(range(32))
PERIOD: Final[Any] = "period"

BUILT = {
    **keys.inbox_keys(PLAYER)._asdict(),
    "state_key": keys.state_key(PLAYER),
    "mutes": keys.mutes_key(PLAYER),
    "views": keys.views_key(PLAYER),
    "channel": keys.channel(PLAYER),
    "tally": keys.tally_key(Log(APP, "audience")),
    "lease": keys.lease_key(PLAYER),
    "devices": keys.devices_key(PLAYER),
    "once": keys.once_key(PLAYER, "a key"),
    "request": keys.request_key(APP, "key"),
    "revoked": keys.revoked_key(PLAYER),
    "ticket": keys.ticket_key(DIGEST),
    "session": keys.session_key(DIGEST),
    "due": keys.due_key(7, APP),
    "due_apps": keys.due_apps_key(7),
    "sending": keys.sending_key(7),
    "notices": keys.due_channel(7),
    "schedule": keys.schedule_key(7, APP, "id"),
    "schedules": keys.schedules_key(7, APP),
    "named": keys.named_key(PLAYER, "a label"),
    "sends": keys.sends_key(APP, "campaign"),
    "slots": keys.slots_key(APP, "campaign"),
    "recipients": keys.recipients_key(7, APP, "id"),
    "campaigns": keys.campaigns_key(APP),
    "card": keys.card_key(APP, "campaign", "card"),
    "cards": keys.cards_key(7, APP, "campaign"),
    "message": keys.message_key(APP, "identifier"),
    "rate": keys.rate_key(APP, "operation"),
    "publishes": keys.quota_key(APP, "publishes"),
    "bytes": keys.quota_key(APP, "bytes"),
    "pending": keys.quota_key(APP, "pending"),
    "players": keys.players_key(APP, PERIOD),
    "apps": keys.APPS,
    "audiences": keys.AUDIENCES,
    "keys": keys.KEYS,
    "nodes": keys.NODES,
    "fence": keys.FENCE,
}


def documented() -> set[str]:
    """Return the patterns of the page, with the same letter for every bucket."""
    assert keys.__doc__
    patterns = re.findall(
        r"``((?:\{\w\}|\{streamer:apps\}|streamer):.+?)``", keys.__doc__
    )
    return {
        re.sub(r"digest of the \w+", "digest", re.sub(r"^\{\w\}", "{?}", pattern))
        for pattern in patterns
    }


@pytest.mark.parametrize("key", BUILT.values(), ids=BUILT)
def test_the_page_lists_the_key(key: str) -> None:
    pattern = re.sub(r"[0-9a-f]{32,}", "digest", re.sub(r"^\{\d+\}", "{?}", key))

    assert pattern in documented()


def test_the_page_lists_no_key_that_is_never_built() -> None:
    built = {
        re.sub(r"[0-9a-f]{32,}", "digest", re.sub(r"^\{\d+\}", "{?}", key))
        for key in BUILT.values()
    }

    assert documented() == built


def test_the_example_names_the_keys_of_its_player() -> None:
    assert keys.__doc__
    example = keys.inbox_keys(Log(App("demo"), "ann"))

    assert f"'{example.log}'" in keys.__doc__
    assert f"'{example.state}'" in keys.__doc__
