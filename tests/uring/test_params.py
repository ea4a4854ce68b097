"""struct io_uring_params, byte by byte."""

import struct

from twbench.uring.params import Feature, Setup, decode, encode


def test_request_has_completions_and_flags_where_the_kernel_reads_them() -> None:
    raw = encode(setup=Setup.CQSIZE | Setup.DEFER_TASKRUN, completions=256)
    assert bytes(raw) == struct.pack("=III108x", 0, 256, 1 << 3 | 1 << 13)


def test_answer_gives_sizes_and_offsets() -> None:
    answer = struct.pack("=7I12x", 64, 128, 1 << 4, 0, 0, 1 << 0 | 1 << 8, 0)
    # head, tail, mask, entries, flags, dropped, array, reserved, user address
    answer += struct.pack("=8IQ", 11, 12, 13, 14, 15, 16, 4096, 0, 0)
    # head, tail, mask, entries, overflow, cqes, flags, reserved, user address
    answer += struct.pack("=8IQ", 21, 22, 23, 24, 25, 64, 27, 0, 0)
    layout = decode(answer)
    assert (layout.sq_entries, layout.cq_entries) == (64, 128)
    assert layout.setup == Setup.CLAMP
    assert layout.features == Feature.SINGLE_MMAP | Feature.EXT_ARG
    sq = (layout.sq_head, layout.sq_tail, layout.sq_flags, layout.sq_array)
    assert sq == (11, 12, 15, 4096)
    assert (layout.cq_head, layout.cq_tail, layout.cq_overflow, layout.cq_cqes) == (21, 22, 25, 64)
    assert layout.ring_bytes == 4096 + 64 * 4


def test_mapping_covers_whichever_ring_lies_last() -> None:
    answer = struct.pack("=7I12x", 4, 8, 0, 0, 0, 0, 0)
    answer += struct.pack("=8IQ", 0, 0, 0, 0, 0, 0, 64, 0, 0)
    answer += struct.pack("=8IQ", 0, 0, 0, 0, 0, 128, 0, 0, 0)
    assert decode(answer).ring_bytes == 128 + 8 * 16


def test_flags_of_the_completion_ring_lie_where_they_are_said_to() -> None:
    answer = struct.pack("=7I12x", 4, 8, 0, 0, 0, 0, 0)
    answer += struct.pack("=8IQ", 0, 0, 0, 0, 0, 0, 64, 0, 0)
    answer += struct.pack("=8IQ", 0, 0, 0, 0, 0, 128, 24, 0, 0)
    assert decode(answer).cq_flags == 24
