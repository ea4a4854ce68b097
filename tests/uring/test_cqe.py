"""struct io_uring_cqe, byte by byte, and the ring it lies in."""

import struct
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twbench.uring.cqe import MORE, Completion, decode, decode_ring

completions = st.tuples(
    st.integers(0, 2**64 - 1), st.integers(-(2**31), 2**31 - 1), st.integers(0, 2**32 - 1)
)


@pytest.mark.skipif(sys.byteorder == "big", reason="the bytes below are little endian")
def test_token_result_and_flags_lie_where_the_kernel_writes_them() -> None:
    raw = bytes.fromhex("0102030405060708 91ffffff 02000000ffffffffffffffff 2a000000 00000000")
    refused = (0x0807060504030201, -111, MORE)
    assert decode(raw) == [refused, (0xFFFF_FFFF_FFFF_FFFF, 42, 0)]


def test_cut_off_record_is_refused() -> None:
    with pytest.raises(struct.error):
        decode(bytes(17))


@given(st.lists(completions))
def test_records_come_out_as_they_went_in(rows: list[Completion]) -> None:
    assert decode(b"".join(struct.pack("=QiI", *row) for row in rows)) == rows


@given(
    bits=st.integers(0, 5), head=st.integers(0, 2**32 - 1), count=st.integers(0, 32), data=st.data()
)
def test_ring_is_read_across_its_end_and_across_the_counters(
    bits: int, head: int, count: int, data: st.DataObject
) -> None:
    size = 1 << bits
    count = min(count, size)
    rows = data.draw(st.lists(completions, min_size=count, max_size=count))
    raw = bytearray(b"\xee" * 16 * size)
    for number, row in enumerate(rows):
        struct.pack_into("=QiI", raw, (head + number) % size * 16, *row)
    assert decode_ring(memoryview(raw), head, (head + count) % 2**32) == rows
