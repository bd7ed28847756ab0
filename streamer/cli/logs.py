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

from ..model import iso_time
from ..service.serving import request_id

__all__ = ["log_to_stderr"]


def log_to_stderr(level: str) -> None:
    """Send what is logged at `level` and above to stderr, as JSON lines."""
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
        return json.dumps(line).replace("\x7f", "\\u007f")
