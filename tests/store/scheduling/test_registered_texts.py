"""Texts that are registered under an identifier."""

from __future__ import annotations

from streamer.model import App
from streamer.store.client.connection import RedisConnection
from streamer.store.scheduling.registered_texts import RegisteredTexts

APP = App("demo")


async def test_the_first_text_of_an_identifier_stays(redis: RedisConnection) -> None:
    texts = RegisteredTexts(redis)

    assert await texts.find(APP, "raid") is None
    assert await texts.register(APP, "raid", "jürgen raids") == "jürgen raids"
    assert await texts.register(APP, "raid", "another") == "jürgen raids"

    assert await texts.find(APP, "raid") == "jürgen raids"


async def test_apps_have_texts_of_their_own(redis: RedisConnection) -> None:
    texts = RegisteredTexts(redis)
    await texts.register(APP, "raid", "a")

    assert await texts.find(App("other"), "raid") is None
