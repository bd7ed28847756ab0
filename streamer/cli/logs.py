"""
The log of a server process: one JSON object per line on stderr.

Knows how a record becomes a line. A line is ASCII without a control character, so
nothing that a client sent can begin another one or reach a terminal. What is logged
while a request is served has its id; a record may bring further members as `fields`.
"""

from __future__ import annotations

import json
import logging
import sys
from typing import Any, Final

import msgspec

from ..model import iso_time
from ..service.serving import request_id

__all__ = ["log_to_stderr"]

_encode: Final = msgspec.json.Encoder().encode


def log_to_stderr(level: str) -> None:
    """Send what is logged at `level` and above to stderr, as JSON lines."""
    # What no line has need not be found out for each; Python's logging HOWTO names
    # these switches.
    logging._srcfile = None
    logging.logThreads = False
    logging.logProcesses = False
    logging.logMultiprocessing = False
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": iso_time(int(record.created * 1000)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if serving := request_id():
            line["request_id"] = serving
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        # DEL is ASCII, and the one control character that JSON lets through.
        return _ascii(line).replace("\x7f", "\\u007f")


def _ascii(line: dict[str, Any]) -> str:
    try:
        encoded = _encode(line)
    except UnicodeEncodeError:  # half a character, which only JSON's escapes can tell
        return json.dumps(line)
    # The slower encoder is the one that escapes what is not ASCII.
    return encoded.decode() if encoded.isascii() else json.dumps(line)
