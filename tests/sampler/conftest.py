"""A network namespace of its own for a test, made as an ordinary user makes one."""

import subprocess
from collections.abc import Iterator

import pytest


@pytest.fixture
def pid() -> Iterator[int]:
    """Give the number of a process alone in a fresh network namespace with its loopback up."""
    script = "ip link set lo up && echo ready && exec cat"
    with subprocess.Popen(
        ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"ready\n"
        yield holder.pid
        holder.kill()
