"""Tokens that libraries of others sign, for apps with an issuer of their own."""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from streamer.core.access.signatures import print_secret

from ..e2e.processes import GUARD_S, ServerProcess
from ..e2e.readers import Api
from .stacks import NODE

SELF = ["notification:player:self:*"]


async def status(server: ServerProcess, token: str) -> int:
    """Return the status of a page that is read with a token."""
    async with Api(server.port, token) as player:
        page = await player.http.get("/v1/players/me/notifications")
    return page.status_code


async def create_app(
    server: ServerProcess, keys: Any, folder: Path, *, issuer: str, algorithm: str
) -> None:
    """Create an app of an issuer, whose key set is a file."""
    file = folder / "jwks.json"
    file.write_text(json.dumps(keys))
    created = await asyncio.to_thread(
        server.run,
        *("app", "create", f"game-{secrets.token_hex(4)}"),
        *("--issuer", issuer, "--audience", "game-api"),
        *("--algorithm", algorithm, "--key-set", str(file)),
        *("--data-dir", str(server.data_dir)),
    )
    assert created.returncode == 0, created.stderr


@pytest.mark.stack("PyJWT (PyPI)", "HS256 with an app's secret")
async def test_a_backend_with_pyjwt_signs_tokens(server: ServerProcess) -> None:
    record = await server.record("demo")
    now = int(time.time())
    claims = {"sub": "ann", "aud": "demo", "iss": "streamer", "ver": 1}
    claims |= {"iat": now, "exp": now + 60, "permissions": SELF}

    token = jwt.encode(claims, print_secret(record.secret), algorithm="HS256")

    assert await status(server, token) == 200
    assert await status(server, jwt.encode(claims, "x" * 43, algorithm="HS256")) == 401


@pytest.mark.parametrize(
    ("algorithm", "make"),
    [
        pytest.param(
            "RS256",
            lambda: rsa.generate_private_key(65_537, 2_048),
            marks=pytest.mark.stack("PyJWT (PyPI)", "RS256 and a key set"),
        ),
        pytest.param(
            "ES256",
            lambda: ec.generate_private_key(ec.SECP256R1()),
            marks=pytest.mark.stack("PyJWT (PyPI)", "ES256 and a key set"),
        ),
        pytest.param(
            "EdDSA",
            ed25519.Ed25519PrivateKey.generate,
            marks=pytest.mark.stack("PyJWT (PyPI)", "EdDSA and a key set"),
        ),
    ],
)
async def test_an_issuer_with_pyjwt_signs_tokens(
    server: ServerProcess,
    tmp_path: Path,
    algorithm: str,
    make: Callable[[], Any],
) -> None:
    issuer = f"https://id.example/realms/{secrets.token_hex(4)}"
    key, other = make(), make()
    methods = jwt.get_algorithm_by_name(algorithm)
    public = methods.to_jwk(key.public_key(), as_dict=True) | {"kid": "k1"}
    await create_app(
        server, {"keys": [public]}, tmp_path, issuer=issuer, algorithm=algorithm
    )
    now = time.time()  # With a fraction, as PyJWT leaves it.
    claims: dict[str, Any] = {
        "sub": "ann",
        "aud": ["game-api"],
        "iss": issuer,
        "permissions": SELF,
    }
    claims |= {"iat": now, "exp": now + 60}

    def signed(by: Any) -> str:
        return jwt.encode(claims, by, algorithm=algorithm, headers={"kid": "k1"})

    assert await status(server, signed(key)) == 200
    assert await status(server, signed(other)) == 401


@pytest.mark.skipif(not shutil.which("node"), reason="node is not installed")
@pytest.mark.parametrize(
    ("shape", "algorithm"),
    [
        pytest.param(
            "auth0",
            "RS256",
            marks=pytest.mark.stack("jose (npm)", "RS256, tokens and keys as of Auth0"),
        ),
        pytest.param(
            "entra",
            "RS256",
            marks=pytest.mark.stack(
                "jose (npm)", "RS256, tokens and keys as of Entra ID"
            ),
        ),
        pytest.param(
            "keycloak",
            "ES256",
            marks=pytest.mark.stack(
                "jose (npm)",
                "ES256, tokens and keys as of Keycloak; a key for encryption",
            ),
        ),
    ],
)
async def test_an_issuer_with_jose_signs_tokens(
    server: ServerProcess,
    tmp_path: Path,
    shape: str,
    algorithm: str,
) -> None:
    if not (NODE / "node_modules").exists():
        pytest.skip("`npm ci` has not run in tests/e2e/node")
    # As Auth0 writes it, with a slash at the end.
    issuer = f"https://{secrets.token_hex(4)}.id.example/"
    process = await asyncio.create_subprocess_exec(
        *("node", str(NODE / "foreign_tokens.js"), shape, issuer),
        stdout=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(GUARD_S):
        printed, _ = await process.communicate()
    keys, good, other_audience, expired = map(json.loads, printed.splitlines())
    await create_app(server, keys, tmp_path, issuer=issuer, algorithm=algorithm)

    assert await status(server, good) == 200
    assert await status(server, other_audience) == 401
    assert await status(server, expired) == 401
