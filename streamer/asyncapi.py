"""
The contract of the stream: its messages as one AsyncAPI document.

OpenAPI, made by `openapi`, has the operations of HTTP; it can say how a stream is
opened, and not what is said on it. The content comes from the same kind of types:
those of the messages, and the parameters of the operation that opens a stream. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from typing import Any, Final

from .contract.schemas import Schema, describe
from .core.streams.client_messages import CLIENT_MESSAGES
from .surfaces.native.contract import STREAM
from .surfaces.native.stream_messages import SERVER_MESSAGES

__all__ = ["stream_document"]

ASYNCAPI: Final = "3.0.0"

ABOUT: Final = """
The stream of one player's notifications: `GET /v1/stream`, as a WebSocket or as
Server-Sent Events. `clients/PROTOCOL.md` is the normative description. `/openapi.json`
has the requests.

On a WebSocket each message is a text message. Over Server-Sent Events the name of an
event is the `type` of the message and its data is the message without `type`; an
unnamed event is a `notification`, its data is the notification, and its id the cursor.
A client sends messages on a WebSocket only.
"""

SENT: Final = "The server sends"
RECEIVED: Final = "The client sends"


def stream_document() -> Schema:
    """Return the messages of the stream as an AsyncAPI document."""
    sent, received = _messages(SERVER_MESSAGES), _messages(CLIENT_MESSAGES)
    types = [*SERVER_MESSAGES, *CLIENT_MESSAGES]
    described, schemas = describe("native", types)
    # Both sides have a `read`, a `ping` and a `pong`, of different types.
    messages: Schema = {}
    for (name, type_), schema in zip([*sent, *received], described, strict=True):
        messages[name] = {
            "name": name.partition(".")[2],
            "title": name.replace(".", ": "),
            "summary": _summary(type_),
            "contentType": "application/json",
            "payload": schema,
        }
    parameters, parameter_schemas = _parameters()
    return {
        "asyncapi": ASYNCAPI,
        "info": {
            "title": "streamer",
            "version": metadata.version("streamer-server"),
            "description": ABOUT,
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "websocket": _server("wss", "A WebSocket."),
            "sse": _server("https", "Server-Sent Events."),
        },
        "channels": {
            "stream": {
                "address": "/v1/stream",
                "title": "Stream",
                "description": STREAM.description,
                "messages": {
                    name: {"$ref": f"#/components/messages/{name}"} for name in messages
                },
                "bindings": {
                    "ws": {
                        "method": "GET",
                        "query": parameters,
                        "bindingVersion": "0.1.0",
                    }
                },
            }
        },
        "operations": {
            "send": _operation("send", SENT, [name for name, _ in sent]),
            "receive": _operation("receive", RECEIVED, [name for name, _ in received])
            | {
                "reply": {
                    "channel": {"$ref": "#/channels/stream"},
                    "messages": _references(["server.reply", "server.error"]),
                }
            },
        },
        "components": {
            "messages": messages,
            "schemas": schemas | parameter_schemas,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "A player's token, in the header `Authorization`.",
                },
                "ticket": {
                    "type": "httpApiKey",
                    "in": "query",
                    "name": "ticket",
                    "description": "A ticket from `POST /v1/tickets`, for EventSource.",
                },
            },
        },
    }


def _messages(types: Sequence[Any]) -> list[tuple[str, Any]]:
    side = "server" if types is SERVER_MESSAGES else "client"
    return [(f"{side}.{it.__struct_config__.tag}", it) for it in types]


def _summary(type_: Any) -> str:
    return " ".join((type_.__doc__ or "").strip().partition("\n\n")[0].split())


def _operation(action: str, title: str, names: Sequence[str]) -> Schema:
    return {
        "action": action,
        "title": title,
        "channel": {"$ref": "#/channels/stream"},
        "messages": _references(names),
    }


def _references(names: Sequence[str]) -> list[Schema]:
    return [{"$ref": f"#/channels/stream/messages/{name}"} for name in names]


def _server(protocol: str, description: str) -> Schema:
    return {
        "host": "{host}",
        "protocol": protocol,
        "description": description,
        "variables": {"host": {"default": "localhost:8080"}},
        "security": [
            {"$ref": "#/components/securitySchemes/token"},
            {"$ref": "#/components/securitySchemes/ticket"},
        ],
    }


def _parameters() -> tuple[Schema, Schema]:
    """Return the query of a stream as a schema, and the schemas that it refers to."""
    query = [it for it in STREAM.parameters if it.where == "query"]
    described, schemas = describe("native", [it.type for it in query])
    properties = {
        it.name: {**schema, "description": it.description}
        for it, schema in zip(query, described, strict=True)
    }
    return {"type": "object", "properties": properties}, schemas
