"""The ids of schedules."""

from __future__ import annotations

import pytest

from streamer.model import App
from streamer.store.scheduling.schedule_records import (
    ScheduleRef,
    new_schedule_id,
    new_schedule_ref,
    parse_schedule_id,
)

APP = App("app")


@pytest.mark.parametrize("bucket", [0, 1, 127, 128, 255])
def test_an_id_contains_its_bucket(bucket: int) -> None:
    schedule_id = new_schedule_id(bucket)

    assert parse_schedule_id(APP, schedule_id) == ScheduleRef(bucket, APP, schedule_id)


def test_an_id_depends_on_its_seed_only() -> None:
    assert new_schedule_id(3, seed="s") == new_schedule_id(3, seed="s")
    assert new_schedule_id(3, seed="s") != new_schedule_id(3, seed="t")
    assert new_schedule_id(3) != new_schedule_id(3)


def test_a_random_bucket_depends_on_its_seed_only() -> None:
    names = {new_schedule_ref(APP, None, seed=f"s{i}") for i in range(50)}

    assert names == {new_schedule_ref(APP, None, seed=f"s{i}") for i in range(50)}
    assert len({due.bucket for due in names}) > 1
    assert {parse_schedule_id(APP, due.id) for due in names} == names


@pytest.mark.parametrize(
    "text",
    [
        "",
        "scheduled",
        "2973a23f8d318f5581d8dbe0c1429933",
        "2973A23F-8D31-8F55-81D8-DBE0C1429933",
        "{2973a23f-8d31-8f55-81d8-dbe0c1429933}",
        "2973a23f-8d31-4f55-81d8-dbe0c1429933",
        "01a1fb68-f083-7000-8000-050c55f1a9e4",
    ],
)
def test_other_text_is_not_an_id(text: str) -> None:
    assert parse_schedule_id(APP, text) is None
