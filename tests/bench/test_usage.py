"""What the kernel says of processes: their memory, and the connections they hold."""

from __future__ import annotations

import contextlib
import mmap
import os
import socket
import subprocess
import sys

import pytest

if sys.platform != "linux":
    pytest.skip("usage is read from /proc", allow_module_level=True)

from streamer.bench.usage import connections, private_bytes, rss_bytes

MIB = 2**20


def test_a_process_holds_the_connections_that_it_has_accepted() -> None:
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        other = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        address = listening.getsockname()
        # Their own ends are connections from other ports.
        for where in (address, address, address, other.getsockname()):
            stack.enter_context(socket.create_connection(where))
        stack.enter_context(other.accept()[0])
        first, _ = listening.accept()
        stack.enter_context(listening.accept()[0])

        # The third one is established, and waits to be accepted.
        assert connections(os.getpid(), address[1]) == 2
        first.close()
        assert connections(os.getpid(), address[1]) == 1
        assert connections(os.getppid(), address[1]) == 0


def test_private_memory_has_what_is_allocated_and_no_shared_code() -> None:
    before = private_bytes(os.getpid())
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    with mmap.mmap(-1, 64 * MIB, flags=flags) as memory:
        for at in range(0, len(memory), mmap.PAGESIZE):
            memory[at] = 1

        after = private_bytes(os.getpid())

        # The test process may give back a little meanwhile.
        assert 48 * MIB < after - before < 80 * MIB
        assert after < rss_bytes(os.getpid())


def test_an_ended_process_uses_nothing() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()

    assert private_bytes(ended.pid) == 0
    assert rss_bytes(ended.pid) == 0
    assert connections(ended.pid, 80) == 0
