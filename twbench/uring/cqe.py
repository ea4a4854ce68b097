"""Completions: struct io_uring_cqe, decoded in bulk. Pure.

Source: include/uapi/linux/io_uring.h.
"""

import struct

CQE_BYTES = 16

BUFFER = 1
"""IORING_CQE_F_BUFFER: the upper 16 bits of the flags are the number of the buffer used."""
MORE = 2
"""IORING_CQE_F_MORE: the same operation will complete again."""

SOCK_NONEMPTY = 4
"""IORING_CQE_F_SOCK_NONEMPTY: after this receive there is more to read, perhaps but a FIN."""

Completion = tuple[int, int, int]
"""(user_data, result, flags): the token of the operation; its result or minus the errno; flags."""

_CQE = struct.Struct("=QiI")


def decode(raw: bytes | bytearray | memoryview) -> list[Completion]:
    """Return the completions of whole 16-byte records, oldest first.

    Raises struct.error if the last is cut off.
    """
    return list(_CQE.iter_unpack(raw))


def decode_ring(cqes: memoryview, head: int, tail: int) -> list[Completion]:
    """Return the completions from `head` up to `tail`, u32 counters over a power of two records."""
    mask = len(cqes) // CQE_BYTES - 1
    if head == tail:
        return []
    first, end = (head & mask) * CQE_BYTES, (tail & mask) * CQE_BYTES
    if first < end:
        return list(_CQE.iter_unpack(cqes[first:end]))
    found = list(_CQE.iter_unpack(cqes[first:]))
    if end:
        found += _CQE.iter_unpack(cqes[:end])
    return found
