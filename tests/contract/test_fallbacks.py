"""Responses to requests that no operation answers, by the prefix of the path."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response

from streamer.contract.fallbacks import Fallback, Fallbacks


def no_route_of(name: str) -> Callable[[HTTPException, Headers], Response]:
    def no_route(error: HTTPException, headers: Headers) -> Response:
        return Response(f"{name} {error.detail}", error.status_code)

    return no_route


def failed_of(name: str) -> Callable[[Headers], Response]:
    def failed(headers: Headers) -> Response:
        return Response(f"{name} {headers.get('x-name')}", 500)

    return failed


FALLBACKS = Fallbacks(
    no_route_of("server"),
    failed_of("server"),
    Fallback(("/a/", "/b/"), no_route_of("ab"), failed_of("ab")),
    Fallback(("/c/",), no_route_of("c")),
)


@pytest.mark.parametrize(
    ("path", "no_route", "failed"),
    [
        ("/a/", "ab", "ab"),
        ("/b/x/y", "ab", "ab"),
        ("/c/x", "c", "server"),
        ("/a", "ab", "ab"),
        ("/c", "c", "server"),
        ("/ax", "server", "server"),
        ("/", "server", "server"),
        ("/x/a/", "server", "server"),
    ],
)
def test_a_surface_responds_to_paths_under_its_prefixes(
    path: str, no_route: str, failed: str
) -> None:
    scope = {"type": "http", "path": path, "headers": [(b"x-name", b"r1")]}

    refused = FALLBACKS.no_route(scope, HTTPException(405))
    broken = FALLBACKS.failed(scope)

    assert refused.body == f"{no_route} Method Not Allowed".encode()
    assert (broken.status_code, broken.body) == (500, f"{failed} r1".encode())
