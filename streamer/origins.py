"""
Web origins: which pages may use a browser's cookies, and read responses.

Decides whether two origins are the same (RFC 6454: scheme, host and port, where a
missing port is the scheme's own), and what the setting ``allowed_origins`` matches.
Pure. Knows nothing of requests.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Final, NamedTuple

__all__ = ["NULL", "AllowedOrigins", "Origin", "origin_problem", "parse_origin"]

NULL: Final = "null"
"""
The origin of pages that have none, such as those of a file, and of sandboxed frames.
"""

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_PORT_MAX: Final = 65_535

_WEB: Final = re.compile(
    r"(https?)://(\[[0-9a-f:.]+\]|[a-z0-9._~-]+)(?::([0-9]{1,5}))?", re.IGNORECASE
)
# The pages of an app: capacitor://localhost, app://game, file://.
_OTHER: Final = re.compile(
    r"([a-z][a-z0-9+.-]*)://([a-z0-9._~:-]*)", re.IGNORECASE | re.ASCII
)
_SUBDOMAIN: Final = "*."


class Origin(NamedTuple):
    """An origin. `port` is 0 for schemes that have no default port."""

    scheme: str
    host: str
    port: int

    def is_own(self, scheme: str, host: str) -> bool:
        """
        Whether it is the origin of a request for `host`, a value of the header Host.

        A `scheme` of "http" tells nothing, since a proxy may have terminated TLS: then
        the origin may have either scheme, and a missing port is the origin's default.
        """
        default = _DEFAULT_PORTS.get(self.scheme)
        if default is None or (scheme == "https" and self.scheme != "https"):
            return False
        own = parse_origin(f"{self.scheme}://{host}")
        return own is not None and own == self


def parse_origin(text: str) -> Origin | None:
    """Return an origin; None if `text` is none, or is `NULL`."""
    match = _WEB.fullmatch(text)
    if match is not None:
        scheme, host, port = match.groups()
        scheme = scheme.lower()
        number = int(port) if port else _DEFAULT_PORTS[scheme]
        if not 0 < number <= _PORT_MAX:
            return None
        return Origin(scheme, host.lower(), number)
    match = _OTHER.fullmatch(text)
    if match is None or match[1].lower() in _DEFAULT_PORTS:
        return None
    return Origin(match[1].lower(), match[2].lower(), 0)


def origin_problem(text: str) -> str:
    """Return what is wrong with an element of ``allowed_origins``, "" if nothing is."""
    if text == NULL or parse_origin(text.replace(f"://{_SUBDOMAIN}", "://", 1)):
        host = text.partition(f"://{_SUBDOMAIN}")[2]
        # "https://*.com" would allow everybody's pages.
        return "" if not host or "." in host else "a wildcard needs a domain after it"
    if text == "*":
        return "list the origins: any page could act with its visitors' cookies"
    if not text.isascii():
        return "write the host in ASCII, as xn--…, which is what browsers send"
    return (
        "expected a scheme, a host and optionally a port, without a path: "
        "https://game.example, https://*.game.example, capacitor://localhost, or null"
    )


class AllowedOrigins(Collection[str]):
    """
    The origins that a setting lists; ``in`` compares as browsers do.

    An element may be `NULL`, and its host may begin with ``*.``, which stands for one
    label or more.
    """

    def __init__(self, texts: Collection[str]) -> None:
        self._texts = tuple(texts)
        self._exact: set[Origin | None] = set()
        self._domains: set[Origin | None] = set()
        for text in self._texts:
            plain = text.replace(f"://{_SUBDOMAIN}", "://", 1)
            found = self._exact if plain == text else self._domains
            found.add(parse_origin(plain))
        self._has_null = NULL in self._texts

    def __contains__(self, text: object) -> bool:
        if not isinstance(text, str):
            return False
        if text == NULL:
            return self._has_null
        origin = parse_origin(text)
        if origin is None:
            return False
        if origin in self._exact:
            return True
        labels = origin.host.split(".")
        return any(
            origin._replace(host=".".join(labels[i:])) in self._domains
            for i in range(1, len(labels))
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)

    def __len__(self) -> int:
        return len(self._texts)
