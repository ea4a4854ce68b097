"""The chains of a slot, operation by operation."""

import socket

from twbench.server.chains import ATOM_BYTES, ChainMaker, Step, cancel, install, token, write
from twbench.uring.sqe import SQE_BYTES, Flag, Op, Sqe, unpack

CHAINS = ChainMaker(900, peer_bytes=8, kept=(100, 11), last=(200, 22)).make(5, buffer=300, peer=400)
ALL = socket.MSG_WAITALL | socket.MSG_NOSIGNAL


def operations(chain: bytes) -> list[Sqe]:
    return [unpack(chain[at : at + SQE_BYTES]) for at in range(0, len(chain), SQE_BYTES)]


def test_every_chain_is_what_it_says() -> None:
    accept, recv = Op.ACCEPT, Op.RECV
    assert {
        name: [each.opcode for each in operations(getattr(CHAINS, name))]
        for name in CHAINS.__slots__
    } == {
        "arm": [accept, recv],
        "recv": [recv],
        "close": [Op.CLOSE],
        "close_arm": [Op.CLOSE, accept, recv],
        "keep": [Op.SEND, recv],
        "hold": [Op.SEND, recv],
        "end": [Op.SEND, Op.CLOSE],
        "end_arm": [Op.SEND, Op.CLOSE, accept, recv],
    }


def test_all_but_the_last_operation_is_linked_to_the_next() -> None:
    for name in CHAINS.__slots__:
        *linked, last = operations(getattr(CHAINS, name))
        assert all(Flag.IO_LINK in each.flags for each in linked)
        assert Flag.IO_LINK not in last.flags


def test_accepts_and_chained_sends_are_silent_and_the_others_tell() -> None:
    for name in CHAINS.__slots__:
        for each in operations(getattr(CHAINS, name)):
            silent = Flag.CQE_SKIP_SUCCESS in each.flags
            assert silent == (each.opcode in (Op.ACCEPT, Op.SEND))


def test_operations_work_on_the_slot_and_its_memory() -> None:
    accept, recv = operations(CHAINS.arm)
    assert (accept.fd, accept.file_index, accept.addr, accept.off) == (900, 6, 400, 8)
    assert (recv.fd, recv.addr, recv.len) == (5, 300, ATOM_BYTES)
    kept, _ = operations(CHAINS.keep)
    last, close = operations(CHAINS.end)
    assert (kept.fd, kept.addr, kept.len, kept.op_flags) == (5, 100, 11, ALL)
    assert (last.fd, last.addr, last.len, last.op_flags) == (5, 200, 22, ALL)
    assert close.file_index == 6


def test_token_tells_slot_and_step() -> None:
    assert [each.user_data for each in operations(CHAINS.end_arm)] == [
        token(5, step) for step in (Step.ANSWER, Step.CLOSE, Step.ACCEPT, Step.RECV)
    ]
    assert len({token(slot, step) for slot in range(100) for step in Step}) == 100 * len(Step)


def test_single_operations_tell_their_end() -> None:
    assert operations(write(5, 700, 70))[0] == Sqe(
        opcode=Op.SEND,
        flags=Flag.FIXED_FILE,
        fd=5,
        addr=700,
        len=70,
        op_flags=ALL,
        user_data=token(5, Step.WRITE),
    )
    assert operations(cancel(5, Step.RECV))[0] == Sqe(
        opcode=Op.ASYNC_CANCEL, addr=token(5, Step.RECV), user_data=token(5, Step.CANCEL)
    )
    assert operations(install(5))[0].user_data == token(5, Step.INSTALL)
