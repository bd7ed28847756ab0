"""
Suitability of a store, judged by what it reports about itself.

Decides what an acknowledged publish survives on a store, whether the store can keep the
promises of the node's settings, and what an operator has to look at. Knows the fields
of ``INFO`` and the settings of ``CONFIG``. Knows nothing of how they are read.

Some hosts forbid ``CONFIG``. What a store does not report is *unknown*, which is a
warning and not a reason to refuse the store: such hosts could not be used at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal, NamedTuple, TypeAlias

__all__ = [
    "SETTINGS",
    "DurabilityPromise",
    "Finding",
    "MemoryLevel",
    "StoreFacts",
    "Verdict",
    "durability_of",
    "judge",
    "judge_all",
    "judge_clock",
    "judge_coverage",
    "judge_durability",
    "judge_memory",
    "judge_mode",
    "judge_policy",
    "judge_promise",
    "judge_replica",
    "judge_version",
    "memory_level",
    "parse_facts",
    "told_of",
    "unready_reason",
    "unsuitable_reasons",
    "weakest_durability",
]

CLOCK_WARNING_S: Final = 1.0
CLOCK_PROBLEM_S: Final = 30.0
"""Beyond this, schedules are not fired and tokens are judged wrongly."""

MEMORY_WARNING: Final = 0.8
"""Fraction of its memory limit above which a store is nearly full."""

MEMORY_HYSTERESIS: Final = 0.05
"""Fraction of the limit by which memory has to fall below a threshold to be past it."""

SETTINGS: Final = (
    *("appendonly", "appendfsync", "maxmemory-policy", "maxmemory"),
    "cluster-require-full-coverage",
)
"""The settings to read with ``CONFIG GET``."""

Verdict: TypeAlias = Literal["ok", "warning", "problem"]
MemoryLevel: TypeAlias = Literal["ok", "nearly full", "full"]

# From weak to strong. With "no" the operating system decides when the append-only file
# reaches the disk; with "none" there is no such file.
_STRENGTH: Final = ("none", "no", "everysec", "always")

_VERDICTS: Final = ("ok", "warning", "problem")


class Finding(NamedTuple):
    """The result of one check; `text` is for operators."""

    verdict: Verdict
    text: str


class DurabilityPromise(NamedTuple):
    """The durability that the settings promise, and how many replicas confirm."""

    durability: str
    replicas_min: int = 0

    @property
    def weakest_log(self) -> str:
        """The weakest durability that the store alone must have."""
        # A primary that restarts empty wipes its replicas, so `replicated` needs an
        # append-only file too. It may lag by a second: the replicas have the rest.
        return "everysec" if self.durability == "replicated" else self.durability


LOG_FAILS: Final = "the store cannot write its append-only file: is its disk full?"

DISK_FULL_LIMIT: Final = 1
"""The memory limit of an embedded store whose disk is full, in bytes: with it the store
refuses what takes space (`store.server.disk`)."""


class StoreFacts(NamedTuple):
    """What a store reports about itself; None if it does not report it."""

    info: Mapping[str, str]
    appendonly: str | None
    appendfsync: str | None
    policy: str | None
    maxmemory: int | None
    full_coverage: str | None = None

    @property
    def used_memory(self) -> int:
        return _number(self.info.get("used_memory"))

    @property
    def counted_memory(self) -> int:
        """The memory in bytes that counts against the limit."""
        # Buffers of replicas and of the append-only file do not.
        uncounted = _number(self.info.get("mem_not_counted_for_evict"))
        return max(0, self.used_memory - uncounted)

    @property
    def memory_limit(self) -> int:
        """The limit of the memory in bytes; 0 if it has none or does not report it."""
        limit = self.maxmemory or 0
        return 0 if limit == DISK_FULL_LIMIT else limit

    @property
    def is_replica(self) -> bool:
        return self.info.get("role") == "slave"

    @property
    def replicas(self) -> int:
        """The number of replicas in sync, as far as the store knows."""
        lines = (self.info.get(f"slave{i}", "") for i in range(self._connected))
        return sum(1 for line in lines if "state=online" in line)

    @property
    def log_write_ok(self) -> bool:
        """Whether the last write of the append-only file succeeded."""
        return self.info.get("aof_last_write_status", "ok") == "ok"

    @property
    def fsyncs_delayed(self) -> int:
        """
        How often the store stopped waiting for a delayed sync, since it started.

        With ``everysec`` the store replies while a sync is in progress, for up to two
        seconds; a crash of its process loses what it acknowledged in that time.
        """
        return _number(self.info.get("aof_delayed_fsync"))

    @property
    def _connected(self) -> int:
        return _number(self.info.get("connected_slaves"))


def parse_facts(info: bytes, settings: Sequence[bytes] | None) -> StoreFacts:
    """
    Return the facts in the replies to ``INFO`` and ``CONFIG GET``.

    Args:
        info: The reply to ``INFO``; empty if the command is forbidden.
        settings: The reply to ``CONFIG GET`` of `SETTINGS`; None if it is forbidden.

    """
    lines = info.decode(errors="replace").splitlines()
    pairs = (line.partition(":") for line in lines if ":" in line)
    info_fields = {name: value.strip() for name, _, value in pairs}
    texts = [text.decode(errors="replace") for text in settings or ()]
    config = dict(zip(texts[::2], texts[1::2], strict=False))
    # INFO may be allowed where CONFIG is not, and has some of the settings.
    maxmemory = config.get("maxmemory", info_fields.get("maxmemory"))
    return StoreFacts(
        info_fields,
        config.get("appendonly"),
        config.get("appendfsync"),
        config.get("maxmemory-policy", info_fields.get("maxmemory_policy")),
        None if maxmemory is None else _number(maxmemory),
        config.get("cluster-require-full-coverage"),
    )


def durability_of(facts: StoreFacts) -> str:
    """Return the durability of the store alone: always, everysec, no, none, unknown."""
    if facts.appendonly == "no":
        return "none"
    return facts.appendfsync if facts.appendfsync in _STRENGTH else "unknown"


def weakest_durability(stores: Iterable[StoreFacts]) -> str:
    """Return the weakest of what `durability_of` says of several servers."""
    found = {durability_of(facts) for facts in stores}
    return next((it for it in ("unknown", *_STRENGTH) if it in found), "unknown")


def judge_all(
    stores: Mapping[str, StoreFacts], promise: DurabilityPromise
) -> dict[str, Finding]:
    """
    Return all findings by subject, each of the server of which it is worst.

    Args:
        stores: What the primaries of a cluster report, by their addresses; or what a
            single server does, by an empty text.
        promise: As for `judge`.

    """
    worst: dict[str, Finding] = {}
    for place, facts in stores.items():
        for subject, finding in judge(facts, promise, of_cluster=place != "").items():
            before = worst.get(subject)
            if before is None or _VERDICTS.index(before.verdict) < _VERDICTS.index(
                finding.verdict
            ):
                worst[subject] = told_of(finding, place)
    return worst


def told_of(finding: Finding, place: str) -> Finding:
    """Return a finding that says of which server it is, if there are several."""
    return finding._replace(text=f"{place}: {finding.text}") if place else finding


def judge_replica(facts: StoreFacts, promise: DurabilityPromise) -> dict[str, Finding]:
    """Return the findings of a replica: what it would break as the primary."""
    alone = DurabilityPromise(promise.weakest_log)
    findings = {
        "promise": judge_promise(facts, alone),
        "policy": judge_policy(facts.policy),
    }
    return {f"replica's {subject}": it for subject, it in findings.items()}


def judge(
    facts: StoreFacts, promise: DurabilityPromise, *, of_cluster: bool = False
) -> dict[str, Finding]:
    """
    Return all findings by subject.

    Args:
        facts: What a server reports.
        promise: What the settings promise.
        of_cluster: Whether it is used as a node of a cluster.

    """
    promised = judge_promise(facts, promise)
    durability = judge_durability(facts.appendonly, facts.appendfsync)
    if promised.verdict != "problem" and durability.verdict == "problem":
        # The settings accept it.
        durability = Finding("warning", durability.text)
    findings = {
        "version": judge_version(facts.info),
        "mode": judge_mode(facts.info, of_cluster=of_cluster),
        "durability": durability,
        "promise": promised,
        "policy": judge_policy(facts.policy),
        "memory": judge_memory(facts.maxmemory, facts.counted_memory),
    }
    if not facts.log_write_ok:
        findings["log"] = Finding("problem", LOG_FAILS)
    if of_cluster:
        findings["coverage"] = judge_coverage(facts.full_coverage)
    if facts.is_replica:
        findings["role"] = Finding(
            "problem", "the store is a read-only replica: use the URL of its primary"
        )
    return findings


def unsuitable_reasons(findings: Mapping[str, Finding]) -> str | None:
    """Return why a node must not start on such a store, None if it may."""
    reasons = [
        findings[subject].text
        for subject in ("version", "mode", "policy", "promise", "deployment")
        if subject in findings and findings[subject].verdict == "problem"
    ]
    return "; ".join(reasons) or None


def unready_reason(facts: StoreFacts, promise: DurabilityPromise) -> str | None:
    """Return why publishes cannot be acknowledged at present, None if they can."""
    if facts.is_replica:
        return "the store is a read-only replica"
    if promise.durability == "replicated" and facts.replicas < promise.replicas_min:
        return (
            f"{facts.replicas} of {promise.replicas_min} required replicas are in sync"
        )
    return None


def judge_version(info: Mapping[str, str]) -> Finding:
    """Judge the kind and version of the store."""
    # Valkey reports itself as Redis 7.2 here, whatever its own version is.
    claimed = info.get("redis_version")
    if claimed is None:
        return Finding(
            "warning", "the store does not report its version; 7.0 or later is required"
        )
    valkey = info.get("valkey_version")
    name, version = ("Valkey", valkey) if valkey else ("Redis", claimed)
    numbers = tuple(int(part) for part in claimed.split(".")[:2] if part.isdigit())
    if numbers < (7, 0):
        return Finding(
            "problem", f"the store is {name} {version}; 7.0 or later is required"
        )
    return Finding("ok", f"the store is {name} {version}")


def judge_coverage(full_coverage: str | None) -> Finding:
    """Judge what a cluster does when a part of its slots has no primary."""
    if full_coverage == "yes":
        return Finding(
            "warning",
            "while one primary is lost, the whole cluster refuses commands: set "
            "cluster-require-full-coverage no",
        )
    if full_coverage is None:
        return Finding("ok", "cluster-require-full-coverage is not known")
    return Finding("ok", "while one primary is lost, the others serve")


def judge_mode(info: Mapping[str, str], *, of_cluster: bool = False) -> Finding:
    """Judge whether the store is of the kind that its URL names."""
    if info.get("redis_mode") == "cluster" or info.get("cluster_enabled") == "1":
        if of_cluster:
            return Finding("ok", "the store is a node of a cluster")
        return Finding(
            "problem",
            "the store is a node of a cluster: use redis+cluster://HOST:PORT",
        )
    if info.get("redis_mode") == "sentinel":
        return Finding(
            "problem",
            "the store is a Sentinel, which holds no data: use "
            "redis+sentinel://HOST:PORT/NAME, with the name of the primary",
        )
    return Finding("ok", "the store is neither a cluster nor a Sentinel")


def judge_durability(appendonly: str | None, appendfsync: str | None) -> Finding:
    """Judge what acknowledged writes survive; None is a setting that is not known."""
    if appendonly is None or appendfsync is None:
        return Finding(
            "warning",
            "durability is unknown: the store does not report its configuration. "
            "Ask its operator whether it runs with appendfsync always",
        )
    if appendonly != "yes":
        return Finding(
            "problem",
            "durability is none: the store has no append-only file; when its process "
            "ends, everything acknowledged since the last snapshot is lost",
        )
    if appendfsync == "always":
        return Finding(
            "ok",
            "durability is always: acknowledged writes survive a crash of the store "
            "and a power failure",
        )
    if appendfsync == "everysec":
        return Finding(
            "warning",
            "durability is everysec: a power failure loses the acknowledged writes of "
            "the last seconds, and so does a crash of the store while its disk is slow",
        )
    return Finding(
        "problem",
        f"durability is {appendfsync}: the operating system decides when to write to "
        "disk, and a power failure loses everything not yet written",
    )


def judge_promise(facts: StoreFacts, promise: DurabilityPromise) -> Finding:
    """Judge whether the store provides what the setting `durability` promises."""
    durability = durability_of(facts)
    promised = f"durability={promise.durability}"
    if durability == "unknown":
        if promise.durability == "none":
            return Finding("ok", f"{promised} requires nothing of the store")
        return Finding(
            "warning",
            f"{promised} cannot be verified: the store does not report its "
            "configuration",
        )
    if _STRENGTH.index(durability) < _STRENGTH.index(promise.weakest_log):
        return Finding("problem", f"{promised} requires {_requirement(facts, promise)}")
    if promise.durability != "replicated":
        return Finding("ok", f"the store provides {promised}")
    text = (
        f"{promised}: {facts.replicas} replicas in sync, "
        f"{promise.replicas_min} required"
    )
    # No reason not to start: a replica may return while the node waits.
    return Finding("ok" if facts.replicas >= promise.replicas_min else "warning", text)


def judge_policy(policy: str | None) -> Finding:
    """Judge what the store does when its memory is full; None is not known."""
    if policy is None:
        return Finding("warning", "the eviction policy is unknown")
    if policy == "noeviction":
        return Finding("ok", "the eviction policy is noeviction")
    return Finding(
        "problem",
        f"the eviction policy is {policy}: a full store would silently evict inboxes. "
        "Set maxmemory-policy noeviction",
    )


def judge_clock(ahead_s: float) -> Finding:
    """Judge by how many seconds this machine's clock is ahead of the store's."""
    difference = (
        f"the clocks of this machine and the store differ by {abs(ahead_s):.3f} s"
    )
    if abs(ahead_s) > CLOCK_PROBLEM_S:
        return Finding("problem", f"{difference}: synchronize them with NTP")
    if abs(ahead_s) > CLOCK_WARNING_S:
        return Finding("warning", f"{difference}: synchronize them with NTP")
    return Finding("ok", difference)


def judge_memory(maxmemory: int | None, used: int) -> Finding:
    """Judge the store's memory limit in bytes; None is not known."""
    if maxmemory == DISK_FULL_LIMIT:
        return Finding(
            "problem",
            "the disk of the store is nearly full. It refuses publishes, schedules and "
            "joins, and serves the rest. Free space on the disk",
        )
    used_mib = f"{used / 2**20:.1f} MiB used"
    if maxmemory is None:
        return Finding("warning", f"the memory limit is unknown; {used_mib}")
    if maxmemory == 0:
        return Finding("ok", f"memory is not limited; {used_mib}")
    limit_mib = f"{maxmemory / 2**20:.1f} MiB"
    if used > maxmemory:
        return Finding(
            "problem",
            f"the store is full: {used_mib} of {limit_mib}. It refuses publishes, "
            "schedules and joins, and serves the rest. Raise its memory limit, or trim "
            "inboxes with `streamer trim`",
        )
    if used > maxmemory * MEMORY_WARNING:
        return Finding(
            "warning",
            f"the store is nearly full: {used_mib} of {limit_mib}. When it is full, it "
            "refuses publishes, schedules and joins",
        )
    return Finding("ok", f"memory is limited to {limit_mib}; {used_mib}")


def memory_level(
    facts: StoreFacts, before: MemoryLevel, *, refused: bool
) -> MemoryLevel:
    """
    Return how full a store is.

    A level that was reached lasts until memory is 5 % of the limit below its threshold,
    so that a store at its limit does not report beginning and end all the time.

    Args:
        facts: What the store reports.
        before: The level before.
        refused: Whether the store has refused a command since then because it is full.

    """
    if facts.maxmemory == DISK_FULL_LIMIT:
        return "full"
    if not facts.maxmemory:
        return "full" if refused else "ok"
    share = facts.counted_memory / facts.maxmemory
    if refused or share > 1 or (before == "full" and share > 1 - MEMORY_HYSTERESIS):
        return "full"
    threshold = MEMORY_WARNING - (MEMORY_HYSTERESIS if before != "ok" else 0)
    return "nearly full" if share > threshold else "ok"


def _requirement(facts: StoreFacts, promise: DurabilityPromise) -> str:
    if facts.appendonly == "no":
        return "appendonly yes"
    least = promise.weakest_log
    settings = " or ".join(_STRENGTH[_STRENGTH.index(least) :])
    return f"appendfsync {settings} (it is {facts.appendfsync})"


def _number(text: str | None) -> int:
    return int(text) if text and text.isascii() and text.isdigit() else 0
