"""Chains: what is linked to what, and what goes into the holes."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twbench.uring import operations as do
from twbench.uring.operations import Slot
from twbench.uring.sqe import SQE_BYTES, Flag, Hole, Sqe, unpack
from twbench.uring.template import batch, chain

TOKEN = Hole("token")
CONNECTION = Slot(Hole("slot"))
EXCHANGE = chain(
    do.socket(CONNECTION, family=2, kind=1, user_data=TOKEN, flags=Flag.CQE_SKIP_SUCCESS),
    do.connect(CONNECTION, addr=Hole("addr"), addr_bytes=16, user_data=TOKEN.offset(1)),
    do.recv(CONNECTION, addr=4096, length=10, user_data=TOKEN.offset(2), flags=Flag.IO_HARDLINK),
    do.close(CONNECTION, user_data=TOKEN.offset(3)),
)


def operations(raw: bytes | bytearray) -> list[Sqe]:
    return [unpack(bytes(raw[at : at + SQE_BYTES])) for at in range(0, len(raw), SQE_BYTES)]


def test_each_is_linked_to_the_next_and_the_last_to_none() -> None:
    links = Flag.IO_LINK | Flag.IO_HARDLINK
    assert [each.flags & links for each in operations(EXCHANGE.raw)] == [
        Flag.IO_LINK,
        Flag.IO_LINK,
        Flag.IO_HARDLINK,
        Flag.NONE,
    ]


@given(
    slot=st.integers(0, 2**31 - 1), addr=st.integers(0, 2**64 - 1), token=st.integers(0, 2**64 - 4)
)
def test_filled_chain_is_the_chain_described_with_these_values(
    slot: int, addr: int, token: int
) -> None:
    direct = Slot(slot)
    link = Flag.IO_LINK
    assert operations(EXCHANGE.fill(slot=slot, addr=addr, token=token)) == [
        do.socket(direct, family=2, kind=1, user_data=token, flags=link | Flag.CQE_SKIP_SUCCESS),
        do.connect(direct, addr=addr, addr_bytes=16, user_data=token + 1, flags=link),
        do.recv(direct, addr=4096, length=10, user_data=token + 2, flags=Flag.IO_HARDLINK),
        do.close(direct, user_data=token + 3),
    ]


def test_patch_changes_one_hole_and_leaves_the_rest() -> None:
    made = EXCHANGE.fill(slot=3, addr=7, token=100)
    EXCHANGE.patch(made, token=200)
    assert made == EXCHANGE.fill(slot=3, addr=7, token=200)


def test_filling_leaves_the_template_as_it_was() -> None:
    before = EXCHANGE.raw
    EXCHANGE.fill(slot=3, addr=7, token=100)
    assert EXCHANGE.raw == before


@pytest.mark.parametrize(
    "values", [{"slot": 1, "addr": 2}, {"slot": 1, "addr": 2, "token": 3, "more": 4}]
)
def test_missing_and_unknown_values_are_refused(values: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="wants addr, slot, token; given addr"):
        EXCHANGE.fill(**values)


def test_value_that_does_not_fit_its_field_is_refused() -> None:
    with pytest.raises(struct.error):
        EXCHANGE.fill(slot=2**31, addr=0, token=0)


def test_chain_of_nothing_or_into_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="linked to none"):
        chain()
    with pytest.raises(ValueError, match="linked to none"):
        chain(do.nop(flags=Flag.IO_LINK))


def test_batch_links_nothing_that_is_not_linked_already() -> None:
    pair = batch(do.nop(user_data=TOKEN), do.nop(user_data=TOKEN.offset(1)))
    assert [each.flags for each in operations(pair.raw)] == [Flag.NONE, Flag.NONE]
    assert [each.user_data for each in operations(pair.fill(token=7))] == [7, 8]
    assert batch(*operations(EXCHANGE.raw)).raw == EXCHANGE.raw


@given(slot=st.integers(0, 2**31 - 1), token=st.integers(0, 2**64 - 4))
def test_writes_are_what_patch_would_write(slot: int, token: int) -> None:
    before = EXCHANGE.fill(slot=3, addr=7, token=100)
    patched, written = bytearray(before), bytearray(before)
    EXCHANGE.patch(patched, slot=slot, token=token)
    for where, raw in EXCHANGE.writes(slot=slot, token=token):
        written[where] = raw
    assert written == patched == EXCHANGE.fill(slot=slot, addr=7, token=token)
    assert EXCHANGE.writes() == ()


def test_writes_of_an_unknown_hole_or_too_large_a_value_are_refused() -> None:
    with pytest.raises(KeyError, match="more"):
        EXCHANGE.writes(more=1)
    with pytest.raises(struct.error):
        EXCHANGE.writes(slot=2**31)
