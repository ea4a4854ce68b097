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
from twbench.kernel.sockdiag import Chunk, Sockets

_ROOM_BYTES = 64 * 1024
"""A datagram of a dump has at most 32 KiB (netlink_dump)."""
_DONE_BYTES = 20
_DONE = struct.pack("=IH", _DONE_BYTES, sockdiag.NLMSG_DONE)
"""The beginning of the last message of nearly every dump."""
_SEQ = struct.Struct("=I")
_SEQ_AT = slice(8, 12)
"""Where a message has the number of the request it answers (struct nlmsghdr)."""
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

    A socket with an answer not read to its end is of no more use: the rest would pass for the next
    answer, or the kernel refuses with EBUSY. The next request opens another one in its place, in
    the same namespace or not at all.
    """

    def __init__(
        self, open_socket: OpenSocket, *, cpu_ns: Callable[[], int] = time.thread_time_ns
    ) -> None:
        """Open the socket. Raises what `open_socket` raises."""
        self._cpu_ns = cpu_ns
        self._open_socket = open_socket
        self._seq = 0
        self._expected_bytes = 0
        self._unread = False
        """Whether some of the last answer may still be to come."""
        self._socket = self._opened()
        self._namespace = _namespace_of(self._socket)

    def close(self) -> None:
        """Close the socket; a second call does nothing."""
        self._socket.close()

    def namespace(self) -> bytes:
        """Return the cookie of the socket's network namespace; b"" before Linux 5.14."""
        return self._namespace

    def dump(self, *, states: int, only: PortFilter | None = None) -> Dump:
        """Read every socket whose state is in the mask and whose port passes the filter.

        Asks at most `_TRIES` times until undisturbed. Raises OSError with the kernel's errno when
        it refuses, with ESTALE when a new socket would be in another namespace; CodecError for
        bytes it never sends; and what `open_socket` raises.
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
        seq = self._next_seq()
        self._ask(sockdiag.encode_destroy(row, seq=seq))
        arena = _Arena(0, seq)
        arena.receive(self._socket, 0)
        answer = sockdiag.decode(arena.fresh())
        self._unread = not answer.end
        _refuse(answer.errno)

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

    def _renew(self) -> None:
        """Put a new socket in the place of the old one, unless that was closed."""
        if self._socket.fileno() < 0:
            return
        opened = self._opened()
        # By now another process may have the number of the one whose namespace it was.
        if _namespace_of(opened) != self._namespace:
            opened.close()
            raise OSError(errno.ESTALE, "the network namespace is another one now", "sock_diag")
        self._socket.close()
        self._socket = opened

    def _next_seq(self) -> int:
        self._seq += 1
        return self._seq

    def _ask(self, request: bytes) -> None:
        """Send a request; whoever reads its answer to the end takes `_unread` back."""
        if self._unread:
            self._renew()
        self._unread = True
        self._socket.send(request)

    def _dump(self, states: int, bytecode: bytes) -> Chunk:
        """Return what one dump holds, and whether some of it was lost."""
        seq = self._next_seq()
        self._ask(
            sockdiag.encode_dump(family=socket.AF_UNSPEC, states=states, bytecode=bytecode, seq=seq)
        )
        arena = _Arena(self._expected_bytes, seq)
        chunks = [Chunk(parts=())]
        lost, flags = False, int(socket.MSG_DONTWAIT)
        while not chunks[-1].end:
            silent = False
            try:
                may_be_over = arena.receive(self._socket, flags)
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    lost = True
                    continue
                if error.errno != errno.EAGAIN or not flags:
                    raise
                silent = may_be_over = True
            if (may_be_over or not flags) and arena.has_fresh:
                chunks.append(sockdiag.decode(arena.fresh()))
            if silent and lost:
                # netlink_dump found no memory (ENOBUFS): it will not go on with this one
                break
            if silent:
                # The kernel dumps within our own calls: this is never waited for, by the book.
                flags = 0
        if chunks[-1].end:
            self._unread = False
            self._expected_bytes = arena.filled
        _refuse(chunks[-1].errno)
        return Chunk(
            parts=tuple(part for chunk in chunks for part in chunk.parts),
            interrupted=lost or any(chunk.interrupted for chunk in chunks),
        )


class _Arena:
    """Memory that a dump fills from the front; never used for a second one, so rows may stay."""

    def __init__(self, expected_bytes: int, seq: int) -> None:
        # numpy asks for huge pages, which spares some thousands of page faults.
        self._bytes = np.empty(expected_bytes + expected_bytes // 8 + 2 * _ROOM_BYTES, np.uint8)
        self._view = self._bytes.data
        self._seq = _SEQ.pack(seq)
        self._seen = 0
        self.filled = 0

    @property
    def has_fresh(self) -> bool:
        """Whether anything has come since `fresh` was last called."""
        return self.filled > self._seen

    def fresh(self) -> memoryview:
        """Return what has come since the last call."""
        start, self._seen = self._seen, self.filled
        return self._view[start : self.filled]

    def receive(self, source: socket.socket, flags: int) -> bool:
        """Receive one datagram behind the others; tell whether it looks like the last one.

        Raises CodecError for one that may have been cut, or that answers another request: all
        messages of a datagram answer the same one.
        """
        start = self.filled
        if len(self._view) - start < _ROOM_BYTES:
            larger = np.empty(2 * len(self._view), np.uint8)
            larger[:start] = self._bytes[:start]
            self._bytes, self._view = larger, larger.data
        count = source.recv_into(self._view[start : start + _ROOM_BYTES], 0, flags)
        if count == _ROOM_BYTES:
            raise CodecError(f"a datagram of {_ROOM_BYTES} bytes or more")
        if self._view[start : start + count][_SEQ_AT] != self._seq:
            raise CodecError(
                f"a datagram of {count} bytes that is no answer to request"
                f" {_SEQ.unpack(self._seq)[0]}"
            )
        self.filled = start + count
        tail = max(start, self.filled - _DONE_BYTES)
        return self._view[tail : tail + len(_DONE)] == _DONE


def _namespace_of(opened: socket.socket) -> bytes:
    try:
        return opened.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)
    except OSError:
        return b""


def _refuse(code: int) -> None:
    if code:
        raise OSError(code, os.strerror(code), "sock_diag")
