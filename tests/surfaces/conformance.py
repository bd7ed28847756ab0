"""
Checks responses against the contract.

Stricter than the contract is to clients: a member that a declared object does not
declare is an error here, so that no response has undocumented members.
"""

from __future__ import annotations

import re
from typing import Any

import jsonschema_rs
import msgspec

__all__ = ["Conformance"]

STREAM = "text/event-stream"


class Conformance:
    """A check of every response of a server."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._components = _strict(document["components"])
        self._paths = [
            (_pattern(path), item)
            for spelling, item in document["paths"].items()
            for path in (spelling, *_also_at(item))
        ]
        # The most specific path comes first: "read" is not an id.
        self._paths.sort(key=lambda pair: -_words(pair[0].pattern))
        self._validators: dict[str, Any] = {}

    def check(
        self, method: str, path: str, status: int, headers: Any, body: bytes
    ) -> None:
        """Raise AssertionError if the contract has no such response."""
        operation = self._operation(method, path)
        if operation is None:
            return
        responses = operation["responses"]
        name = f"{operation['operationId']} with {status}"
        assert str(status) in responses, f"{name} is not in the contract"
        response = self._resolved(responses[str(status)])
        for header, declared in response.get("headers", {}).items():
            assert header in headers or not declared["required"], f"{name}: {header}"
        content = response.get("content")
        if content is None:
            assert not body, f"{name} has a body"
            return
        media = headers["content-type"].partition(";")[0]
        assert media in content, f"{name} is {media}"
        if media.endswith("json"):
            self._check_body(name, content[media]["schema"], body)

    def _operation(self, method: str, path: str) -> dict[str, Any] | None:
        for pattern, item in self._paths:
            if pattern.fullmatch(path) and method.lower() in item:
                found: dict[str, Any] = item[method.lower()]
                return found
        return None

    def _resolved(self, response: dict[str, Any]) -> dict[str, Any]:
        if "$ref" not in response:
            return response
        _, _, kind, name = response["$ref"].split("/")
        found: dict[str, Any] = self._components[kind][name]
        return found

    def _check_body(self, name: str, schema: dict[str, Any], body: bytes) -> None:
        validator = self._validators.get(name)
        if validator is None:
            whole = {**_strict(schema), "components": self._components}
            validator = jsonschema_rs.Draft202012Validator(whole, validate_formats=True)
            self._validators[name] = validator
        wrong = [str(error) for error in validator.iter_errors(_decoded(body))]
        assert not wrong, f"{name}: {wrong}\n{body[:500]!r}"


def _decoded(body: bytes) -> Any:
    return msgspec.json.decode(body)


def _strict(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {key: _strict(value) for key, value in schema.items()}
    if strict.get("type") == "object" and "properties" in strict:
        strict.setdefault("additionalProperties", False)
    return strict


def _pattern(path: str) -> re.Pattern[str]:
    words = re.split(r"\{\w+\}", path)
    return re.compile("(?s:.+)".join(map(re.escape, words)))


def _words(pattern: str) -> int:
    return len(pattern.replace("(?s:.+)", ""))


def _also_at(item: dict[str, Any]) -> list[str]:
    return [
        path for operation in item.values() for path in operation.get("x-also-at", ())
    ]
