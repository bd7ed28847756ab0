"""
Lines of the log of which there are thousands a second.

Knows Python's logging. What a line has in it is said by whoever tells it.
"""

from __future__ import annotations

import logging
from time import time
from typing import Any, Final

__all__ = ["emit"]


def emit(
    logger: logging.Logger, message: str, fields: dict[str, Any], level: int
) -> None:
    """
    Log a message as it is, with further members, if lines of its level are wanted.

    `Logger.log` would find out where it is called from, and when, by whom: a third of
    what a line costs, and the same for all of them, or nothing that a line has.
    """
    if logger.isEnabledFor(level):
        logger.handle(_FastRecord(logger.name, level, message, fields))


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
