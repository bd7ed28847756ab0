"""
Types as JSON Schemas.

Decides how msgspec's schema of a type becomes a schema of OpenAPI 3.1, which is JSON
Schema 2020-12 with ECMAScript patterns. The names of schemas have the surface as their
prefix.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec

__all__ = ["Schema", "describe"]

Schema = dict[str, Any]  # JSON

_LITERAL: Final = re.compile(r"``(.+?)``")
# Python's anchors, and the surrogates, which no decoded string contains.
_PATTERN: Final = ((r"\A", "^"), (r"\Z", "$"), (r"\ud800-\udfff", ""))


def describe(prefix: str, types: Sequence[Any]) -> tuple[list[Schema], Schema]:
    """
    Return a schema for each of `types`, and the named schemas that they refer to.

    Args:
        prefix: Precedes the names, with a dot between.
        types: Any types that msgspec describes.

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
