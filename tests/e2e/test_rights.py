"""
Rights on every route: a table, and the responses of the server.

Only the table defines what is allowed. The test fails unless the response is a success
where the table grants the right, and the refusal of the surface where it does not.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
import uuid
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx2
import msgspec
import pytest

from streamer.core.access.tokens import mint
from streamer.model import App, Player

from .processes import ServerProcess
from .readers import TRANSPORTS, Api, StreamRefused

SELF = "notification:player:self"
ANY = "notification:player"

OWN = str(uuid.uuid4())
OTHER = str(uuid.uuid4())

NOBODY = "nobody"
"""An invalid credential: the caller is unknown."""

# The rights of a credential on the inbox of its own player, and on that of another.
# read: pages, single ones. mark: read marks. send: publish. listen: streams, polls.
RIGHTS: dict[str, tuple[str, str] | str] = {
    "no token": NOBODY,
    "garbage": NOBODY,
    "expired": NOBODY,
    "forged": NOBODY,
    "other app's signature": NOBODY,
    "unknown key": NOBODY,
    "self read": ("read mark listen", ""),
    "self write": ("send mark", ""),
    "self all": ("read mark listen send", ""),
    "any read": ("read mark listen", "read listen"),
    "any write": ("send mark", "send mark"),
    "any all": ("read mark listen send", "read mark listen send"),
    "look-alikes": ("", ""),
    # A backend key has no player, so no inbox is its own.
    "key": ("", "read mark listen send"),
    "key to read": ("", "read listen"),
    "key to send": ("", "send mark"),
    "key for something else": ("", ""),
}

PERMISSIONS = {
    "self read": [f"{SELF}:read"],
    "self write": [f"{SELF}:write"],
    "self all": [f"{SELF}:*"],
    "any read": [f"{ANY}:read"],
    "any write": [f"{ANY}:write"],
    "any all": [f"{ANY}:*"],
}
LOOK_ALIKES = frozenset(
    {
        *("*", "notification:*", f"{ANY}", f"{ANY}:readx", f"{ANY}:Read", f"{SELF}:"),
        *(f"{ANY}:self", f"{ANY}:other:read", "notification:player:self:*:*", "admin"),
        *("notifications:send", "notifications:read", f"{ANY}:write ", "player:*"),
    }
)
SCOPES = {
    "key": [],
    "key to read": ["notifications:read"],
    "key to send": ["notifications:send"],
    "key for something else": ["tokens:mint"],
}


class Request(NamedTuple):
    """One route. ``{p}`` is a player, ``{id}`` a notification of that player."""

    right: str
    method: str
    path: str
    body: Any = None


REQUESTS = [
    Request("read", "GET", "/v1/players/{p}/notifications"),
    Request("read", "GET", "/v1/players/{p}/notifications/{id}"),
    Request("mark", "POST", "/v1/players/{p}/notifications/read", {"all": True}),
    Request("read", "GET", "/notification/v1/player/{p}/notification"),
    Request("read", "GET", "/notification/v1/player/{p}/notification/{id}"),
    Request(
        "send",
        "POST",
        "/notification/v1/player/{p}/notification",
        {"notifications": [{"message": "Hi"}]},
    ),
    Request(
        "listen",
        "GET",
        "/notification/v1/player/{p}/stream/notification/lp?deadline=0",
    ),
]


class RightsCase(NamedTuple):
    """A request on a route with a credential, for a player."""

    kind: str
    request: Request
    player: str
    """``me``, `OWN` or `OTHER`."""

    @property
    def allowed(self) -> bool:
        rights = RIGHTS[self.kind]
        if rights == NOBODY:
            return False
        if self.kind in SCOPES and self.player != "me":
            return self.request.right in rights[1].split()
        return self.request.right in rights[self.player == OTHER].split()

    @property
    def expected(self) -> int:
        if self.allowed:
            return 200
        # RallyHere has no 401.
        native = self.request.path.startswith("/v1/")
        return 401 if native and RIGHTS[self.kind] == NOBODY else 403


def all_cases() -> Iterator[RightsCase]:
    for kind in RIGHTS:
        for request in REQUESTS:
            for player in ("me", OWN, OTHER):
                yield RightsCase(kind, request, player)
        for player in (OWN, OTHER):
            body = {"to": {"players": [player]}, "title": "Hi"}
            yield RightsCase(
                kind, Request("send", "POST", "/v1/notifications", body), player
            )


@pytest.fixture
async def credentials(server: ServerProcess) -> dict[str, str | None]:
    record = await server.record("demo")
    rival = await server.record("rival")
    now = int(time.time())

    def made(record: Any, at_s: int = now, **claims: Any) -> str:
        return mint(record, Player(OWN), ttl_s=600, now_s=at_s, **claims)

    good = made(record)
    head, claims, signature = good.split(".")
    credentials: dict[str, str | None] = {
        "no token": None,
        "garbage": "garbage",
        "expired": made(record, now - 3_600),
        "forged": f"{head}.{claims[:-2]}AA.{signature}",
        "other app's signature": made(_renamed(rival, "demo")),
        "unknown key": "sk_" + "A" * 43,
        "look-alikes": _with_permissions(record, LOOK_ALIKES),
    }
    for kind, permissions in PERMISSIONS.items():
        credentials[kind] = made(record, permissions=permissions)
    for kind, scopes in SCOPES.items():
        credentials[kind] = await server.key(scopes=scopes)
    return credentials


def _renamed(record: Any, name: str) -> Any:
    return msgspec.structs.replace(record, name=App(name))


def _with_permissions(record: Any, permissions: frozenset[str]) -> str:
    """Sign a token with permissions that the server never grants."""

    def encoded(part: bytes) -> bytes:
        return base64.urlsafe_b64encode(part).rstrip(b"=")

    good = mint(record, Player(OWN), ttl_s=600, now_s=int(time.time()))
    head, claims, _ = good.split(".")
    payload = json.loads(base64.urlsafe_b64decode(claims + "=="))
    payload["permissions"] = sorted(permissions)
    signed = head.encode() + b"." + encoded(json.dumps(payload).encode())
    mac = hmac.digest(record.secret, signed, hashlib.sha256)
    return (signed + b"." + encoded(mac)).decode()


async def ask(
    http: httpx2.AsyncClient,
    case: RightsCase,
    ids: dict[str, str],
    credential: str | None,
) -> int:
    path = case.request.path.format(p=case.player, id=ids[case.player])
    headers = {} if credential is None else {"Authorization": f"Bearer {credential}"}
    answer = await http.request(
        case.request.method, path, json=case.request.body, headers=headers
    )
    return answer.status_code


@pytest.mark.row("F2")
async def test_every_route_responds_as_the_table_says(
    server: ServerProcess, backend: Api, credentials: dict[str, str | None]
) -> None:
    own, other = await backend.published(OWN, OTHER, title="Hi")
    ids = {"me": own, OWN: own, OTHER: other}
    wrong = []
    count = allowed = 0
    async with httpx2.AsyncClient(base_url=server.url, trust_env=False) as http:
        for case in all_cases():
            status = await ask(http, case, ids, credentials[case.kind])
            count += 1
            allowed += case.allowed
            if status != case.expected:
                wrong.append((status, case.expected, case))
    assert wrong == []
    assert 0 < allowed < count


@pytest.mark.parametrize("kind", RIGHTS)
async def test_a_stream_is_for_a_player_that_may_read(
    server: ServerProcess, credentials: dict[str, str | None], kind: str
) -> None:
    own = RIGHTS[kind][0].split() if RIGHTS[kind] != NOBODY else None
    for name, opener in TRANSPORTS.items():
        if name == "websocket" and kind == "no token":
            continue  # The server waits for a token in the first message.
        try:
            stream = await opener.open(server.port, credentials[kind])
        except StreamRefused as refusal:
            assert own is None or "listen" not in own, name
            assert refusal.status == (401 if own is None else 403), name
        else:
            assert own is not None and "listen" in own, name
            stream.cut()


@pytest.mark.row("F2")
async def test_an_app_has_no_access_to_another_app(
    server: ServerProcess, backend: Api
) -> None:
    (id,) = await backend.published(OWN, title="of the demo app")
    before = await backend.inbox(OWN)
    token = await server.token(OWN, app="rival", permissions=[f"{ANY}:*"])
    key = await server.key(app="rival")
    for credential in (token, key):
        async with Api(server.port, credential) as rival:
            rivals_inbox = await rival.inbox(OWN)
            assert "of the demo app" not in {one["title"] for one in rivals_inbox}
            for path in (
                f"/v1/players/{OWN}/notifications/{id}",
                f"/notification/v1/player/{OWN}/notification/{id}",
            ):
                assert (await rival.http.get(path)).status_code == 404
            marked = await rival.http.post(
                f"/v1/players/{OWN}/notifications/read", json={"ids": [id]}
            )
            assert marked.status_code == 200
            await rival.published(OWN, title="of the rival", key="the same key")
    assert await backend.inbox(OWN) == before
    # Apps do not share idempotency keys, either.
    answer = await backend.publish(OWN, title="something else", key="the same key")
    assert answer.status_code == 200
    assert "idempotent-replayed" not in answer.headers


async def test_a_stream_receives_nothing_of_another_app(
    server: ServerProcess, backend: Api
) -> None:
    streams = [
        await opener.open(server.port, await server.token(OWN, app="rival"))
        for opener in TRANSPORTS.values()
    ]
    for stream in streams:
        await stream.until("hello")
    await backend.published(OWN, title="of the demo app")
    async with Api(server.port, await server.key(app="rival")) as rival:
        await rival.published(OWN, title="of the rival")
    for stream in streams:
        # The other app's notification would have arrived first.
        assert (await stream.until("notification")).data["title"] == "of the rival"
        stream.cut()
