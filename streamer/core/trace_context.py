"""
The context of a sampled trace, as it travels through the store.

Decides its two forms in text: fields of an announcement, and the value of a field in
the record of a schedule. Knows the headers of W3C Trace Context as opaque text. Knows
nothing of spans: `service.tracing` makes them.
"""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from typing import Final, NamedTuple

__all__ = ["STATE_CHARS_MAX", "TraceContext"]

STATE_CHARS_MAX: Final = 512
"""What W3C Trace Context asks everybody to pass on of a ``tracestate``, at least."""


class TraceContext(NamedTuple):
    """
    A sampled span, by the values of the headers ``traceparent`` and ``tracestate``.

    `parent` has 55 characters. `state` has at most `STATE_CHARS_MAX`, and is "" without
    one.
    """

    parent: str
    state: str = ""

    @property
    def fields(self) -> str:
        """
        Fields of an announcement, as `store.client.pubsub` describes them.

        A ``tracestate`` has ``=`` and ``,``, which separate fields, so it is in base64.
        """
        if not self.state:
            return f"trace={self.parent}"
        packed = urlsafe_b64encode(self.state.encode()).rstrip(b"=").decode()
        return f"trace={self.parent},state={packed}"

    @classmethod
    def of_fields(cls, fields: Mapping[str, str]) -> TraceContext | None:
        """Return the context in the fields of an announcement, None without one."""
        parent = fields.get("trace")
        return None if parent is None else cls(parent, _unpack(fields.get("state", "")))

    @property
    def record(self) -> str:
        """The value of a field in a record."""
        return f"{self.parent} {self.state}" if self.state else self.parent

    @classmethod
    def of_record(cls, value: str) -> TraceContext | None:
        """Return the context in a field of a record, None for an empty one."""
        parent, _, state = value.partition(" ")
        return cls(parent, state) if parent else None


def _unpack(packed: str) -> str:
    """Return a ``tracestate``, "" for what is none: it is optional in every trace."""
    try:
        return urlsafe_b64decode(packed + "=" * (-len(packed) % 4)).decode()
    except (binascii.Error, ValueError):
        return ""
