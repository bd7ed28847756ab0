"""Keys: the page that documents them lists each one, and its example is right."""

from __future__ import annotations

import re
from typing import Any, Final

import pytest

from streamer.model import App, Log, Player
from streamer.store import keys
from streamer.store.privacy import traces

APP: Final = App("app")
PLAYER: Final = Log(APP, "player")
DIGEST: Final = bytes(range(32))
PERIOD: Final[Any] = "period"
NAMES: Final = keys.keys_of("ns", "db")  # As on the page.

BUILT = {
    **NAMES.inbox(PLAYER)._asdict(),
    "state_key": NAMES.state(PLAYER),
    "mutes": NAMES.mutes(PLAYER),
    "views": NAMES.views(PLAYER),
    "channel": NAMES.channel(PLAYER),
    "tally": NAMES.tally(Log(APP, "audience")),
    "lease": NAMES.lease(PLAYER),
    "devices": NAMES.devices(PLAYER),
    "seen": NAMES.seen(PLAYER),
    "questions": NAMES.questions,
    "answers": NAMES.answers("node"),
    "once": NAMES.once(PLAYER, "a key"),
    "request": NAMES.request(APP, "key"),
    "revoked": NAMES.revoked(PLAYER),
    "ticket": NAMES.ticket(DIGEST),
    "session": NAMES.session(DIGEST),
    "due": NAMES.due(7, APP),
    "due_apps": NAMES.due_apps(7),
    "notices": NAMES.notices(7),
    "sending": NAMES.sending(7),
    "paused": NAMES.paused(7, APP),
    "schedule": NAMES.schedule(7, APP, "id"),
    "schedules": NAMES.schedules(7, APP),
    "named": NAMES.named(PLAYER, "a label"),
    "sends": NAMES.sends(APP, "campaign"),
    "slots": NAMES.slots(APP, "campaign"),
    "recipients": NAMES.recipients(7, APP, "id"),
    "campaigns": NAMES.campaigns(APP),
    "card": NAMES.card(APP, "campaign", "card"),
    "cards": NAMES.cards(7, APP, "campaign"),
    "message": NAMES.message(APP, "identifier"),
    "sandboxes": NAMES.sandboxes(APP),
    "audit": NAMES.audit(APP),
    "rewriting": NAMES.rewriting(APP, "player"),
    "rate": NAMES.rate(APP, "operation"),
    "publishes": NAMES.quota(APP, "publishes"),
    "bytes": NAMES.quota(APP, "bytes"),
    "pending": NAMES.quota(APP, "pending"),
    "players": NAMES.players(APP, PERIOD),
    "apps": NAMES.apps,
    "audiences": NAMES.audiences,
    "keys": NAMES.backend_keys,
    "key_uses": NAMES.key_uses,
    "nodes": NAMES.nodes,
    "node_levels": NAMES.node_levels,
    "audit_of_apps": NAMES.audit_of_apps,
    "pseudonyms": NAMES.pseudonyms,
    "erasures": NAMES.erasures,
    "erasing": NAMES.erasing,
    "removing": NAMES.removing,
    "fence": NAMES.fence,
    "fence_of": NAMES.fence_of(7),
    "deployment": NAMES.deployment,
}


def documented() -> set[str]:
    """Return the patterns of the page, with the same letter for every bucket."""
    assert keys.__doc__
    patterns = re.findall(r"``(ns(?:@db)?:.+?)``", keys.__doc__)
    return {
        re.sub(r"digest of the \w+", "digest", re.sub(r"\{\w\}", "{?}", pattern))
        for pattern in patterns
    }


@pytest.mark.parametrize("key", BUILT.values(), ids=BUILT)
def test_the_page_lists_the_key(key: str) -> None:
    pattern = re.sub(r"[0-9a-f]{32,}", "digest", re.sub(r"\{\d+\}", "{?}", key))

    assert pattern in documented()


def test_the_page_lists_no_key_that_is_never_built() -> None:
    built = {
        re.sub(r"[0-9a-f]{32,}", "digest", re.sub(r"\{\d+\}", "{?}", key))
        for key in BUILT.values()
    }

    assert documented() == built


def test_the_example_names_the_keys_of_its_player() -> None:
    assert keys.__doc__
    ann = Log(App("demo"), "ann")
    names = keys.keys_of()

    assert f"'{names.inbox(ann).log}'" in keys.__doc__
    assert f"'{names.inbox(ann).state}'" in keys.__doc__
    assert f"'{names.channel(ann)}'" in keys.__doc__


def hash_tag(name: str) -> str:
    """Return the part of a name that decides its slot, as Redis Cluster takes it."""
    _, brace, rest = name.partition("{")
    tag, end, _ = rest.partition("}")
    return tag if brace and end and tag else name


@pytest.mark.parametrize("app", ["app", "{9}", "}{"])
@pytest.mark.parametrize("player", ["player", "{7}", "a}{b", "e:{}:"])
def test_names_of_a_player_share_a_slot_whatever_the_player_is_called(
    app: str, player: str
) -> None:
    log = Log(App(app), Player(player))
    names = keys.keys_of("ns", 3)

    tags = {
        hash_tag(name)
        for name in (
            *names.inbox(log),
            names.mutes(log),
            names.views(log),
            names.tally(log),
            names.lease(log),
            names.devices(log),
            names.seen(log),
            names.once(log, "{k}"),
            names.named(log, "{l}"),
            names.revoked(log),
            names.channel(log),
        )
    }

    assert tags == {str(keys.bucket_of(log.app, log.name))}


def test_apps_and_their_audiences_share_a_slot() -> None:
    names = keys.keys_of("other", 0)

    assert hash_tag(names.apps) == hash_tag(names.audiences) == "other:apps"


def test_names_of_two_deployments_differ() -> None:
    ann = Log(App("demo"), Player("ann"))

    assert keys.keys_of("a").inbox(ann).log != keys.keys_of("b").inbox(ann).log
    assert keys.keys_of("a", 0).channel(ann) != keys.keys_of("a", 1).channel(ann)
    assert keys.keys_of("a", 0).channel(ann) != keys.keys_of("b", 0).channel(ann)
    # Keys of two databases need no difference; they never meet.
    assert keys.keys_of("a", 0).inbox(ann) == keys.keys_of("a", 1).inbox(ann)


def kinds_documented() -> set[str]:
    """Return the kinds of keys on the page; channels store nothing."""
    names = {name for name in documented() if name.startswith("ns:")}
    return {re.sub(r"^ns:(\{[^}]*\}:)?", "", name).partition(":")[0] for name in names}


def test_it_is_decided_of_every_kind_of_key_what_an_erasure_does() -> None:
    decided = {*traces.OWN, *traces.SEARCHED, *traces.NAMELESS}

    # A new kind goes into one of the three, and tests/surfaces/native/test_erasure.py
    # leaves a trace of it if it has the name of a player.
    assert kinds_documented() - decided == set()
    assert len(decided) == len(traces.OWN) + len(traces.SEARCHED) + len(traces.NAMELESS)


def test_what_ends_with_a_players_name_is_erased_with_the_player() -> None:
    ends = {
        re.sub(r"^ns:(\{[^}]*\}:)?", "", name).partition(":")[0]
        for name in documented()
        if name.startswith("ns:") and name.endswith(":player")
    }

    assert ends <= {*traces.OWN, *traces.SEARCHED}
    for kind in ends & {*traces.OWN}:
        assert NAMES.of_player(PLAYER, kind) in BUILT.values()


def test_a_key_is_split_into_its_parts() -> None:
    key = NAMES.once(Log(APP, "a:b\n"), "k").encode()
    parts = NAMES.split(key)

    assert parts is not None
    assert parts[:3] == (keys.bucket_of(APP, "a:b\n"), "once", "app")
    assert parts.rest.partition(":")[2] == "a:b\n"
    for other in (b"ns:apps", b"other:{1}:log:app:p", b"ns:{ns:keys}:used"):
        assert NAMES.split(other) is None
