"""
Log records for code that logs thousands of lines per second.

Knows Python's logging. Knows nothing of the content of records.
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
    Log a message without formatting, with further members, if the level is enabled.

    `Logger.log` would look up caller, thread and process, which is a third of the cost
    of a line. They are the same for all of these lines, or not part of a line.
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
