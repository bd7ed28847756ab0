"""`streamer audit`, `config` and `app delete`: what operators look up and remove."""

from __future__ import annotations

import asyncio
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from streamer.cli import main
from streamer.config import HIDDEN, PREFIX, Config
from streamer.model import App, Log, Player
from streamer.service.access import authenticator
from streamer.store.client.connection import RedisConnection
from streamer.store.logs.inbox import Inbox


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.startswith(PREFIX):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    # No node runs whose records would have to become old.
    monkeypatch.setattr(authenticator, "RECORD_TTL_S", 0)


class Shell:
    """The command line on one store, and access to that store."""

    def __init__(self, store_url: str) -> None:
        self.store_url = store_url

    def run(self, *arguments: object, typed: str = "") -> Result:
        words = [*map(str, arguments), "--redis", self.store_url]
        return CliRunner().invoke(main, words, input=typed)

    def good(self, *arguments: object) -> str:
        result = self.run(*arguments)
        assert result.exit_code == 0, result.output
        return result.stdout

    def audit(self, *arguments: object) -> list[dict[str, Any]]:
        lines = self.good("audit", "--json", *arguments).splitlines()
        return [json.loads(line) for line in lines]

    def call(self, *command: Any) -> Any:
        async def call() -> Any:
            redis = RedisConnection(self.store_url)
            try:
                return await redis.call(*command)
            finally:
                await redis.close()

        return asyncio.run(call())

    def publish(self, app: str, player: str) -> None:
        async def publish() -> None:
            redis = RedisConnection(self.store_url)
            try:
                log = Log(App(app), Player(player))
                await Inbox(redis).append(log, [b'"title":"t"}'])
            finally:
                await redis.close()

        asyncio.run(publish())


@pytest.fixture
def shell(store_url: str) -> Shell:
    return Shell(store_url)


# The audit log.


def test_what_the_command_line_does_to_an_app_is_recorded(shell: Shell) -> None:
    shell.good("app", "create", "game")
    shell.good("app", "update", "game", "--audience", "my-game")
    shell.good("app", "rotate", "game")
    shell.good("app", "quota", "game", "--players", 7)
    shell.good("key", "create", "--app", "game", "--name", "worker")
    (key,) = json.loads(shell.good("key", "list", "--app", "game", "--json"))
    shell.good("key", "rotate", key["id"])
    shell.good("key", "revoke", key["id"])
    shell.good("token", "revoke", "--app", "game", "--player", "ann")

    entries = shell.audit("--app", "game")

    assert [it["action"] for it in reversed(entries)] == [
        *("app.update", "app.rotate", "app.quota"),
        *("key.create", "key.rotate", "key.revoke", "tokens.revoke"),
    ]
    assert {it["by"].partition(" ")[0] for it in entries} == {"cli"}
    created = entries[3]
    assert created["details"]["key"] == key["id"]
    assert entries[1]["target"] == f"key:{key['id']}"
    assert shell.audit("--app", "game", "--player", "ann") == entries[:1]
    (of_apps,) = shell.audit()
    assert (of_apps["action"], of_apps["target"]) == ("app.create", "app:game")


def test_the_log_is_readable_lines(shell: Shell) -> None:
    shell.good("app", "create", "game")
    reason = "asked\x1b[2J by\nlaw"
    shell.good("app", "delete", "game", "--yes", "--reason", reason)

    deleted, created = shell.good("audit").splitlines()

    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  app\.delete  done  by", deleted)
    assert "\x1b" not in deleted
    assert "app:game" in created
    assert shell.run("audit", "--app", "other").exit_code == 1
    assert shell.run("audit", "--player", "ann").exit_code == 2
    assert shell.run("audit", "--before", "x").exit_code == 2


def test_the_log_of_an_unknown_app_is_not_begun(shell: Shell) -> None:
    for words in (
        ("app", "update", "ghost", "--audience", "a"),
        ("app", "rotate", "ghost"),
        ("key", "create", "--app", "ghost"),
        ("token", "revoke", "--app", "ghost"),
    ):
        assert shell.run(*words).exit_code == 1

    assert shell.call("KEYS", "*ghost*") == []


# Deleting an app.


def test_an_app_is_deleted_with_all_of_its_keys(shell: Shell) -> None:
    shell.good("app", "create", "stays")
    before = set(shell.call("KEYS", "*"))
    shell.good("app", "create", "game")
    shell.good("key", "create", "--app", "game")
    shell.publish("game", "ann")

    shell.good("app", "delete", "game", "--yes")

    assert set(shell.call("KEYS", "*")) == before
    assert shell.good("app", "list").split() == ["stays"]


def test_deleting_asks_for_the_name(shell: Shell) -> None:
    shell.good("app", "create", "game")

    for typed in ("\n", "gam\n", "y\n"):
        refused = shell.run("app", "delete", "game", typed=typed)
        assert refused.exit_code == 1
    assert shell.good("app", "list").split() == ["game"]

    assert shell.run("app", "delete", "game", typed="game\n").exit_code == 0
    assert shell.good("app", "list") == ""


def test_a_deletion_that_failed_half_way_is_completed(shell: Shell) -> None:
    shell.good("app", "create", "game")
    shell.publish("game", "ann")
    # As after a crash: the record is gone, and keys are left.
    shell.call("HSET", "streamer:removing", "game", 1)
    shell.call("HDEL", "streamer:apps", "game")

    refused = shell.run("app", "create", "game")
    assert refused.exit_code == 1
    assert "streamer app delete game" in refused.output

    shell.good("app", "delete", "game", "--yes")
    assert shell.call("KEYS", "*game*") == []
    shell.good("app", "create", "game")


def test_an_unknown_app_is_not_deleted(shell: Shell) -> None:
    result = shell.run("app", "delete", "ghost", "--yes")

    assert result.exit_code == 1
    assert "the app ghost does not exist" in result.output
    assert shell.run("app", "delete", "gh ost", "--yes").exit_code == 2


# The settings.


def configured(*arguments: str, **environ: str) -> list[dict[str, Any]]:
    words = ["config", "--json", *arguments]
    result = CliRunner().invoke(main, words, env=environ)
    assert result.exit_code == 0, result.output
    listed: list[dict[str, Any]] = json.loads(result.stdout)
    return listed


def test_every_setting_is_shown_with_its_source(tmp_path: Path) -> None:
    file = tmp_path / "streamer.toml"
    file.write_text("entries_max = 20\nreplay_max = 10\n")

    listed = configured(
        *("--config", str(file), "--namespace", "ns"), STREAMER_REPLAY_MAX="5"
    )

    assert [it["name"] for it in listed] == list(Config.__struct_fields__)
    by_name = {it["name"]: (it["value"], it["source"]) for it in listed}
    assert by_name["namespace"] == ("ns", "--namespace")
    assert by_name["replay_max"] == (5, "STREAMER_REPLAY_MAX")
    assert by_name["entries_max"][0] == 20
    assert str(file) in by_name["entries_max"][1]
    assert by_name["port"] == (8080, "default")


def test_secrets_are_hidden() -> None:
    secret = "s" * 20
    listed = configured(
        *("--redis", f"redis+sentinel://u:{secret}@h/n?sentinel_password={secret}"),
        STREAMER_METRICS_TOKEN=secret,
        STREAMER_LOG_KEY=secret,
    )

    assert secret not in json.dumps(listed)
    by_name = {it["name"]: it["value"] for it in listed}
    assert by_name["metrics_token"] == by_name["log_key"] == HIDDEN
    assert by_name["redis"].startswith("redis+sentinel://u:")


def test_every_setting_that_sounds_like_a_secret_is_hidden() -> None:
    telling = re.compile(r"(^|_)(key|token|secret|password)s?$")
    named = [it for it in Config.__struct_fields__ if telling.search(it)]
    environ = {f"{PREFIX}{name.upper()}": "s" * 20 for name in named}

    listed = {it["name"]: it["value"] for it in configured(**environ)}

    assert named
    assert {listed[name] for name in named} == {HIDDEN}


def test_only_what_is_set_is_shown_as_lines() -> None:
    result = CliRunner().invoke(
        main, ["config", "--changed"], env={"STREAMER_PORT": "1", "STREAMER_DOCS": "no"}
    )
    assert result.exit_code == 1  # `no` is not true or false

    words = ["config", "--changed"]
    result = CliRunner().invoke(main, words, env={"STREAMER_PORT": "1"})

    assert result.stdout == "port  1  STREAMER_PORT\n"
