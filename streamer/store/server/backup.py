"""
Backups of the embedded store: one archive that holds its log, taken while it runs.

Knows the files of a data directory, the manifest of the append-only log, and tar.
Knows nothing of what the log says.

A log is a base file and files of commands after it, named by a manifest. The server
only appends to the last one, and replaces them all by a rewrite: it writes new files, a
new manifest, and unlinks the old ones. So a backup opens the files that the manifest
names and reads the manifest again. If it has not changed, the open files are one
consistent log, whatever the server does from then on, and every beginning of the last
one is the log at some moment. A server that loads it drops a command that is cut off,
and a transaction that is not complete.

The archive contains, in this order::

    store.json                       the marker of the directory
    appendonlydir/…                  the log, its manifest last
    backup.json                      when it was taken, and the digest of each file

The password of the store is not in it.
(https://redis.io/docs/latest/operate/oss_and_stack/management/persistence/, read
2026-11-28.)
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import secrets
import shutil
import tarfile
import time
import zlib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from . import directory
from .directory import MANIFEST, MARKER
from .server_binary import StoreFailed

__all__ = ["Backup", "restore_backup", "write_backup"]

ABOUT: Final = "backup.json"
ATTEMPTS: Final = 10
"""A rewrite takes longer than opening the files: a second attempt is rare."""

_LINE = re.compile(r'file (?P<name>"[^"\\]+"|\S+) seq \d+ type (?P<type>[bhi])(?: |$)')
_CHUNK_BYTES: Final = 1 << 20
_LOG_DIR: Final = MANIFEST.split("/")[0]
_PART: Final = "restore.part"


class Backup(msgspec.Struct, frozen=True):
    """What an archive says of itself."""

    taken_at_ms: int
    """When the log was as it is in the archive, by this machine's clock."""
    version: str
    """The version of streamer that wrote it."""
    files: dict[str, str]
    """SHA-256 of each other file, by its name in the archive."""
    bytes: int
    """Size of these files together."""


def write_backup(data_dir: Path, target: Path) -> Backup:
    """
    Write the store in `data_dir` to the archive `target`, durably.

    The store may run, be loaded, or rest. Everything that it had acknowledged before is
    in the archive. An interrupted backup leaves no `target`.

    Args:
        data_dir: Directory of the store's data.
        target: The archive, which must not exist. It is compressed if its name ends in
            ``.gz``. Only the owner may read it: it holds the secrets of all apps.

    Raises:
        StoreFailed: There is no store, `target` exists, or a file cannot be read or
            written.

    """
    if not directory.holds_store(data_dir):
        raise StoreFailed(f"{data_dir} contains no store")
    if target.exists():
        raise StoreFailed(f"{target} exists; a backup replaces nothing")
    part = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    try:
        with contextlib.ExitStack() as stack:
            log = _open_log(data_dir, stack)
            marker = (data_dir / MARKER).read_bytes()
            taken_at_ms = time.time_ns() // 1_000_000
            about = _write_archive(
                part,
                {MARKER: (io.BytesIO(marker), len(marker)), **log},
                taken_at_ms,
                compressed=target.suffix == ".gz",
            )
        part.replace(target)
        _sync_dir(target.parent)
    except OSError as exc:
        raise StoreFailed(_words(exc)) from exc
    finally:
        with contextlib.suppress(OSError):
            part.unlink()
    return about


def restore_backup(archive: Path, data_dir: Path) -> Backup:
    """
    Put the store of an archive into `data_dir`, durably.

    Until the last step the directory has no log, so that no server takes an interrupted
    restore for a store; it can be repeated.

    Args:
        archive: A file that `write_backup` has written.
        data_dir: A directory without a store. The caller holds its lock.

    Raises:
        StoreFailed: The directory has a log, or the archive is not complete or damaged.

    """
    with contextlib.suppress(FileNotFoundError):
        # Also parts of a log without a manifest: somebody may need them.
        if any((data_dir / _LOG_DIR).iterdir()):
            raise StoreFailed(
                f"{data_dir} contains a store, or parts of one ({_LOG_DIR}); restore "
                "into another directory, or move this one away"
            )
    part = data_dir / _PART
    try:
        shutil.rmtree(part, ignore_errors=True)
        (part / _LOG_DIR).mkdir(mode=0o700, parents=True)
        try:
            about = _extract(archive, part)
            # First the marker: with it and without a log a directory is refused.
            (part / MARKER).replace(data_dir / MARKER)
            _sync_dir(data_dir)
            (part / _LOG_DIR).replace(data_dir / _LOG_DIR)
            _sync_dir(data_dir)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    except (tarfile.TarError, EOFError, zlib.error) as exc:
        raise StoreFailed(f"{archive} is no complete backup: {exc}") from exc
    except OSError as exc:
        raise StoreFailed(_words(exc)) from exc
    return about


def _open_log(
    data_dir: Path, stack: contextlib.ExitStack
) -> dict[str, tuple[BinaryIO, int]]:
    """Return the files of the log with their sizes, by name; the manifest last."""
    for _ in range(ATTEMPTS):
        manifest = _read_manifest(data_dir)
        lines, names = [], []
        for line in filter(None, manifest.splitlines()):
            if line.startswith("#"):
                continue
            found = _LINE.match(line)
            if found is None:
                raise StoreFailed(f"{data_dir / MANIFEST} has an unknown line: {line}")
            if found["type"] == "h":  # replaced, and about to be unlinked
                continue
            lines.append(line)
            names.append(f"{_LOG_DIR}/" + found["name"].strip('"'))
        try:
            files = {
                name: stack.enter_context((data_dir / name).open("rb"))
                for name in names
            }
        except FileNotFoundError:
            continue
        if _read_manifest(data_dir) != manifest:
            continue
        text = "".join(f"{line}\n" for line in lines).encode()
        return {
            **{
                name: (file, os.fstat(file.fileno()).st_size)
                for name, file in files.items()
            },
            MANIFEST: (io.BytesIO(text), len(text)),
        }
    raise StoreFailed(
        f"the log in {data_dir} was replaced {ATTEMPTS} times while it was opened; try "
        "again"
    )


def _read_manifest(data_dir: Path) -> str:
    return (data_dir / MANIFEST).read_text()


class _Hashed:
    """A file that is read up to a size, and its digest."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._left = size
        self._hash = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        size = self._left if size < 0 else min(size, self._left)
        chunk = self._file.read(size)
        self._left -= len(chunk)
        self._hash.update(chunk)
        return chunk

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()


def _write_archive(
    part: Path,
    files: dict[str, tuple[BinaryIO, int]],
    taken_at_ms: int,
    *,
    compressed: bool,
) -> Backup:
    digests: dict[str, str] = {}
    total = 0
    # A file that is there already would keep its mode, and a link would be followed.
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as raw:
        mode = "w:gz" if compressed else "w"
        with tarfile.open(fileobj=raw, mode=mode, format=tarfile.PAX_FORMAT) as tar:  # type: ignore[call-overload]
            for name, (file, size) in files.items():
                hashed = _Hashed(file, size)
                tar.addfile(_member(name, size, taken_at_ms), hashed)
                digests[name] = hashed.digest
                total += size
            version = metadata.version("streamer-server")
            about = Backup(taken_at_ms, version, digests, total)
            text = msgspec.json.encode(about)
            tar.addfile(_member(ABOUT, len(text), taken_at_ms), io.BytesIO(text))
        raw.flush()
        os.fsync(raw.fileno())
    return about


def _member(name: str, size: int, at_ms: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = size
    member.mode = 0o600
    member.mtime = at_ms // 1_000
    return member


def _extract(archive: Path, folder: Path) -> Backup:
    """Write the files of an archive into `folder`, and compare their digests."""
    digests: dict[str, str] = {}
    about: Backup | None = None
    with tarfile.open(archive) as tar:
        for name, file in _files(tar):
            if name == ABOUT:
                about = _about(archive, file.read())
                continue
            if name != MARKER and not re.fullmatch(rf"{_LOG_DIR}/[\w.-]+", name):
                raise StoreFailed(f"{archive} is no backup: it contains {name!r}")
            digests[name] = _write(file, folder / name)
    if about is None:
        raise StoreFailed(f"{archive} is no complete backup: it has no {ABOUT}")
    damaged = [name for name in about.files if digests.get(name) != about.files[name]]
    if damaged or not {MARKER, MANIFEST} <= about.files.keys() == digests.keys():
        raise StoreFailed(f"{archive} is damaged: {', '.join(damaged) or 'its files'}")
    _sync_dir(folder / _LOG_DIR)
    return about


def _files(tar: tarfile.TarFile) -> Iterator[tuple[str, BinaryIO]]:
    for member in tar:
        file = tar.extractfile(member) if member.isreg() else None
        if file is None:
            raise StoreFailed(f"{tar.name!r} is no backup: {member.name!r} is no file")
        yield member.name, file  # type: ignore[misc]


def _about(archive: Path, encoded: bytes) -> Backup:
    try:
        return msgspec.json.decode(encoded, type=Backup)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise StoreFailed(f"{archive} is no backup: {ABOUT} is not valid") from exc


def _write(file: BinaryIO, path: Path) -> str:
    """Write a file durably; return its digest."""
    digest = hashlib.sha256()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as target:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            target.write(chunk)
        target.flush()
        os.fsync(target.fileno())
    return digest.hexdigest()


def _sync_dir(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _words(exc: OSError) -> str:
    return f"{exc.filename}: {exc.strerror}" if exc.filename else str(exc)
