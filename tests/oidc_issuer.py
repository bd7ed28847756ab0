"""
A small OpenID Connect issuer: it logs in whoever is chosen, and signs ID tokens.

It checks what an issuer has to check: the client and its secret, the redirect URI, that
a code is used once, and PKCE. Tests change what it says. As a program it is what the
documentation is tried with::

    export PYTHONPATH=clients/conformance
    python -m tests.oidc_issuer --port 9000 --redirect http://localhost:8080/console
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import html
import json
import secrets
import sys
import time
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import parse_qs, unquote_plus, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from streamer_conformance.listener import Listener

CLIENT_ID: Final = "console"
CLIENT_SECRET: Final = "a secret: 100%"
CALLBACK: Final = "/api/callback"

PEOPLE: Final[dict[str, dict[str, Any]]] = {
    "ann": {"email": "ann@studio.example", "groups": ["game-ops"]},
    "bob": {"email": "bob@studio.example", "groups": ["cs"]},
    "eve": {"email": "eve@studio.example", "groups": ["artists"]},
}
"""Who has an account, by the subject."""

Signer = Callable[[dict[str, Any]], str]


class SigningKey:
    """A key for ES256 with an id."""

    def __init__(self, key_id: str) -> None:
        self.id = key_id
        self.private = ec.generate_private_key(ec.SECP256R1())

    @property
    def public(self) -> dict[str, Any]:
        """The key as the issuer publishes it."""
        jwk = ECAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
        return {**jwk, "kid": self.id, "use": "sig", "alg": "ES256"}

    def sign(self, claims: dict[str, Any]) -> str:
        """Return a token with these claims."""
        return jwt.encode(
            claims, self.private, algorithm="ES256", headers={"kid": self.id}
        )


class OidcIssuer:
    """
    The issuer. Its attributes are what tests change.

    Args:
        redirects: The URLs of consoles that are registered.

    """

    def __init__(self, *redirects: str) -> None:
        self.redirects = redirects
        self.key = SigningKey("first")
        self.published = [self.key.public]
        self.sign: Signer = lambda claims: self.key.sign(claims)
        self.claims: dict[str, Any] = {}
        """What ID tokens say beside the account, or instead; None leaves one out."""
        self.metadata: dict[str, Any] = {}
        """What the metadata say instead; None leaves one out."""
        self.answer: tuple[int, bytes] | None = None
        """The answer to every request that a server sends, if not a good one."""
        self.flowing = asyncio.Event()
        """While it is cleared, answers wait."""
        self.flowing.set()
        self.requests: list[str] = []
        """Paths of all requests, without a query."""
        self._codes: dict[str, tuple[str, dict[str, str]]] = {}
        self._listener = Listener(self._serve)

    @property
    def url(self) -> str:
        """The name of the issuer, which is where it is."""
        return f"http://127.0.0.1:{self._listener.port}"

    async def open(self, port: int = 0) -> None:
        """Listen."""
        await self._listener.open(port)

    async def close(self) -> None:
        """Stop listening."""
        await self._listener.close()

    def rotate(self, key_id: str) -> None:
        """Sign with another key from now on, and publish only that one."""
        self.key = SigningKey(key_id)
        self.published = [self.key.public]

    def log_in(self, url: str, person: str = "ann") -> str:
        """Return where the browser is sent that a person has brought to `url`."""
        query = _single(urlsplit(url).query)
        assert query["client_id"] == CLIENT_ID
        assert query["response_type"] == "code"
        assert query["code_challenge_method"] == "S256"
        assert "openid" in query["scope"].split()
        allowed = [it + CALLBACK for it in self.redirects]
        assert query["redirect_uri"] in allowed, query["redirect_uri"]
        code = secrets.token_urlsafe(16)
        self._codes[code] = person, query
        fields = {"code": code, "state": query["state"], "iss": self.url}
        return f"{query['redirect_uri']}?{urlencode(fields)}"

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, target, _ = head.split("\r\n", 1)[0].split(" ")
        fields = (it.partition(": ") for it in head.split("\r\n")[1:])
        headers = {name.lower(): value for name, _, value in fields}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        url = urlsplit(target)
        self.requests.append(url.path)
        await self.flowing.wait()
        more: dict[str, str] = {}
        match method, url.path:
            case "GET", "/authorize":
                status, answer, more = self._authorize(target)
            case "GET", "/logout":
                goal = _single(url.query)["post_logout_redirect_uri"]
                assert goal in self.redirects
                status, answer, more = 303, b"", {"Location": goal}
            case _ if self.answer is not None:
                status, answer = self.answer
            case "GET", "/.well-known/openid-configuration":
                status, answer = 200, self._metadata()
            case "GET", "/keys":
                status, answer = 200, json.dumps({"keys": self.published}).encode()
            case "POST", "/token":
                status, answer = self._token(headers, _single(body.decode()))
            case _:
                status, answer = 404, b""
        more = {"Content-Type": "application/json", **more}
        lines = [f"HTTP/1.1 {status} -", f"Content-Length: {len(answer)}"]
        lines += [f"{name}: {value}" for name, value in more.items()]
        lines += ["Connection: close", "", ""]
        writer.write("\r\n".join(lines).encode() + answer)
        await writer.drain()

    def _metadata(self) -> bytes:
        metadata = {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize?kind=staff",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/keys",
            "end_session_endpoint": f"{self.url}/logout",
            "response_types_supported": ["code"],
            "authorization_response_iss_parameter_supported": True,
            **self.metadata,
        }
        return json.dumps(
            {name: value for name, value in metadata.items() if value is not None}
        ).encode()

    def _authorize(self, target: str) -> tuple[int, bytes, dict[str, str]]:
        query = _single(urlsplit(target).query)
        if person := query.get("as"):
            return 303, b"", {"Location": self.log_in(target, person)}
        links = "".join(
            f'<p><a href="{html.escape(target)}&amp;as={name}">{name}</a>'
            for name in PEOPLE
        )
        head = "<!doctype html><title>Issuer</title><link rel=icon href=data:,>"
        page = f"{head}<h1>Who are you?</h1>{links}"
        return 200, page.encode(), {"Content-Type": "text/html"}

    def _token(
        self, headers: dict[str, str], form: dict[str, str]
    ) -> tuple[int, bytes]:
        if self._client(headers, form) != (CLIENT_ID, CLIENT_SECRET):
            return 401, b'{"error": "invalid_client"}'
        person, begun = self._codes.pop(form.get("code", ""), ("", {}))
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if (
            not begun
            or form.get("grant_type") != "authorization_code"
            or form.get("redirect_uri") != begun["redirect_uri"]
            or challenge != begun["code_challenge"]
        ):
            return 400, b'{"error": "invalid_grant"}'
        now_s = int(time.time())
        claims = {
            "iss": self.url,
            "aud": CLIENT_ID,
            "sub": person,
            "iat": now_s,
            "exp": now_s + 300,
            "nonce": begun["nonce"],
            **PEOPLE.get(person, {}),
            **self.claims,
        }
        token = self.sign({k: v for k, v in claims.items() if v is not None})
        answer = {"access_token": "x", "token_type": "Bearer", "id_token": token}
        return 200, json.dumps(answer).encode()

    def _client(
        self, headers: dict[str, str], form: dict[str, str]
    ) -> tuple[str, str] | None:
        kind, _, text = headers.get("authorization", "").partition(" ")
        if kind != "Basic":
            return form.get("client_id", ""), form.get("client_secret", "")
        name, _, secret = base64.b64decode(text).decode().partition(":")
        return unquote_plus(name), unquote_plus(secret)


def _single(query: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(query).items()}


async def _run(port: int, redirects: list[str]) -> None:
    issuer = OidcIssuer(*redirects)
    await issuer.open(port)
    sys.stdout.write(f"{issuer.url}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--redirect", action="append", required=True)
    arguments = parser.parse_args()
    asyncio.run(_run(arguments.port, arguments.redirect))
