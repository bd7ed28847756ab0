"""
Listening sockets, and the options that every accepted connection inherits.

Decides how much the kernel buffers for a client that does not read, and how long a peer
that vanished may look alive. Knows sockets. Knows nothing of protocols.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import os
import socket
import stat
import sys
from collections.abc import Iterable, MutableMapping
from typing import Any, Final

__all__ = [
    "BACKLOG",
    "FREE_PORTS_TRIED",
    "UNIX_PREFIX",
    "SocketFiles",
    "are_local",
    "authority",
    "base_urls",
    "hosts_of",
    "inherited_sockets",
    "listen",
    "split_hosts",
]

UNIX_PREFIX: Final = "unix:"
"""Precedes the absolute path of a Unix socket, in place of a host."""

UNIX_MODE: Final = 0o660
"""A proxy that runs as another user has to be in the group of the socket."""

FIRST_INHERITED_FD: Final = 3
"""The first socket that systemd hands over (sd_listen_fds)."""

_ANY: Final = ("", "0.0.0.0", "::")

BACKLOG: Final = 4_096
"""
Connections that may wait to be accepted; the kernel caps it at net.core.somaxconn.

After a restart all clients of a node reconnect within a second or two.
"""

FREE_PORTS_TRIED: Final = 20
"""How many free ports of one address are tried at the others."""

SEND_BUFFER_BYTES: Final = 65_536
"""
SO_SNDBUF; Linux doubles it.

Otherwise the kernel buffers megabytes for each client that does not read, memory that
is attributed to no process.
"""

UNACKNOWLEDGED_MS: Final = 18_000
"""
How long sent bytes may stay unacknowledged before the kernel drops the connection.

With a heartbeat at least every 25 s this detects peers that vanished, event streams
included.
"""

# For connections on which nothing is written: a waiting poll, or idle in keep-alive.
KEEPALIVE_IDLE_S: Final = 15
KEEPALIVE_INTERVAL_S: Final = 5
KEEPALIVE_PROBES: Final = 3


def split_hosts(text: str) -> tuple[list[str], list[str]]:
    """
    Return the hosts and the paths of Unix sockets in a list with commas.

    An empty text is one host, every address. ``::`` is every address, too: a socket
    for IPv6 alone would refuse those who connect by IPv4.
    """
    parts = list(dict.fromkeys(part.strip() for part in text.split(",")))
    paths = [it.removeprefix(UNIX_PREFIX) for it in parts if it.startswith(UNIX_PREFIX)]
    hosts = [it for it in parts if not it.startswith(UNIX_PREFIX)]
    if "::" in hosts and "0.0.0.0" not in hosts:
        hosts.append("0.0.0.0")
    return hosts, paths


async def listen(
    host: str, port: int, *, shared: bool = False, backlog: int = BACKLOG
) -> list[socket.socket]:
    """
    Return a listening socket for each address of `host`, all on the same port.

    Connections queue from now on, up to `backlog`. With 0 the sockets are only bound,
    and refuse connections until `socket.listen` is called.

    Args:
        host: Names and addresses with commas, or ``unix:`` and a path; empty means
            every address.
        port: 0 means any port that is free at every address.
        shared: Whether the user may bind other sockets to the same port. The kernel
            distributes connections evenly among those that listen. Not for paths.
        backlog: How many connections may queue.

    Raises:
        OSError: A host is unknown, or an address cannot be bound. The message names
            the address and a remedy.

    """
    hosts, paths = split_hosts(host)
    addresses: dict[Any, None] = {}
    for name in hosts:
        addresses.update(dict.fromkeys(await _resolve(name, port)))
    unavailable: list[OSError] = []
    order = list(addresses)
    for left in reversed(range(1 if port else FREE_PORTS_TRIED)):
        try:
            found = _listen_at_all(
                order, port, unavailable, shared=shared, backlog=backlog
            )
            break
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE or not left:
                raise
        # The port was free at the first address, and in use at another.
        order.append(order.pop(0))
    sockets = [found[it] for it in addresses if it in found]
    try:
        if not sockets and not paths:
            raise next(iter(unavailable), OSError(f"host {host!r} has no address"))
        sockets.extend(_listen_at_path(path, backlog) for path in paths)
    except OSError:
        files = SocketFiles(sockets)
        for sock in sockets:
            sock.close()
        files.remove()
        raise
    return sockets


def _listen_at_all(
    addresses: Iterable[tuple[Any, Any]],
    port: int,
    unavailable: list[OSError],
    *,
    shared: bool,
    backlog: int,
) -> dict[tuple[Any, Any], socket.socket]:
    """
    Return a socket for each address that this machine has, all on the same port.

    With 0 the system chooses a port that is free at the first address. Adds the errors
    of addresses that this machine does not have to `unavailable`.
    """
    sockets: dict[tuple[Any, Any], socket.socket] = {}
    try:
        for family, address in addresses:
            bind_address = (address[0], port, *address[2:])
            try:
                sock = _listen_at(family, bind_address, shared=shared, backlog=backlog)
            except OSError as exc:
                # `localhost` resolves to ::1 too, even if IPv6 is disabled.
                if exc.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
                unavailable.append(exc)
                continue
            sockets[family, address] = sock
            port = port or sock.getsockname()[1]
    except OSError:
        for sock in sockets.values():
            sock.close()
        raise
    return sockets


def inherited_sockets(environ: MutableMapping[str, str]) -> list[socket.socket]:
    """
    Return the listening sockets that systemd has opened for this process, if any.

    Takes the variables ``LISTEN_PID``, ``LISTEN_FDS`` and ``LISTEN_FDNAMES`` out of
    `environ`: children must not take the sockets for theirs.

    Raises:
        OSError: What was handed over is no listening stream socket.

    """
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdecimal():
        return []
    sockets = []
    for fd in range(FIRST_INHERITED_FD, FIRST_INHERITED_FD + int(count)):
        try:
            sock = socket.socket(fileno=fd)
            is_listening = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        except OSError as exc:
            raise OSError(exc.errno, f"LISTEN_FDS: {fd} is no socket") from exc
        if not is_listening or sock.type != socket.SOCK_STREAM:
            raise OSError(errno.EINVAL, f"LISTEN_FDS: {fd} is no listening stream")
        sock.set_inheritable(False)
        if not _is_unix(sock):
            _set_buffers(sock)
        sockets.append(sock)
    return sockets


class SocketFiles:
    """
    The files of the Unix sockets among `sockets`, to be removed when they are closed.

    A successor may have replaced a file meanwhile; that one stays.
    """

    def __init__(self, sockets: Iterable[socket.socket]) -> None:
        paths = [it.getsockname() for it in sockets if _is_unix(it)]
        self._identities = {path: _identity(path) for path in paths}

    def remove(self) -> None:
        for path, identity in self._identities.items():
            with contextlib.suppress(OSError):
                if _identity(path) == identity:
                    os.unlink(path)


def _identity(path: str) -> tuple[int, int]:
    # The time as well: the number of a file that was removed is used again at once.
    status = os.stat(path)
    return status.st_ino, status.st_ctime_ns


def _is_unix(sock: socket.socket) -> bool:
    return sock.family == getattr(socket, "AF_UNIX", None)


async def _resolve(host: str, port: int) -> list[tuple[Any, Any]]:
    """Return the family and the address of each address of a host."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except socket.gaierror as exc:
        raise OSError(exc.errno, f"unknown host {host!r}: {exc.strerror}") from exc
    return [(family, address) for family, _, _, _, address in found]


def _listen_at_path(path: str, backlog: int) -> socket.socket:
    """Return a Unix socket; one that nobody listens on any more is replaced."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        sock.bind(path)
        os.chmod(path, UNIX_MODE)
        sock.listen(backlog or BACKLOG)
    except OSError as exc:
        sock.close()
        problem = exc.strerror or str(exc)
        if exc.errno == errno.EADDRINUSE:
            problem = "it is in use; stop the program that listens there"
        raise OSError(exc.errno, f"cannot listen on {path}: {problem}") from exc
    return sock


def _remove_stale(path: str) -> None:
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise FileExistsError(errno.EEXIST, "there is a file that is no socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        if probe.connect_ex(path) in (errno.ECONNREFUSED, errno.ENOENT):
            os.unlink(path)


def authority(host: str, port: int) -> str:
    """Return `host` and `port` in the form of a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def base_urls(host: str, sockets: Iterable[socket.socket]) -> str:
    """
    Return the URLs at which a server can be reached that listens on `sockets`.

    Each in place of one host of the list `host`, separated by spaces; a Unix socket as
    ``unix:`` and its path. A wildcard is shown as a loopback address of a family that
    is served.
    """
    port, families, paths = 0, [], []
    for sock in sockets:
        if _is_unix(sock):
            paths.append(f"{UNIX_PREFIX}{sock.getsockname()}")
        else:
            port = sock.getsockname()[1]
            families.append(sock.family)
    loopback = "127.0.0.1" if socket.AF_INET in families else "::1"
    names = [loopback if name in _ANY else name for name in split_hosts(host)[0]]
    shown = list(dict.fromkeys(names)) if families else []
    return " ".join([*(f"http://{authority(name, port)}" for name in shown), *paths])


def are_local(hosts: str, inherited: Iterable[socket.socket] = ()) -> bool:
    """
    Whether only this machine can connect to a server.

    Args:
        hosts: The setting `host`, as for `split_hosts`.
        inherited: Sockets that were passed to this process, which then count alone.

    """
    sockets = list(inherited)
    if sockets:
        return all(
            it.family == socket.AF_UNIX or _is_loopback(it.getsockname()[0])
            for it in sockets
        )
    names, _ = split_hosts(hosts)
    return all(map(_is_loopback, names))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def hosts_of(sockets: Iterable[socket.socket]) -> str:
    """Return the addresses of sockets in the form of the argument of `listen`."""
    names = [
        f"{UNIX_PREFIX}{sock.getsockname()}"
        if _is_unix(sock)
        else sock.getsockname()[0]
        for sock in sockets
    ]
    return ",".join(names)


def _listen_at(
    family: int, address: tuple[Any, ...], *, shared: bool, backlog: int
) -> socket.socket:
    sock = None
    try:
        # asyncio disables Nagle's algorithm only if the protocol is given explicitly.
        sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        _set_options(sock)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(address)
        if backlog:
            sock.listen(backlog)
    except OSError as exc:
        if sock is not None:
            sock.close()
        explanation = _explain(authority(*address[:2]), exc)
        raise OSError(exc.errno, explanation) from exc
    return sock


def _explain(address: str, exc: OSError) -> str:
    if exc.errno == errno.EADDRINUSE:
        return f"{address} is in use; stop the program that listens there or use --port"
    if exc.errno == errno.EACCES:
        return f"no permission to listen on {address}; use --port 1024 or higher"
    return f"cannot listen on {address}: {exc.strerror}"


def _set_options(sock: socket.socket) -> None:
    """Set the options that every accepted socket inherits."""
    if sys.platform != "win32":  # On Windows it would let two programs share a port.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    _set_buffers(sock)


def _set_buffers(sock: socket.socket) -> None:
    """Set those of the options that do not concern the binding."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", KEEPALIVE_IDLE_S),
        ("TCP_KEEPALIVE", KEEPALIVE_IDLE_S),  # the same on macOS
        ("TCP_KEEPINTVL", KEEPALIVE_INTERVAL_S),
        ("TCP_KEEPCNT", KEEPALIVE_PROBES),
        ("TCP_USER_TIMEOUT", UNACKNOWLEDGED_MS),  # Linux
    ):
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
