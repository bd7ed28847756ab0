"""A fast log record equals one of `Logger.log`."""

from __future__ import annotations

import logging

import pytest

from streamer.service.node.fast_log import emit

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
