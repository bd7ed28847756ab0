"""The two forms of a trace context."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.core.trace_context import TraceContext

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
HEADERS = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E))
"""What a header may have, which is more than a ``tracestate`` may."""


@given(state=HEADERS)
def test_both_forms_keep_the_state(state: str) -> None:
    trace = TraceContext(PARENT, state)

    # As announcements are parsed, also by nodes that know neither field.
    named = dict(field.split("=") for field in trace.fields.split(","))
    assert " " not in trace.fields
    assert TraceContext.of_fields(named) == trace
    assert TraceContext.of_record(trace.record) == trace


def test_without_a_trace_there_is_no_context() -> None:
    assert TraceContext.of_fields({"device": "d"}) is None
    assert TraceContext.of_record("") is None


@pytest.mark.parametrize("state", ["a", "####", "//8"])
def test_a_damaged_state_leaves_the_trace(state: str) -> None:
    named = {"trace": PARENT, "state": state}

    assert TraceContext.of_fields(named) == TraceContext(PARENT)
