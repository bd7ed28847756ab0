"""
The password of a store, in a file.

Decides how a password is made, read, and put into the URL of a store. Knows that a
password on a command line is visible to other users. Knows nothing of the server.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit, urlunsplit

from .server_binary import StoreFailed

__all__ = [
    "PASSWORD",
    "has_password",
    "is_private",
    "make_password",
    "read_password",
    "with_password",
]

PASSWORD: Final = "password"
"""Name of the file in a data directory. A store that has it requires the password."""

BYTES: Final = 32
BYTES_MAX: Final = 512


def make_password(path: Path) -> None:
    """
    Create a file with a new password that only its owner can read; keep an old one.

    Raises:
        StoreFailed: The file cannot be written.

    """
    path = path.expanduser()
    if path.exists():
        return
    # A reader never sees a file that is empty yet.
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(fd, "w") as file:
            file.write(f"{secrets.token_urlsafe(BYTES)}\n")
        try:
            os.link(draft, path)
        except FileExistsError:
            pass  # Another process was first.
        finally:
            draft.unlink()
    except OSError as exc:
        raise StoreFailed(
            f"cannot write the password file {path}: {exc.strerror}"
        ) from exc


def has_password(path: Path) -> bool:
    """Whether the file of a password exists."""
    return path.expanduser().exists()


def is_private(path: Path) -> bool:
    """Whether the group and other users can neither read nor write a file."""
    return not path.expanduser().stat().st_mode & 0o077


def read_password(path: Path) -> str:
    """
    Return the password in a file, without white space around it.

    Raises:
        StoreFailed: The file cannot be read, or contains no password.

    """
    path = path.expanduser()
    try:
        password = path.read_text().strip()
    except OSError as exc:
        raise StoreFailed(
            f"cannot read the password file {path}: {exc.strerror}"
        ) from exc
    except ValueError as exc:
        raise StoreFailed(f"the password file {path} is not UTF-8 text") from exc
    if not password or len(password) > BYTES_MAX or len(password.split()) > 1:
        raise StoreFailed(
            f"the password file {path} must contain one word of 1 to {BYTES_MAX} "
            "characters"
        )
    return password


def with_password(url: str, password: str) -> str:
    """Return the URL of a store, which may have a user, with a password."""
    parts = urlsplit(url)
    userinfo, _, host = parts.netloc.rpartition("@")
    user = userinfo.partition(":")[0]
    return urlunsplit(
        parts._replace(netloc=f"{user}:{quote(password, safe='')}@{host}")
    )
