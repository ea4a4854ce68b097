"""A ring, memory and a listener for each test; where there is no io_uring, a skip that says why."""

import functools
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from twbench.uring.cqe import Completion
from twbench.uring.memory import Memory
from twbench.uring.operations import SocketCommand
from twbench.uring.probe import Abilities, probe
from twbench.uring.ring import Ring
from twbench.uring.sqe import Op

WITHIN_S = 60
"""Nothing here takes a second, unless the machine is busy."""


@functools.cache
def abilities() -> Abilities:
    return probe()


@pytest.fixture
def need() -> Callable[..., None]:
    """Leave the test out, and say why, where one of these cannot be done.

    A machine that refuses io_uring altogether is expected to, even where nothing may be skipped.
    """

    def check(*wanted: Op | SocketCommand) -> None:
        if reason := abilities().refusal:
            pytest.xfail(reason)
        if reason := abilities().why_not(wanted):
            pytest.skip(reason)

    return check


@pytest.fixture
def ring(need: Callable[..., None]) -> Iterator[Ring]:
    need(Op.SOCKET)
    with Ring(entries=64, completions=128) as ring:
        ring.register_files(64)
        yield ring


@pytest.fixture
def memory(ring: Ring) -> Iterator[Memory]:
    memory = Memory(1 << 16)
    yield memory
    ring.close()
    memory.close()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        listener.settimeout(WITHIN_S)
        yield listener


@pytest.fixture
def until(ring: Ring) -> Callable[[int], list[Completion]]:
    """Let the ring run until the operation with this token completed; return all that came."""

    def run(token: int) -> list[Completion]:
        found: list[Completion] = []
        end = time.monotonic() + WITHIN_S
        while all(each[0] != token for each in found):
            assert time.monotonic() < end, f"{token} is missing from {found}"
            found += ring.turn(wait=1, timeout_ns=100_000_000)
        return found

    return run
