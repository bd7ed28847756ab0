"""
Log records for code that logs thousands of lines per second.

Knows Python's logging. Knows nothing of the content of records, nor of the form of
lines.
"""

from __future__ import annotations

import logging
from time import time
from typing import Any, Final

__all__ = ["LineHandler", "emit"]


class LineHandler(logging.Handler):
    """
    A handler that can write a line without a record.

    `write_line` has to write what `emit` would write of the record.
    """

    def write_line(
        self, name: str, level: int, message: str, fields: dict[str, Any]
    ) -> None:
        """Write a line of the logger `name`; called from any thread."""
        raise NotImplementedError


def emit(
    logger: logging.Logger, message: str, fields: dict[str, Any], level: int
) -> None:
    """
    Log a message without formatting, with further members, if the level is enabled.

    `Logger.log` would look up caller, thread and process, which is a third of the cost
    of a line. They are the same for all of these lines, or not part of a line. The
    record itself is another third; where a `LineHandler` is the only handler, as in a
    server, there is none.
    """
    if not logger.isEnabledFor(level):
        return
    handler = _only_handler(logger, level)
    if handler is not None:
        handler.write_line(logger.name, level, message, fields)
    else:
        logger.handle(_FastRecord(logger.name, level, message, fields))


def _only_handler(logger: logging.Logger, level: int) -> LineHandler | None:
    """Return the handler that gets all of a record, None if others may, or filters."""
    if logger.filters or logger.disabled:
        return None
    only: LineHandler | None = None
    ancestor: logging.Logger | None = logger
    while ancestor is not None:
        for handler in ancestor.handlers:
            if (
                only is not None
                or not isinstance(handler, LineHandler)
                or handler.filters
                or level < handler.level
            ):
                return None
            only = handler
        ancestor = ancestor.parent if ancestor.propagate else None
    return only


class _FastRecord(logging.LogRecord):
    def __init__(
        self, name: str, level: int, message: str, fields: dict[str, Any]
    ) -> None:
        created = time()
        self.__dict__ = {
            **_COMMON_ATTRIBUTES,
            "name": name,
            "levelno": level,
            "levelname": logging.getLevelName(level),
            "msg": message,
            "created": created,
            "msecs": created % 1 * 1_000,
            "fields": fields,
        }


_COMMON_ATTRIBUTES: Final = vars(
    logging.LogRecord("", logging.INFO, __file__, 0, "", (), None)
)
