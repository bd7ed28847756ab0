"""nginx with the module nchan: pub/sub in C, one worker, messages in shared memory."""

from __future__ import annotations

import shutil
from pathlib import Path

from streamer.bench.requests import (
    PLAYER_NAME,
    RequestParts,
    get,
    player_name,
    post,
    text,
    upgrade,
)
from streamer.bench.target import Requirements, Transport

from .base import NotInstalled, Peer, free_port

__all__ = ["Nchan"]

MODULES = (
    Path("/usr/lib/nginx/modules/ngx_nchan_module.so"),
    Path("/usr/lib64/nginx/modules/ngx_nchan_module.so"),
)

_CONFIG = """
load_module {module};
worker_processes 1;
worker_rlimit_nofile 1000000;
pid {folder}/nginx.pid;
error_log {folder}/error.log error;
events {{ worker_connections {connections}; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 1000000000;
    nchan_shared_memory_size 512M;
    nchan_message_buffer_length 100;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location ~ ^/pub/(.+)$ {{ nchan_publisher; nchan_channel_id $1; }}
        location ~ ^/ws/(.+)$ {{ nchan_subscriber websocket; nchan_channel_id $1; }}
        location ~ ^/sse/(.+)$ {{ nchan_subscriber eventsource; nchan_channel_id $1; }}
    }}
}}
"""


class Nchan(Peer):
    """Keeps the last 100 messages of a channel in memory; checks nothing."""

    name = "nchan"
    title = "nginx + nchan"
    does = "in memory, no tokens, no limits"

    @classmethod
    def require(cls) -> None:
        if shutil.which("nginx") is None or _module() is None:
            raise NotInstalled("apt-get install nginx libnginx-mod-nchan")

    def start(self, requirements: Requirements, folder: Path) -> None:
        self.address = ("127.0.0.1", free_port())
        folder.mkdir(parents=True, exist_ok=True)
        # Its worker runs as another user and keeps its folders itself.
        folder.chmod(0o755)
        config = folder / "nginx.conf"
        config.write_text(
            _CONFIG.format(
                module=_module(),
                folder=folder,
                connections=requirements.connections + 1_000,
                port=self.address[1],
            )
        )
        command = ["nginx", "-p", str(folder), "-c", str(config)]
        self.run([*command, "-g", "daemon off;"], folder)
        self._wait_until_open(folder=folder)

    def readers(self, transport: Transport, players: int) -> list[bytes]:
        write = upgrade if transport == "ws" else get
        headers = "Accept: text/event-stream\r\n" if transport == "sse" else ""
        return [
            write(f"/{transport}/{player_name(number)}", headers)
            for number in range(players)
        ]

    def publish(self, size: int) -> list[RequestParts]:
        return [post([b"/pub/", *PLAYER_NAME], text(size))]


def _module() -> Path | None:
    return next((path for path in MODULES if path.exists()), None)
