"""
Marks and acknowledgements that wait for a connection.

Decides what is still worth sending: of several acknowledgements the last, and after
"all" nothing that was marked before. All of them are idempotent, so one whose result
was lost is sent again. Knows nothing of connections.
"""

from __future__ import annotations

from typing import Final

from .wire import AckCommand, ReadCommand

__all__ = ["IDS_MAX", "Outbox"]

COMMANDS_MAX: Final = 1_000
IDS_MAX: Final = 1_000
"""Ids in one command."""

Waiting = ReadCommand | AckCommand


class Outbox:
    """Commands in the order in which they are to be sent."""

    def __init__(self) -> None:
        self._commands: list[Waiting] = []

    def __len__(self) -> int:
        return len(self._commands)

    def put(self, command: Waiting) -> None:
        """
        Add a command; drop or extend those that it makes superfluous.

        Raises:
            OverflowError: There are `COMMANDS_MAX` commands.
        """
        waiting = self._commands
        if isinstance(command, AckCommand):
            waiting = [it for it in waiting if not isinstance(it, AckCommand)]
        elif command.all:
            waiting = [it for it in waiting if not isinstance(it, ReadCommand)]
        elif command.ids is not None:
            for number, other in enumerate(waiting):
                if isinstance(other, ReadCommand) and other.ids is not None:
                    ids = tuple(dict.fromkeys(other.ids + command.ids))
                    if len(ids) <= IDS_MAX:
                        waiting[number] = ReadCommand(ids=ids)
                        return
        if len(waiting) >= COMMANDS_MAX:
            raise OverflowError(f"{COMMANDS_MAX} marks are waiting for a connection")
        self._commands = [*waiting, command]

    def first(self) -> Waiting:
        """Return the next command, which stays until `remove`."""
        return self._commands[0]

    def remove(self, command: Waiting) -> None:
        """Remove a command that is done; what has been added to it meanwhile stays."""
        for number, other in enumerate(self._commands):
            if other == command:
                del self._commands[number]
                return
