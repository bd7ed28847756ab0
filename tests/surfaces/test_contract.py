"""
The contract against the server: every operation, and its responses.

Schemathesis sends requests derived from the document, in all of its phases: the
examples, the limits of every value, random values, and chains of operations.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from starlette.routing import WebSocketRoute

from streamer.app import build
from streamer.config import Config
from streamer.core.access.rights import DEFAULT_SCOPES
from streamer.openapi import SURFACES, UNPUBLISHED
from streamer.server import Host

from .conformance import Conformance
from .conftest import AddKey, Mint, Start

HOOKS = Path(__file__).with_name("schemathesis_hooks.py")
SCRAPER = "metrics-of-a-test"
GUARD_S = 60
BROWSER_GUARD_S = 60
CANCELLED_NAMES = [
    *("native.schedule", "native.cancelSchedule", "native.moveSchedule"),
    *("walletwerk.one", "walletwerk.cancel"),
]
ALIVE = b'{"status":"alive"}'
ALIVE_HEADERS = {"Cache-Control": "no-store"}
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
    None,
)


@pytest.fixture
def routes() -> list[Any]:
    config = msgspec.structs.replace(Config(), metrics_token=SCRAPER, demo_page=True)
    asgi: Any = build(config, "unix:///nowhere").asgi
    # The access log wraps the application.
    return list(asgi._app.routes)


def test_every_operation_is_bound_once_at_each_of_its_paths(routes: list[Any]) -> None:
    declared = Counter(
        f"{surface.name}.{operation.name}"
        for surface in (*SURFACES, *UNPUBLISHED)
        for operation in surface.operations
        for _ in (operation.path, *operation.other_paths)
    )
    names = {
        id(operation): f"{surface.name}.{operation.name}"
        for surface in (*SURFACES, *UNPUBLISHED)
        for operation in surface.operations
    }

    bound = Counter(
        names[id(operation)]
        for route in routes
        if not isinstance(route, WebSocketRoute)
        for operation in route.endpoint.operations
    )

    assert bound == declared


def test_an_operation_is_direct_with_parameters_that_it_declares() -> None:
    direct = [
        (operation, set(operation.direct))
        for surface in SURFACES
        for operation in surface.operations
        if operation.direct is not None
    ]

    assert {operation.name for operation, _ in direct} >= {"publish", "page"}
    for operation, names in direct:
        declared = {it.name for it in operation.parameters if it.where == "query"}
        assert names <= declared, operation.name


def test_a_websocket_is_accepted_where_one_is_declared(routes: list[Any]) -> None:
    declared = [
        operation.path
        for surface in SURFACES
        for operation in surface.operations
        if operation.websocket
    ]

    assert [it.path for it in routes if isinstance(it, WebSocketRoute)] == declared


def test_a_response_that_is_not_in_the_contract_is_detected(
    conformance: Conformance,
) -> None:
    # The check of all responses in this folder must itself be able to fail.
    kind = {"content-type": "application/json"}
    more, other = b'{"status":"alive","and":"well"}', b'{"status":"dead"}'

    conformance.check("GET", "/healthz", 200, ALIVE_HEADERS | kind, ALIVE)
    for status, headers, body in [
        (418, ALIVE_HEADERS | kind, ALIVE),
        (200, kind, ALIVE),
        (200, ALIVE_HEADERS | {"content-type": "text/html"}, ALIVE),
        (200, ALIVE_HEADERS | kind, more),
        (200, ALIVE_HEADERS | kind, other),
    ]:
        with pytest.raises(AssertionError):
            conformance.check("GET", "/healthz", status, headers, body)


class Site:
    """A server on a port, with credentials for all of its operations."""

    def __init__(
        self, url: str, *, key: str, token: str, service: str, app: str
    ) -> None:
        self.url = url
        self.key = key
        self.app = app
        self.token = token
        self.service = service

    def config(self, max_examples: int) -> str:
        """Return Schemathesis' settings: credentials, and disabled checks."""
        return f"""\
max-stream-events = 2
request-timeout = {GUARD_S}
continue-on-failure = true

# An operation that only ever returns 401 or 403 lacked its credential.
[warnings]
fail-on = ["missing_auth"]

[generation]
max-examples = {max_examples}
database = "none"
# Parameters that no operation has are ignored.
allow-extra-parameters = false

# Few chains get past their first step.
[phases.stateful.generation]
max-examples = {4 * max_examples}

# It would take `POST /v1/tokens` for a login, and continue as that player.
[auth]
auto-signup = false

[auth.openapi]
bearer = {{ bearer = "{self.key}" }}
player = {{ bearer = "{self.token}" }}
rallyhere = {{ bearer = "{self.service}" }}
metrics = {{ bearer = "{SCRAPER}" }}
gateway = {{ api_key = "{self.token}" }}
"lootlocker.key" = {{ api_key = "{self.key}" }}
"lootlocker.server" = {{ api_key = "{self.key}" }}
"lootlocker.game" = {{ api_key = "{self.token}" }}

# A token is valid for one app and one player; others are 401.
[parameters]
"path.brand_id" = "{self.app}"
"path.player_id" = "alice"

# A cursor or id must exist, a time must be in the future, an idempotency key must be
# new, a body must have content. Schemas cannot say so, and it is no failure to refuse
# such a well-formed request.
[checks]
positive_data_acceptance.enabled = false
# Too long is invalid, too: 413, 414, 431.
negative_data_rejection.expected-statuses = ["4xx"]

# A cancelled schedule can still be retrieved.
[[operations]]
include-operation-id = {CANCELLED_NAMES}
checks.use_after_free.enabled = false

# A poll waits where there is nothing to return.
[[operations]]
include-operation-id = "rallyhere.poll"
parameters = {{ "query.deadline" = 0 }}

# Without the token the path does not exist.
[[operations]]
include-operation-id = "operations.metrics"
checks.missing_required_header.enabled = false
checks.ignored_auth.enabled = false
"""


@pytest_asyncio.fixture(loop_scope="module")
async def site(start: Start, mint: Mint, add_key: AddKey) -> Any:
    server = await start(metrics_token=SCRAPER, demo_page=True)
    config = Config(host="127.0.0.1", port=0, drain_s=1)
    host = Host(
        server.app.asgi, config, drain=server.app.drain, direct=server.app.direct
    )
    url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(host.run(started=url.set_result))
    own, every = "notification:player:self:*", "notification:player:*"
    async with asyncio.timeout(GUARD_S):
        base = await url
    yield Site(
        base,
        key=await add_key(*DEFAULT_SCOPES, "admin"),
        token=mint("alice", own),
        service=mint("alice", own, every),
        app=mint.name(),
    )
    task.cancel()
    await asyncio.wait([task])


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
async def test_a_browser_shows_the_contract_without_errors(
    site: Site, tmp_path: Path
) -> None:
    assert CHROMIUM is not None
    process = await asyncio.create_subprocess_exec(
        *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update"),
        *("--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}"),
        *("--virtual-time-budget=20000", "--dump-dom"),
        f"{site.url}/docs#/Native/native.publish",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(BROWSER_GUARD_S):
        shown, logged = await process.communicate()

    for text in (b"RallyHere", b"/v1/notifications", b"Idempotency-Key"):
        assert text in shown
    assert b"CONSOLE" not in logged, logged


# Schemathesis takes most of a minute, so it is several tests, which run beside each
# other. Operations that a link leads between are of one group, and each group has
# some: without any there are no chains to try, which Schemathesis calls an error.
GROUPS = {
    "publishing": (
        r"^native\.(publish|withdraw\w+|\w*[rR]eceipt|\w*[sS]chedules?|page|one|delete"
        r"|mark\w+|acknowledge|countUnread)$"
    ),
    "campaigns": (
        r"^native\.(campaigns?|putCampaign|cards?|putCards|setCardStatus)$"
        r"|^(walletwerk|teak|operations|contract|client|demo)\."
    ),
    "players": (
        r"^native\.(topics|joinTopic|leaveTopic|mutes|mute\w+|unmute\w+|stream"
        r"|mintToken|issueTicket|audit|erasePlayer|exportPlayer)$"
        r"|^lootlocker\."
    ),
    "vendors": r"^(rallyhere|gateway)\.",
    "administration": (
        r"^native\.(nodes|connections|inspect|trace|disconnect|online|presence)$"
    ),
}


def group_of(operation: str) -> str:
    (group,) = [
        name for name, pattern in GROUPS.items() if re.search(pattern, operation)
    ]
    return group


def test_every_operation_is_in_the_group_of_those_it_links_to() -> None:
    for surface in SURFACES:
        for operation in surface.operations:
            group = group_of(f"{surface.name}.{operation.name}")
            for response in operation.responses:
                for link in response.links:
                    assert group_of(link.operation) == group, link


async def probe(
    site: Site, folder: Path, max_examples: int, *, seed: int, pattern: str
) -> None:
    """Run Schemathesis on the operations of a group. Fails with its report."""
    settings = folder / "schemathesis.toml"
    settings.write_text(site.config(max_examples))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(settings)),
        *("run", f"{site.url}/openapi.json", "--seed", str(seed), "--no-color"),
        *("--include-operation-id-regex", pattern),
        # It says that this machine is busy.
        *("--suppress-health-check", "too_slow"),
        cwd=folder,
        env={
            **os.environ,
            "SCHEMATHESIS_HOOKS": str(HOOKS),
            # `requests` would look through the whole environment for every request.
            "NO_PROXY": "127.0.0.1",
            "BACKEND_KEY": site.key,
            "GAME_ID": site.app,
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    printed, _ = await process.communicate()
    assert process.returncode == 0, printed.decode()


@pytest.mark.row("F3")
@pytest.mark.timeout(600)
# Those of RallyHere and the gateway take as long as all others: nightly.
@pytest.mark.parametrize("group", sorted(GROUPS.keys() - {"vendors"}))
async def test_every_response_conforms_to_the_contract(
    site: Site, tmp_path: Path, group: str
) -> None:
    await probe(site, tmp_path, max_examples=2, seed=1, pattern=GROUPS[group])


@pytest.mark.nightly
@pytest.mark.row("F3")
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("group", GROUPS)
async def test_every_response_conforms_to_the_contract_at_length(
    site: Site,
    tmp_path: Path,
    seeded: None,
    report: Callable[[object], None],
    group: str,
) -> None:
    seed = random.getrandbits(31)
    await probe(site, tmp_path, max_examples=30, seed=seed, pattern=GROUPS[group])
    report("all phases, 30 examples per operation")
