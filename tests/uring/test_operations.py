"""Each operation beside the fields that its prep function in the kernel reads; all others zero."""

import select
import socket
import sys

import pytest

from twbench.uring import operations as do
from twbench.uring.operations import CancelFlag, Into, Slot, SocketCommand, TimeoutFlag
from twbench.uring.sqe import Flag, Hole, Op, Sqe

SLOT = Slot(5)
FIXED = Flag.FIXED_FILE
ADDR = 0x7F00_0000_1000
NEXT = 0xFFFF_FFFF_FFFF_FFFF

# level SOL_SOCKET (1) and name SO_KEEPALIVE (9), as two u32 side by side
OPTION = 0x0000_0009_0000_0001 if sys.byteorder == "little" else 0x0000_0001_0000_0009
SETSOCKOPT = 3 if sys.byteorder == "little" else 3 << 32
GETSOCKOPT = 2 if sys.byteorder == "little" else 2 << 32
SIOCOUTQ = 1 if sys.byteorder == "little" else 1 << 32

TABLE = {
    # io_socket_prep: domain in fd, type in off, protocol in len, slot + 1 in file_index
    "socket into a slot": (
        do.socket(SLOT, family=2, kind=1, protocol=6),
        Sqe(opcode=Op.SOCKET, fd=2, off=1, len=6, file_index=6),
    ),
    "socket into any slot": (
        do.socket(Into.FREE_SLOT, family=10, kind=1),
        Sqe(opcode=Op.SOCKET, fd=10, off=1, file_index=0xFFFF_FFFF),
    ),
    "socket with a descriptor": (
        do.socket(Into.DESCRIPTOR, family=2, kind=1),
        Sqe(opcode=Op.SOCKET, fd=2, off=1),
    ),
    # io_connect_prep, io_bind_prep: the length of the address in off (addr2)
    "connect": (
        do.connect(SLOT, addr=ADDR, addr_bytes=16),
        Sqe(opcode=Op.CONNECT, flags=FIXED, fd=5, addr=ADDR, off=16),
    ),
    "connect a descriptor": (
        do.connect(7, addr=ADDR, addr_bytes=28),
        Sqe(opcode=Op.CONNECT, fd=7, addr=ADDR, off=28),
    ),
    "bind": (
        do.bind(SLOT, addr=ADDR, addr_bytes=16),
        Sqe(opcode=Op.BIND, flags=FIXED, fd=5, addr=ADDR, off=16),
    ),
    "listen": (do.listen(SLOT, backlog=9), Sqe(opcode=Op.LISTEN, flags=FIXED, fd=5, len=9)),
    "accept": (
        do.accept(SLOT, Slot(0)),
        Sqe(opcode=Op.ACCEPT, flags=FIXED, fd=5, file_index=1),
    ),
    "accept and tell the peer": (
        do.accept(SLOT, Slot(0), addr=ADDR, addr_bytes_at=ADDR + 32),
        Sqe(opcode=Op.ACCEPT, flags=FIXED, fd=5, addr=ADDR, off=ADDR + 32, file_index=1),
    ),
    "accept all": (
        do.accept(7, Into.FREE_SLOT, multishot=True),
        Sqe(opcode=Op.ACCEPT, fd=7, ioprio=1, file_index=0xFFFF_FFFF),
    ),
    "send": (
        do.send(SLOT, addr=ADDR, length=40, msg_flags=socket.MSG_MORE),
        Sqe(opcode=Op.SEND, flags=FIXED, fd=5, addr=ADDR, len=40, op_flags=socket.MSG_MORE),
    ),
    "receive": (
        do.recv(SLOT, addr=ADDR, length=40, msg_flags=socket.MSG_WAITALL),
        Sqe(opcode=Op.RECV, flags=FIXED, fd=5, addr=ADDR, len=40, op_flags=socket.MSG_WAITALL),
    ),
    "shut down": (
        do.shutdown(SLOT, how=socket.SHUT_WR),
        Sqe(opcode=Op.SHUTDOWN, flags=FIXED, fd=5, len=1),
    ),
    # io_close_prep refuses IOSQE_FIXED_FILE: the slot goes into file_index
    "empty a slot": (do.close(SLOT), Sqe(opcode=Op.CLOSE, file_index=6)),
    "close": (do.close(7), Sqe(opcode=Op.CLOSE, fd=7)),
    "install": (do.install(SLOT), Sqe(opcode=Op.FIXED_FD_INSTALL, flags=FIXED, fd=5)),
    # io_uring_cmd_setsockopt: level and optname in addr, optlen in file_index, optval in addr3
    "set an option": (
        do.setsockopt(SLOT, level=1, name=9, addr=ADDR, length=4),
        Sqe(
            opcode=Op.URING_CMD,
            flags=FIXED,
            fd=5,
            off=SETSOCKOPT,
            addr=OPTION,
            file_index=4,
            addr3=ADDR,
        ),
    ),
    "get an option": (
        do.getsockopt(7, level=1, name=9, addr=ADDR, length=4),
        Sqe(opcode=Op.URING_CMD, fd=7, off=GETSOCKOPT, addr=OPTION, file_index=4, addr3=ADDR),
    ),
    "unacknowledged": (
        do.queued(SLOT, SocketCommand.SIOCOUTQ),
        Sqe(opcode=Op.URING_CMD, flags=FIXED, fd=5, off=SIOCOUTQ),
    ),
    # io_timeout_prep wants len 1
    "time-out": (
        do.timeout(addr=ADDR, count=3, how=TimeoutFlag.ABS),
        Sqe(opcode=Op.TIMEOUT, addr=ADDR, len=1, off=3, op_flags=1),
    ),
    "linked time-out": (
        do.link_timeout(addr=ADDR),
        Sqe(opcode=Op.LINK_TIMEOUT, addr=ADDR, len=1),
    ),
    # io_async_cancel_prep: what to look for in addr or fd, how in op_flags
    "cancel one": (do.cancel(token=77), Sqe(opcode=Op.ASYNC_CANCEL, addr=77)),
    "cancel all of a slot": (
        do.cancel(file=SLOT, how=CancelFlag.ALL),
        Sqe(opcode=Op.ASYNC_CANCEL, fd=5, op_flags=1 | 2 | 8),
    ),
    "cancel one of a descriptor": (
        do.cancel(file=7),
        Sqe(opcode=Op.ASYNC_CANCEL, fd=7, op_flags=2),
    ),
    "cancel all": (do.cancel(how=CancelFlag.ANY), Sqe(opcode=Op.ASYNC_CANCEL, op_flags=4)),
    "read": (
        do.read(7, addr=ADDR, length=8),
        Sqe(opcode=Op.READ, fd=7, addr=ADDR, len=8, off=NEXT),
    ),
    "write": (
        do.write(7, addr=ADDR, length=8),
        Sqe(opcode=Op.WRITE, fd=7, addr=ADDR, len=8, off=NEXT),
    ),
    "nothing": (do.nop(), Sqe(opcode=Op.NOP)),
}


@pytest.mark.parametrize("name", TABLE)
def test_operation_sets_what_the_kernel_reads_and_nothing_else(name: str) -> None:
    made, expected = TABLE[name]
    assert made == expected
    assert made.pack() == expected.pack()


def test_every_operation_has_a_constructor() -> None:
    assert {made.opcode for made, _ in TABLE.values()} | {Op.POLL_ADD} == set(Op)


@pytest.mark.parametrize("multishot", [False, True])
def test_poll_keeps_the_events_in_the_kernels_word_order(multishot: bool) -> None:
    made = do.poll(7, events=select.POLLIN, multishot=multishot)
    word = 1 if sys.byteorder == "little" else 1 << 16
    assert made == Sqe(opcode=Op.POLL_ADD, fd=7, op_flags=word, len=int(multishot))


def test_token_and_flags_go_with_every_operation() -> None:
    made = do.recv(SLOT, addr=ADDR, length=1, user_data=2**63, flags=Flag.IO_HARDLINK)
    assert (made.user_data, made.flags) == (2**63, Flag.IO_HARDLINK | Flag.FIXED_FILE)


def test_slot_may_be_a_hole() -> None:
    slot = Slot(Hole("slot"))
    assert do.send(slot, addr=0, length=0).fd == Hole("slot")
    assert do.close(slot).file_index == Hole("slot", 1)
    assert do.cancel(file=slot).fd == Hole("slot")
