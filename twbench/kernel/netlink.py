"""One NETLINK_SOCK_DIAG socket: asks the kernel, and reads its answer to the end."""

import errno
import os
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from twbench.kernel import sockdiag
from twbench.kernel.errors import CodecError
from twbench.kernel.openers import OpenSocket
from twbench.kernel.portfilter import PortFilter, encode_filter
from twbench.kernel.sockdiag import Sockets

_BUFFER_BYTES = 256 * 1024
"""A datagram of a dump has at most 32 KiB (netlink_dump)."""
_RECEIVE_BUFFER_BYTES = 1024 * 1024
_ANSWER_WITHIN_S = 10
_TRIES = 3

_SO_NETNS_COOKIE = 71
"""include/uapi/asm-generic/socket.h, since Linux 5.14; a few architectures number it otherwise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dump:
    """The rows of one dump, chunk by chunk.

    `interrupted` says that rows were lost on the way; `cost_ns` is the CPU time of the thread that
    read them, the kernel's work included.
    """

    parts: list[Sockets]
    interrupted: bool
    cost_ns: int


class DiagSocket:
    """A netlink socket and the one reused buffer its answers land in; for one thread at a time."""

    def __init__(
        self, open_socket: OpenSocket, *, cpu_ns: Callable[[], int] = time.thread_time_ns
    ) -> None:
        """Open the socket. Raises what `open_socket` raises."""
        self._cpu_ns = cpu_ns
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))
        self._seq = 0
        self._socket = open_socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, sockdiag.NETLINK_SOCK_DIAG
        )
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
            # Not settimeout(): that polls before every receive.
            answer_within = struct.pack("@ll", _ANSWER_WITHIN_S, 0)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, answer_within)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the socket; a second call does nothing."""
        self._socket.close()

    def namespace(self) -> bytes:
        """Return the cookie of the socket's network namespace. Raises OSError before Linux 5.14."""
        return self._socket.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)

    def dump(self, *, states: int, only: PortFilter | None = None) -> Dump:
        """Read every socket whose state is in the mask and whose port passes the filter.

        Asks at most `_TRIES` times until undisturbed. Raises OSError with the kernel's errno when
        it refuses, CodecError for bytes it never sends.
        """
        started_ns = self._cpu_ns()
        bytecode = b"" if only is None else encode_filter(only)
        for _ in range(_TRIES):
            parts, interrupted = self._dump(states, bytecode)
            if not interrupted:
                break
        return Dump(parts=parts, interrupted=interrupted, cost_ns=self._cpu_ns() - started_ns)

    def destroy(self, row: np.void) -> None:
        """Destroy the one socket of this row. Raises OSError: EPERM, ENOENT when it is gone."""
        self._seq += 1
        self._socket.send(sockdiag.encode_destroy(row, seq=self._seq))
        _refuse(sockdiag.decode(self._receive()).errno)

    def _dump(self, states: int, bytecode: bytes) -> tuple[list[Sockets], bool]:
        """Return the rows of one dump, chunk by chunk, and whether some were lost."""
        self._seq += 1
        self._socket.send(
            sockdiag.encode_dump(
                family=socket.AF_UNSPEC, states=states, bytecode=bytecode, seq=self._seq
            )
        )
        parts: list[Sockets] = []
        interrupted = False
        while True:
            try:
                chunk = sockdiag.decode(self._receive())
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                interrupted = True
                continue
            _refuse(chunk.errno)
            parts.append(chunk.sockets)
            interrupted |= chunk.interrupted
            if chunk.end:
                return parts, interrupted

    def _receive(self) -> memoryview:
        """Return the next datagram, in the reused buffer."""
        count = self._socket.recv_into(self._buffer)
        if count == _BUFFER_BYTES:
            raise CodecError(f"a datagram of {_BUFFER_BYTES} bytes or more")
        return self._buffer[:count]


def _refuse(code: int) -> None:
    if code:
        raise OSError(code, os.strerror(code), "sock_diag")
