"""The marker of a data directory: its format, and the deployments in it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import msgspec
import pytest

from streamer.core.deployment import FORMAT, Deployment
from streamer.store.server import directory
from streamer.store.server.directory import (
    mirror_deployment,
    refuse_unusable,
    write_marker,
)
from streamer.store.server.embedded import Embedded
from streamer.store.server.server_binary import StoreFailed

EU = Deployment(FORMAT, "1", "eu", "0.2.0")


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """Return a directory from which a store was served."""
    (tmp_path / directory.MANIFEST).parent.mkdir()
    (tmp_path / directory.MANIFEST).touch()
    write_marker(tmp_path)
    return tmp_path


def marker(data_dir: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads((data_dir / "store.json").read_text())
    return content


def test_a_marker_has_the_format_and_no_deployment_yet(data_dir: Path) -> None:
    assert marker(data_dir)["format"] == FORMAT
    assert marker(data_dir)["deployments"] == {}
    refuse_unusable(data_dir)


def test_a_marker_repeats_the_record_of_each_namespace(data_dir: Path) -> None:
    other = Deployment(FORMAT, "2")
    created = marker(data_dir)["created_at_ms"]

    mirror_deployment(data_dir, "streamer", EU)
    mirror_deployment(data_dir, "game", other)
    mirror_deployment(data_dir, "streamer", EU)
    write_marker(data_dir)

    assert marker(data_dir)["deployments"] == {
        "streamer": msgspec.structs.asdict(EU),
        "game": msgspec.structs.asdict(other),
    }
    assert marker(data_dir)["created_at_ms"] == created
    assert [path.name for path in data_dir.glob("store.json*")] == ["store.json"]


def test_the_record_is_right_where_the_names_differ(data_dir: Path) -> None:
    mirror_deployment(data_dir, "streamer", Deployment(FORMAT, "1"))

    mirror_deployment(data_dir, "streamer", EU)

    assert '"name":"eu"' in (data_dir / "store.json").read_text()


def test_a_log_of_another_deployment_is_refused(data_dir: Path) -> None:
    mirror_deployment(data_dir, "streamer", EU)
    before = (data_dir / "store.json").read_bytes()

    with pytest.raises(StoreFailed) as refused:
        mirror_deployment(data_dir, "streamer", Deployment(FORMAT, "2"))

    assert str(refused.value) == (
        f"{data_dir}/store.json names the deployment 'eu' (id 1) for the namespace "
        "'streamer', and the log beside it holds the deployment without a name (id 2): "
        "restore the log and store.json from the same backup or, to keep this log, "
        f"delete {data_dir}/store.json"
    )
    assert (data_dir / "store.json").read_bytes() == before


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (
            '{"created_at_ms":1}',
            "has store format 1, which no release has written, and this version reads "
            "format 2: use another data directory",
        ),
        (
            '{"format":3,"version":"1.0.0","deployments":[]}',
            "has store format 3, and this version reads format 2: install streamer "
            "1.0.0 or later",
        ),
        ("{", "store.json is not valid"),
        ("", "store.json is not valid"),
        ('{"format":"2"}', "store.json is not valid"),
        ('{"format":2}', "store.json is not valid"),
    ],
)
async def test_a_marker_of_another_form_is_refused_before_a_server_starts(
    data_dir: Path, content: str, problem: str
) -> None:
    (data_dir / "store.json").write_text(content)

    with pytest.raises(StoreFailed) as refused:
        await Embedded.start(data_dir, binary=Path("/nonexistent"))

    assert problem in str(refused.value)
    assert str(data_dir) in str(refused.value)
    assert (data_dir / "store.json").read_text() == content


def test_a_marker_that_cannot_be_replaced_is_reported(data_dir: Path) -> None:
    (data_dir / f"store.json.{os.getpid()}").mkdir()

    with pytest.raises(StoreFailed, match="cannot use the data directory"):
        mirror_deployment(data_dir, "streamer", EU)
