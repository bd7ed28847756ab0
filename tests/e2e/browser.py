"""
A real browser with a page, and the reports of that page.

The test serves the page, so its origin differs from the server's, like that of a game's
page. The page gets its token in a cookie, which browsers send to every port of a host.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from streamer_conformance.listener import Listener

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
    None,
)
PAGE = Path(__file__).parent / "page.html"
GUARD_S = 60
"""A browser takes long to start on a busy machine; reconnecting takes it 1 to 3 s."""


class PageReport(NamedTuple):
    """One event of a stream of the page."""

    transport: str
    kind: str
    data: Any


class Browser:
    """Serves a page, runs Chromium on it, and collects what it reports."""

    def __init__(self, folder: Path, page: Path = PAGE) -> None:
        self._folder = folder
        self._page = page
        self._listener = Listener(self._answer)
        self._process: subprocess.Popen[bytes] | None = None
        self._changed = asyncio.Event()
        self._cookie = ""
        self.reports: list[PageReport] = []
        self.origin = ""

    async def serve(self) -> None:
        """Serve the page, which determines its origin."""
        await self._listener.open()
        self.origin = f"http://127.0.0.1:{self._listener.port}"

    def visit(self, token: str, streams: Mapping[str, Any]) -> None:
        """Open the page with its arguments; by default it opens the streams."""
        assert CHROMIUM is not None
        self._cookie = f"Authorization=bearer {token}"
        arguments = quote(json.dumps({"streams": streams, "token": token}))
        self._process = subprocess.Popen(
            [
                CHROMIUM,
                *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
                *("--no-first-run", "--disable-background-networking"),
                *("--disable-component-update", "--disable-sync"),
                f"--user-data-dir={self._folder / 'profile'}",
                f"{self.origin}/#{arguments}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def ids(self, transport: str) -> list[str]:
        """Return the ids of received notifications, in order and with duplicates."""
        return [
            report.data["id"]
            for report in self.reports
            if (report.transport, report.kind) == (transport, "notification")
        ]

    def count(self, transport: str, kind: str) -> int:
        return sum(
            1 for r in self.reports if (r.transport, r.kind) == (transport, kind)
        )

    async def saw(self, transport: str, kind: str, times: int = 1) -> None:
        """Wait until a stream has reported events of a kind so often."""
        await self._until(lambda: self.count(transport, kind) >= times)

    async def has(self, transport: str, ids: Collection[str]) -> None:
        """Wait until a stream has received all of these notifications."""
        await self._until(lambda: set(ids) <= set(self.ids(transport)))

    async def _until(self, fact: Any) -> None:
        deadline = time.monotonic() + GUARD_S
        while not fact():
            self._changed.clear()
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    await self._changed.wait()
            except TimeoutError:
                raise AssertionError(f"waited in vain: {self.reports[-20:]}") from None

    async def close(self) -> None:
        if self._process is not None:
            self._process.terminate()
            await asyncio.to_thread(self._process.wait, GUARD_S)
        await self._listener.close()

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        extra, body = "", b""
        if head.startswith("post"):
            length = int(head.split("content-length: ")[1].split("\r\n")[0])
            for report in json.loads(await reader.readexactly(length)):
                self.reports.append(PageReport(**report))
            self._changed.set()
        elif head.startswith("get / "):
            extra = f"Set-Cookie: {self._cookie}; Path=/\r\n"
            body = self._page.read_bytes()
        writer.write(
            f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n{extra}"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
            + body
        )
        await writer.drain()
