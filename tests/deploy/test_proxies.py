"""The configurations of proxies in `deploy/`, checked by the proxies themselves."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

DEPLOY = Path(__file__).parents[2] / "deploy"
NGINX = shutil.which("nginx") or "/usr/sbin/nginx"
CADDY = shutil.which("caddy")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of a certificate, without its suffix."""
    path = tmp_path_factory.mktemp("tls") / "own"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-nodes", "-days", "1"),
            *("-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", "/CN=push"),
            *("-keyout", f"{path}.key", "-out", f"{path}.crt"),
        ],
        capture_output=True,
        check=True,
    )
    return path


@pytest.mark.skipif(not Path(NGINX).exists(), reason="nginx is not installed")
@pytest.mark.parametrize("name", ["proxies/nginx.conf", "container/nginx.conf"])
def test_nginx_accepts_its_configuration(
    name: str, tmp_path: Path, certificate: Path
) -> None:
    text = (DEPLOY / name).read_text()
    for here, there in (
        ("/etc/ssl/push.game.example", str(certificate)),
        ("/var/log/nginx", str(tmp_path)),
        # nginx resolves the names of the compose file's services.
        ("server node1:", "server 127.0.0.1:"),
        ("server node2:", "server 127.0.0.2:"),
    ):
        text = text.replace(here, there)
    (tmp_path / "streamer.conf").write_text(text)
    config = tmp_path / "nginx.conf"
    config.write_text(
        f"pid {tmp_path / 'pid'}; events {{}}"
        f"http {{ access_log off; include {tmp_path / 'streamer.conf'}; }}"
    )
    result = subprocess.run(
        [NGINX, "-t", "-c", str(config), "-p", str(tmp_path), "-e", "stderr"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "[warn]" not in result.stderr.replace('the "user" directive', "")


@pytest.mark.skipif(not CADDY, reason="Caddy is not installed")
def test_caddy_accepts_its_configuration(tmp_path: Path) -> None:
    assert CADDY
    result = subprocess.run(
        [
            *(CADDY, "adapt", "--adapter", "caddyfile", "--validate"),
            *("--config", str(DEPLOY / "proxies" / "Caddyfile")),
        ],
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
