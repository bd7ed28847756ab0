"""
The settings. Only this module reads the environment.

The sources of a setting, in rising precedence: its default, the TOML file, the
environment (``STREAMER_`` and the name in capitals), the command line. Unknown and
contradictory settings are errors at start; one message lists all problems.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Final,
    Literal,
    NamedTuple,
    TypeAlias,
    get_args,
    get_origin,
    get_type_hints,
)
from urllib.parse import urlsplit

import msgspec

from .errors import Error
from .origins import origin_problem
from .store_url import (
    NAMESPACE,
    NAMESPACE_CHARS,
    StoreUrl,
    is_namespace,
    parse_store_url,
)

__all__ = [
    "DEFAULT",
    "VENDORS",
    "Config",
    "ConfigError",
    "Resolved",
    "default_data_dir",
    "load",
    "masked",
    "parse_bind",
    "parse_grant",
    "parse_memory",
    "resolve",
]

PREFIX: Final = "STREAMER_"
FILE_VARIABLE: Final = "STREAMER_CONFIG"
"""Names the TOML file if ``--config`` does not."""
FOREIGN_PREFIXES: Final = ("STREAMER_CLI_", "STREAMER_TEST_")
"""Variables of the command-line client and of the tests, which are not settings."""
_SERVICE_LINK: Final = re.compile(
    r"STREAMER(_[A-Z0-9_]+)?_"
    r"(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?"
    r"|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_SERVICE_PORT: Final = re.compile(r"(tcp|udp|sctp)://\S+")
HIDDEN: Final = "(hidden)"
"""What people see of a secret."""
_URL_PASSWORD: Final = re.compile(r"(password=)[^&]*")
_SECRETS: Final = ("log_key", "metrics_token", "console_oidc_client_secret")
DEFAULT: Final = "default"
"""Source of a setting that no source sets."""

Port: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=65_535)]
Count: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=1_000_000_000)]
Seconds: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=86_400)]
Quota: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=1_000_000_000_000_000)]
Percent: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=100)]
SecondsOrZero: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=86_400)]
Days: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=36_500)]
Workers: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=64)]
Replicas: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=16)]
Milliseconds: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=10_000)]
MillisecondsOrZero: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=86_400_000)]
Durability: TypeAlias = Literal["always", "everysec", "replicated", "none"]
LogPlayers: TypeAlias = Literal["hash", "name", "none"]
LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]

_GRANT: Final = re.compile(
    r"(?P<value>.*\S.*)=(?P<role>viewer|support|operator)(:(?P<app>[A-Za-z0-9_-]{1,64}))?",
    re.ASCII,
)
_POINTER: Final = re.compile(r"(/([^~/]|~[01])+)+")
_SCOPE: Final = re.compile(r"openid( [\x21\x23-\x5b\x5d-\x7e]+)*")
_PLAIN_URL: Final = re.compile(r"[\x21\x24-\x3b\x3d\x40-\x5b\x5d\x5f\x61-\x7a\x7e]+")
_BASE_PATH: Final = re.compile(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+", re.ASCII)
UNIX_PATH_BYTES_MAX: Final = 103  # on macOS; Linux has 107
VENDORS: Final = ("rallyhere", "lootlocker", "gateway", "teak", "walletwerk")
"""Vendors whose APIs this server has beside its own, ``native``."""
TOKEN_CHARS_MIN: Final = 16
"""Least length of a random token that cannot be guessed."""
# The syntax of a token after "Bearer" (RFC 6750, section 2.1).
_TOKEN: Final = re.compile(rf"[A-Za-z0-9._~+/-]{{{TOKEN_CHARS_MIN},}}=*", re.ASCII)
_DEPLOYMENT: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_NO_HOME: Final = (
    "the data directory is unknown: HOME is not set, and the system knows no home "
    "directory of user {uid}. Set data_dir: --data-dir PATH or STREAMER_DATA_DIR"
)
MEMORY_MIN: Final = 32 * 1_048_576
"""Least memory of the embedded store."""
_MEMORY: Final = re.compile(r"(\d{1,15}) ?(?:([kmgt])(?:i?b)?|b)?", re.ASCII | re.I)
# Pairs of settings of which the first must not exceed the second, and why.
_ORDERED: Final = (
    ("replay_max", "entries_max", "the log keeps no more entries than that"),
    (
        "requests_per_player_max",
        "requests_in_flight_max",
        "the requests of a player are part of those of the node",
    ),
    ("url_bytes_max", "header_bytes_max", "the URL is part of the head"),
    ("workers", "connections_max", "the workers share that limit"),
    ("workers", "connects_per_s_max", "the workers share that limit"),
    ("workers", "requests_in_flight_max", "the workers share that limit"),
)


_NATIVE: Final = "native"
"""May be named among the surfaces, too: it always answers."""
_LISTS: Final = (
    *("allowed_origins", "trusted_proxies", "surfaces"),
    "console_oidc_roles",
)
"""Settings that are lists, which the environment writes with commas."""


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """
    Every setting, with its unit, its default and the reason for the default.

    Times end in ``_s`` (seconds), sizes in ``_bytes``, counts in ``_max``. Use `load`:
    the constructor itself checks nothing, which suits tests.
    """

    # Addresses and places.
    host: str = "127.0.0.1"
    """
    Names and addresses to listen on, with commas, and ``unix:/PATH`` for a Unix socket.
    ``::`` and the empty text stand for every address of both families.
    """
    port: Port = 8080
    data_dir: str = ""
    """Directory of the embedded store; empty means the user's data directory."""
    store_memory: str = ""
    """
    Memory limit of the embedded store: bytes, or a number with KiB, MiB or GiB; 0 means
    no limit. Empty means half of what the machine or cgroup has, less 80 MiB for each
    process of the server, and at least 32 MiB.
    """
    redis: str = ""
    """
    URL of an external Redis or Valkey (7.0 or later); empty means embedded. See
    `store_url`.
    """
    redis_password_file: str = ""
    """
    File with the password of the store; for an embedded one, ``password`` in the data
    directory if that exists. Keeps the password out of the URL and the command line.
    The URL may have the user of an ACL.
    """
    namespace: str = NAMESPACE
    """
    What every key and channel in the store begins with. Deployments that share a store
    have different ones, or different databases.
    """
    deployment: str = ""
    """
    Name of the deployment. The first node gives it to the store, and a store with
    another name is refused. Empty accepts any.
    """
    workers: Workers = 1
    """Processes that share the port and this node's limits; about one per core."""
    background: bool = True
    """Whether this process also sends due schedules, as `streamer scheduler` does."""
    log_level: LogLevel = "info"
    demo_page: bool = False
    """
    Whether ``/demo`` exists, where anybody may try the app ``demo``. `streamer serve`
    sets it when it prints credentials of that app.
    """
    console: bool = True
    """
    Whether ``/console`` exists as soon as a key with a role does, or an issuer is
    configured; see `streamer key create --role` and `console_oidc_issuer`.
    """
    console_url: str = ""
    """
    URL of the console in browsers: ``https://push.example/console``. A login with an
    issuer returns to it; without an issuer it is only needed behind a proxy that passes
    on another ``Host``.
    """
    console_session_s: Seconds = 28_800
    """How long a session of the console lasts at most: a working day."""
    console_oidc_issuer: str = ""
    """
    OpenID Connect issuer with which people log in to the console, as the issuer writes
    it: ``https://id.example/realms/studio``. Empty: they log in with keys only.
    """
    console_oidc_client_id: str = ""
    """The id of the client that is registered with the issuer for this console."""
    console_oidc_client_secret: str = ""
    """The secret of that client."""
    console_oidc_scope: str = "openid profile email"
    """Scopes to ask the issuer for, with spaces. Some issuers have one for groups."""
    console_oidc_claim: str = "groups"
    """
    Claim of the ID token whose values grant roles: its name, or a JSON pointer, which
    begins with a slash: ``/realm_access/roles``.
    """
    console_oidc_roles: tuple[str, ...] = ()
    """
    Which value of that claim grants which role: ``game-ops=operator`` for every app,
    ``cs=support:demo`` for one. Who has no such value is refused.
    """
    access_log: bool = True
    """Whether the log has a line for each request, at level ``info``."""
    access_log_probes: bool = False
    """Whether these lines include successful health checks and scrapes."""
    log_players: LogPlayers = "hash"
    """How lines name a player: by a keyed ``hash``, by ``name``, or by ``none``."""
    log_key: str = ""
    """
    Key of these hashes, to compare lines of several nodes; empty means a random one for
    each start.
    """

    # Metrics.
    metrics_bind: str = ""
    """
    ``host:port`` that serves ``GET /metrics`` without a credential; empty disables it.
    With several workers it reports the metrics of all of them.
    """
    metrics_token: str = ""
    """
    Bearer token for ``GET /metrics`` on the server's own port; empty disables that.
    """

    # Durability: what an acknowledged publish survives.
    durability: Durability = "always"
    """
    ``always``: a kill and a power failure, since the store syncs before it answers.
    ``everysec``: may lose the last seconds. ``replicated``: also the loss of the
    primary; external stores only. ``none``: promises nothing. A store that keeps less
    than promised is refused.
    """
    replicas_min: Replicas = 1
    """Replicas that have to confirm a publish under ``replicated``."""
    replication_timeout_ms: Milliseconds = 1_000
    """How long to wait for replicas; then the outcome of a publish is unknown (503)."""

    # The log.
    retention_days: Days = 90
    """Age at which an entry is removed. The casino gateway promises 90 days."""
    entries_max: Count = 10_000
    """Entries kept per log; a further one removes the oldest."""
    replay_max: Count = 500
    """Entries to replay; a reader that missed more gets a gap and reads pages."""

    # Connections and requests.
    listeners_per_player_max: Count = 10
    """
    Open streams and held polls of a player, on all nodes together: tabs and devices.
    """
    connections_max: Count = 10_000
    """Open streams and held polls on this node."""
    connects_per_s_max: Count = 1_500
    """A node accepts about 2,400 handshakes per second and core before they queue."""
    requests_in_flight_max: Count = 1_000
    requests_per_player_max: Count = 32
    requests_per_app_percent: Percent = 75
    """
    Share of the requests in flight that one app may have. A flood of one app leaves a
    quarter to the others; 100 allows one app all of them.
    """

    # Quotas of an app, on all nodes together. 0 means unlimited; an app can have quotas
    # of its own.
    publishes_per_s_max: Quota = 0
    """Notifications, counted once for each inbox that stores them."""
    bytes_per_day_max: Quota = 0
    """Stored bytes of notifications, counted in the same way."""
    players_max: Quota = 0
    """Players that have an inbox."""
    pending_schedules_max: Quota = 0
    """Schedules that are not due yet; one for many players counts once."""

    # Streams.
    heartbeat_s: Seconds = 25
    """Less than the 30 s after which game engines and mobile networks cut idle
    sockets."""
    position_check_s: Seconds = 15
    """How long the loss of the last announcement can go unnoticed."""
    send_buffer_bytes: Count = 1_048_576
    """Unsent bytes in this process with which a reader is disconnected as slow."""
    send_age_s: Seconds = 10
    """Age of an unsent write at which a reader is disconnected as slow."""
    message_bytes_max: Count = 65_536
    """Largest message a WebSocket client may send."""
    auth_timeout_s: Seconds = 10
    """How long a WebSocket may wait to send its credential as the first message."""
    drain_s: SecondsOrZero = 5
    """Time over which a stopping node spreads the disconnects of its readers."""
    loop_lag_ms: MillisecondsOrZero = 250
    """Lag of the event loop above which a line is logged, once a minute at most."""

    # HTTP.
    header_bytes_max: Count = 65_536
    header_count_max: Count = 100
    url_bytes_max: Count = 16_384
    first_request_s: Seconds = 10
    header_timeout_s: Seconds = 10
    body_timeout_s: Seconds = 30
    keep_alive_s: Seconds = 75
    """
    How long an idle connection is kept for the next request. Longer than proxies keep
    theirs (nginx and load balancers 60 s): the side that sends must close first, or a
    request may meet a connection that is being closed.
    """
    surfaces: tuple[str, ...] = VENDORS
    """Vendors whose paths answer; the others' are unknown. The native API always is."""
    docs: bool = True
    """Whether ``/docs``, ``/openapi.json`` and ``/asyncapi.json`` answer."""
    base_path: str = ""
    """Prefix of all paths that a proxy passes on: ``/push``."""
    trusted_proxies: tuple[str, ...] = ()
    """
    Addresses of proxies (CIDR, or ``unix``) that may say whom a request comes from, and
    for which host: ``10.0.0.0/8``. Empty ignores ``X-Forwarded-*``.
    """
    allowed_origins: tuple[str, ...] = ()
    """
    Origins whose pages may read responses and act with cookies: ``https://game.example``,
    ``https://*.game.example``, ``capacitor://localhost``, ``null``. Empty allows only
    pages that this host serves.
    """


class ConfigError(Error):
    """The settings are invalid. `problems` has one line for each problem."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems

    def __str__(self) -> str:
        return "invalid configuration:\n" + "\n".join(
            f"  {problem}" for problem in self.problems
        )


class Resolved(NamedTuple):
    """The settings and, for each, the source of its value (``--port``, ``default``)."""

    config: Config
    sources: dict[str, str]


class _SourcedValue(NamedTuple):
    """
    A value as its source gives it. `typed` says whether the source has types.

    The environment has only text, so ``"8080"`` is a number there; in a TOML file it is
    an error.
    """

    value: object
    source: str
    typed: bool = False


def load(
    flags: Mapping[str, object], environ: Mapping[str, str], *, file: str | None = None
) -> Config:
    """
    Return the settings from all sources; see `resolve`.

    Raises:
        ConfigError: With all problems at once.
    """
    return resolve(flags, environ, file=file).config


def resolve(
    flags: Mapping[str, object], environ: Mapping[str, str], *, file: str | None = None
) -> Resolved:
    """
    Return the settings and the source of each.

    Without a Redis URL, `Config.data_dir` becomes the absolute path of the embedded
    store; the default is ``streamer`` in the user's data directory.

    Args:
        flags: Settings from the command line; None means that a flag is absent.
        environ: The environment.
        file: Path of the TOML file; None means the one that ``STREAMER_CONFIG`` names.

    Raises:
        ConfigError: With all problems at once.
    """
    problems: list[str] = []
    file = file or environ.get(FILE_VARIABLE)
    values = {
        **(_read_file(Path(file), problems) if file else {}),
        **_read_environ(environ, problems),
        **_read_flags(flags, problems),
    }
    sources = {
        name: values[name].source if name in values else DEFAULT
        for name in Config.__struct_fields__
    }
    config = Config(**_convert(values, problems))
    problems += _contradictions(config, sources)
    if problems:
        raise ConfigError(problems)
    if not config.redis:
        try:
            data_dir = _data_dir(config.data_dir, environ)
        except RuntimeError as exc:  # From `Path.home` and `Path.expanduser`.
            raise ConfigError([_NO_HOME.format(uid=os.geteuid())]) from exc
        config = msgspec.structs.replace(config, data_dir=str(data_dir))
    return Resolved(config, sources)


def _read_file(path: Path, problems: list[str]) -> dict[str, _SourcedValue]:
    try:
        path = path.expanduser()
        table = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except RuntimeError:
        problems.append(f"cannot read {path}: the home directory is unknown")
        return {}
    except OSError as exc:
        problems.append(f"cannot read {path}: {exc.strerror}")
        return {}
    except ValueError as exc:  # Invalid TOML, or not UTF-8.
        problems.append(f"{path} is not valid TOML: {exc}")
        return {}
    values = {}
    for name, value in table.items():
        if name in Config.__struct_fields__:
            values[name] = _SourcedValue(value, f"{name} in {path}", typed=True)
        else:
            problems.append(f"{name} in {path} is not a setting{_suggestion(name)}")
    return values


def _read_environ(
    environ: Mapping[str, str], problems: list[str]
) -> dict[str, _SourcedValue]:
    values = {}
    for variable, text in sorted(environ.items()):
        if not variable.startswith(PREFIX) or variable == FILE_VARIABLE:
            continue
        if variable.startswith(FOREIGN_PREFIXES) or _is_service_link(variable, text):
            continue
        name = variable.removeprefix(PREFIX).lower()
        if name in Config.__struct_fields__ and variable == PREFIX + name.upper():
            values[name] = _SourcedValue(text, variable)
        else:
            suggestion = _suggestion(name, lambda name: PREFIX + name.upper())
            problems.append(f"{variable} is not a setting{suggestion}")
    return values


def _is_service_link(variable: str, text: str) -> bool:
    """
    Whether Kubernetes has set a variable for a Service named ``streamer`` or so.

    It tells every pod of the namespace where each Service is, in the variables of
    Docker's links: ``STREAMER_PORT=tcp://10.0.0.7:8080``.
    """
    if _SERVICE_LINK.fullmatch(variable):
        return True
    return variable.endswith("_PORT") and bool(_SERVICE_PORT.fullmatch(text))


def _read_flags(
    flags: Mapping[str, object], problems: list[str]
) -> dict[str, _SourcedValue]:
    values = {}
    for name, value in flags.items():
        option = "--" + name.replace("_", "-")
        if name not in Config.__struct_fields__:
            problems.append(f"{option} is not a setting{_suggestion(name)}")
        elif value is not None:
            values[name] = _SourcedValue(value, option)
    return values


def _suggestion(name: str, spell: Callable[[str], str] = str) -> str:
    close = difflib.get_close_matches(name, Config.__struct_fields__, n=1)
    return f"; did you mean {spell(close[0])}?" if close else ""


def _convert(
    values: Mapping[str, _SourcedValue], problems: list[str]
) -> dict[str, Any]:
    """Return the values that have the right type and range; note the others."""
    converted = {}
    for name, (value, source, typed) in values.items():
        kind = _TYPES[name]
        if name in _LISTS and isinstance(value, str) and not typed:
            value = [part.strip() for part in value.split(",") if part.strip()]
        if name == "store_memory" and type(value) is int:
            value = str(value)
        try:
            converted[name] = msgspec.convert(value, kind, strict=typed)
        except msgspec.ValidationError:
            problems.append(f"{source} is {value!r}, expected {_expected(kind)}")
    return converted


def _expected(kind: Any) -> str:
    """Return a description of the values that a setting accepts."""
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(get_args(kind))
    if get_origin(kind) is Annotated:
        (meta,) = kind.__metadata__
        return f"a whole number from {meta.ge} to {meta.le}"
    return {bool: "true or false", str: "a string"}.get(kind, "a list of strings")


def _contradictions(config: Config, sources: Mapping[str, str]) -> Iterator[str]:
    """Yield settings that contradict each other, and values without a valid syntax."""
    if config.redis and config.data_dir:
        yield (
            f"redis ({sources['redis']}) and data_dir ({sources['data_dir']}) cannot "
            "be combined: the store is either external or embedded"
        )
    if config.redis and (problem := _redis_problem(config.redis)):
        yield f"redis ({sources['redis']}) {problem}"
    if config.redis_password_file and _has_password(config.redis):
        yield (
            f"redis ({sources['redis']}) has a password, and so has "
            f"redis_password_file ({sources['redis_password_file']}): leave out one"
        )
    if config.store_memory:
        yield from _memory_problems(config, sources)
    if not is_namespace(config.namespace):
        yield (
            f"namespace ({sources['namespace']}) is {config.namespace!r}, expected "
            f"{NAMESPACE_CHARS}"
        )
    if config.deployment and not _DEPLOYMENT.fullmatch(config.deployment):
        yield (
            f"deployment ({sources['deployment']}) is {config.deployment!r}, expected "
            "1 to 64 letters, digits, '.', '_' or '-'"
        )
    if config.durability == "replicated" and not config.redis:
        yield (
            f"durability ({sources['durability']}) is replicated, but the embedded "
            "store has no replicas: set redis to an external store"
        )
    yield from _host_problems(config, sources)
    yield from _console_problems(config, sources)
    yield from _metrics_problems(config, sources)
    for origin in config.allowed_origins:
        if problem := origin_problem(origin):
            yield (
                f"allowed_origins ({sources['allowed_origins']}) contains {origin!r}: "
                f"{problem}"
            )
    for surface in config.surfaces:
        if surface not in (*VENDORS, _NATIVE):
            close = difflib.get_close_matches(surface.lower(), VENDORS, n=1)
            yield (
                f"surfaces ({sources['surfaces']}) contains {surface!r}, expected "
                f"{', '.join(VENDORS)}"
                + (f"; did you mean {close[0]}?" if close else "")
            )
    if config.base_path and not _BASE_PATH.fullmatch(config.base_path):
        yield (
            f"base_path ({sources['base_path']}) is {config.base_path!r}, expected a "
            "path that begins with a slash and ends without one: /push"
        )
    for network in config.trusted_proxies:
        if problem := _network_problem(network):
            yield (
                f"trusted_proxies ({sources['trusted_proxies']}) contains {network!r}: "
                f"{problem}"
            )
    for low, high, why in _ORDERED:
        # The default of one setting must not forbid a value of the other.
        if DEFAULT in (sources[low], sources[high]):
            continue
        if getattr(config, low) > getattr(config, high):
            yield (
                f"{low} ({getattr(config, low)}, {sources[low]}) is greater than "
                f"{high} ({getattr(config, high)}, {sources[high]}): {why}"
            )


def _memory_problems(config: Config, sources: Mapping[str, str]) -> Iterator[str]:
    try:
        parse_memory(config.store_memory)
    except ValueError:
        yield (
            f"store_memory ({sources['store_memory']}) is {config.store_memory!r}, "
            "expected 0 or at least 32 MiB, for example 512MiB"
        )
    if config.redis:
        yield (
            f"redis ({sources['redis']}) and store_memory ({sources['store_memory']}) "
            "cannot be combined: an external store has a limit of its own, maxmemory"
        )


def _host_problems(config: Config, sources: Mapping[str, str]) -> Iterator[str]:
    hosts = [host.strip() for host in config.host.split(",")]
    for host in hosts if len(hosts) > 1 or hosts[0] else []:
        path = host.removeprefix("unix:")
        if not host:
            problem = "an empty element"
        elif path != host and not path.startswith("/"):
            problem = f"{host!r}; a Unix socket is unix: and an absolute path"
        elif path != host and len(os.fsencode(path)) > UNIX_PATH_BYTES_MAX:
            problem = (
                f"{host!r}; the path of a Unix socket has at most "
                f"{UNIX_PATH_BYTES_MAX} bytes"
            )
        elif path == host and "/" in host:
            problem = f"{host!r}, which is no host; a Unix socket is unix:/PATH"
        else:
            continue
        yield f"host ({sources['host']}) contains {problem}"


def _console_problems(config: Config, sources: Mapping[str, str]) -> Iterator[str]:
    if config.console_url and (problem := _web_url_problem(config.console_url)):
        yield f"console_url ({sources['console_url']}) {problem}"
    elif config.console_url and not config.console_url.endswith("/console"):
        yield (
            f"console_url ({sources['console_url']}) is {config.console_url!r}, "
            "expected a URL that ends with /console"
        )
    if not config.console_oidc_issuer:
        for name, default in zip(
            Config.__struct_fields__, Config.__struct_defaults__, strict=True
        ):
            is_set = getattr(config, name) != default
            # A secret may be there for nodes with the issuer, and does no harm.
            is_told = name.startswith("console_oidc_") and name not in _SECRETS
            if is_told and is_set:
                yield f"{name} ({sources[name]}) has no use without console_oidc_issuer"
        return
    place = f"console_oidc_issuer ({sources['console_oidc_issuer']})"
    if problem := _web_url_problem(config.console_oidc_issuer):
        yield f"{place} {problem}"
    for name, why in (
        ("console_oidc_client_id", "the id of the client that is registered with it"),
        ("console_oidc_client_secret", "the secret of that client"),
        ("console_url", "the URL to which the issuer sends people back"),
        ("console_oidc_roles", "or nobody has a role"),
    ):
        if not getattr(config, name):
            yield f"{place} requires {name}: {why}"
    if not _SCOPE.fullmatch(config.console_oidc_scope):
        yield (
            f"console_oidc_scope ({sources['console_oidc_scope']}) is "
            f"{config.console_oidc_scope!r}, expected openid, and others after spaces"
        )
    claim = config.console_oidc_claim
    if not claim or (claim.startswith("/") and not _POINTER.fullmatch(claim)):
        yield (
            f"console_oidc_claim ({sources['console_oidc_claim']}) is {claim!r}, "
            "expected the name of a claim, or a JSON pointer: /realm_access/roles"
        )
    for text in config.console_oidc_roles:
        try:
            parse_grant(text)
        except ValueError:
            yield (
                f"console_oidc_roles ({sources['console_oidc_roles']}) contains "
                f"{text!r}, expected VALUE=ROLE or VALUE=ROLE:APP, and one of viewer, "
                "support, operator: game-ops=operator"
            )


def _web_url_problem(text: str) -> str:
    """Return what is wrong with a URL for browsers, "" if nothing is."""
    try:
        url = urlsplit(text)
        _ = url.port
    except ValueError:
        return f"is {text!r}, which is no URL"
    try:
        is_local = ipaddress.ip_address(url.hostname or "").is_loopback
    except ValueError:
        is_local = url.hostname == "localhost"
    if url.scheme != "https" and not (url.scheme == "http" and is_local):
        return f"is {text!r}, expected https:// and a host; http only on this machine"
    if not url.hostname or "@" in url.netloc:
        return f"is {text!r}, expected https:// and a host, without a user"
    if not _PLAIN_URL.fullmatch(text):
        return f"is {text!r}, expected a URL without query, fragment and spaces"
    return ""


def parse_grant(text: str) -> tuple[str, str, str]:
    """
    Return the parts of ``VALUE=ROLE:APP``: value, role and app, "" for every app.

    Raises:
        ValueError: It is neither that nor ``VALUE=ROLE``.

    """
    match = _GRANT.fullmatch(text)
    if match is None:
        raise ValueError(text)
    return match["value"].strip(), match["role"], match["app"] or ""


def _network_problem(text: str) -> str:
    """Return what is wrong with an element of ``trusted_proxies``, "" if nothing is."""
    if text == "unix":
        return ""
    try:
        ipaddress.ip_network(text)
    except ValueError as exc:
        return f"{exc}; expected an address, a network such as 10.0.0.0/8, or unix"
    return ""


def _metrics_problems(config: Config, sources: Mapping[str, str]) -> Iterator[str]:
    if config.metrics_bind:
        try:
            parse_bind(config.metrics_bind)
        except ValueError:
            yield (
                f"metrics_bind ({sources['metrics_bind']}) is {config.metrics_bind!r}, "
                "expected a host and a port: 127.0.0.1:9100 or [::1]:9100"
            )
    # The token itself is not repeated.
    if config.metrics_token and not _TOKEN.fullmatch(config.metrics_token):
        yield (
            f"metrics_token ({sources['metrics_token']}) must be {TOKEN_CHARS_MIN} or "
            "more letters, digits, '-', '.', '_', '~', '+' or '/'"
        )
    if config.metrics_token and config.workers > 1:
        yield (
            f"metrics_token ({sources['metrics_token']}) and {config.workers} workers "
            f"({sources['workers']}) cannot be combined: each worker reports only its "
            "own metrics; use metrics_bind, which reports those of all workers"
        )


def parse_bind(text: str) -> tuple[str, int]:
    """Return the host and the port of ``host:port``. Raises ValueError."""
    parts = urlsplit(f"//{text}")
    if parts.port is None or parts.netloc != text or parts.username is not None:
        raise ValueError(text)
    return parts.hostname or "", parts.port


def parse_memory(text: str) -> int:
    """
    Return a size such as ``512MiB`` in bytes; the units are powers of 1,024.

    Raises:
        ValueError: It is not a size, or more than 0 and less than `MEMORY_MIN`.

    """
    match = _MEMORY.fullmatch(text.strip())
    if match is None:
        raise ValueError(text)
    size = int(match[1]) << 10 * "bkmgt".index((match[2] or "b").lower())
    if 0 < size < MEMORY_MIN:
        raise ValueError(text)
    return size


def _redis_problem(url: str) -> str:
    # The URL itself is not repeated: it may hold a password.
    try:
        parse_store_url(url)
    except ValueError as error:
        return str(error)
    return ""


def masked(config: Config) -> dict[str, Any]:
    """Return every setting by its name, secrets hidden, for people to read."""
    values: dict[str, Any] = msgspec.to_builtins(config)
    for name in _SECRETS:
        if values[name]:
            values[name] = HIDDEN
    values["redis"] = _without_password(config.redis)
    return values


def _without_password(url: str) -> str:
    head, at, tail = url.rpartition("@")
    scheme, slashes, user = head.partition("://")
    if not at or not slashes:
        return _URL_PASSWORD.sub(rf"\1{HIDDEN}", url)
    name, colon, _ = user.partition(":")
    tail = _URL_PASSWORD.sub(rf"\1{HIDDEN}", tail)
    return f"{scheme}://{name}{colon and ':' + HIDDEN}@{tail}"


def _has_password(url: str) -> bool:
    if not url:
        return False
    try:
        parsed = parse_store_url(url)
    except ValueError:  # A problem of its own.
        return False
    store = parsed if isinstance(parsed, StoreUrl) else parsed.store
    return bool(store.password)


def _data_dir(path: str, environ: Mapping[str, str]) -> Path:
    """Return `path`, or the platform's data directory of the user."""
    if path:
        return Path(path).expanduser().absolute()
    return default_data_dir(environ)


def default_data_dir(environ: Mapping[str, str]) -> Path:
    """
    Return the data directory of this user without the setting `data_dir`.

    Raises:
        RuntimeError: The user has no home directory.

    """
    # XDG base directory specification 0.8: a relative path is to be ignored.
    base = environ.get("XDG_DATA_HOME", "")
    if sys.platform != "darwin" and os.path.isabs(base):
        return Path(base) / "streamer"
    home = Path(environ["HOME"]) if environ.get("HOME") else Path.home()
    if sys.platform == "darwin":
        return home / "Library" / "Application Support" / "streamer"
    return home / ".local/share/streamer"


_TYPES: Final = get_type_hints(Config, include_extras=True)
