"""The command line, as people and scripts use it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import json
import os
import pty
import re
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import click
import pytest
from click.testing import CliRunner, Result

from streamer.cli import doctor, main
from streamer.cli.demo import greeting
from streamer.cli.doctor import judge_clock, judge_durability, judge_policy
from streamer.cli.limits import streams_max
from streamer.config import Config
from streamer.core.deployment import LEVEL
from streamer.store.client.connection import RedisConnection
from streamer.store.server.server_binary import find_server
from tests.e2e.disks import mounted
from tests.e2e.processes import free_port

ROOT = Path(__file__).parent.parent
STREAMER = [sys.executable, "-m", "streamer"]

Process = subprocess.Popen[str]
Run = Callable[..., Process]


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep tests away from the data directory of the user who runs them."""
    for name in os.environ:
        if name.startswith("STREAMER_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def start() -> Iterator[Run]:
    """Start commands; those that still run after the test are killed."""
    started: list[Process] = []

    def start(*arguments: object) -> Process:
        process = subprocess.Popen(
            [*STREAMER, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def streamer(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def ask(store_url: str, *words: str | int) -> object:
    """Run a command of the store."""

    async def run() -> object:
        redis = RedisConnection(store_url)
        try:
            return await redis.call(*words)
        finally:
            await redis.close()

    return asyncio.run(run())


def secret(*arguments: object) -> str:
    """Run a command; return the last line of its stdout, as a shell script would."""
    result = streamer(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()[-1]


def read_until(process: Process, pattern: str) -> str:
    """Return the output of `process` up to the first line that matches."""
    assert process.stdout is not None
    text = ""
    for line in process.stdout:
        text += line
        if re.search(pattern, line):
            return text
    pytest.fail(f"ended without {pattern!r}: {text}{process.communicate()[1]}")


def stop(process: Process, number: int = signal.SIGTERM) -> tuple[str, str]:
    process.send_signal(number)
    return process.communicate(timeout=60)


def run_python(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )


def redis_command(port: int, command: bytes, password: str = "") -> bytes:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        if password:
            connection.sendall(f"AUTH {password}\r\n".encode())
            assert connection.recv(4096) == b"+OK\r\n"
        connection.sendall(command + b"\r\n")
        return connection.recv(4096)


# --- help and settings


def test_help_lists_every_command_without_importing_any() -> None:
    script = (
        "import sys\n"
        "from streamer.cli import main\n"
        "main(['--help'], standalone_mode=False)\n"
        "heavy = {'asyncio', 'redis', 'uvicorn', 'starlette', 'msgspec'}\n"
        "print(heavy & sys.modules.keys())"
    )
    done = run_python(script)

    for command in ("serve", "store", "app", "key", "token", "doctor", "publish"):
        assert f"\n  {command} " in done.stdout
    assert done.stdout.endswith("set()\n")


@pytest.mark.parametrize("command", sorted(main.list_commands(click.Context(main))))
def test_every_command_has_help(command: str) -> None:
    result = streamer(command, "--help")

    assert result.exit_code == 0
    assert result.output.startswith("Usage: ")


def test_a_command_reports_all_wrong_settings() -> None:
    result = CliRunner().invoke(
        main,
        ["serve", "--port", "99999", "--redis", "http://h"],
        env={"STREAMER_PROT": "1"},
    )

    assert result.exit_code == 1
    assert "--port is 99999" in result.output
    assert "STREAMER_PROT is not a setting" in result.output
    assert "must begin with redis://" in result.output
    assert "Traceback" not in result.output


def test_the_commands_of_the_procfile_exist_and_match() -> None:
    lines = (ROOT / "Procfile").read_text().splitlines()
    commands = {}
    for line in lines:
        name, _, text = line.partition(": ")
        program, command, *arguments = shlex.split(text)
        assert program == "streamer"
        found = main.get_command(click.Context(main), command)
        assert found is not None
        commands[name] = found.make_context(command, arguments).params

    url = f"redis://127.0.0.1:{commands['store']['port']}"
    assert commands["web"]["redis"] == commands["scheduler"]["redis"] == url
    assert commands["web"]["background"] is False
    file = f"{commands['store']['data_dir']}/password"
    for name in ("web", "scheduler"):
        assert commands[name]["redis_password_file"] == file


# --- app, key, token


def test_apps_are_created_once_and_listed(data_dir: Path) -> None:
    assert streamer("app", "create", "b", "--data-dir", data_dir).exit_code == 0
    assert streamer("app", "create", "a", "--data-dir", data_dir).exit_code == 0

    again = streamer("app", "create", "a", "--data-dir", data_dir)

    assert again.exit_code == 1
    assert "exists already" in again.output
    assert streamer("app", "list", "--data-dir", data_dir).stdout == "a\nb\n"


def test_a_namespace_has_apps_of_its_own(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    streamer("app", "create", "live", "--data-dir", data_dir)
    option = ("--data-dir", data_dir, "--namespace", "staging")
    streamer("app", "create", "test", *option)

    assert streamer("app", "list", *option).stdout == "test\n"
    assert streamer("app", "list", "--data-dir", data_dir).stdout == "live\n"
    assert streamer("key", "--app", "live", *option).exit_code == 1
    monkeypatch.setenv("STREAMER_NAMESPACE", "staging")
    assert streamer("app", "list", "--data-dir", data_dir).stdout == "test\n"


def test_every_command_enters_the_deployment_or_begins_it(data_dir: Path) -> None:
    streamer(
        *("app", "create", "a", "--data-dir", data_dir),
        *("--deployment", "production"),
    )

    refused = [
        streamer(*command, "--data-dir", data_dir, "--deployment", "staging")
        for command in (
            ("app", "list"),
            ("app", "create", "b"),
            ("app", "quota", "a"),
            ("key", "--app", "a"),
            ("key", "list"),
            ("token", "--app", "a", "--player", "p"),
        )
    ]

    for result in refused:
        assert result.exit_code == 1
        assert result.stdout == ""
        assert "holds the deployment 'production' (id " in result.stderr
        assert "this node is 'staging'" in result.stderr
        assert result.stderr.count("\n") == 1
    assert streamer("app", "list", "--data-dir", data_dir).stdout == "a\n"


@pytest.mark.parametrize("command", ["serve", "scheduler", "store"])
def test_a_deployment_of_another_name_is_not_served(
    start: Run, data_dir: Path, command: str
) -> None:
    streamer(
        *("app", "create", "a", "--data-dir", data_dir),
        *("--deployment", "production"),
    )

    process = start(command, "--data-dir", data_dir, "--deployment", "staging")
    output, errors = process.communicate(timeout=60)

    assert process.returncode == 1
    assert output == ""
    assert "holds the deployment 'production' (id " in errors
    assert errors.count("\n") == 1


def test_a_shared_store_of_another_deployment_is_not_served(
    start: Run, store_url: str
) -> None:
    process = start("serve", "--redis", store_url, "--deployment", "staging")
    _, errors = process.communicate(timeout=60)

    assert process.returncode == 1
    assert "holds the deployment without a name (id test)" in errors
    assert errors.count("\n") == 1


def test_the_last_line_is_only_the_key_or_token(data_dir: Path) -> None:
    streamer("app", "create", "1001", "--data-dir", data_dir)

    key = secret("key", "--app", "1001", "--data-dir", data_dir)
    token = secret(
        *("token", "--app", "1001", "--player", "p", "--ttl", "30m"),
        *("--permission", "notification:player:*", "--data-dir", data_dir),
    )

    assert re.fullmatch(r"sk_[A-Za-z0-9_-]{43}", key)
    assert re.fullmatch(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", token)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("app", "create", "no spaces"), "is not a valid app name"),
        (("key", "--app", "none"), "the app none does not exist"),
        (("key", "--app", "a", "--scope", "all"), "unknown scope 'all'"),
        (("token", "--app", "none", "--player", "p"), "the app none does not exist"),
        (("token", "--app", "a", "--player", "me"), "is not a valid player"),
        (("token", "--app", "a", "--player", "p", "--ttl", "1y"), "not a duration"),
        (
            ("token", "--app", "a", "--player", "p", "--ttl", "2d"),
            "the lifetime of a token",
        ),
        (
            ("token", "--app", "a", "--player", "p", "--permission", "x"),
            "unknown permission 'x'",
        ),
    ],
)
def test_a_wrong_argument_is_reported_without_a_secret(
    store_url: str, arguments: tuple[str, ...], message: str
) -> None:
    streamer("app", "create", "a", "--redis", store_url)

    result = streamer(*arguments, "--redis", store_url)

    assert result.exit_code != 0
    assert message in result.stderr
    assert result.stdout == ""


def test_an_unavailable_store_is_reported_in_one_line() -> None:
    port = free_port()

    result = streamer("app", "list", "--redis", f"redis://127.0.0.1:{port}")

    assert result.exit_code == 1
    assert result.stderr == (
        f"Error: the store at 127.0.0.1:{port} is unavailable: Connection refused\n"
    )


def test_a_store_that_refuses_is_reported_in_its_own_words(store_url: str) -> None:
    url = store_url.replace("unix://", "unix://nobody:secret@")

    for command in (("app", "list"), ("app", "create", "a"), ("key", "--app", "a")):
        result = streamer(*command, "--redis", url)

        assert result.exit_code == 1
        path = store_url.removeprefix("unix://")
        assert result.stderr.startswith(
            f"Error: the store at {path} is unavailable: WRONGPASS"
        )
        assert "secret" not in result.stderr
        # Each of them asks for the record of the deployment before it writes.
        assert "nothing was stored" not in result.stderr


# --- store


def test_store_creates_the_demo_once_and_other_commands_work_meanwhile(
    start: Run, data_dir: Path
) -> None:
    port = free_port()
    process = start("store", "--data-dir", data_dir, "--port", port)
    text = read_until(process, "is ready")
    assert "created app demo" in text

    file = data_dir / "password"
    password = file.read_text().strip()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert password not in text
    if shutil.which("ps"):  # Nor on a command line, which other users can read.
        assert password not in subprocess.check_output(["ps", "-eo", "args"], text=True)
    assert redis_command(port, b"FLUSHALL").startswith(b"-NOAUTH")
    assert redis_command(port, b"PING", password) == b"+PONG\r\n"
    url = f"redis://127.0.0.1:{port}"
    key_by_directory = secret("key", "--app", "demo", "--data-dir", data_dir)
    key_by_url = secret(
        "key", "--app", "demo", "--redis", url, "--redis-password-file", file
    )
    assert key_by_directory != key_by_url
    assert redis_command(port, b"HLEN streamer:keys", password) == b":2\r\n"

    stop(process)
    assert process.returncode == 0
    again = start("store", "--data-dir", data_dir, "--port", port)
    assert "app demo" not in read_until(again, "is ready")
    assert redis_command(port, b"PING", password) == b"+PONG\r\n"
    stop(again)
    other = start("store", "--data-dir", data_dir, "--namespace", "other")
    assert "created app demo" in read_until(other, "is ready")


def test_a_password_of_the_operator_is_used(start: Run, data_dir: Path) -> None:
    file = data_dir.parent / "secret"
    file.write_text("pass/w@rd:1\n")
    port = free_port()
    options = ("--redis-password-file", file)
    read_until(
        start("store", "--data-dir", data_dir, "--port", port, *options), "is ready"
    )

    assert redis_command(port, b"PING", "pass/w@rd:1") == b"+PONG\r\n"
    url = f"redis://127.0.0.1:{port}"
    assert "demo" in streamer("app", "list", "--redis", url, *options).output
    assert "demo" in streamer("app", "list", "--data-dir", data_dir, *options).output
    assert not (data_dir / "password").exists()


def test_a_user_of_the_store_has_the_password_in_a_file(
    start: Run, data_dir: Path
) -> None:
    port = free_port()
    read_until(start("store", "--data-dir", data_dir, "--port", port), "is ready")
    rights = b"ACL SETUSER app on >of-the-user ~* &* +@all"
    password = (data_dir / "password").read_text().strip()
    assert redis_command(port, rights, password) == b"+OK\r\n"
    file = data_dir.parent / "secret"
    file.write_text("of-the-user\n")
    file.chmod(0o644)
    url = f"redis://app@127.0.0.1:{port}"
    options = ("--redis", url, "--redis-password-file", file)

    assert streamer("app", "list", *options).stdout == "demo\n"
    warning = f"other users can read the password file {file}: chmod 600 it"
    assert warning in streamer("doctor", *options).output
    file.chmod(0o600)
    assert warning not in streamer("doctor", *options).output

    without = streamer("app", "list", "--redis", f"redis://127.0.0.1:{port}")
    assert "NOAUTH" in without.output
    assert "--redis-password-file PATH" in without.output


def test_a_password_is_in_the_url_or_in_a_file() -> None:
    url = "redis://app:secret@127.0.0.1:1"
    result = streamer("app", "list", "--redis", url, "--redis-password-file", "file")

    assert result.exit_code == 1
    assert "has a password, and so has redis_password_file" in result.output
    assert "secret@" not in result.output


@pytest.mark.parametrize("text", ["", "two words"])
def test_a_password_file_without_a_password_is_refused(
    data_dir: Path, text: str
) -> None:
    data_dir.mkdir()
    (data_dir / "password").write_text(text)

    result = streamer("app", "list", "--data-dir", data_dir)

    assert result.exit_code == 1
    assert "must contain one word of 1 to 512 characters" in result.output


def test_a_missing_password_file_is_named() -> None:
    result = streamer(
        *("app", "list", "--redis", "redis://127.0.0.1:1"),
        *("--redis-password-file", "/nowhere/password"),
    )

    assert result.exit_code == 1
    assert "cannot read the password file /nowhere/password" in result.output


def test_two_passwords_are_refused() -> None:
    result = streamer(
        *("app", "list", "--redis", "redis://:x@127.0.0.1:1"),
        *("--redis-password-file", "/nowhere/password"),
    )

    assert result.exit_code == 1
    assert "leave out one" in result.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_store_stops_cleanly_on_a_signal(
    start: Run, data_dir: Path, number: signal.Signals
) -> None:
    process = start("store", "--data-dir", data_dir)
    read_until(process, "is ready")

    _, errors = stop(process, number)

    assert (process.returncode, errors) == (0, "")
    assert not (data_dir / "valkey.sock").exists()


def test_store_fails_when_its_server_exits(start: Run, data_dir: Path) -> None:
    port = free_port()
    process = start("store", "--data-dir", data_dir, "--port", port)
    read_until(process, "is ready")

    redis_command(port, b"SHUTDOWN", (data_dir / "password").read_text().strip())

    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "the store exited unexpectedly (status 0)" in errors


def test_a_second_store_on_the_directory_is_refused(start: Run, data_dir: Path) -> None:
    first = start("store", "--data-dir", data_dir)
    read_until(first, "is ready")

    second = start("store", "--data-dir", data_dir)
    _, errors = second.communicate(timeout=60)

    assert second.returncode == 1
    assert f"in use by process {first.pid}" in errors


def test_a_store_with_an_app_gets_no_demo(start: Run, data_dir: Path) -> None:
    streamer("app", "create", "1001", "--data-dir", data_dir)

    assert "app demo" not in read_until(
        start("store", "--data-dir", data_dir), "is ready"
    )


# --- serve


def serve(start: Run, data_dir: Path) -> tuple[Process, str]:
    """Start a server; return it and what it printed until it was ready."""
    process = start("serve", "--demo", "--data-dir", data_dir, "--port", 0)
    return process, read_until(process, "/v1/players/me/notifications")


def get(url: str, path: str) -> int:
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


def pasted(text: str) -> dict[str, str]:
    """Return the printed commands by their purpose."""
    lines = [line for line in text.splitlines() if line.startswith("curl")]
    listen, publish, page = lines
    return {"listen": listen, "publish": publish, "page": page}


def test_serve_gets_ready_and_stops_cleanly(start: Run, data_dir: Path) -> None:
    process, text = serve(start, data_dir)
    url = re.findall(r"ready at (\S+)", text)[0]

    assert get(url, "/readyz") == get(url, "/healthz") == 200

    _, errors = stop(process, signal.SIGINT)
    assert process.returncode == 0, errors
    assert not (data_dir / "valkey.sock").exists()


def test_a_start_without_a_terminal_prints_commands_and_no_credential(
    start: Run, data_dir: Path
) -> None:
    option = ("--data-dir", data_dir, "--namespace", "game")
    process = start("serve", *option, "--port", 0)
    text = read_until(process, "streamer token")
    stop(process)

    assert not re.search("sk_|eyJ|curl", text)
    commands = re.findall(r"^ +(streamer .*)$", text, re.MULTILINE)
    words = f"--data-dir {data_dir} --namespace game"
    assert commands == [
        f"streamer key create --app demo --expires 24h {words}",
        f"streamer token --app demo --player alice {words}",
    ]
    for command in commands:
        assert streamer(*shlex.split(command)[1:]).exit_code == 0
    (key,) = json.loads(streamer("key", "list", "--json", *option).stdout)
    assert key["app"] == "demo"


def test_a_terminal_gets_credentials_that_end_after_a_day(data_dir: Path) -> None:
    terminal, output = pty.openpty()
    process = subprocess.Popen(
        [*STREAMER, "serve", "--data-dir", str(data_dir), "--port", "0"], stdout=output
    )
    text = ""
    try:
        while "/me/notifications" not in text:
            text += os.read(terminal, 4_096).decode()
    finally:
        process.terminate()
        process.wait()
        os.close(terminal)
        os.close(output)

    (key,) = json.loads(
        streamer("key", "list", "--json", "--data-dir", data_dir).stdout
    )
    made, end = (datetime.fromisoformat(key[it]) for it in ("created_at", "expires_at"))
    assert (key["app"], end - made) == ("demo", timedelta(days=1))
    (token,) = set(re.findall(r"(eyJ\S+?)[\s']", text))
    claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    assert (claims["aud"], claims["exp"] - claims["iat"]) == ("demo", 86_400)


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_a_server_for_other_machines_gets_no_demo(
    start: Run, data_dir: Path, host: str
) -> None:
    option = ("--data-dir", data_dir)
    process = start("serve", "--host", host, "--port", 0, *option)
    text = read_until(process, "streamer token")
    stop(process)

    assert f"streamer app create NAME --data-dir {data_dir}" in text
    assert streamer("app", "list", *option).stdout == ""


def test_a_server_on_an_external_store_names_the_command_that_creates_an_app(
    start: Run, store_url: str
) -> None:
    process = start("serve", "--redis", store_url, "--port", 0)
    text = read_until(process, "streamer token")
    stop(process)

    assert f"streamer app create NAME --redis {store_url}" in text
    assert streamer("app", "list", "--redis", store_url).stdout == ""
    result = streamer("serve", "--demo", "--redis", store_url)
    assert result.exit_code == 2
    assert "--demo works with the embedded store alone" in result.output


def test_the_greeting_hides_the_password_of_a_store() -> None:
    lines = greeting(None, "http://127.0.0.1:8080", {"redis": "", "namespace": "game"})

    assert "streamer app create NAME --redis ... --namespace game" in lines


def test_repeated_ctrl_c_still_closes_the_store(start: Run, data_dir: Path) -> None:
    process, _ = serve(start, data_dir)

    while process.poll() is None:
        process.send_signal(signal.SIGINT)
        time.sleep(0.03)  # The user, not a wait.

    assert process.returncode == 0, process.communicate()[1]
    assert not (data_dir / "valkey.sock").exists()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_commands_that_serve_prints_work(start: Run, data_dir: Path) -> None:
    _, text = serve(start, data_dir)
    lines = pasted(text)
    listener = subprocess.Popen(
        lines["listen"].replace("curl", "exec curl -sS", 1),
        shell=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        read_until(listener, "event: hello")
        sent = subprocess.run(
            lines["publish"].replace("curl", "curl -sS", 1),
            shell=True,
            capture_output=True,
            text=True,
            check=True,
        )
        received = read_until(listener, "It works")
    finally:
        listener.kill()
        listener.communicate()
    page = subprocess.check_output(
        lines["page"].replace("curl", "curl -sS", 1), shell=True
    )

    notification_id = json.loads(sent.stdout)["results"][0]["id"]
    assert notification_id in received
    assert json.loads(page)["notifications"][0]["id"] == notification_id


def test_a_later_start_prints_a_key_of_its_own_and_removes_expired_ones(
    start: Run, data_dir: Path
) -> None:
    process, first = serve(start, data_dir)
    stop(process)
    options = ("--json", "--data-dir", data_dir)
    (key,) = json.loads(streamer("key", "list", *options).stdout)
    for name in (key["name"], "mine"):
        streamer(
            *("key", "create", "--app", "demo", "--expires", "1s", "--name", name),
            *("--data-dir", data_dir),
        )
    while True:  # until the keys have expired
        listed = json.loads(streamer("key", "list", *options).stdout)
        if [it["expired"] for it in listed] == [False, True, True]:
            break

    _, later = serve(start, data_dir)

    printed = [re.findall(r"sk_[\w-]+", text) for text in (first, later)]
    assert printed[0][0] != printed[1][0]
    listed = json.loads(streamer("key", "list", *options).stdout)
    assert [it["name"] for it in listed] == [key["name"], "mine", key["name"]]


def test_serve_fails_when_its_store_exits(start: Run, data_dir: Path) -> None:
    process, _ = serve(start, data_dir)

    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(data_dir / "valkey.sock"))
        connection.sendall(b"SHUTDOWN\r\n")

    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "the embedded store exited unexpectedly" in errors


def test_a_port_in_use_is_reported_and_the_store_stopped(
    start: Run, data_dir: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = start("serve", "--data-dir", data_dir, "--port", port)
        _, errors = process.communicate(timeout=60)

    assert process.returncode == 1
    assert f"127.0.0.1:{port} is in use" in errors
    assert "Traceback" not in errors
    assert not (data_dir / "valkey.sock").exists()


def test_a_server_raises_its_limit_of_open_files() -> None:
    script = (
        "import resource as r\n"
        "from streamer.cli.limits import fd_limit_max, raise_fd_limit\n"
        "r.setrlimit(r.RLIMIT_NOFILE, (256, r.getrlimit(r.RLIMIT_NOFILE)[1]))\n"
        "raise_fd_limit()\n"
        "assert r.getrlimit(r.RLIMIT_NOFILE)[0] == fd_limit_max() > 256"
    )

    run_python(script)


def test_a_log_line_is_one_json_object_with_any_client_input() -> None:
    hostile = "".join(map(chr, [*range(32), 127, 0x85, 0x9B, 0x2028, 0x1F600]))
    script = (
        "import logging\n"
        "from streamer.cli.logs import log_to_stderr\n"
        "log_to_stderr('info')\n"
        f"hostile = {hostile!a} + chr(0xD800)\n"
        "logging.getLogger('x').debug('not this')\n"
        "try: raise ValueError(hostile)\n"
        "except ValueError: logging.getLogger('x').exception('said %s', hostile)"
    )

    text = run_python(script).stderr

    assert text.endswith("\n")
    assert all(" " <= char < "\x7f" for char in text[:-1])
    line = json.loads(text)
    assert line["message"] == f"said {hostile}\ud800"
    assert (line["level"], line["logger"]) == ("error", "x")
    assert "ValueError" in line["error"]


def test_a_log_line_has_the_id_of_its_request() -> None:
    script = (
        "import logging\n"
        "from streamer.cli.logs import log_to_stderr\n"
        "from streamer.service.node.request_context import (\n"
        "    RequestContext, current_request\n"
        ")\n"
        "log_to_stderr('info')\n"
        "current_request.set(RequestContext('the-id'))\n"
        "logging.getLogger('x').info('m', extra={'fields': {'status': 200}})\n"
        "current_request.set(None)\n"
        "logging.getLogger('x').info('m')\n"
    )

    during, after = map(json.loads, run_python(script).stderr.splitlines())

    assert (during["request_id"], during["status"]) == ("the-id", 200)
    assert "request_id" not in after


def test_a_line_without_a_record_is_the_line_of_the_record() -> None:
    hostile = "".join(map(chr, [*range(32), 127, 0x85, 0x2028, 0x1F600]))
    script = (
        "import logging\n"
        "from streamer.cli.logs import log_to_stderr\n"
        "from streamer.service.node.fast_log import emit\n"
        "from streamer.service.node.request_context import (\n"
        "    RequestContext, current_request\n"
        ")\n"
        "log_to_stderr('info')\n"
        "log = logging.getLogger('x')\n"
        f"hostile = {hostile!a}\n"
        "for fields in ({}, {'a': 1, 'b': hostile}, {'c': hostile + chr(0xD800)}):\n"
        "    for id in ('', 'the-id'):\n"
        "        current_request.set(RequestContext(id) if id else None)\n"
        "        for level in (logging.INFO, logging.WARNING):\n"
        "            log.log(level, hostile, extra={'fields': fields})\n"
        "            emit(log, hostile, fields, level)\n"
    )

    lines = run_python(script).stderr.splitlines()

    stripped = [re.sub(r'^{"at": ?"[^"]*"', "", line) for line in lines]
    assert len(stripped) == 24
    assert stripped[::2] == stripped[1::2]


def test_records_of_one_loop_iteration_are_written_together() -> None:
    script = """
import asyncio, logging, sys
from streamer.cli.logs import log_to_stderr

class Stream:
    writes = []
    def write(self, text): self.writes.append(text.count('"message":'))
    def flush(self): pass

sys.stderr = Stream()
log_to_stderr("info")
log = logging.getLogger("x")
log.info("before the loop")

async def main():
    log.info("one")
    log.info("two")
    assert Stream.writes == [1], Stream.writes
    await asyncio.sleep(0)
    assert Stream.writes == [1, 2], Stream.writes
    log.info("three")
    log.warning("now")
    assert Stream.writes == [1, 2, 2], Stream.writes
    log.info("four")
    await asyncio.to_thread(log.info, "in another thread")
    assert sum(Stream.writes) == 7, Stream.writes
    log.info("the last one")

asyncio.run(main())
logging.shutdown()
assert sum(Stream.writes) == 8, Stream.writes
"""

    run_python(script)


# --- doctor


def test_doctor_passes_on_a_fresh_machine_and_creates_nothing(
    data_dir: Path,
) -> None:
    result = streamer("doctor", "--data-dir", data_dir)

    assert result.exit_code == 0, result.output
    assert f"data_dir = '{data_dir}'  (--data-dir)" in result.output
    assert "the embedded store runs" in result.output
    assert "the first start creates it" in result.output
    assert not data_dir.exists()


def test_doctor_examines_a_running_store(store_url: str) -> None:
    result = streamer("doctor", "--redis", store_url)

    assert result.exit_code == 0, result.output
    for fact in (
        *("the store is ", "durability is always", "noeviction", "clock"),
        *("holds the deployment without a name (id test)", "format 2"),
        *("allows every command", "delivers announcements"),
    ):
        assert fact in result.output


def test_doctor_says_how_many_nodes_read_the_next_level(store_url: str) -> None:
    record = '{"format":2,"id":"test"}'
    now_ms = int(time.time() * 1_000)
    ask(store_url, "SET", "streamer:deployment", record)
    ask(store_url, "ZADD", "streamer:nodes", now_ms, "older", now_ms, "newer")
    ask(store_url, "HSET", "streamer:{streamer:nodes}:levels", "newer", LEVEL)

    result = streamer("doctor", "--redis", store_url)

    assert result.exit_code == 0, result.output
    told = f"level 0, which rises to {LEVEL} when all nodes read that (1 of 2 do)"
    assert told in result.output


def test_doctor_begins_no_deployment(store_url: str) -> None:
    option = ("--redis", store_url, "--namespace", "empty")

    for _ in range(2):
        result = streamer("doctor", *option)
        assert result.exit_code == 0, result.output
        assert "the namespace 'empty' is empty; the first start begins" in result.output


def test_doctor_reports_another_deployment_as_a_problem(store_url: str) -> None:
    result = streamer("doctor", "--redis", store_url, "--deployment", "staging")

    assert result.exit_code == 1
    assert "problem  the namespace 'streamer' of the store holds" in result.output


def test_doctor_reports_a_data_directory_of_another_format(data_dir: Path) -> None:
    streamer("app", "create", "a", "--data-dir", data_dir)
    (data_dir / "store.json").write_text('{"created_at_ms":1}')

    result = streamer("doctor", "--data-dir", data_dir)

    assert result.exit_code == 1
    assert f"problem  the store in {data_dir} has store format 1" in result.output


def test_doctor_warns_of_a_certificate_that_is_not_verified() -> None:
    url = f"rediss://127.0.0.1:{free_port()}?ssl_cert_reqs=none"

    result = streamer("doctor", "--redis", url)

    assert "warning  the certificate of the store is not verified" in result.output


@pytest.mark.parametrize(
    "url",
    [
        "redis://app:SECRET@127.0.0.1:1",
        "redis+sentinel://:SECRET@127.0.0.1:1,127.0.0.1:2/NAME",
        "redis+sentinel://127.0.0.1:1/NAME?sentinel_password=SECRET&db=1",
        "redis+sentinel://127.0.0.1:1/NAME?db=1&sentinel%5Fpassword=SECRET",
        "redis+sentinel://127.0.0.1:1/NAME?sentinel_%70assword=SECRET",
    ],
)
def test_doctor_prints_no_password_of_the_url(url: str) -> None:
    output = streamer("doctor", "--redis", url).output

    assert "redis = " in output
    assert "SECRET" not in output


def test_doctor_reports_an_unavailable_store_as_a_problem() -> None:
    url = f"redis://user:secret@127.0.0.1:{free_port()}"

    result = streamer("doctor", "--redis", url)

    assert result.exit_code == 1
    assert "problem" in result.output
    assert "is unavailable" in result.output
    assert "secret" not in result.output


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ("-evalsha", "the store forbids EVALSHA, which this server needs: NOPERM"),
        ("-time", "the store forbids TIME, which this server needs: NOPERM"),
        ("resetchannels", "the store forbids SPUBLISH, which this server needs"),
        ("-ssubscribe", "the store forbids SSUBSCRIBE, which this server needs"),
        ("resetkeys", "the store forbids EVAL, EVALSHA, EXISTS, SET, GET, GETEX and"),
    ],
)
def test_doctor_names_what_an_access_list_forbids(
    store_url: str, rule: str, told: str
) -> None:
    rights = ("on", ">secret", "~*", "&*", "+@all", rule)
    ask(store_url, "ACL", "SETUSER", "guest", "reset", *rights)
    url = store_url.replace("unix://", "unix://guest:secret@")

    result = streamer("doctor", "--redis", url)

    assert result.exit_code == 1
    assert told in result.output
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)


@pytest.mark.stack(
    "Redis Cluster",
    "`serve` and `doctor` with the URL of one of its nodes alone",
    fails="both say which URL to use",
)
def test_doctor_and_serve_recognize_a_cluster(tmp_path: Path, start: Run) -> None:
    with cluster_node(tmp_path) as port:
        result = streamer("doctor", "--redis", f"redis://127.0.0.1:{port}")
        served = start("serve", "--redis", f"redis://127.0.0.1:{port}")
        _, logged = served.communicate(timeout=60)

    told = "the store is a node of a cluster: use redis+cluster://HOST:PORT"
    assert told in result.output
    assert (result.exit_code, served.returncode) == (1, 1)
    assert f"Error: unsuitable store: {told}" in logged


@contextlib.contextmanager
def cluster_node(folder: Path) -> Iterator[int]:
    """Run a server of a cluster; yield its port."""
    port = free_port()
    # By default the bus of the cluster has the port plus 10,000, which may be taken.
    bus = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    options = (*bus, "--dir", str(folder), "--save", "")
    process = subprocess.Popen(
        [str(find_server()), "--port", str(port), *options], stdout=subprocess.DEVNULL
    )
    try:
        deadline_s = time.monotonic() + 60
        while True:
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", port)) as connection,
            ):
                connection.sendall(b"PING\r\n")
                if connection.recv(64).startswith(b"+PONG"):
                    break
            assert process.poll() is None, "the server has ended"
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        yield port
    finally:
        process.terminate()
        process.wait()


def test_doctor_reports_a_hidden_configuration_as_unknown() -> None:
    with hosted_store() as port:
        result = streamer("doctor", "--redis", f"redis://127.0.0.1:{port}")

    assert "durability is unknown" in result.output
    assert "the store is Redis 6.2.14; 7.0 or later is required" in result.output
    assert "the eviction policy is allkeys-lru" in result.output
    assert "100.000 s: " in re.sub(r"(99|100)\.\d{3} s", "100.000 s", result.output)
    assert result.exit_code == 1


class hosted_store:
    """A minimal Redis server that forbids CONFIG, as hosted ones do."""

    def __enter__(self) -> int:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        port: int = self._socket.getsockname()[1]
        return port

    def __exit__(self, *exc: object) -> None:
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        connection, _ = self._socket.accept()
        with connection, connection.makefile("rb") as file:
            while header := file.readline():
                parts = [
                    file.read(int(file.readline()[1:]) + 2)[:-2]
                    for _ in range(int(header[1:]))
                ]
                connection.sendall(self._answer(parts[0].upper()))

    def _answer(self, command: bytes) -> bytes:
        if command == b"CONFIG":
            return b"-NOPERM this user has no permissions\r\n"
        if command == b"TIME":
            return b"*2\r\n$%d\r\n%d\r\n$1\r\n0\r\n" % (10, int(time.time()) - 99)
        if command == b"INFO":
            info = b"redis_version:6.2.14\r\nmaxmemory_policy:allkeys-lru\r\n"
            return b"$%d\r\n%b\r\n" % (len(info), info)
        return b"+OK\r\n"


@pytest.mark.parametrize(
    ("appendonly", "appendfsync", "verdict", "word"),
    [
        ("yes", "always", "ok", "always"),
        ("yes", "everysec", "warning", "everysec"),
        ("yes", "no", "problem", "durability is no:"),
        ("no", "always", "problem", "none"),
        (None, None, "warning", "unknown"),
    ],
)
def test_the_finding_on_durability_names_it(
    appendonly: str | None, appendfsync: str | None, verdict: str, word: str
) -> None:
    finding = judge_durability(appendonly, appendfsync)

    assert finding.verdict == verdict
    assert word in finding.text


def test_any_eviction_policy_except_noeviction_is_a_problem() -> None:
    assert judge_policy("noeviction").verdict == "ok"
    assert judge_policy("volatile-ttl").verdict == "problem"
    assert judge_policy(None).verdict == "warning"


@pytest.mark.parametrize("sign", [1, -1])
def test_clock_skew_is_a_warning_and_then_a_problem(sign: int) -> None:
    assert judge_clock(sign * 1.0).verdict == "ok"
    assert judge_clock(sign * 1.1).verdict == "warning"
    assert judge_clock(sign * 30.1).verdict == "problem"


def test_too_low_a_limit_of_open_files_is_a_problem() -> None:
    node = Config(connections_max=10_000, requests_in_flight_max=1_000)

    assert doctor.judge_fds(11_064, node, "x").verdict == "ok"
    assert doctor.judge_fds(11_063, node, "x").verdict == "problem"


def test_each_worker_needs_descriptors_for_its_share() -> None:
    node = Config(workers=4, connections_max=10_000, requests_in_flight_max=1_000)

    assert doctor.judge_fds(2_500 + 250 + 64, node, "x").verdict == "ok"
    assert doctor.judge_fds(2_500 + 250 + 63, node, "x").verdict == "problem"


@pytest.mark.parametrize(
    ("limit", "requests_max", "streams"),
    [
        (11_064, 1_000, 10_000),
        # A quarter is left to requests.
        (256, 1_000, 144),
        (256, 10, 182),
        (1_024, 1_000, 720),
        (64, 1_000, 1),
        (10, 1_000, 1),
    ],
)
def test_streams_leave_descriptors_to_requests(
    limit: int, requests_max: int, streams: int
) -> None:
    assert streams_max(limit, requests_max) == streams


def test_missing_compiled_code_is_a_warning_with_a_remedy() -> None:
    assert doctor.judge_compiled(compiled=True).verdict == "ok"
    found = doctor.judge_compiled(compiled=False)
    assert found.verdict == "warning"
    assert "install a C compiler" in found.text


PGO_FLAGS = {
    "PGO_PROF_GEN_FLAG": "-fprofile-generate",
    "PGO_PROF_USE_FLAG": "-fprofile-use -fprofile-correction",
}


@pytest.mark.parametrize(
    ("build", "verdict"),
    [
        ({"CONFIG_ARGS": "'--prefix=/opt'", **PGO_FLAGS}, "warning"),
        ({"CONFIG_ARGS": "'--enable-optimizations' '--with-lto'", **PGO_FLAGS}, "ok"),
        # Debian optimizes by a make target of its own.
        ({"CONFIG_ARGS": "", **PGO_FLAGS, "PGO_PROF_USE_FLAG": ""}, "ok"),
        # A compiler without such flags.
        (
            {"CONFIG_ARGS": "", "PGO_PROF_GEN_FLAG": "", "PGO_PROF_USE_FLAG": ""},
            "warning",
        ),
        ({}, "ok"),
    ],
)
def test_an_interpreter_built_without_optimizations_is_a_warning(
    build: dict[str, str], verdict: str
) -> None:
    assert doctor.judge_interpreter(build).verdict == verdict


def test_doctor_reports_how_the_interpreter_was_built(data_dir: Path) -> None:
    result = streamer("doctor", "--data-dir", data_dir)

    expected = doctor.judge_interpreter(sysconfig.get_config_vars())
    assert f"{expected.verdict:8} {expected.text}\n" in result.output


def test_valkey_is_reported_with_its_own_version() -> None:
    info = {"redis_version": "7.2.4", "valkey_version": "9.1.2"}

    assert doctor.judge_version(info).text == "the store is Valkey 9.1.2"


# --- the data directory


def test_doctor_is_not_content_with_a_directory_that_cannot_be_written(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tests may run as root, who can write wherever the mode forbids it."""
    data_dir.mkdir()
    real = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: path != data_dir and real(path, mode)
    )

    result = streamer("doctor", "--data-dir", data_dir)

    assert result.exit_code == 1
    assert f"cannot write to {data_dir}" in result.output


def test_a_data_directory_that_is_a_file_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        assert doctor.judge_data_dir(path).verdict == "problem"
    assert doctor.judge_data_dir(tmp_path / "new" / "below").verdict == "ok"


def test_a_command_says_which_default_directory_it_uses(tmp_path: Path) -> None:
    result = streamer("app", "create", "one")

    assert f"using the store in {tmp_path / 'share' / 'streamer'}\n" in result.output


def test_a_command_under_another_home_finds_the_running_server(
    start: Run, data_dir: Path
) -> None:
    read_until(start("store", "--data-dir", data_dir), "is ready")

    result = streamer("key", "--app", "demo")

    assert result.exit_code == 0, result.output
    assert f"using the store in {data_dir}, where a server is running" in result.output


def test_a_store_of_ones_own_is_used_and_a_running_server_is_named(
    start: Run, data_dir: Path, tmp_path: Path
) -> None:
    streamer("app", "create", "old")
    read_until(start("store", "--data-dir", data_dir), "is ready")

    result = streamer("app", "list")

    assert f"using the store in {tmp_path / 'share' / 'streamer'}, which no" in (
        result.output
    )
    assert f"to use that, add --data-dir {data_dir}" in result.output


def test_of_several_running_servers_none_is_chosen(
    start: Run, data_dir: Path, tmp_path: Path
) -> None:
    read_until(start("store", "--data-dir", data_dir), "is ready")
    read_until(start("store", "--data-dir", tmp_path / "other"), "is ready")

    result = streamer("app", "list")

    assert result.exit_code == 1
    assert "several servers are running" in result.output
    assert f"--data-dir {data_dir}" in result.output


@pytest.mark.privileged
def test_doctor_notices_a_file_system_that_is_read_only(tmp_path: Path) -> None:
    with mounted(tmp_path / "readonly", "ro,size=1m") as folder:
        result = streamer("doctor", "--data-dir", folder / "data")

    assert result.exit_code == 1
    assert f"cannot write to {folder}" in result.output


@pytest.mark.privileged
@pytest.mark.parametrize("command", ["doctor", "serve", "token"])
def test_a_user_unknown_to_the_system_gets_one_clear_message(command: str) -> None:
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root")
    # The capability lets that user read this Python, wherever it is installed.
    may_read = ("--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search")
    options = ("--app", "demo", "--player", "ann") if command == "token" else ()
    result = subprocess.run(
        [
            *("setpriv", "--reuid", "4242", "--regid", "4242", "--clear-groups"),
            *(*may_read, "env", "-i", *STREAMER, command, *options),
        ],
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert result.returncode == 1
    assert "the data directory is unknown: HOME is not set" in result.stderr
    assert "Traceback" not in result.stderr
