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
import functools
import json
import logging
import sys
from time import time
from typing import Any, Final, TextIO

import msgspec

from ..model import iso_time
from ..service.node.fast_log import LineHandler
from ..service.node.request_context import current_request

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


class _BatchingHandler(logging.StreamHandler[TextIO], LineHandler):
    """
    Writes the lines of the event loop's thread once per iteration.

    A write costs as much as everything else about a line, and when thousands connect
    there are dozens of lines per iteration (bench.connect).
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._lines: list[str] = []
        assert self.lock is not None
        self._locked = self.lock

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._add(self.format(record), record.levelno)
        except Exception:
            self.handleError(record)

    def write_line(
        self, name: str, level: int, message: str, fields: dict[str, Any]
    ) -> None:
        try:
            line = _line(time(), level, name, message, fields)
            with self._locked:
                self._add(_encode_line(line), level)
        except Exception:
            record = logging.LogRecord(name, level, "", 0, "%s", (message,), None)
            self.handleError(record)

    def _add(self, line: str, level: int) -> None:
        self._lines.append(line)
        # None in other threads, and before and after the loop.
        loop = asyncio._get_running_loop()
        if loop is None or level >= logging.WARNING:
            self.flush()
        elif len(self._lines) == 1:
            loop.call_soon(self.flush)

    def flush(self) -> None:
        with self._locked:
            if self._lines:
                lines, self._lines = self._lines, []
                self.stream.write("\n".join([*lines, ""]))
                self.stream.flush()


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = _line(
            record.created,
            record.levelno,
            record.name,
            record.getMessage(),
            getattr(record, "fields", {}),
        )
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return _encode_line(line)


def _line(
    created_s: float, level: int, name: str, message: str, fields: dict[str, Any]
) -> dict[str, Any]:
    line = {
        "at": iso_time(int(created_s * 1000)),
        "level": _level_text(level),
        "logger": name,
        "message": message,
    }
    serving = current_request.get()
    if serving is not None:
        line["request_id"] = serving.id
        if serving.trace_id:
            line["trace_id"] = serving.trace_id
    line.update(fields)
    return line


@functools.cache
def _level_text(level: int) -> str:
    return logging.getLevelName(level).lower()


def _encode_line(line: dict[str, Any]) -> str:
    try:
        encoded = _encode(line)
    except UnicodeEncodeError:  # half a surrogate pair, which only an escape can encode
        text = json.dumps(line)
    else:
        # The slower encoder is the one that escapes what is not ASCII.
        text = encoded.decode() if encoded.isascii() else json.dumps(line)
    # DEL is ASCII, and the one control character that JSON lets through.
    return text.replace("\x7f", "\\u007f")
