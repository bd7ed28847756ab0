"""Operations bound to handlers: paths, methods and errors."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from streamer.contract.binding import Endpoints, bind_websocket
from streamer.contract.operation import Operation, ResponseSpec, path
from streamer.errors import Error, NotFound

ID = path("id", str, "Its id.")
NAME = path("name", str, "Its name.", has_slashes=True)


def operation(method: Any, path: str, *parameters: Any, **more: Any) -> Operation:
    return Operation(
        method=method,
        path=path,
        name="it",
        summary="It",
        parameters=parameters,
        responses=(ResponseSpec(200, "It."),),
        **more,
    )


READ = operation("GET", "/things/{id}", ID, other_paths=("/also/{id}",))
REMOVE = operation("DELETE", "/things/{id}", ID)
NAMED = operation("GET", "/names/{name}", NAME)


async def identify(request: Request) -> str:
    return request.headers.get("x-who", "nobody")


async def show(request: Request, who: str) -> Response:
    if request.path_params.get("id") == "none":
        raise NotFound("the thing")
    return PlainTextResponse(f"{who} {request.method} {request.path_params}")


def refuse(error: Error, request: Request) -> Response:
    return PlainTextResponse(f"{request.url.path}: {error}", 404)


@pytest.fixture
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    endpoints = Endpoints(identify, refuse)
    routes = endpoints.bind((READ, show), (REMOVE, show), (NAMED, show))
    transport = httpx2.ASGITransport(Starlette(routes=routes))
    async with httpx2.AsyncClient(transport=transport, base_url="http://a") as client:
        yield client


async def test_an_operation_is_answered_at_all_its_paths(
    client: httpx2.AsyncClient,
) -> None:
    for url in ("/things/1", "/also/1"):
        answer = await client.get(url, headers={"X-Who": "alice"})
        assert answer.text == "alice GET {'id': '1'}"


async def test_operations_of_one_path_differ_by_method(
    client: httpx2.AsyncClient,
) -> None:
    assert (await client.delete("/things/1")).text.startswith("nobody DELETE")
    assert (await client.head("/things/1")).status_code == 200

    refused = await client.put("/things/1")

    assert refused.status_code == 405
    assert set(refused.headers["allow"].split(", ")) == {"GET", "HEAD", "DELETE"}


async def test_only_a_parameter_declared_so_has_slashes(
    client: httpx2.AsyncClient,
) -> None:
    assert (await client.get("/names/a/b")).text == "nobody GET {'name': 'a/b'}"
    assert (await client.get("/things/a/b")).status_code == 404


async def test_an_error_becomes_the_response_of_the_surface(
    client: httpx2.AsyncClient,
) -> None:
    answer = await client.get("/things/none")

    assert answer.text == f"/things/none: {NotFound('the thing')}"


def test_an_operation_cannot_be_bound_twice() -> None:
    with pytest.raises(AssertionError):
        Endpoints(identify, refuse).bind((READ, show), (READ, show))


def test_a_websocket_must_be_declared() -> None:
    with pytest.raises(AssertionError):
        bind_websocket(READ, lambda *_: None)  # type: ignore[arg-type]
