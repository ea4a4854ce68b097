"""One NETLINK_SOCK_DIAG socket: asks the kernel, and reads its answer to the end."""

import errno
import os
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from twbench.kernel import sockdiag
from twbench.kernel.errors import CodecError
from twbench.kernel.openers import OpenSocket
from twbench.kernel.portfilter import PortFilter, encode_filter
from twbench.kernel.sockdiag import Chunk, Sockets

_ROOM_BYTES = 64 * 1024
"""A datagram of a dump has at most 32 KiB (netlink_dump)."""
_DONE_BYTES = 20
_DONE = struct.pack("=IH", _DONE_BYTES, sockdiag.NLMSG_DONE)
"""The beginning of the last message of nearly every dump."""
_RECEIVE_BUFFER_BYTES = 1024 * 1024
_ANSWER_WITHIN_S = 10
_TRIES = 3

_SO_NETNS_COOKIE = 71
"""include/uapi/asm-generic/socket.h, since Linux 5.14; a few architectures number it otherwise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dump:
    """The rows of one dump, in parts that nobody else will write to.

    `interrupted` says that rows were lost on the way; `cost_ns` is the CPU time of the thread that
    read them, the kernel's work included.
    """

    parts: tuple[Sockets, ...]
    interrupted: bool
    cost_ns: int


class DiagSocket:
    """A netlink socket; for one thread at a time.

    A dump lands in one piece of memory, a datagram behind the other, and is decoded there at its
    end: between two datagrams, which are the kernel's work, almost nothing is done.
    """

    def __init__(
        self, open_socket: OpenSocket, *, cpu_ns: Callable[[], int] = time.thread_time_ns
    ) -> None:
        """Open the socket. Raises what `open_socket` raises."""
        self._cpu_ns = cpu_ns
        self._open_socket = open_socket
        self._seq = 0
        self._expected_bytes = 0
        self._socket = self._opened()

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
            chunk = self._dump(states, bytecode)
            if not chunk.interrupted:
                break
        return Dump(
            parts=chunk.parts,
            interrupted=chunk.interrupted,
            cost_ns=self._cpu_ns() - started_ns,
        )

    def destroy(self, row: np.void) -> None:
        """Destroy the one socket of this row. Raises OSError: EPERM, ENOENT when it is gone."""
        self._seq += 1
        self._socket.send(sockdiag.encode_destroy(row, seq=self._seq))
        room = memoryview(bytearray(_ROOM_BYTES))
        _refuse(sockdiag.decode(room[: self._socket.recv_into(room)]).errno)

    def _opened(self) -> socket.socket:
        opened = self._open_socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, sockdiag.NETLINK_SOCK_DIAG
        )
        try:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
            # Not settimeout(): that polls before every receive.
            answer_within = struct.pack("@ll", _ANSWER_WITHIN_S, 0)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, answer_within)
        except BaseException:
            opened.close()
            raise
        return opened

    def _dump(self, states: int, bytecode: bytes) -> Chunk:
        """Return what one dump holds, and whether some of it was lost."""
        self._seq += 1
        self._socket.send(
            sockdiag.encode_dump(
                family=socket.AF_UNSPEC, states=states, bytecode=bytecode, seq=self._seq
            )
        )
        arena = _Arena(self._expected_bytes)
        lost, flags = False, int(socket.MSG_DONTWAIT)
        while True:
            try:
                may_be_over = arena.receive(self._socket, flags)
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    lost = True
                    continue
                if error.errno != errno.EAGAIN or not flags:
                    raise
                may_be_over = True
                if lost and not arena.filled:
                    return self._abandoned(())
            if flags and not may_be_over:
                continue
            chunk = sockdiag.decode(arena.received)
            _refuse(chunk.errno)
            if chunk.end:
                self._expected_bytes = arena.filled
                return replace(chunk, interrupted=chunk.interrupted or lost)
            if lost and flags:
                return self._abandoned(chunk.parts)
            # The kernel dumps within our own calls: this is never waited for, by the book.
            flags = 0

    def _abandoned(self, parts: tuple[Sockets, ...]) -> Chunk:
        """Return what came of a dump that the kernel will not go on with (netlink_dump: ENOBUFS).

        Its socket answers every further request with EBUSY, so a new one takes its place.
        """
        self._socket.close()
        self._socket = self._opened()
        return Chunk(parts=parts, interrupted=True)


class _Arena:
    """Memory that a dump fills from the front; never used for a second one, so rows may stay."""

    def __init__(self, expected_bytes: int) -> None:
        # numpy asks for huge pages, which spares some thousands of page faults.
        self._bytes = np.empty(expected_bytes + expected_bytes // 8 + 2 * _ROOM_BYTES, np.uint8)
        self._view = self._bytes.data
        self.filled = 0

    @property
    def received(self) -> memoryview:
        """What has come so far."""
        return self._view[: self.filled]

    def receive(self, source: socket.socket, flags: int) -> bool:
        """Receive one datagram behind the others; tell whether it looks like the last one."""
        start = self.filled
        if len(self._view) - start < _ROOM_BYTES:
            larger = np.empty(2 * len(self._view), np.uint8)
            larger[:start] = self._bytes[:start]
            self._bytes, self._view = larger, larger.data
        count = source.recv_into(self._view[start : start + _ROOM_BYTES], 0, flags)
        if count == _ROOM_BYTES:
            raise CodecError(f"a datagram of {_ROOM_BYTES} bytes or more")
        self.filled = start + count
        tail = max(start, self.filled - _DONE_BYTES)
        return not count or self._view[tail : tail + len(_DONE)] == _DONE


def _refuse(code: int) -> None:
    if code:
        raise OSError(code, os.strerror(code), "sock_diag")
