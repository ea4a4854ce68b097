"""struct io_uring_sqe, byte by byte."""

import dataclasses
import struct
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twbench.uring.sqe import FIELDS, SQE_BYTES, Flag, Hole, Op, Sqe, unpack

little_endian = pytest.mark.skipif(
    sys.byteorder == "big", reason="the bytes below are little endian"
)
BITS = {"B": 8, "H": 16, "I": 32, "Q": 64}
NUMBERS = {
    name: st.integers(-(2**31), 2**31 - 1)
    if field.format == "i"
    else st.integers(0, 2 ** BITS[field.format] - 1)
    for name, field in FIELDS.items()
    if name not in {"opcode", "flags"}
}


@little_endian
def test_every_field_lies_where_the_kernel_reads_it() -> None:
    operation = Sqe(
        opcode=Op.LISTEN,
        flags=Flag.FIXED_FILE | Flag.IO_LINK,
        ioprio=0x0201,
        fd=-2,
        off=0x1817161514131211,
        addr=0x2827262524232221,
        len=0x34333231,
        op_flags=0x44434241,
        user_data=0x5857565554535251,
        buf_index=0x6261,
        personality=0x7271,
        file_index=0x84838281,
        addr3=0x9897969594939291,
    )
    assert operation.pack() == bytes.fromhex(
        "39 05 0102 feffffff"
        "1112131415161718"
        "2122232425262728"
        "31323334 41424344"
        "5152535455565758"
        "6162 7172 81828384"
        "9192939495969798"
        "0000000000000000"
    )


def test_table_has_the_fields_in_the_order_of_the_bytes() -> None:
    assert tuple(FIELDS) == tuple(field.name for field in dataclasses.fields(Sqe))
    end = 0
    for field in FIELDS.values():
        assert field.offset == end
        end += struct.calcsize("=" + field.format)
    assert end == SQE_BYTES - 8


@given(
    opcode=st.sampled_from(Op),
    flags=st.integers(0, 127).map(Flag),
    rest=st.fixed_dictionaries(NUMBERS),
)
def test_bytes_give_the_operation_back(opcode: Op, flags: Flag, rest: dict[str, int]) -> None:
    operation = Sqe(opcode=opcode, flags=flags, **rest)
    assert unpack(operation.pack()) == operation


def test_foreign_opcode_is_refused() -> None:
    with pytest.raises(ValueError, match="255"):
        unpack(b"\xff" + bytes(63))


@pytest.mark.parametrize("wrong", [{"fd": 2**31}, {"len": -1}, {"file_index": 2**32}])
def test_value_that_does_not_fit_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(struct.error):
        Sqe(opcode=Op.NOP, **wrong).pack()  # type: ignore[arg-type]


def test_hole_is_zero_in_the_bytes_and_told() -> None:
    hole = Hole("token").offset(3)
    assert hole == ("token", 3)
    operation = Sqe(opcode=Op.NOP, user_data=hole)
    assert operation.holes() == {"user_data": hole}
    assert operation.pack() == Sqe(opcode=Op.NOP).pack()
