"""
The settings, and the only place that reads the environment.

A setting comes from, in rising order: its default, the TOML file, the environment
(``STREAMER_`` and the name in capitals), the command line. Anything unknown or
contradictory is an error at start, all problems in one message.
"""

from __future__ import annotations

import difflib
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

__all__ = [
    "DEFAULT",
    "Config",
    "ConfigError",
    "Resolved",
    "load",
    "parse_bind",
    "resolve",
]

PREFIX: Final = "STREAMER_"
FILE_VARIABLE: Final = "STREAMER_CONFIG"
"""Names the TOML file, where ``--config`` does not."""
FOREIGN_PREFIXES: Final = ("STREAMER_CLI_", "STREAMER_TEST_")
"""Variables of the command-line client and of the tests, which are no settings."""
DEFAULT: Final = "default"
"""Source of a setting that nobody gave."""

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
Durability: TypeAlias = Literal["always", "everysec", "replicated", "none"]
LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]

TOKEN_CHARS_MIN: Final = 16
"""Of a random token; less can be guessed."""
# What may follow "Bearer" (RFC 6750, section 2.1).
_TOKEN: Final = re.compile(rf"[A-Za-z0-9._~+/-]{{{TOKEN_CHARS_MIN},}}=*", re.ASCII)
_ORIGIN: Final = re.compile(r"https?://[^/?#@\s,]+")
# What may not be greater than what, and why.
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


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """
    Every setting, with its unit, its default and the reason for it.

    Times end in ``_s`` (seconds), sizes in ``_bytes``, counts in ``_max``. Made by
    `load`; the constructor checks nothing, which is what tests want.
    """

    # Where the server is reached and where it keeps things.
    host: str = "127.0.0.1"
    port: Port = 8080
    data_dir: str = ""
    """Directory of the embedded store; empty means the user's data directory."""
    redis: str = ""
    """URL of an external Redis or Valkey (7.0 or later); empty means embedded."""
    workers: Workers = 1
    """Processes that share the port and this node's limits; about one per core."""
    background: bool = True
    """Whether this process also does the housekeeping of `streamer scheduler`."""
    log_level: LogLevel = "info"
    access_log: bool = True
    """Whether each request is told of in the log, at level ``info``."""

    # Who watches.
    metrics_bind: str = ""
    """
    ``host:port`` on which ``GET /metrics`` is answered to everybody; empty means
    nowhere. With several workers it has the figures of all of them.
    """
    metrics_token: str = ""
    """
    Bearer token for which ``/metrics`` is answered on the server's own port; empty
    means for none.
    """

    # What an acknowledged publish survives.
    durability: Durability = "always"
    """
    ``always``: a kill and a power cut, the store syncs before it answers. ``everysec``:
    may cost the last seconds. ``replicated``: the loss of the primary too, external
    stores only. ``none``: promises nothing. A store that gives less is refused.
    """
    replicas_min: Replicas = 1
    """Replicas that confirm a publish under ``replicated``."""
    replication_timeout_ms: Milliseconds = 1_000
    """How long to wait for them; then the publish's outcome is unknown (503)."""

    # The log.
    retention_days: Days = 90
    """Age at which an entry leaves the log. The casino gateway promises 90 days."""
    entries_max: Count = 10_000
    """Entries kept per player; the oldest leaves when one more comes in."""
    replay_max: Count = 500
    """A reader that is further behind gets a gap and reads pages instead."""

    # Listeners and connections.
    listeners_per_player_max: Count = 5
    connections_max: Count = 10_000
    """Open streams and held polls on this node."""
    connects_per_s_max: Count = 1_500
    """A node accepts about 2,400 handshakes a second per core before they queue."""
    requests_in_flight_max: Count = 1_000
    requests_per_player_max: Count = 32
    requests_per_app_percent: Percent = 75
    """Of the requests in flight: one app's flood leaves the others a quarter. 100 lets
    one app have them all."""

    # Quotas of an app, on all nodes together; 0 is no limit. An app may have its own.
    publishes_per_s_max: Quota = 0
    """Notifications, counted once for each inbox they are stored in."""
    bytes_per_day_max: Quota = 0
    """Their bytes as they are stored, counted in the same way."""
    players_max: Quota = 0
    """Players that may have an inbox."""
    pending_schedules_max: Quota = 0
    """Schedules that are not due yet; one for many players is one."""

    # Streams.
    heartbeat_s: Seconds = 25
    """Below the 30 s after which game engines and mobile networks cut idle sockets."""
    position_check_s: Seconds = 15
    """How long the silent loss of the last message can go unnoticed."""
    send_buffer_bytes: Count = 1_048_576
    """What one reader may leave unread in this process before it is cut as slow."""
    send_age_s: Seconds = 10
    """How long one write may wait for the reader before it is cut as slow."""
    message_bytes_max: Count = 65_536
    """Largest message a WebSocket client may send."""
    auth_timeout_s: Seconds = 10
    """How long a WebSocket may stay open before its first-message credential."""
    drain_s: SecondsOrZero = 5
    """Window over which a stopping node moves its readers away."""

    # HTTP.
    header_bytes_max: Count = 65_536
    header_count_max: Count = 100
    url_bytes_max: Count = 16_384
    first_request_s: Seconds = 10
    header_timeout_s: Seconds = 10
    body_timeout_s: Seconds = 30
    allowed_origins: tuple[str, ...] = ()
    """
    Origins whose pages may open a WebSocket or read answers, e.g.
    ``https://game.example``. Empty allows pages served by this host alone.
    """


class ConfigError(Error):
    """The settings do not hold. Has every problem that was found, a line each."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems

    def __str__(self) -> str:
        return "invalid configuration:\n" + "\n".join(
            f"  {problem}" for problem in self.problems
        )


class Resolved(NamedTuple):
    """The settings and, for each, where its value is from (``--port``, ``default``)."""

    config: Config
    sources: dict[str, str]


class _SourcedValue(NamedTuple):
    """
    A value as somebody gave it. `typed` where the source has types of its own.

    The environment has text alone, so there ``"8080"`` is a number; in a TOML file it
    is a mistake.
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
    Return the settings and where each is from.

    Without a Redis URL, `Config.data_dir` comes out as the absolute path of the
    embedded store; the default is ``streamer`` in the user's data directory.

    Args:
        flags: Settings from the command line; None stands for a flag not given.
        environ: The environment.
        file: Path of the TOML file; None means the one ``STREAMER_CONFIG`` names.

    Raises:
        ConfigError: With all problems at once.
    """
    problems: list[str] = []
    file = file or environ.get(FILE_VARIABLE)
    values = {
        **(_read_file(Path(file).expanduser(), problems) if file else {}),
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
        data_dir = _data_dir(config.data_dir, environ)
        config = msgspec.structs.replace(config, data_dir=str(data_dir))
    return Resolved(config, sources)


def _read_file(path: Path, problems: list[str]) -> dict[str, _SourcedValue]:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        problems.append(f"cannot read {path}: {exc.strerror}")
        return {}
    except ValueError as exc:  # Wrong TOML, or no UTF-8.
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
        if variable.startswith(FOREIGN_PREFIXES):
            continue
        name = variable.removeprefix(PREFIX).lower()
        if name in Config.__struct_fields__ and variable == PREFIX + name.upper():
            values[name] = _SourcedValue(text, variable)
        else:
            suggestion = _suggestion(name, lambda name: PREFIX + name.upper())
            problems.append(f"{variable} is not a setting{suggestion}")
    return values


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
    """Return the values that have the right type and range, by name."""
    converted = {}
    for name, (value, source, typed) in values.items():
        kind = _TYPES[name]
        if name == "allowed_origins" and isinstance(value, str) and not typed:
            value = [part.strip() for part in value.split(",") if part.strip()]
        try:
            converted[name] = msgspec.convert(value, kind, strict=typed)
        except msgspec.ValidationError:
            problems.append(f"{source} is {value!r}, expected {_expected(kind)}")
    return converted


def _expected(kind: Any) -> str:
    """Say what a setting may be, which is more use than what a value is not."""
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(get_args(kind))
    if get_origin(kind) is Annotated:
        (meta,) = kind.__metadata__
        return f"a whole number from {meta.ge} to {meta.le}"
    return {bool: "true or false", str: "a string"}.get(kind, "a list of strings")


def _contradictions(config: Config, sources: Mapping[str, str]) -> Iterator[str]:
    """Yield what does not go together, or is no value for its setting."""
    if config.redis and config.data_dir:
        yield (
            f"redis ({sources['redis']}) and data_dir ({sources['data_dir']}) cannot "
            "be combined: the store is either external or embedded"
        )
    if config.redis and (problem := _redis_problem(config.redis)):
        yield f"redis ({sources['redis']}) {problem}"
    if config.durability == "replicated" and not config.redis:
        yield (
            f"durability ({sources['durability']}) is replicated, but the embedded "
            "store has no replicas: set redis to an external store"
        )
    yield from _metrics_problems(config, sources)
    for origin in config.allowed_origins:
        if not _ORIGIN.fullmatch(origin):
            yield (
                f"allowed_origins ({sources['allowed_origins']}) contains {origin!r}, "
                "expected a scheme, a host and optionally a port: https://game.example"
            )
    for low, high, why in _ORDERED:
        # Who sets one of the two alone did not ask for the other's default.
        if DEFAULT in (sources[low], sources[high]):
            continue
        if getattr(config, low) > getattr(config, high):
            yield (
                f"{low} ({getattr(config, low)}, {sources[low]}) is greater than "
                f"{high} ({getattr(config, high)}, {sources[high]}): {why}"
            )


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


def _redis_problem(url: str) -> str:
    # The URL itself is not repeated: it may hold a password.
    try:
        parts = urlsplit(url)
        _ = parts.port  # Is parsed, and checked, when it is asked for.
    except ValueError:
        return "is not a URL"
    if parts.scheme not in ("redis", "rediss", "unix"):
        return "must begin with redis://, rediss:// or unix://"
    if not (parts.path if parts.scheme == "unix" else parts.hostname):
        return "has no path" if parts.scheme == "unix" else "has no host"
    return ""


def _data_dir(path: str, environ: Mapping[str, str]) -> Path:
    """Return `path`, or the user's data directory as the platform has it."""
    if path:
        return Path(path).expanduser().absolute()
    home = Path(environ["HOME"]) if environ.get("HOME") else Path.home()
    if sys.platform == "darwin":
        return home / "Library" / "Application Support" / "streamer"
    # XDG base directory specification 0.8: a relative path is to be ignored.
    base = environ.get("XDG_DATA_HOME", "")
    return (Path(base) if os.path.isabs(base) else home / ".local/share") / "streamer"


_TYPES: Final = get_type_hints(Config, include_extras=True)
