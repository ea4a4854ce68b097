"""Thousands of connections between the two hosts of a veth lab, made in an exact order."""

import contextlib
import json
import math
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from twbench.claims import crowd_worker
from twbench.claims.claim import SetUpError
from twbench.claims.scenery import Scenery
from twbench.kernel.readers import LookReader
from twbench.model.states import TIME_WAIT_S, TcpState
from twbench.wire.errors import StoppedError

FIRST_PORT = 80
_AT_ONCE = threading.BoundedSemaphore(2)
"""A crowd takes a processor; more of them would slow each other until TIME_WAIT is over."""
_GLANCE_S = 0.1
_BACKLOG = 128
_SETTLES_WITHIN_S = 30.0
_CLOSING_STATES = sum(
    1 << state
    for state in (
        TcpState.FIN_WAIT1,
        TcpState.FIN_WAIT2,
        TcpState.CLOSING,
        TcpState.CLOSE_WAIT,
        TcpState.LAST_ACK,
    )
)


class First(StrEnum):
    """Who ends each connection, and how."""

    CLIENT = "client"
    SERVER = "server"
    RESET = "reset"
    """The client, with SO_LINGER 0."""
    KEEP = "keep"
    """Nobody: both ends stay open."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """So many connections, one after the other, each ended before the next is opened."""

    count: int
    ending: First = First.CLIENT
    to: int = 0
    """The number of the server's port."""
    from_port: int | None = None
    """Bind to this port and the following ones first; None: the kernel chooses."""
    window: tuple[int, int] | None = None
    """IP_LOCAL_PORT_RANGE."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """What came of an order, up to the first connection that was refused."""

    ports: tuple[int, ...]
    """The client's, in their order."""
    cpu_ns: tuple[int, ...]
    """CPU time that each connect() took, the handshake's work in the kernel included."""
    error: str
    """The errno's name; empty where none was refused."""


class Crowd:
    """The process on the client host that holds both ends."""

    def __init__(self, at: Scenery, process: subprocess.Popen[str]) -> None:
        """Speak to a process that `crowd` started."""
        self._at = at
        self.process = process
        self._began_s = math.inf

    def make(self, order: Order) -> Made:
        """Make connections, when it is this crowd's turn.

        Raises SetUpError where the process ends, StoppedError when asked to stop.
        """
        while not _AT_ONCE.acquire(timeout=_GLANCE_S):
            self._at.wait(0)
        self._began_s = min(self._began_s, time.monotonic())
        try:
            return self._make(order)
        finally:
            _AT_ONCE.release()

    def _make(self, order: Order) -> Made:
        assert self.process.stdin and self.process.stdout  # noqa: S101, PT018 - both are pipes
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(asdict(order)) + "\n")
            self.process.stdin.flush()
        while not select.select([self.process.stdout], [], [], _GLANCE_S)[0]:
            if self._at.stop.is_set():
                raise StoppedError("stopped while a crowd was connecting")
        line = self.process.stdout.readline()
        if not line.endswith("\n"):
            raise SetUpError("the process that makes the connections ended")
        made: dict[str, Any] = json.loads(line)
        return Made(ports=tuple(made["ports"]), cpu_ns=tuple(made["cpu_ns"]), error=made["error"])

    def settle(self) -> None:
        """Wait until no close is under way on either host: the last FINs and ACKs may be late.

        Raises SetUpError where one does not come to its end, or where the first TIME_WAITs may be
        over already; StoppedError when asked to stop.
        """
        lab = self._at.lab
        end_s = time.monotonic() + _SETTLES_WITHIN_S
        for stack in lab.stacks:
            with LookReader(lambda *kind, stack=stack: lab.socket(stack, *kind)) as reader:
                while reader.look(states=_CLOSING_STATES).sockets.size:
                    if time.monotonic() > end_s:
                        raise SetUpError(f"closes on {stack} do not come to their end")
                    self._at.wait(_GLANCE_S)
        age_s = time.monotonic() - self._began_s
        if age_s > TIME_WAIT_S:
            raise SetUpError(f"{age_s:.0f} s since the first connection: too slow to count")


@contextmanager
def crowd(at: Scenery, *, ports: int = 1) -> Iterator[Crowd]:
    """Start the process, with so many of the server's ports to connect to, from FIRST_PORT on."""
    lab = at.lab
    client, server = lab.hosts["client"], lab.hosts["server"]
    with ExitStack() as opened:
        listeners = []
        for number in range(ports):
            made = lab.socket(server.stack, socket.AF_INET, socket.SOCK_STREAM)
            listeners.append(opened.enter_context(made))
            made.bind((server.addresses[0], FIRST_PORT + number))
            made.listen(_BACKLOG)
        numbers = [each.fileno() for each in listeners]
        head = [sys.executable, "-I", "-S", str(Path(crowd_worker.__file__).resolve())]
        argv, passed = lab.command("client", [*head, client.addresses[0], *map(str, numbers)])
        process = opened.enter_context(
            subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=(*passed, *numbers),
                start_new_session=True,
                text=True,
            )
        )
        opened.callback(_end, process)
        yield Crowd(at, process)


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    if process.stdin:
        # an order that it never read may still lie in the pipe's buffer
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
