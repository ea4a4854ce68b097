"""Codec of NETLINK_SOCK_DIAG for TCP: requests to bytes, dump bytes to rows. Pure.

Sources: include/uapi/linux/{netlink,sock_diag,inet_diag}.h and net/ipv4/inet_diag.c.
"""

import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twbench.kernel.errors import CodecError
from twbench.model.states import TcpState

NETLINK_SOCK_DIAG = 4

NLMSG_NOOP = 1
NLMSG_ERROR = 2
NLMSG_DONE = 3
NLMSG_OVERRUN = 4
TCPDIAG_GETSOCK = 18
SOCK_DIAG_BY_FAMILY = 20
SOCK_DESTROY = 21

NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP_INTR = 0x10
NLM_F_DUMP = 0x300

INET_DIAG_REQ_BYTECODE = 1

ALL_STATES = sum(1 << state for state in TcpState)
"""The mask that asks for every state; the bit of a state is `1 << state`."""

SOCKETS = np.dtype(
    [
        ("family", "u1"),
        ("state", "u1"),
        ("timer", "u1"),
        ("retransmits", "u1"),
        ("sport", ">u2"),
        ("dport", ">u2"),
        ("src", "V16"),
        ("dst", "V16"),
        ("interface", "u4"),
        ("cookie", "V8"),
        ("expires_ms", "u4"),
        ("rqueue", "u4"),
        ("wqueue", "u4"),
        ("uid", "u4"),
        ("inode", "u4"),
    ]
)
"""One row a socket, laid out as struct inet_diag_msg.

`src` and `dst` are 16 bytes in network order, an IPv4 address in the first four. `expires_ms` is
the time left of the running timer; in TIME_WAIT, the time that state has left. `rqueue` of a LISTEN
is its accept queue and `wqueue` its backlog. An orphaned FIN_WAIT_2 has state 5, as a full socket.
`cookie` is the kernel's own name of it; `uid` is as the reader's user namespace maps it. All 72
bytes are fields, so that copies lose none.
"""

Sockets = NDArray[np.void]

_HEADER = struct.Struct("=IHHII")
_REQUEST_V2 = struct.Struct("=BBBxI48s")
_REQUEST_COMPAT = struct.Struct("=BBBB48sII")
_ATTRIBUTE = struct.Struct("=HH")
_ERRNO = struct.Struct("=i")
_SOCKID = slice(4, 52)

_HEADERS = np.dtype([("length", "u4"), ("kind", "u2"), ("flags", "u2"), ("rest", "V8")])
_OPAQUE_HEADERS = np.dtype(f"V{_HEADERS.itemsize}")
_OPAQUE_SOCKETS = np.dtype(f"V{SOCKETS.itemsize}")
"""The same bytes without fields: numpy copies those whole, not field by field."""
_BODY_WORD = _HEADER.size // 4
_SOCKET_BYTES = _HEADER.size + SOCKETS.itemsize
_SOCKET_KINDS = {TCPDIAG_GETSOCK, SOCK_DIAG_BY_FAMILY}
_LEAST_RUN = 16
"""Messages alike, from which on a view costs less than looking at each."""
_FIRST_STEP, _LAST_STEP = 8, 4096
"""Messages looked at one by one before the next run is tried; more where there is none."""
_FIRST_OWN_KIND = 16
"""Types below NLMSG_MIN_TYPE are netlink's own control messages."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunk:
    """What some buffer of a dump held.

    `parts` are rows in their order, most of them views of the buffer; `end` says that the dump is
    over (by NLMSG_DONE or an error); `errno` is 0 or what the kernel refused with; `interrupted`
    says that rows may be missing.
    """

    parts: tuple[Sockets, ...]
    end: bool = False
    errno: int = 0
    interrupted: bool = False

    @property
    def sockets(self) -> Sockets:
        """All rows as one array."""
        return join(self.parts)


def encode_dump(
    *, family: int, states: int = ALL_STATES, bytecode: bytes = b"", seq: int = 1
) -> bytes:
    """Return the request for every TCP socket of `family` in the state mask `states`.

    `bytecode`, where there is any, has to accept it too (inet_diag_bc_run). AF_UNSPEC asks for both
    families in one walk of the hash table: only the older TCPDIAG_GETSOCK can
    (inet_diag_dump_compat), SOCK_DIAG_BY_FAMILY answers ENOENT.
    """
    if family == socket.AF_UNSPEC:
        kind, body = TCPDIAG_GETSOCK, _REQUEST_COMPAT.pack(0, 0, 0, 0, b"", states, 0)
    else:
        kind = SOCK_DIAG_BY_FAMILY
        body = _REQUEST_V2.pack(family, socket.IPPROTO_TCP, 0, states, b"")
    if bytecode:
        body += _ATTRIBUTE.pack(_ATTRIBUTE.size + len(bytecode), INET_DIAG_REQ_BYTECODE) + bytecode
    length = _HEADER.size + len(body)
    return _HEADER.pack(length, kind, NLM_F_REQUEST | NLM_F_DUMP, seq, 0) + body


def encode_destroy(row: np.void, *, seq: int = 1) -> bytes:
    """Return the request that destroys the one socket of `row`, a row of `SOCKETS`.

    The answer is an NLMSG_ERROR with errno 0, or EPERM without CAP_NET_ADMIN over the namespace,
    or ENOENT when the socket is gone (tcp_diag_destroy).
    """
    raw = row.tobytes()
    body = _REQUEST_V2.pack(raw[0], socket.IPPROTO_TCP, 0, 1 << raw[1], raw[_SOCKID])
    length = _HEADER.size + len(body)
    return _HEADER.pack(length, SOCK_DESTROY, NLM_F_REQUEST | NLM_F_ACK, seq, 0) + body


def decode(chunk: bytes | bytearray | memoryview) -> Chunk:
    """Return what a buffer of whole netlink messages holds, without copying what is alike.

    A table full of TIME_WAIT sends long runs of messages of one length: those become views. Raises
    CodecError for a truncated message or one of a type that a dump cannot contain.
    """
    view = memoryview(chunk).cast("B")
    if len(view) < _HEADER.size:
        raise CodecError(f"{len(view)} bytes are less than a netlink header")
    pieces: list[Chunk] = []
    offset, step = 0, _FIRST_STEP
    while offset < len(view):
        run = _run(view, offset)
        if run:
            step = _FIRST_STEP
        else:
            run = _mixed(view, offset, step)
            step = min(2 * step, _LAST_STEP)
        piece, size = run
        pieces.append(piece)
        offset += size
    return Chunk(
        parts=tuple(part for piece in pieces for part in piece.parts if len(part)),
        end=any(piece.end for piece in pieces),
        errno=next((piece.errno for piece in pieces if piece.errno), 0),
        interrupted=any(piece.interrupted for piece in pieces),
    )


def join(parts: Sequence[Sockets]) -> Sockets:
    """Return the rows of several parts as one array, in their order; of a single one, itself."""
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return np.empty(0, SOCKETS)
    return np.concatenate([part.view(_OPAQUE_SOCKETS) for part in parts]).view(SOCKETS)


def _run(view: memoryview, offset: int) -> tuple[Chunk, int] | None:
    """Return the sockets of one length that begin here, and their bytes; None for too few."""
    if len(view) - offset < _HEADER.size:
        return None
    stride, kind, flags, _, _ = _HEADER.unpack_from(view, offset)
    if kind not in _SOCKET_KINDS or stride < _SOCKET_BYTES or stride % 4:
        return None
    most = (len(view) - offset) // stride
    heads = np.ndarray((most,), np.uint64, view, offset, (stride,))
    count, window = 0, _LEAST_RUN
    while count < most:
        alike = heads[count : count + window] == heads[0]
        if not alike.all():
            count += int(alike.argmin())
            break
        count += len(alike)
        window *= 4
    if count < _LEAST_RUN:
        return None
    rows = np.ndarray((count,), SOCKETS, view, offset + _HEADER.size, (stride,))
    return Chunk(parts=(rows,), interrupted=bool(flags & NLM_F_DUMP_INTR)), count * stride


def _mixed(view: memoryview, offset: int, most: int) -> tuple[Chunk, int]:
    """Return what the next messages hold, `most` at the most, and their bytes."""
    at, end_of_them = _walk(view, offset, most)
    words = (len(view) - _HEADER.size) // 4 + 1
    headers = np.ndarray((words,), _OPAQUE_HEADERS, view, strides=(4,))[at].view(_HEADERS)
    kinds = headers["kind"]
    interrupted = bool((headers["flags"] & NLM_F_DUMP_INTR).any())
    end, errno = False, 0
    if kinds.min() < _FIRST_OWN_KIND:
        control = kinds < _FIRST_OWN_KIND
        end, errno, overrun = _control(view, at[control], headers[control])
        at, headers = at[~control], headers[~control]
        kinds = headers["kind"]
        interrupted |= overrun
    unknown = set(np.unique(kinds).tolist()) - _SOCKET_KINDS
    if unknown:
        raise CodecError(f"a sock_diag dump cannot hold messages of type {sorted(unknown)}")
    if len(at) and headers["length"].min() < _SOCKET_BYTES:
        raise CodecError(
            f"a socket's message has {headers['length'].min()} of {_SOCKET_BYTES} bytes"
        )
    piece = Chunk(parts=(_rows(view, at),), end=end, errno=errno, interrupted=interrupted)
    return piece, end_of_them - offset


def _walk(view: memoryview, offset: int, most: int) -> tuple[NDArray[np.intp], int]:
    """Return where the next messages begin, in 4-byte words, and where the last of them ends."""
    lengths = view[: len(view) & ~3].cast("I")
    offsets: list[int] = []
    end = len(view)
    while offset < end and len(offsets) < most:
        if end - offset < _HEADER.size:
            raise CodecError(f"{end - offset} stray bytes after the last message")
        length = lengths[offset >> 2]
        if not _HEADER.size <= length <= end - offset:
            raise CodecError(f"a message of {length} bytes where {end - offset} are left")
        offsets.append(offset >> 2)
        offset += (length + 3) & ~3
    return np.array(offsets, np.intp), offset


def _control(view: memoryview, at: NDArray[np.intp], headers: Sockets) -> tuple[bool, int, bool]:
    """Return (end, errno, overrun) of netlink's own messages."""
    end, errno, overrun = False, 0, False
    for word, length, kind in zip(at, headers["length"], headers["kind"], strict=True):
        if kind in (NLMSG_ERROR, NLMSG_DONE):
            body = length - _HEADER.size
            if body >= _ERRNO.size:
                errno = errno or abs(_ERRNO.unpack_from(view, int(word) * 4 + _HEADER.size)[0])
            elif kind == NLMSG_ERROR or body:
                raise CodecError(f"the error code of message type {kind} is cut off")
            end = True
        elif kind == NLMSG_OVERRUN:
            overrun = True
        elif kind != NLMSG_NOOP:
            raise CodecError(f"unknown netlink control message {kind}")
    return end, errno, overrun


def _rows(view: memoryview, at: NDArray[np.intp]) -> Sockets:
    """Return the socket bodies of the messages at these words, copied out."""
    if not len(at):
        return np.empty(0, SOCKETS)
    every_word = np.ndarray(
        ((len(view) - SOCKETS.itemsize) // 4 + 1,), _OPAQUE_SOCKETS, view, strides=(4,)
    )
    return every_word[at + _BODY_WORD].view(SOCKETS)
