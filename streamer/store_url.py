"""
The URL of an external store, and the namespace in a store.

Decides which of them are accepted, and what each part of a URL means. Knows nothing of
connections: `store.client.connection` opens them. An unknown option is an error, since
an option that is ignored is one that its author relies on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

__all__ = [
    "DATABASE_MAX",
    "NAMESPACE",
    "NAMESPACE_CHARS",
    "SCHEMES",
    "ClusterUrl",
    "SentinelUrl",
    "StoreUrl",
    "is_namespace",
    "parse_store_url",
]

NAMESPACE: Final = "streamer"
"""The namespace of a deployment that names no other."""

NAMESPACE_CHARS: Final = "1 to 32 lower-case letters, digits, _ or -"

SCHEMES: Final = {
    "redis": "redis",
    "rediss": "rediss",
    "unix": "unix",
    "valkey": "redis",
    "valkeys": "rediss",
}
"""The accepted schemes, and for each the one of the three kinds that it is."""

DATABASE_MAX: Final = 2**31 - 1
"""Largest number of a database. A store has 16 unless it is told otherwise."""

PORT: Final = 6379

SENTINELS: Final = {
    f"{scheme}+sentinel": kind for scheme, kind in SCHEMES.items() if kind != "unix"
}
"""The schemes of a store that Sentinels find, and for each that of the store."""

SENTINEL_PORT: Final = 26379

CLUSTERS: Final = {
    f"{scheme}+cluster": kind for scheme, kind in SCHEMES.items() if kind != "unix"
}
"""The schemes of a Redis Cluster, and for each that of its nodes."""

_NAMESPACE: Final = re.compile(r"[a-z0-9_-]{1,32}")
_CLIENT_NAME: Final = re.compile(r"[!-~]{1,64}", re.ASCII)
_CONTROL: Final = re.compile(r"[\x00-\x20\x7f]")
_ESCAPE: Final = "percent-encode /, ?, #, @, : and % in a user name or password"

# What an option may be; None accepts any text that is not empty.
_COMMON: Final[dict[str, tuple[str, ...] | None]] = {"db": None, "client_name": None}
_OF_TLS: Final[dict[str, tuple[str, ...] | None]] = {
    "ssl_ca_certs": None,
    "ssl_ca_path": None,
    "ssl_certfile": None,
    "ssl_keyfile": None,
    "ssl_cert_reqs": ("required", "none"),
    "ssl_check_hostname": ("true", "false"),
}
_OF_SENTINELS: Final[dict[str, tuple[str, ...] | None]] = {
    "sentinel_username": None,
    "sentinel_password": None,
}
# Options of the Redis client that look useful and would break a promise.
_REASONS: Final = {
    "protocol": "the server speaks RESP2",
    "decode_responses": "the server reads bytes",
    "username": "it goes before the host: redis://user:password@host",
    "password": "it goes before the host: redis://user:password@host",
}


class StoreUrl(NamedTuple):
    """
    The parts of a URL. Either `host` or `path`, of a socket, is empty.

    Args:
        scheme: ``redis``, ``rediss`` (TLS) or ``unix``.
        host: Name or address, an IPv6 address without brackets.
        port: Port of the host.
        path: Path of a Unix socket.
        database: Number of the database.
        username: User of the store's ACL; empty means the default user.
        password: Password; empty means none.
        client_name: Name in ``CLIENT LIST``; empty leaves it to the connection.
        tls: Options for TLS, by the name that the URL has for them.

    """

    scheme: str
    host: str = ""
    port: int = PORT
    path: str = ""
    database: int = 0
    username: str = ""
    password: str = ""
    client_name: str = ""
    tls: Mapping[str, str] = {}

    @property
    def place(self) -> str:
        """Where the store listens, for messages: ``host:port`` or a path."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.path or f"{host}:{self.port}"

    @property
    def verifies_certificate(self) -> bool:
        """Whether the store has to prove its identity. False without TLS, too."""
        reqs = self.tls.get("ssl_cert_reqs", "required")
        return self.scheme == "rediss" and reqs != "none"


class SentinelUrl(NamedTuple):
    """
    The parts of the URL of a store whose primary Sentinels name.

    Args:
        service: The name of the primary at the Sentinels.
        sentinels: Where each Sentinel listens, with its credentials.
        store: The store, without its host and port.

    """

    service: str
    sentinels: tuple[StoreUrl, ...]
    store: StoreUrl

    @property
    def scheme(self) -> str:
        """``redis`` or ``rediss`` (TLS, to the Sentinels as well)."""
        return self.store.scheme

    @property
    def database(self) -> int:
        """Number of the database."""
        return self.store.database

    @property
    def place(self) -> str:
        """Where the store is, for messages."""
        sentinels = ", ".join(each.place for each in self.sentinels)
        return f"{self.service!r} of the Sentinels {sentinels}"

    @property
    def verifies_certificate(self) -> bool:
        """Whether the store has to prove its identity. False without TLS, too."""
        return self.store.verifies_certificate


class ClusterUrl(NamedTuple):
    """
    The parts of the URL of a Redis Cluster.

    Args:
        seeds: Nodes that are asked for the others. All have the same credentials.

    """

    seeds: tuple[StoreUrl, ...]

    @property
    def store(self) -> StoreUrl:
        """Any node, for what all have in common."""
        return self.seeds[0]

    @property
    def scheme(self) -> str:
        """``redis`` or ``rediss`` (TLS, to every node)."""
        return self.store.scheme

    @property
    def database(self) -> int:
        """Number of the database, which is 0 in a cluster."""
        return 0

    @property
    def place(self) -> str:
        """Where the store is, for messages."""
        return f"{', '.join(each.place for each in self.seeds)} (cluster)"

    @property
    def verifies_certificate(self) -> bool:
        """Whether every node has to prove its identity. False without TLS, too."""
        return self.store.verifies_certificate


def is_namespace(text: str) -> bool:
    """Whether keys can begin with a text; see `NAMESPACE_CHARS`."""
    return _NAMESPACE.fullmatch(text) is not None


def parse_store_url(text: str) -> StoreUrl | SentinelUrl | ClusterUrl:
    """
    Return the parts of a URL.

    Raises:
        ValueError: What is wrong, as the rest of a sentence about the URL. It repeats
            no part that may be a secret.

    """
    text = text.strip()
    if _CONTROL.search(text):
        raise ValueError("contains a space or a control character")
    if "#" in text:
        raise ValueError(f"contains #: {_ESCAPE}")
    try:
        parts = urlsplit(text)
        _ = parts.hostname
    except ValueError as error:
        raise ValueError("is not a URL: an IPv6 address needs brackets") from error
    by_sentinels, is_cluster = parts.scheme in SENTINELS, parts.scheme in CLUSTERS
    scheme = (SCHEMES | SENTINELS | CLUSTERS).get(parts.scheme)
    if scheme is None:
        raise ValueError(
            "must begin with redis://, rediss://, valkey://, valkeys:// or unix://, or "
            "with redis+sentinel://, rediss+sentinel://, redis+cluster:// or "
            "rediss+cluster://"
        )
    if not text[len(parts.scheme) :].startswith("://"):
        raise ValueError(f"must begin with {parts.scheme}://")
    userinfo, _, address = parts.netloc.rpartition("@")
    username, _, password = userinfo.partition(":")
    path, hosts = "", []
    if scheme == "unix":
        path = _socket(address, parts.path)
    elif by_sentinels:
        hosts = [_host(each, SENTINEL_PORT) for each in address.split(",")]
    elif is_cluster:
        hosts = [_host(each) for each in address.split(",")]
    else:
        if "," in address:
            raise ValueError(
                f"names several hosts: {parts.scheme}+cluster://host1:6379,host2:6379 "
                "for a cluster"
            )
        hosts = [_host(address)]
    # The rest of a password with a / or ? in it, which no message may repeat.
    if "@" in parts.query or (hosts and "@" in parts.path):
        raise ValueError(f"contains @ after the host; {_ESCAPE}")
    accepted = _COMMON | (_OF_TLS if scheme == "rediss" else {})
    options = _options(parts.query, accepted | (_OF_SENTINELS if by_sentinels else {}))
    store = StoreUrl(
        scheme,
        username=_decoded(username, "user name"),
        password=_decoded(password, "password"),
        client_name=options.get("client_name", ""),
        tls={name: value for name, value in options.items() if name in _OF_TLS},
    )
    if by_sentinels:
        service, database = _service(parts.path)
        sentinel = StoreUrl(
            scheme,
            username=options.get("sentinel_username", ""),
            password=options.get("sentinel_password", ""),
            client_name=store.client_name,
            tls=store.tls,
        )
        return SentinelUrl(
            service,
            tuple(sentinel._replace(host=host, port=port) for host, port in hosts),
            store._replace(database=_database(database, options)),
        )
    if is_cluster:
        if _database(parts.path, options):
            raise ValueError(
                "names a database, and a cluster has none but 0. To share a cluster, "
                "set `namespace`"
            )
        return ClusterUrl(
            tuple(store._replace(host=host, port=port) for host, port in hosts)
        )
    if path:
        return store._replace(path=path, database=_database("", options))
    ((host, port),) = hosts
    return store._replace(host=host, port=port, database=_database(parts.path, options))


def _database(path: str, options: Mapping[str, str]) -> int:
    """Return the number of the database that the path or an option names."""
    database = _path_database(path)
    if "db" in options:
        named = _number(options["db"], "the option db")
        if database is not None and named != database:
            raise ValueError("names two databases, by its path and by the option db")
        return named
    return database or 0


def _service(path: str) -> tuple[str, str]:
    """Return the name of the primary, and the path after it."""
    name, slash, rest = path.removeprefix("/").partition("/")
    if not name:
        raise ValueError(
            "does not name the primary: redis+sentinel://host1:26379,host2:26379/NAME"
        )
    return _decoded(name, "name of the primary"), slash + rest


def _host(address: str, default: int = PORT) -> tuple[str, int]:
    if address.startswith("["):
        host, bracket, rest = address[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError("is not a URL: nothing but a port may follow ]")
        port = rest[1:]
    else:
        host, _, port = address.partition(":")
        if ":" in port:
            raise ValueError("has an IPv6 address without brackets: redis://[::1]:6379")
    if not host:
        raise ValueError(f"has no host; {_ESCAPE}")
    if not port:
        return unquote(host), default
    if not (port.isascii() and port.isdigit()) or not 1 <= int(port[:6]) <= 65_535:
        raise ValueError(f"has a wrong port, expected 1 to 65535; {_ESCAPE}")
    return unquote(host), int(port)


def _socket(address: str, path: str) -> str:
    if address:
        raise ValueError("names a host, expected a path: unix:///run/valkey.sock")
    path = _decoded(path, "path")
    if path in ("", "/"):
        raise ValueError("has no path")
    return path


def _path_database(path: str) -> int | None:
    name = unquote(path).removeprefix("/")
    if not name:
        return None
    if "/" in name:
        raise ValueError(
            "has a path of several parts, expected the number of a database: "
            "redis://host/0"
        )
    return _number(name, "its path")


def _number(text: str, what: str) -> int:
    if text.isascii() and text.isdigit() and len(text.lstrip("0")) <= 10:
        number = int(text)
        if number <= DATABASE_MAX:
            return number
    shown = text if len(text) <= 32 else f"{text[:32]}…"
    raise ValueError(
        f"has no such database: {what} is {shown!r}, expected a number from 0 to "
        f"{DATABASE_MAX}. To share a database, set `namespace`"
    )


def _options(
    query: str, accepted: Mapping[str, tuple[str, ...] | None]
) -> dict[str, str]:
    """Return the options of a URL, each checked."""
    options: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in accepted:
            raise ValueError(_refusal(name, accepted))
        if name in options:
            raise ValueError(f"has the option {name} twice")
        words = accepted[name]
        if words and value.lower() not in words:
            raise ValueError(
                f"has the option {name}={value[:32]!r}, expected {' or '.join(words)}"
            )
        if not value:
            raise ValueError(f"has the option {name} without a value")
        if name == "client_name" and not _CLIENT_NAME.fullmatch(value):
            raise ValueError(
                "has the option client_name with a value that is not 1 to 64 visible "
                "ASCII characters"
            )
        options[name] = value.lower() if words else value
    return options


def _refusal(name: str, accepted: Mapping[str, object]) -> str:
    text = f"has the option {name[:32]!r}"
    if name in _OF_TLS:
        return f"{text}, which needs TLS: rediss:// or valkeys://"
    if name in _OF_SENTINELS:
        return f"{text}, which is for Sentinels: redis+sentinel://"
    if name in _REASONS:
        text += f" ({_REASONS[name]})"
    return f"{text}, which is not accepted; accepted are {', '.join(accepted)}"


def _decoded(text: str, what: str) -> str:
    try:
        decoded = unquote(text, errors="strict")
    except UnicodeDecodeError as error:
        raise ValueError(f"has a {what} that is not UTF-8") from error
    if "\0" in decoded:
        raise ValueError(f"has a {what} with a null character")
    return decoded
