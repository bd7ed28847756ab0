"""`streamer app`, `key` and `token`: creating, changing and revoking credentials."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import shlex
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from joserfc.jwk import ECKey, RSAKey

from streamer.cli import main
from streamer.core.access.apps import AppRecord
from streamer.core.access.claims import ClaimPointers
from streamer.core.access.rights import Caller
from streamer.core.quotas import QuotaOverrides
from streamer.errors import Defect, Unauthenticated
from streamer.model import App
from streamer.service.access import key_sets
from streamer.service.access.authenticator import Authenticator, Credentials
from streamer.service.access.key_sets import KeySetUnavailable
from streamer.store.access.apps import Apps
from streamer.store.client.connection import RedisConnection

DEMO = App("demo")


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.startswith("STREAMER_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))


class Shell:
    """The command line on one store, and access to that store."""

    def __init__(self, store_url: str) -> None:
        self.store_url = store_url

    def run(self, *arguments: object) -> Result:
        words = [*map(str, arguments), "--redis", self.store_url]
        return CliRunner().invoke(main, words)

    def good(self, *arguments: object) -> str:
        """Return the last line of stdout."""
        result = self.run(*arguments)
        assert result.exit_code == 0, result.output
        return (result.stdout.splitlines() or [""])[-1]

    def ask(self, question: Callable[[Apps], Any]) -> Any:
        async def ask() -> Any:
            redis = RedisConnection(self.store_url)
            try:
                return await question(Apps(redis))
            finally:
                await redis.close()

        return asyncio.run(ask())

    def record(self, name: App = DEMO) -> AppRecord:
        record: AppRecord = self.ask(lambda apps: apps.get(name))
        return record

    def caller(self, text: str) -> Caller | Defect:
        """Return the caller that a server identifies, or the defect it reports."""

        def caller(apps: Apps) -> Any:
            return Authenticator(apps).caller(Credentials.from_token(text))

        try:
            found: Caller = self.ask(caller)
        except Unauthenticated as error:
            return error.defect
        return found


@pytest.fixture
def shell(store_url: str) -> Shell:
    shell = Shell(store_url)
    shell.good("app", "create", "demo")
    return shell


@pytest.fixture
def pem(tmp_path: Path) -> Path:
    path = tmp_path / "public.pem"
    path.write_bytes(RSAKey.generate_key(2_048).as_pem(private=False))
    return path


# Apps.


def test_quotas_are_set_shown_and_reset_to_the_settings(shell: Shell) -> None:
    shell.good("app", "quota", "demo", "--publishes-per-s", 5, "--players", 0)
    shell.good("app", "quota", "demo", "--bytes-per-day", 9_000)

    shown = shell.run("app", "quota", "demo", "--publishes-per-s", "default").stdout

    assert shown.splitlines() == [
        "publishes_per_s default",
        "bytes_per_day 9000",
        "players unlimited",
        "pending_schedules default",
    ]
    assert shell.run("app", "quota", "demo").stdout == shown
    assert shell.record().quotas == QuotaOverrides(bytes_per_day=9_000, players=0)


@pytest.mark.parametrize("given", ["-1", "many", "1" * 30, "٣"])
def test_an_invalid_quota_is_refused(shell: Shell, given: str) -> None:
    result = shell.run("app", "quota", "demo", f"--players={given}")

    assert result.exit_code == 2
    assert "neither a whole number from 0 to" in result.output
    assert shell.run("app", "quota", "nobody").exit_code == 1
    assert shell.record().quotas == QuotaOverrides()


def test_an_app_is_created_for_a_foreign_issuer(shell: Shell, pem: Path) -> None:
    shell.good(
        *("app", "create", "game", "--issuer", "https://id", "--audience", "urn:game"),
        *("--algorithm", "RS256", "--public-key", pem),
    )

    record = shell.record(App("game"))
    assert (record.issuer, record.audience) == ("https://id", "urn:game")
    assert (record.algorithm, record.secret) == ("RS256", b"")
    assert json.loads(record.public_keys)["keys"][0]["kty"] == "RSA"


def test_a_missing_key_set_is_a_warning_and_is_kept(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = ("--issuer", "https://id", "--algorithm", "ES256", "--key-set", "jwks.json")

    result = shell.run("app", "create", "game", *given)

    assert result.exit_code == 0
    assert "warning: cannot read the key set" in result.stderr
    assert shell.record(App("game")).key_set == str(tmp_path / "jwks.json")

    jwk = ECKey.generate_key("P-256").as_dict(private=False)
    (tmp_path / "jwks.json").write_text(json.dumps({"keys": [jwk]}))
    assert shell.run("app", "update", "game", "--issuer", "https://x").stderr == ""
    assert shell.record(App("game")).issuer == "https://x"


def test_an_app_switches_to_a_foreign_issuer_and_back(shell: Shell, pem: Path) -> None:
    first = shell.record()

    shell.good("app", "update", "demo", "--algorithm", "RS256", "--public-key", pem)
    assert shell.record().secret == b""
    shell.good("app", "update", "demo", "--algorithm", "HS256")

    assert shell.record().public_keys == ""
    assert len(shell.record().secret) == 32
    assert shell.record().secret != first.secret


def test_the_commands_for_identity_providers_work(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unreachable(location: str) -> bytes:
        raise KeySetUnavailable("not in a test")

    monkeypatch.setattr(key_sets, "fetch_key_set", unreachable)
    page = (Path(__file__).parents[1] / "docs" / "tokens.md").read_text("utf-8")
    commands = re.findall(r"^streamer (app create (?:\\\n|[^\n])+)", page, re.MULTILINE)

    for command in commands:
        shell.good(*shlex.split(command.replace("\\\n", "")))

    assert shell.record(App("auth0")).claims == ClaimPointers(
        permissions="/scope", topics="/https:~1~1game.example~1topics"
    )
    entra = shell.record(App("entra"))
    assert entra.claims == ClaimPointers(player="/oid", permissions="/roles")
    assert entra.expected_audiences == (
        *("6e74172b-be56-4843-9ff4-e66a39bb12e3", "api://game"),
    )
    keycloak = shell.record(App("keycloak"))
    assert keycloak.default_permissions == ("notification:player:self:*",)


def test_what_an_app_accepts_is_changed_and_shown(shell: Shell) -> None:
    shell.good(
        *("app", "update", "demo", "--issuer", "https://id"),
        *("--audience", "urn:a", "--audience", "urn:b"),
        *("--claim", "player=/user/id", "--claim", "permissions=/scope"),
        *("--default-permission", "notification:player:self:read"),
    )
    shell.good("app", "update", "demo", "--claim", "player=default")

    shown = shell.run("app", "show", "demo").stdout

    assert [line.split(maxsplit=1) for line in shown.splitlines()][1:3] == [
        ["issuer", "https://id"],
        ["audience", "urn:a, urn:b"],
    ]
    assert re.search(r"^claim player +/sub$", shown, re.MULTILINE)
    assert re.search(r"^claim permissions +/scope$", shown, re.MULTILINE)
    assert shown.endswith("notification:player:self:read\n")
    (member,) = json.loads(shell.run("app", "list", "--json").stdout)
    assert member == json.loads(shell.run("app", "show", "demo", "--json").stdout)
    assert member | {"created_at": ""} == {
        **{"name": "demo", "created_at": "", "issuer": "https://id"},
        **{"audiences": ["urn:a", "urn:b"], "algorithm": "HS256", "key_set": None},
        "claims": {"player": "/sub", "permissions": "/scope", "topics": "/topics"},
        "default_permissions": ["notification:player:self:read"],
    }
    shell.good(
        *("app", "update", "demo", "--audience", "demo"),
        *("--default-permission", "none"),
    )
    assert shell.record().expected_audiences == ("demo",)
    assert shell.record().default_permissions == ()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--claim", "player"), "is not WHAT=POINTER: WHAT is player, permissions or"),
        (("--claim", "roles=/roles"), "is not WHAT=POINTER"),
        (("--claim", "player=sub"), "is not a JSON pointer: write /sub"),
        (("--claim", "player="), "write a name after each slash"),
        (("--claim", "player=/iss"), "the claim iss has a meaning of its own"),
        (("--claim", "permissions=/sub"), "overlap: map the player or the permissions"),
        (
            ("--claim", "player=/a", "--claim", "player=/b"),
            "given twice: leave out one",
        ),
        (("--audience", "a,b"), "repeat the option for each audience"),
        (("--audience", "a", "--audience", "a"), "named twice: leave out one"),
        (("--audience", "a", "--audience", ""), "is empty: leave it out"),
        (("--audience", "a\x7f"), "has characters that no token has"),
        (("--audience", "x" * 256), "has more than 255 characters"),
        (
            tuple(it for i in range(17) for it in ("--audience", f"urn:{i}")),
            "more than 16 audiences",
        ),
        (("--default-permission", "read"), "unknown permission 'read'; valid are"),
        (
            ("--default-permission", "none", "--default-permission", "x"),
            "none excludes other permissions",
        ),
    ],
)
@pytest.mark.parametrize("command", ["create", "update"])
def test_a_mistake_in_a_mapping_changes_nothing(
    shell: Shell, command: str, options: tuple[str, ...], problem: str
) -> None:
    before = shell.record()
    name = "demo" if command == "update" else "new"

    result = shell.run("app", command, name, *options)

    assert result.exit_code == 2
    assert problem in result.output
    assert shell.record() == before
    assert shell.ask(lambda apps: apps.get(App("new"))) is None


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("app", "create", "x", "--key-set", "/a"), "HS256 uses a shared secret"),
        (("app", "create", "x", "--algorithm", "RS256"), "requires either public keys"),
        (("app", "create", "x", "--algorithm", "none"), "is not one of"),
        (
            ("app", "update", "demo", "--algorithm", "RS256", "--key-set", "http://x/"),
            "fetched over https",
        ),
        (("app", "create", "x", "--public-key", "/nothing"), "cannot read /nothing"),
        (("app", "create", "x", "--public-key", "/dev/null"), "cannot use /dev/null"),
        (("app", "create", "x", "--audience", "demo"), "belong to another app"),
        (("app", "update", "nobody", "--issuer", "x"), "the app nobody does not exist"),
        (("app", "rotate", "nobody"), "the app nobody does not exist"),
        (("app", "secret", "nobody"), "the app nobody does not exist"),
        (("key", "list", "--app", "nobody"), "the app nobody does not exist"),
        (("key", "revoke", "0" * 16), "the key 0000000000000000 does not exist"),
        (("key", "rotate", "0" * 16), "the key 0000000000000000 does not exist"),
        (("key",), "Missing option '--app'"),
        (("key", "--app", "demo", "list"), "--app must follow 'list'"),
        (("token", "--app", "demo"), "Missing option '--player'"),
        (("token", "revoke"), "Missing option '--app'"),
        (("token", "revoke", "--app", "nobody"), "the app nobody does not exist"),
        (
            ("token", "revoke", "--app", "demo", "--player", "me"),
            "is not a valid player",
        ),
    ],
)
def test_a_mistake_is_reported_in_one_sentence(
    shell: Shell, arguments: tuple[str, ...], problem: str
) -> None:
    result = shell.run(*arguments)

    assert result.exit_code != 0
    assert problem in result.output
    assert "Traceback" not in result.output


def test_a_private_key_is_refused(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "private.pem"
    path.write_bytes(ECKey.generate_key("P-256").as_pem(private=True))

    result = shell.run(
        *("app", "create", "x", "--algorithm", "ES256", "--public-key", path)
    )

    assert "contains a private key" in result.output
    assert shell.record(App("x")) is None


def test_the_secret_is_shown_only_if_the_app_signs_with_it(
    shell: Shell, pem: Path
) -> None:
    text = shell.good("app", "secret", "demo")

    assert base64.urlsafe_b64decode(text + "=") == shell.record().secret
    shell.good("app", "update", "demo", "--algorithm", "RS256", "--public-key", pem)
    for command in ("secret", "rotate"):
        assert shell.run("app", command, "demo").exit_code == 1
    result = shell.run("token", "--app", "demo", "--player", "p")
    assert "are issued by streamer" in result.output


@pytest.mark.parametrize(("grace", "counts"), [("1h", True), ("0", False)])
def test_the_old_secret_stays_valid_for_its_grace_period(
    shell: Shell, grace: str, counts: bool
) -> None:
    token = shell.good("token", "--app", "demo", "--player", "p")

    text = shell.good("app", "rotate", "demo", "--grace", grace)

    assert text == shell.good("app", "secret", "demo")
    assert isinstance(shell.caller(token), Caller) is counts
    fresh = shell.good("token", "--app", "demo", "--player", "p")
    assert isinstance(shell.caller(fresh), Caller)


# Keys.


def test_keys_are_listed_rotated_and_revoked_by_id(shell: Shell) -> None:
    old = shell.good("key", "--app", "demo", "--scope", "notifications:read")
    key_id, app, *_, end, used, scopes = shell.good("key", "list").split()
    assert (app, end, used, scopes) == ("demo", "never", "never", "notifications:read")

    new = shell.good("key", "rotate", key_id)
    listed = shell.run("key", "list", "--app", "demo").stdout.splitlines()
    assert listed[0].split()[0] == "ID"
    assert [row[4:6].count("never") for row in map(str.split, listed[1:])].count(0) == 1
    for text in (old, new):
        caller = shell.caller(text)
        assert isinstance(caller, Caller)
        assert caller.scopes == {"notifications:read"}
        assert text not in "".join(listed)

    assert shell.run("key", "revoke", key_id).stdout == ""
    assert shell.caller(old) is Defect.UNKNOWN_KEY
    assert isinstance(shell.caller(new), Caller)


def listed_keys(shell: Shell) -> list[dict[str, Any]]:
    keys: list[dict[str, Any]] = json.loads(shell.run("key", "list", "--json").stdout)
    return keys


def test_a_key_has_a_name_and_an_end_and_so_has_its_successor(shell: Shell) -> None:
    text = shell.good(
        *("key", "create", "--app", "demo", "--name", "nightly build"),
        *("--expires", "90d", "--scope", "notifications:send"),
    )
    (key,) = listed_keys(shell)

    assert text.startswith("sk_")
    assert (key["app"], key["name"]) == ("demo", "nightly build")
    assert (key["scopes"], key["expired"]) == (["notifications:send"], False)
    lifetime = timedelta(days=90)
    assert until(key["expires_at"]) - until(key["created_at"]) == lifetime

    shell.good("key", "rotate", key["id"], "--grace", "0")
    old, new = sorted(listed_keys(shell), key=lambda it: not it["expired"])

    assert (old["id"], new["expired"]) == (key["id"], False)
    assert (new["name"], new["scopes"]) == (key["name"], key["scopes"])
    assert until(new["expires_at"]) - until(new["created_at"]) == lifetime
    assert shell.caller(text) is Defect.EXPIRED_KEY
    assert "nightly build" in shell.run("key", "list").stdout


def until(text: str) -> datetime:
    return datetime.fromisoformat(text)


def test_a_key_may_end_at_a_time(shell: Shell) -> None:
    end = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=2)

    shell.good("key", "create", "--app", "demo", "--expires", end.isoformat())

    (key,) = listed_keys(shell)
    assert abs(until(key["expires_at"]) - end) <= timedelta(seconds=2)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--expires", "0"), "must be in the future"),
        (("--expires", "2020-01-01T00:00:00Z"), "must be in the future"),
        (("--expires", "2030-01-01T00:00:00"), "a time with a zone"),
        (("--expires", "soon"), "such as 24h or 90d"),
        (("--expires", "\u0663d"), "such as 24h or 90d"),
        (("--expires", "9999d"), "at most 3,650 days"),
        (("--name", "x" * 65), "up to 64 printable characters"),
        (("--name", "a\nb"), "up to 64 printable characters"),
        (("--scope", "all"), "unknown scope 'all'"),
    ],
)
def test_a_mistake_creates_no_key(
    shell: Shell, options: tuple[str, ...], problem: str
) -> None:
    result = shell.run("key", "create", "--app", "demo", *options)

    assert result.exit_code == 2
    assert problem in result.output
    assert listed_keys(shell) == []


def test_the_last_use_of_a_key_is_listed_to_the_minute(shell: Shell) -> None:
    shell.good("key", "--app", "demo")
    at = datetime(2026, 11, 28, 10, 20, 40, tzinfo=UTC)

    async def note(apps: Apps) -> None:
        (record,) = await apps.list_keys()
        await apps.note_uses({record.digest: int(at.timestamp() * 1_000)})

    shell.ask(note)

    assert [it["last_used_at"] for it in listed_keys(shell)] == [
        "2026-11-28T10:20:00.000Z"
    ]
    assert "2026-11-28 10:20" in shell.good("key", "list")


# Tokens.


@pytest.mark.parametrize("player", [(), ("--player", "p")])
def test_tokens_are_revoked_and_new_ones_accepted(
    shell: Shell, player: tuple[str, ...]
) -> None:
    def token(who: str) -> str:
        return shell.good("token", "--app", "demo", "--player", who)

    mine, other = token("p"), token("q")

    assert shell.run("token", "revoke", "--app", "demo", *player).stdout == ""

    assert shell.caller(mine) is Defect.REVOKED
    assert isinstance(shell.caller(other), Caller) is bool(player)
    assert isinstance(shell.caller(token("p")), Caller)


def test_a_key_with_a_role_has_no_scopes_but_those_it_is_given(shell: Shell) -> None:
    shell.good("key", "create", "--app", "demo", "--role", "viewer")
    shell.good(
        *("key", "create", "--app", "demo", "--role", "operator"),
        *("--scope", "notifications:read"),
    )

    assert [key["scopes"] for key in listed_keys(shell)] == [
        ["console:viewer"],
        ["console:operator", "notifications:read"],
    ]


@pytest.mark.parametrize(
    "options", [("--role", "owner"), ("--scope", "console:viewer")]
)
def test_what_is_no_role_is_refused(shell: Shell, options: tuple[str, str]) -> None:
    assert shell.run("key", "create", "--app", "demo", *options).exit_code == 2
    assert listed_keys(shell) == []


def test_a_person_is_logged_out_of_the_console(shell: Shell) -> None:
    assert shell.run("logout", "ann").stdout == ""

    assert "console.end" in shell.run("audit").stdout
    assert "oidc ann" in shell.run("audit").stdout
