"""
Server-Sent Events as messages of a WebSocket.

Reads the bytes of a response by the rules of the HTML standard: lines end with LF, CR
or CR LF, wherever a chunk ends; an event without its empty line has not arrived. Knows
nothing of connections.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from typing import Final

__all__ = ["EventParser"]

EVENT_CHARACTERS_MAX: Final = 4 * 2**20
"""Above any notification of a server; limits the memory a hostile one can use."""


class EventParser:
    """The events in the bytes of one response, each as the text of a message."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._rest = ""
        """A line that is not complete."""
        self._ends_with_cr = False
        self._name = ""
        self._data: list[str] = []
        self._id: str | None = None
        self._size = 0

    def feed(self, data: bytes) -> Iterator[str]:
        """
        Yield the messages that are complete with `data`.

        Raises:
            ValueError: An event is too long.
        """
        text = self._decoder.decode(data)
        if not text:
            return
        if self._ends_with_cr:
            # The second half of a line end whose first half ended a chunk.
            text = text.removeprefix("\n")
            self._ends_with_cr = False
        self._ends_with_cr = text.endswith("\r")
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            if (message := self._take(line)) is not None:
                yield message
        if self._size + len(self._rest) > EVENT_CHARACTERS_MAX:
            raise ValueError("an event is too long")

    def _take(self, line: str) -> str | None:
        if not line:
            return self._dispatch()
        self._size += len(line)
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            self._name = value
        elif field == "data":
            self._data.append(value)
        elif field == "id" and "\0" not in value:
            self._id = value
        # A comment has an empty name. `retry` is for EventSource.
        return None

    def _dispatch(self) -> str | None:
        name, data, cursor = self._name, "\n".join(self._data), self._id
        self._name, self._data, self._id, self._size = "", [], None, 0
        return _message(name, data, cursor) if data else None


def _message(name: str, data: str, cursor: str | None) -> str:
    """Return the text of the message that an event is, readable or not."""
    if name:
        # Its data is the message without a type, in one object; the cursor of some is
        # in the id only.
        end = "" if cursor is None else f',"cursor":{json.dumps(cursor)}'
        head = f'{{"type":{json.dumps(name)}{end}'
        members = data.strip().removeprefix("{").lstrip()
        return f"{head}}}" if members == "}" else f"{head},{members}"
    end = "" if cursor is None else f',"cursor":{json.dumps(cursor)}'
    return f'{{"type":"notification","notification":{data}{end}}}'
