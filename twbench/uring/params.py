"""struct io_uring_params: what a ring is asked to be, and where its parts then lie. Pure.

Source: include/uapi/linux/io_uring.h.
"""

import struct
from dataclasses import dataclass
from enum import IntFlag

PARAMS_BYTES = 120
_HEAD = struct.Struct("=7I12x")
_OFFSETS = struct.Struct("=10I")
_SQ_AT, _CQ_AT = 40, 80


class Setup(IntFlag):
    """IORING_SETUP_*."""

    CQSIZE = 1 << 3
    CLAMP = 1 << 4
    SUBMIT_ALL = 1 << 7
    COOP_TASKRUN = 1 << 8
    TASKRUN_FLAG = 1 << 9
    SINGLE_ISSUER = 1 << 12
    DEFER_TASKRUN = 1 << 13


class Feature(IntFlag):
    """IORING_FEAT_*, with the Linux that brought each."""

    SINGLE_MMAP = 1 << 0  # 5.4
    NODROP = 1 << 1  # 5.5
    SUBMIT_STABLE = 1 << 2  # 5.5
    FAST_POLL = 1 << 5  # 5.7
    EXT_ARG = 1 << 8  # 5.11
    RSRC_TAGS = 1 << 10  # 5.13
    CQE_SKIP = 1 << 11  # 5.17


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """A ring as the kernel made it.

    `*_entries` are powers of two. `sq_*` and `cq_*` are offsets in bytes into the one mapping of
    both rings, `ring_bytes` its size; the operations have a mapping of their own.
    """

    setup: Setup
    features: Feature
    sq_entries: int
    cq_entries: int
    sq_head: int
    sq_tail: int
    sq_flags: int
    sq_array: int
    cq_head: int
    cq_tail: int
    cq_overflow: int
    cq_cqes: int
    cq_flags: int
    ring_bytes: int


def encode(*, setup: Setup, completions: int) -> bytearray:
    """Return the 120 bytes that ask for a ring with room for this many completions (CQSIZE)."""
    raw = bytearray(PARAMS_BYTES)
    _HEAD.pack_into(raw, 0, 0, completions, setup, 0, 0, 0, 0)
    return raw


def decode(raw: bytes | bytearray) -> Layout:
    """Return what the kernel wrote into the 120 bytes."""
    sq_entries, cq_entries, setup, _, _, features, _ = _HEAD.unpack_from(raw)
    sq_head, sq_tail, _, _, sq_flags, _, sq_array, *_ = _OFFSETS.unpack_from(raw, _SQ_AT)
    cq_head, cq_tail, _, _, cq_overflow, cq_cqes, cq_flags, *_ = _OFFSETS.unpack_from(raw, _CQ_AT)
    return Layout(
        setup=Setup(setup),
        features=Feature(features),
        sq_entries=sq_entries,
        cq_entries=cq_entries,
        sq_head=sq_head,
        sq_tail=sq_tail,
        sq_flags=sq_flags,
        sq_array=sq_array,
        cq_head=cq_head,
        cq_tail=cq_tail,
        cq_overflow=cq_overflow,
        cq_cqes=cq_cqes,
        cq_flags=cq_flags,
        ring_bytes=max(sq_array + 4 * sq_entries, cq_cqes + 16 * cq_entries),
    )
