"""
How the log names players: by a keyed hash, by their name, or not at all.

A hash shows which lines concern one player, and reveals the name only to those who have
the key: names can be guessed, so a hash without a key would reveal them.
"""

from __future__ import annotations

import secrets
from hashlib import blake2b
from typing import Final, Literal

from ...model import Player

__all__ = ["PlayerNames"]

HASH_BYTES: Final = 8


class PlayerNames:
    """
    Names players in the log.

    Args:
        form: ``hash``, ``name`` or ``none``.
        key: The key of the hash. If it is empty, one that ends with the process.

    """

    def __init__(self, form: Literal["hash", "name", "none"], key: str) -> None:
        self._form = form
        # A key of any length: BLAKE2b itself takes 64 bytes at most.
        self._key = blake2b(key.encode()).digest() if key else secrets.token_bytes(32)

    def of(self, app: str, player: Player | None) -> str:
        """Return how the log names a player of an app, "" for None."""
        if player is None or self._form == "none":
            return ""
        if self._form == "name":
            return player
        text = f"{app}\0{player}".encode()
        return blake2b(text, key=self._key, digest_size=HASH_BYTES).hexdigest()
