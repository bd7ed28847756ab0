"""A fast log record equals one of `Logger.log`, and a line needs no record."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from streamer.service.node.fast_log import LineHandler, emit

LOGGER = logging.getLogger("streamer.test")
FORMAT = logging.Formatter("%(levelname)s %(name)s %(message)s %(fields)s")


def test_a_record_has_what_logging_would_write(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fields = {"status": 200}
    with caplog.at_level(logging.INFO):
        LOGGER.log(logging.WARNING, "100 %% of it", extra={"fields": fields})
        emit(LOGGER, "100 %% of it", fields, logging.WARNING)

    theirs, ours = caplog.records
    assert FORMAT.format(ours) == FORMAT.format(theirs)
    assert 0 <= ours.created - theirs.created < 60
    assert vars(ours).keys() >= vars(theirs).keys() - {"taskName"}


def test_no_record_is_created_for_a_disabled_level(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        emit(LOGGER, "said", {}, logging.INFO)

    assert caplog.records == []


class Lines(LineHandler):
    """Keeps lines that were written without a record, and records."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[Any, ...]] = []
        self.records: list[logging.LogRecord] = []

    def write_line(self, *line: Any) -> None:
        self.lines.append(line)

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def apart() -> logging.Logger:
    """Return a logger whose records go to its own handlers alone."""
    logger = logging.getLogger("streamer.test.apart")
    logger.filters, logger.propagate = [], False
    logger.setLevel(logging.INFO)
    return logger


def test_the_only_handler_gets_a_line_instead_of_a_record(
    apart: logging.Logger,
) -> None:
    handler = Lines()
    apart.handlers = [handler]  # pytest adds its own to such loggers

    emit(apart.getChild("of"), "said", {"a": 1}, logging.INFO)

    assert handler.lines == [("streamer.test.apart.of", 20, "said", {"a": 1})]
    assert handler.records == []


@pytest.mark.parametrize(
    "change",
    [
        lambda logger, handler: logger.addHandler(logging.NullHandler()),
        lambda logger, handler: logger.addFilter(lambda record: True),
        lambda logger, handler: handler.addFilter(lambda record: True),
    ],
    ids=["another handler", "a filter of the logger", "a filter of the handler"],
)
def test_a_handler_gets_a_record_if_something_else_may_see_it(
    apart: logging.Logger, change: Any
) -> None:
    handler = Lines()
    apart.handlers = [handler]  # pytest adds its own to such loggers
    change(apart, handler)

    emit(apart, "said", {}, logging.INFO)

    assert handler.lines == []
    assert [it.getMessage() for it in handler.records] == ["said"]


def test_a_handler_of_a_higher_level_gets_nothing(apart: logging.Logger) -> None:
    handler = Lines()
    handler.setLevel(logging.WARNING)
    apart.handlers = [handler]  # pytest adds its own to such loggers

    emit(apart, "said", {}, logging.INFO)

    assert handler.lines == []
    assert handler.records == []
