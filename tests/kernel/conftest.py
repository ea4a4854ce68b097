"""Network namespaces of a test's own, made as an ordinary user makes one."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

CROWD = """
import socket, subprocess, sys, time
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
held = []
for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
    listener = socket.create_server((address, 0), family=family, backlog=4)
    for number in range(1500):
        client = socket.create_connection(listener.getsockname()[:2])
        server, _ = listener.accept()
        if number % 20 == 0:
            held += [client, server]
            continue
        client.close()
        if number % 20 == 1:
            held.append(server)
        else:
            server.close()
    held.append(listener)
    for _ in range(8):
        client = socket.socket(family)
        client.setblocking(False)
        client.connect_ex(listener.getsockname()[:2])
        held.append(client)
time.sleep(0.3)  # until every delayed acknowledgement is out
print("ready", flush=True)
sys.stdin.read()
"""
"""Makes thousands of sockets of both families: TIME_WAIT, ESTABLISHED, orphaned FIN_WAIT2 and its
CLOSE_WAIT, LISTEN with a full queue, SYN_SENT."""


@contextmanager
def apart(*command: str) -> Iterator[int]:
    """Run a command in a fresh network namespace until it is ready, then give its number."""
    with subprocess.Popen(
        ["unshare", "--user", "--map-root-user", "--net", *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"ready\n"
        yield holder.pid
        holder.kill()


@pytest.fixture
def pid() -> Iterator[int]:
    """Give the number of a process alone in a fresh network namespace with its loopback up."""
    with apart("sh", "-c", "ip link set lo up && echo ready && exec cat") as number:
        yield number


@pytest.fixture(scope="module")
def crowded_pid() -> Iterator[int]:
    """Give the number of a process in a network namespace with thousands of sockets at rest."""
    with apart(sys.executable, "-c", CROWD) as number:
        yield number
