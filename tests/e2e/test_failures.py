"""Failed authentications on a running server, behind a proxy and without one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import httpx2
from websockets.asyncio.client import connect

from .processes import ServerProcess, eventually, free_port

MakeServer = Callable[..., ServerProcess]

PAGE = "/v1/players/me/notifications"


def warnings(server: ServerProcess) -> list[dict[str, Any]]:
    lines = map(json.loads, server.logged.splitlines())
    return [it for it in lines if it["logger"] == "streamer.authentication"]


async def test_failures_of_others_do_not_refuse_a_good_credential(
    make_server: MakeServer,
) -> None:
    metrics_port = free_port()
    server = await make_server(
        metrics_bind=f"127.0.0.1:{metrics_port}", trusted_proxies="127.0.0.1"
    ).start()
    token, key = await server.token("ann"), await server.key()
    async with httpx2.AsyncClient(base_url=server.url) as client:

        async def ask(credential: str, address: str) -> int:
            headers = {
                "Authorization": f"Bearer {credential}",
                "X-Forwarded-For": f"203.0.113.9, {address}",
            }
            return (await client.get(PAGE, headers=headers)).status_code

        for i in range(110):
            wrong = ("sk_wrong", token[:-4] + "AAAA", "nonsense")[i % 3]
            assert await ask(wrong, "192.0.2.1") == 401
        for address in ("192.0.2.1", "192.0.2.2"):
            assert await ask(token, address) == 200
            assert await ask(key, address) == 403  # known, and has no player
        # Also in the first message, on a connection that says nothing of a proxy.
        async with connect(f"ws://127.0.0.1:{server.port}/v1/stream") as stream:
            await stream.send(json.dumps({"type": "auth", "token": "sk_wrong"}))
            await stream.wait_closed()
        scraped = (await client.get(f"http://127.0.0.1:{metrics_port}/metrics")).text

    assert 'streamer_authentication_failures_total{reason="unknown_key"} 38' in scraped
    assert 'streamer_authentication_failures_total{reason="not_jwt"} 36' in scraped
    assert "streamer_authentication_failing_addresses{} 2" in scraped
    await eventually(lambda: len(warnings(server)) == 2)
    told = [(it["client"], it["failures"]) for it in warnings(server)]
    assert told == [("192.0.2.1", 10), ("192.0.2.1", 100)]
    assert {it["level"] for it in warnings(server)} == {"warning"}


async def test_a_wrong_credential_counts_wherever_it_is_sent(
    make_server: MakeServer,
) -> None:
    server = await make_server(metrics_token="a-token-of-the-scraper").start()
    stream_url = f"ws://127.0.0.1:{server.port}/v1/stream"
    headers = {"Authorization": "Bearer a-token-of-the-scraper"}
    async with httpx2.AsyncClient(base_url=server.url) as client:

        async def counted() -> float:
            text = (await client.get("/metrics", headers=headers)).text
            found = re.findall(
                r"^streamer_authentication_failures_.* (\d+)", text, re.M
            )
            return sum(map(int, found))

        async def renew(token: str) -> None:
            good = {"Authorization": f"Bearer {await server.token('ann')}"}
            async with connect(stream_url, additional_headers=good) as stream:
                await stream.recv()
                await stream.send(json.dumps({"type": "auth", "token": token}))
                await stream.wait_closed()

        wrong = {"Authorization": "Bearer sk_wrong"}
        secret = {"game_id": "demo", "secret_key": "sk_wrong"}
        version = {"LL-Version": "2021-03-01"}
        for attempt in (
            client.get(PAGE, headers=wrong),
            client.get("/v1/stream", headers=wrong),
            client.get("/v1/stream", params={"ticket": "tk_wrong"}),
            client.get(
                "/v1/stream", params={"ticket": "tk_wrong", "refusals": "stream"}
            ),
            client.get("/notification/v1/player/me/notification", headers=wrong),
            client.get("/gateway/notifications/v1/demo", headers=wrong),
            client.post("/server/session", headers=version | {"x-server-key": "sk_no"}),
            client.post(
                "/v2/schedule", json=secret | {"message": "m", "user_ids": "a"}
            ),
            client.post("/campaigns/c/notifications", headers=wrong, json={}),
            client.get("/metrics", headers=wrong),
            renew("sk_wrong"),
        ):
            before = await counted()
            await attempt
            assert await counted() == before + 1, attempt

    await eventually(lambda: bool(warnings(server)))
    assert [it["failures"] for it in warnings(server)] == [10]


async def test_without_a_trusted_proxy_the_peer_is_counted(
    make_server: MakeServer,
) -> None:
    server = await make_server().start()
    async with httpx2.AsyncClient(base_url=server.url) as client:
        for i in range(10):
            headers = {"X-Auth-Token": "x", "X-Forwarded-For": f"192.0.2.{i}"}
            assert (await client.get(PAGE, headers=headers)).status_code == 401

    await eventually(lambda: bool(warnings(server)))
    assert [it["client"] for it in warnings(server)] == ["127.0.0.1"]
