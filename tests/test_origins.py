"""Web origins: which are the same, and which a setting allows."""

from __future__ import annotations

import pytest

from streamer.origins import AllowedOrigins, origin_problem, parse_origin


@pytest.mark.parametrize(
    ("origin", "scheme", "host"),
    [
        ("https://game.example", "https", "game.example"),
        ("https://game.example", "https", "game.example:443"),
        ("https://game.example:443", "https", "GAME.example"),
        ("https://game.example:8443", "https", "game.example:8443"),
        # Plain HTTP may come from a proxy that terminates TLS.
        ("https://game.example", "http", "game.example"),
        ("https://game.example", "http", "game.example:443"),
        ("http://game.example", "http", "game.example:80"),
        ("http://[::1]:8080", "http", "[::1]:8080"),
    ],
)
def test_an_origin_is_that_of_its_own_host(origin: str, scheme: str, host: str) -> None:
    parsed = parse_origin(origin)
    assert parsed is not None
    assert parsed.is_own(scheme, host)


@pytest.mark.parametrize(
    ("origin", "scheme", "host"),
    [
        ("https://game.example", "https", "other.example"),
        ("https://game.example", "https", "game.example:8443"),
        ("https://game.example:8443", "https", "game.example"),
        ("http://game.example", "https", "game.example"),
        ("https://game.example", "http", "game.example:80"),
        ("https://game.example", "http", ""),
        ("https://game.example", "http", "game.example/x"),
        ("capacitor://localhost", "http", "localhost"),
    ],
)
def test_an_origin_is_foreign_to_another_host(
    origin: str, scheme: str, host: str
) -> None:
    parsed = parse_origin(origin)
    assert parsed is not None
    assert not parsed.is_own(scheme, host)


@pytest.mark.parametrize(
    ("allowed", "origin"),
    [
        ("https://game.example", "https://game.example"),
        ("https://game.example", "HTTPS://Game.Example:443"),
        ("HTTP://Game.Example:80", "http://game.example"),
        ("https://*.game.example", "https://eu.game.example"),
        ("https://*.game.example", "https://a.eu.game.example"),
        ("https://*.game.example:8443", "https://eu.game.example:8443"),
        ("capacitor://localhost", "capacitor://localhost"),
        ("ionic://localhost", "ionic://localhost"),
        ("app://game", "app://game"),
        ("app://.", "app://."),
        ("file://", "file://"),
        ("null", "null"),
    ],
)
def test_a_setting_allows_an_origin(allowed: str, origin: str) -> None:
    assert not origin_problem(allowed)
    assert origin in AllowedOrigins([allowed])


@pytest.mark.parametrize(
    ("allowed", "origin"),
    [
        ("https://game.example", "http://game.example"),
        ("https://game.example", "https://game.example:8443"),
        ("https://game.example", "https://game.example.evil.example"),
        ("https://game.example", "https://evilgame.example"),
        ("https://game.example", "null"),
        ("https://*.game.example", "https://game.example"),
        ("https://*.game.example", "https://evilgame.example"),
        ("https://*.game.example", "http://eu.game.example"),
        ("https://*.game.example", "https://eu.game.example:8443"),
        ("https://*.game.example", "https://eu.game.example.evil.example"),
        ("https://*.game.example", "https://user@eu.game.example"),
        ("capacitor://localhost", "ionic://localhost"),
        ("capacitor://localhost", "http://localhost"),
        ("null", "https://null"),
        ("https://game.example", "https://game.example/"),
        ("https://game.example", ""),
    ],
)
def test_a_setting_does_not_allow_another_origin(allowed: str, origin: str) -> None:
    assert origin not in AllowedOrigins([allowed])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("*", "list the origins"),
        ("https://*", "expected a scheme"),
        ("https://*.example", "a wildcard needs a domain"),
        ("https://game.*.example", "expected a scheme"),
        ("https://*game.example", "expected a scheme"),
        ("https://game.example:*", "expected a scheme"),
        ("https://game.example/", "expected a scheme"),
        ("https://game.example:99999", "expected a scheme"),
        ("https://user@game.example", "expected a scheme"),
        ("game.example", "expected a scheme"),
        ("NULL", "expected a scheme"),
        ("", "expected a scheme"),
        ("https://münchen.example", "in ASCII"),
    ],
)
def test_what_can_match_no_page_is_refused(text: str, problem: str) -> None:
    assert problem in origin_problem(text)
