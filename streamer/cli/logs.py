"""
The log of a server process: one JSON object per line on stderr.

Knows how a record becomes a line. A line is ASCII without control characters, so that
nothing a client sent can begin another line or control a terminal. A record that is
logged while a request is served carries the id of the request. The attribute `fields`
of a record adds members.

Records of one iteration of the event loop are written together at its end. A warning is
written at once, with all records before it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from typing import Any, Final, TextIO

import msgspec

from ..model import iso_time
from ..service.node.request_context import request_id

__all__ = ["log_to_stderr"]

_encode: Final = msgspec.json.Encoder().encode


def log_to_stderr(level: str) -> None:
    """Write records of `level` and above to stderr, as JSON lines."""
    # No line has these facts, so they need not be collected for each record; Python's
    # logging HOWTO names the switches.
    logging._srcfile = None
    logging.logThreads = False
    logging.logProcesses = False
    logging.logMultiprocessing = False
    handler = _BatchingHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


class _BatchingHandler(logging.StreamHandler[TextIO]):
    """
    Writes the records of the event loop's thread once per iteration.

    A write costs as much as everything else about a line, and when thousands connect
    there are dozens of lines per iteration (bench.connect).
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.append(self.format(record))
            # None in other threads, and before and after the loop.
            loop = asyncio._get_running_loop()
            if loop is None or record.levelno >= logging.WARNING:
                self.flush()
            elif len(self._lines) == 1:
                loop.call_soon(self.flush)
        except Exception:
            self.handleError(record)

    def flush(self) -> None:
        self.acquire()
        try:
            if self._lines:
                lines, self._lines = self._lines, []
                self.stream.write("\n".join([*lines, ""]))
                super().flush()
        finally:
            self.release()


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": iso_time(int(record.created * 1000)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if serving_id := request_id():
            line["request_id"] = serving_id
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        # DEL is ASCII, and the one control character that JSON lets through.
        return _ascii(line).replace("\x7f", "\\u007f")


def _ascii(line: dict[str, Any]) -> str:
    try:
        encoded = _encode(line)
    except UnicodeEncodeError:  # half a surrogate pair, which only an escape can encode
        return json.dumps(line)
    # The slower encoder is the one that escapes what is not ASCII.
    return encoded.decode() if encoded.isascii() else json.dumps(line)
