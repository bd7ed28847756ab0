"""
The contract as one OpenAPI 3.1 document.

Decides its layout. The content comes from the surfaces' declarations. Responses to
errors come from the surfaces' tables: status, headers and example are the response that
a table returns for a declared error. Pure; the same declarations always give the same
document.
"""

from __future__ import annotations

import http
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Final

import msgspec
from starlette.responses import Response

from .operation import JSON, Body, Header, Operation, Parameter, ResponseSpec, Surface
from .refusals import name_of
from .schemas import Schema, describe

__all__ = ["write"]

OPENAPI: Final = "3.1.0"

_RETRY_AFTER: Final = Header(
    "Retry-After", "Seconds to wait before the next attempt.", int
)
_REFUSAL_HEADERS: Final = {
    "retry-after": _RETRY_AFTER,
    "www-authenticate": Header("WWW-Authenticate", "The authentication scheme."),
}
"""The documented headers of responses to errors."""


def write(
    surfaces: Sequence[Surface],
    *,
    title: str,
    version: str,
    description: str,
    unrouted: Mapping[int, str],
) -> Schema:
    """
    Return the document that has all of `surfaces`, in their order.

    Args:
        surfaces: The declarations.
        title: Of the document.
        version: Of the API.
        description: What applies to every path, as Markdown.
        unrouted: Descriptions of the responses to requests that reach no surface, by
            status.

    """
    paths: Schema = {}
    components: Schema = {
        "schemas": {},
        "responses": {
            f"any.{status}": _unrouted(unrouted[status]) for status in unrouted
        },
        "securitySchemes": {},
    }
    everywhere = {
        str(status): {"$ref": f"#/components/responses/any.{status}"}
        for status in unrouted
    }
    for surface in surfaces:
        page = _Page(surface)
        for operation in surface.operations:
            item = paths.setdefault(operation.path, {})
            written = page.operation(operation)
            responses = everywhere | written["responses"]
            written["responses"] = dict(sorted(responses.items()))
            item[operation.method.lower()] = written
            for scheme in operation.security:
                components["securitySchemes"][scheme.name] = dict(scheme.definition)
        components["schemas"] |= page.schemas
        components["responses"] |= page.responses
    return {
        "openapi": OPENAPI,
        "info": {
            "title": title,
            "version": version,
            "description": description,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "./"}],
        "tags": [{"name": it.title, "description": it.description} for it in surfaces],
        "paths": paths,
        "components": components,
    }


def _unrouted(description: str) -> Schema:
    return {
        "description": description,
        "content": {"application/problem+json": {"schema": {"type": "object"}}},
    }


class _Page:
    """One surface's part of the document, and the components it needs."""

    def __init__(self, surface: Surface) -> None:
        self._surface = surface
        types = list(_types(surface))
        described, self.schemas = describe(surface.name, types)
        self._described = list(zip(types, described, strict=True))
        self.responses: Schema = {}

    def operation(self, operation: Operation) -> Schema:
        surface = self._surface
        written: Schema = {
            "operationId": f"{surface.name}.{operation.name}",
            "tags": [surface.title],
            "summary": operation.summary,
        }
        if operation.description:
            written["description"] = operation.description
        if operation.parameters:
            written["parameters"] = list(map(self._parameter, operation.parameters))
        if body := operation.body:
            written["requestBody"] = self._body(body)
        written["responses"] = self._responses(operation)
        # An empty list declares that no credential is needed.
        written["security"] = [{scheme.name: []} for scheme in operation.security]
        if operation.other_paths:
            written["x-also-at"] = list(operation.other_paths)
        if operation.websocket:
            written["x-websocket"] = operation.websocket
        return written

    def _body(self, body: Body[Any]) -> Schema:
        content: Schema = {"schema": self._schema(body.type)}
        if body.examples:
            content["examples"] = _examples(body.examples)
        others = {
            media: {"schema": self._schema(type_)} for media, type_ in body.also.items()
        }
        return {
            "required": body.required,
            "description": f"At most {body.bytes_max:,} bytes.",
            "content": {JSON: content, **others},
        }

    def _schema(self, type_: Any) -> Schema:
        # Not a mapping, since an Annotated that contains a dictionary is not hashable.
        return next(schema for it, schema in self._described if it is type_)

    def _parameter(self, parameter: Parameter) -> Schema:
        schema = dict(self._schema(parameter.type))
        if parameter.default is not msgspec.UNSET:
            schema["default"] = parameter.default
        return {
            "name": parameter.name,
            "in": parameter.where,
            "required": parameter.required,
            "description": parameter.description,
            "schema": schema,
        }

    def _responses(self, operation: Operation) -> Schema:
        written = {
            str(spec.status): self._response(spec) for spec in operation.responses
        }
        surface = self._surface
        refused: list[tuple[Response, str]] = []
        if surface.refuse is not None:
            refused += [
                (surface.refuse(error), name_of(error)) for error in operation.refusals
            ]
        if surface.failed is not None:
            refused.append((surface.failed, "InternalError"))
        if surface.not_utf8 is not None:
            refused.append((surface.not_utf8, "NotUtf8"))
        by_status = sorted(refused, key=lambda pair: pair[0].status_code)
        for status, pairs in groupby(by_status, lambda pair: pair[0].status_code):
            response = self._refused(status, list(pairs))
            (content,) = response["content"].values()
            # A declared response may have the same status.
            for also in written.get(str(status), {}).get("content", {}).values():
                content["examples"] |= also["examples"]
            written[str(status)] = self._shared(str(status), response)
        return written

    def _shared(self, status: str, response: Schema) -> Schema:
        """Return a reference to a response that operations share."""
        number = 0
        name = f"{self._surface.name}.{status}"
        while self.responses.setdefault(name, response) != response:
            number += 1
            name = f"{self._surface.name}.{status}.{number}"
        return {"$ref": f"#/components/responses/{name}"}

    def _response(self, spec: ResponseSpec) -> Schema:
        written: Schema = {"description": spec.description}
        if spec.headers:
            written["headers"] = self._headers(spec.headers)
        if spec.links:
            written["links"] = {
                link.operation: {
                    "operationId": link.operation,
                    "parameters": dict(link.parameters),
                }
                for link in spec.links
            }
        if spec.type is not None:
            content: Schema = {"schema": self._schema(spec.type)}
            if spec.examples:
                content["examples"] = _examples(spec.examples)
            written["content"] = {spec.media: content}
        return written

    def _refused(self, status: int, refused: Sequence[tuple[Response, str]]) -> Schema:
        examples = {}
        for response, name in refused:
            examples[name] = {"value": msgspec.json.decode(bytes(response.body))}
        first, _ = refused[0]
        media = first.headers["content-type"].partition(";")[0]
        surface = self._surface
        schema = self._schema(surface.error_types.get(status, surface.error_type))
        written: Schema = {
            "description": http.HTTPStatus(status).phrase,
            "content": {media: {"schema": schema, "examples": examples}},
        }
        always = set.intersection(*(set(it.headers.keys()) for it, _ in refused))
        some = set.union(*(set(it.headers.keys()) for it, _ in refused))
        headers = [
            msgspec.structs.replace(header, always=name in always)
            for name, header in _REFUSAL_HEADERS.items()
            if name in some
        ]
        if headers:
            written["headers"] = self._headers(headers)
        return written

    def _headers(self, headers: Sequence[Header]) -> Schema:
        return {
            header.name: {
                "description": header.description,
                "required": header.always,
                "schema": describe(self._surface.name, [header.type])[0][0],
            }
            for header in headers
        }


def _types(surface: Surface) -> Iterator[Any]:
    """Yield every type in a surface's declarations."""
    if surface.error_type is not None:
        yield surface.error_type
    yield from surface.error_types.values()
    for operation in surface.operations:
        yield from (parameter.type for parameter in operation.parameters)
        if operation.body is not None:
            yield operation.body.type
            yield from operation.body.also.values()
        yield from (it.type for it in operation.responses if it.type is not None)


def _examples(examples: Any) -> Schema:
    return {name: {"value": value} for name, value in examples.items()}
