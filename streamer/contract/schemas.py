"""
Types as JSON Schemas.

Decides how what msgspec says of a type becomes what OpenAPI 3.1 takes, which is JSON
Schema 2020-12 with patterns of ECMAScript. Every surface has names of its own, so two
may have a ``MarkBody``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec

__all__ = ["Schema", "describe"]

Schema = dict[str, Any]  # JSON

_LITERAL: Final = re.compile(r"``(.+?)``")
# Python's anchors of a whole text, and surrogates, of which no decoded text has any.
_PATTERN: Final = ((r"\A", "^"), (r"\Z", "$"), (r"\ud800-\udfff", ""))


def describe(prefix: str, types: Sequence[Any]) -> tuple[list[Schema], Schema]:
    """
    Return a schema for each of `types`, and the named ones they refer to.

    Args:
        prefix: What stands in front of the names, with a dot.
        types: Whatever msgspec can describe.

    """
    template = f"#/components/schemas/{prefix}.{{name}}"
    schemas, components = msgspec.json.schema_components(types, ref_template=template)
    named = {f"{prefix}.{name}": _adapted(it) for name, it in components.items()}
    return [_adapted(schema) for schema in schemas], named


def _adapted(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_adapted(item) for item in value]
    if not isinstance(value, dict):
        return value
    adapted = {key: _adapted(item) for key, item in value.items()}
    if isinstance(pattern := adapted.get("pattern"), str):
        for python, ecma in _PATTERN:
            pattern = pattern.replace(python, ecma)
        adapted["pattern"] = pattern
    if isinstance(text := adapted.get("description"), str):
        adapted["description"] = _LITERAL.sub(r"`\1`", text)
    return adapted
