from __future__ import annotations

import pytest

from streamer.core.store_health import (
    DISK_FULL_LIMIT,
    DurabilityPromise,
    MemoryLevel,
    StoreFacts,
    durability_of,
    judge,
    judge_memory,
    memory_level,
    parse_facts,
    unready_reason,
    unsuitable_reasons,
)

INFO = (
    b"# Server\r\nredis_version:7.2.4\r\nvalkey_version:9.1.2\r\n"
    b"# Memory\r\nused_memory:1048576\r\nmaxmemory:0\r\nmaxmemory_policy:noeviction\r\n"
    b"# Persistence\r\naof_enabled:1\r\naof_last_write_status:ok\r\n"
    b"# Replication\r\nrole:master\r\nconnected_slaves:2\r\n"
    b"slave0:ip=10.0.0.2,port=6379,state=online,offset=1,lag=0\r\n"
    b"slave1:ip=10.0.0.3,port=6379,state=wait_bgsave,offset=0,lag=0\r\n"
)


def settings(
    appendonly: str = "yes", appendfsync: str = "always", policy: str = "noeviction"
) -> list[bytes]:
    pairs = {
        "appendonly": appendonly,
        "appendfsync": appendfsync,
        "maxmemory-policy": policy,
        "maxmemory": "0",
    }
    return [text.encode() for pair in pairs.items() for text in pair]


def facts(appendonly: str = "yes", appendfsync: str = "always") -> StoreFacts:
    return parse_facts(INFO, settings(appendonly, appendfsync))


def info_with(line: bytes) -> bytes:
    name = line.partition(b":")[0]
    kept = [one for one in INFO.split(b"\r\n") if not one.startswith(name + b":")]
    return b"\r\n".join([*kept, line])


@pytest.mark.parametrize(
    ("appendonly", "appendfsync", "kept"),
    [
        ("yes", "always", "always"),
        ("yes", "everysec", "everysec"),
        ("yes", "no", "no"),
        ("no", "always", "none"),
        ("yes", "whatever", "unknown"),
    ],
)
def test_durability_follows_from_appendonly_and_appendfsync(
    appendonly: str, appendfsync: str, kept: str
) -> None:
    assert durability_of(facts(appendonly, appendfsync)) == kept


# A row per promise: the stores that keep it.
GIVEN = {
    "always": {"always"},
    "everysec": {"always", "everysec"},
    "replicated": {"always", "everysec"},
    "none": {"always", "everysec", "no", "none"},
}
STORES = {
    "always": ("yes", "always"),
    "everysec": ("yes", "everysec"),
    "no": ("yes", "no"),
    "none": ("no", "everysec"),
}


@pytest.mark.parametrize("promised", GIVEN)
@pytest.mark.parametrize("store", STORES)
def test_a_promise_requires_a_store_that_keeps_it(promised: str, store: str) -> None:
    findings = judge(facts(*STORES[store]), DurabilityPromise(promised, 1))

    reason = unsuitable_reasons(findings)
    assert (reason is None) == (store in GIVEN[promised]), reason
    assert reason is None or f"durability={promised}" in reason


@pytest.mark.parametrize("promised", GIVEN)
def test_an_unknown_configuration_is_only_a_warning(
    promised: str,
) -> None:
    findings = judge(parse_facts(INFO, None), DurabilityPromise(promised))

    assert unsuitable_reasons(findings) is None
    assert findings["durability"].verdict == "warning"
    assert "unknown" in findings["durability"].text


def test_a_store_that_reports_nothing_is_not_refused() -> None:
    silent = parse_facts(b"", None)

    assert unsuitable_reasons(judge(silent, DurabilityPromise("always"))) is None
    assert unready_reason(silent, DurabilityPromise("always")) is None


def test_a_durability_that_the_settings_accept_is_no_problem() -> None:
    findings = judge(facts("no"), DurabilityPromise("none"))

    assert findings["durability"].verdict == "warning"


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
def test_a_store_that_evicts_is_refused(policy: str) -> None:
    told = parse_facts(INFO, settings(policy=policy))
    line = f"maxmemory_policy:{policy}".encode()
    hidden = parse_facts(info_with(line), None)

    for found in (told, hidden):
        reason = unsuitable_reasons(judge(found, DurabilityPromise("none")))
        assert reason is not None
        assert policy in reason


def test_a_store_that_is_too_old_is_refused() -> None:
    old = parse_facts(b"redis_version:6.2.14\r\n", settings())

    assert "7.0" in (unsuitable_reasons(judge(old, DurabilityPromise("always"))) or "")


def test_only_replicas_in_sync_count() -> None:
    assert facts().replicas == 1
    assert unready_reason(facts(), DurabilityPromise("replicated", 1)) is None
    assert "1 of 2 required" in (
        unready_reason(facts(), DurabilityPromise("replicated", 2)) or ""
    )
    assert unready_reason(facts(), DurabilityPromise("always", 2)) is None


def test_missing_replicas_do_not_prevent_a_start() -> None:
    findings = judge(facts(), DurabilityPromise("replicated", 2))

    assert unsuitable_reasons(findings) is None
    assert findings["promise"].verdict == "warning"


def test_a_replica_is_a_problem_and_no_reason_to_refuse() -> None:
    replica = parse_facts(info_with(b"role:slave"), settings())
    findings = judge(replica, DurabilityPromise("always"))

    assert findings["role"].verdict == "problem"
    assert unsuitable_reasons(findings) is None
    assert unready_reason(replica, DurabilityPromise("always")) is not None


def test_a_failed_write_of_the_append_only_file_is_a_problem() -> None:
    failed = parse_facts(info_with(b"aof_last_write_status:err"), settings())

    assert judge(failed, DurabilityPromise("always"))["log"].verdict == "problem"
    assert "log" not in judge(facts(), DurabilityPromise("always"))


def test_memory_near_its_limit_is_a_warning() -> None:
    assert judge_memory(0, 2**40).verdict == "ok"
    assert judge_memory(100, 80).verdict == "ok"
    assert judge_memory(100, 81).verdict == "warning"
    assert judge_memory(100, 100).verdict == "warning"
    assert judge_memory(100, 101).verdict == "problem"
    assert judge_memory(None, 1).verdict == "warning"


def test_an_embedded_store_whose_disk_is_full_is_told_apart() -> None:
    finding = judge_memory(DISK_FULL_LIMIT, 2**20)
    facts = parse_facts(b"used_memory:1000\nmaxmemory:1\n", None)

    assert finding.verdict == "problem"
    assert finding.text.startswith("the disk of the store is nearly full")
    assert memory_level(facts, "ok", refused=False) == "full"
    assert facts.memory_limit == 0


def test_invalid_numbers_count_as_zero() -> None:
    odd = parse_facts(b"used_memory:lots\r\naof_delayed_fsync:-1\r\n", None)

    assert (odd.used_memory, odd.fsyncs_delayed) == (0, 0)


@pytest.mark.parametrize(
    ("used", "before", "refused", "level"),
    [
        (800, "ok", False, "ok"),
        (801, "ok", False, "nearly full"),
        (751, "nearly full", False, "nearly full"),
        (750, "nearly full", False, "ok"),
        (1_000, "nearly full", False, "nearly full"),
        (1_001, "ok", False, "full"),
        # A refusal says more than the figures, which are older.
        (990, "nearly full", True, "full"),
        (951, "full", False, "full"),
        (950, "full", False, "nearly full"),
        (100, "full", False, "ok"),
    ],
)
def test_a_level_of_memory_lasts_until_it_is_left_by_a_margin(
    used: int, before: MemoryLevel, refused: bool, level: str
) -> None:
    lines = b"used_memory:%d\r\nmaxmemory:1000" % used

    assert memory_level(parse_facts(lines, None), before, refused=refused) == level


def test_buffers_that_do_not_count_against_the_limit_are_subtracted() -> None:
    lines = b"used_memory:1500\r\nmem_not_counted_for_evict:600\r\nmaxmemory:1000"

    assert parse_facts(lines, None).counted_memory == 900


def test_a_store_that_hides_its_limit_is_full_while_it_refuses() -> None:
    hidden = parse_facts(b"", None)

    assert memory_level(hidden, "ok", refused=True) == "full"
    assert memory_level(hidden, "full", refused=False) == "ok"
