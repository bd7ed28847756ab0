"""
The Containerfile, step by step, without a container engine.

Its base image is stood in for by this machine's /usr and Python, read-only. Every COPY,
RUN, ENV and USER is executed in a root directory of its own, as a builder does.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.processes import free_port

ROOT = Path(__file__).parents[2]
CONTAINERFILE = ROOT / "deploy" / "container" / "Containerfile"
TOOLS = ("chroot", "mount", "unshare", "useradd")
GUARD_S = 60

ETC = (
    *("alternatives", "ca-certificates", "ssl", "debian_version", "default", "group"),
    *("gshadow", "hosts", "ld.so.cache", "login.defs", "nsswitch.conf", "passwd"),
    *("pam.d", "pip.conf", "resolv.conf", "security", "shadow", "skel"),
)
"""What of /etc a base image has, and where packages are found on this machine."""

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.privileged,
    pytest.mark.timeout(600),
    pytest.mark.skipif(os.getuid() != 0, reason="only root may change its root"),
    pytest.mark.skipif(
        any(not shutil.which(tool) for tool in TOOLS),
        reason=f"one of {', '.join(TOOLS)} is not installed",
    ),
]


def run(*command: str | Path, **options: object) -> None:
    result = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        check=False,
        **options,  # type: ignore[call-overload]
    )
    assert result.returncode == 0, f"{command}\n{result.stdout}{result.stderr}"[-4_000:]


class Image:
    """A root directory, and how its program is to be run."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.env = {"PATH": f"{sys.base_prefix}/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        self.workdir = "/"
        self.user = "0"
        self.entrypoint: list[str] = []
        self.cmd: list[str] = []
        self.health: list[str] = []

    def inside(self, command: list[str], **env: str) -> list[str]:
        """Return the command that runs another one in here, as the image's user."""
        variables = [f"{name}={value}" for name, value in (self.env | env).items()]
        return [
            *("chroot", f"--userspec={self.user}:{self.user}", str(self.root)),
            *("/usr/bin/env", "-i", *variables),
            *("/bin/sh", "-c", f'cd {self.workdir} && exec "$@"', "sh", *command),
        ]


def steps(text: str) -> Iterator[tuple[str, str]]:
    """Yield the instructions of a Containerfile with their arguments."""
    text = re.sub(r"^#.*\n", "", text, flags=re.M).replace("\\\n", " ")
    for line in filter(None, map(str.strip, text.splitlines())):
        instruction, arguments = line.split(maxsplit=1)
        yield instruction, arguments


class Builder:
    """Executes the Containerfile in folders of `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._mounted: list[Path] = []

    def base(self, name: str) -> Image:
        """Return the stand-in of the base image."""
        root = self.folder / name
        for each in ("dev", "etc", "opt", "proc", "tmp", "usr"):
            (root / each).mkdir(parents=True)
        (root / "tmp").chmod(0o1777)
        for each in ("bin", "lib", "lib64", "sbin"):
            (root / each).symlink_to(f"usr/{each}")
        for each in ETC:
            if (origin := Path("/etc", each)).is_dir():
                shutil.copytree(origin, root / "etc" / each, symlinks=True)
            elif origin.exists():
                shutil.copy2(origin, root / "etc" / each)
        self._mount(Path("/usr"), root / "usr")
        # At its own path, which it may have compiled in.
        python = root / sys.base_prefix[1:]
        if not python.is_relative_to(root / "usr"):
            python.mkdir(parents=True)
            self._mount(Path(sys.base_prefix), python)
        for each in ("null", "urandom", "shm"):
            device = root / "dev" / each
            device.mkdir() if Path("/dev", each).is_dir() else device.touch()
            self._mount(Path("/dev", each), device, read_only=False)
        return Image(root)

    def _mount(self, origin: Path, target: Path, *, read_only: bool = True) -> None:
        run("mount", "--bind", origin, target)
        self._mounted.append(target)
        if read_only:
            run("mount", "-o", "remount,bind,ro", target)

    def close(self) -> None:
        while self._mounted:
            run("umount", "--lazy", self._mounted.pop())


def build(builder: Builder) -> Image:
    """Execute the Containerfile; return the image of its last stage."""
    stages: dict[str, Image] = {}
    image: Image
    for instruction, arguments in steps(CONTAINERFILE.read_text()):
        words = arguments.split()
        if instruction == "FROM":
            name = words[2] if len(words) == 3 else "last"
            image = stages[name] = builder.base(name)
        elif instruction == "RUN":
            # What a builder passes on from its own environment.
            outside = {k: v for k, v in os.environ.items() if k.startswith("PIP_")}
            run(*image.inside(["/bin/sh", "-c", arguments], **outside))
        elif instruction == "COPY":
            source = ROOT
            if words[0].startswith("--from="):
                source = stages[words.pop(0).removeprefix("--from=")].root
            *names, target = words
            # A target is a path in the image, or below its working directory.
            target = os.path.join(image.workdir, target).lstrip("/")
            _copy(source, names, image.root / target)
        elif instruction == "ENV":
            for name, value in (word.split("=", 1) for word in words):
                image.env[name] = value.replace("$PATH", image.env["PATH"])
        elif instruction == "WORKDIR":
            image.workdir = arguments
            (image.root / arguments[1:]).mkdir(parents=True, exist_ok=True)
        elif instruction == "USER":
            image.user = arguments
        elif instruction == "ENTRYPOINT":
            image.entrypoint = json.loads(arguments)
        elif instruction == "HEALTHCHECK":
            image.health = json.loads(arguments[arguments.index("CMD ") + 4 :])
        elif instruction == "CMD":
            image.cmd = json.loads(arguments)
        else:
            assert instruction in {"VOLUME", "EXPOSE", "STOPSIGNAL"}, instruction
    return image


def _copy(source: Path, names: list[str], target: Path) -> None:
    """Copy files, and the contents of folders, as COPY does."""
    made_here = shutil.ignore_patterns("*.so", "__pycache__", "node_modules")
    for name in names:
        origin = source / name.lstrip("/")
        if origin.is_dir():
            ignore = made_here if source == ROOT else None
            shutil.copytree(
                origin, target, symlinks=True, dirs_exist_ok=True, ignore=ignore
            )
        else:
            shutil.copy2(origin, target / origin.name)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    builder = Builder(tmp_path_factory.mktemp("images"))
    # The program's user must reach its root directory.
    for folder in (builder.folder, *builder.folder.parents[:3]):
        folder.chmod(0o755)
    try:
        yield build(builder)
    finally:
        builder.close()


def healthy(image: Image, env: dict[str, str]) -> bool:
    command = image.inside(image.health, **env)
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.returncode == 0 and '"status":"ready"' in result.stdout


@pytest.fixture
def serve(image: Image) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start the image's program as process 1 of a namespace, on a port."""
    started: list[subprocess.Popen[bytes]] = []

    def start(**env: str) -> subprocess.Popen[bytes]:
        command = image.inside([*image.entrypoint, *image.cmd], **env)
        namespace = ["unshare", "--pid", "--fork", "--kill-child", "--mount"]
        mounts = f'mount -t proc proc {image.root}/proc && exec "$@"'
        process = subprocess.Popen([*namespace, "sh", "-c", mounts, "sh", *command])
        started.append(process)
        deadline = time.monotonic() + GUARD_S
        while not healthy(image, env):
            assert process.poll() is None, "it ended"
            assert time.monotonic() < deadline, "it did not become healthy"
            time.sleep(0.1)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.stack(
    "Linux namespaces", "the image of `deploy`: its health check, a drain as PID 1"
)
def test_the_program_serves_is_healthy_and_drains(
    image: Image, serve: Callable[..., subprocess.Popen[bytes]]
) -> None:
    env = {"STREAMER_PORT": str(free_port())}
    process = serve(**env)
    # `unshare` is the parent of process 1, which the engine signals.
    (child,) = (
        Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    )
    os.kill(int(child), signal.SIGTERM)
    assert process.wait(GUARD_S) == 0
    assert not healthy(image, env)


def test_only_the_volume_belongs_to_the_user(image: Image) -> None:
    assert image.user != "0"
    owned = {
        path.relative_to(image.root).parts[0]
        for top in ("data", "etc", "opt")
        for path in (image.root / top, *(image.root / top).rglob("*"))
        if path.lstat().st_uid == int(image.user)
    }
    assert owned == {"data"}


def test_what_builds_is_not_in_the_image(image: Image) -> None:
    assert not (image.root / "src").exists()
    (site,) = (image.root / "opt" / "streamer" / "lib").glob("python*/site-packages")
    assert (site / "streamer" / "py.typed").exists()
    assert (site / "streamer_client").is_dir()
