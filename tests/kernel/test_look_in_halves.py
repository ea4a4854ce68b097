"""A look at a large table in two halves: the same rows as in one, from two sockets and threads."""

import socket
import struct
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from twbench.kernel.errors import CodecError
from twbench.kernel.openers import OpenSocket, open_socket_here
from twbench.kernel.process import open_socket_of
from twbench.kernel.readers import LookReader
from twbench.kernel.sockdiag import SOCKETS, Sockets
from twbench.model.errors import LabError
from twbench.model.states import TcpState

NETLINK_GENERIC = 16
LOW, HIGH = 40000, 50000
DONE = bytes.fromhex("14000000 0300 0200 01000000 00000000 00000000")
LOST_ON_THE_WAY = DONE[:6] + b"\x12" + DONE[7:]
"""The same with NLM_F_DUMP_INTR."""
AT_REST = [name for name in SOCKETS.names or () if name not in {"expires_ms", "retransmits"}]

in_a_namespace = pytest.mark.namespaces


def always() -> bool:
    return True


class Opener:
    """Opens by each opener in turn, the last one again and again, and counts."""

    def __init__(self, *openers: OpenSocket) -> None:
        self.openers = openers
        self.calls = 0

    def __call__(self, family: int, kind: int, protocol: int) -> socket.socket:
        self.calls += 1
        return self.openers[min(self.calls, len(self.openers)) - 1](family, kind, protocol)


def at_rest(sockets: Sockets) -> Counter[object]:
    """Every row without its clocks."""
    return Counter(row[AT_REST].item() for row in sockets)


def answer(message: bytes, seq: int) -> bytes:
    """The message as the answer to the request of this number."""
    return message[:8] + seq.to_bytes(4, sys.byteorder) + message[12:]


def time_wait(local_port: int, seq: int = 1) -> bytes:
    """One TIME_WAIT as a dump has it."""
    row = struct.pack("=BBBB", socket.AF_INET, TcpState.TIME_WAIT, 3, 0)
    row += struct.pack(">HH", local_port, 80) + bytes(64)
    return struct.pack("=IHHII", 88, 18, 2, seq, 0) + row


@pytest.fixture
def ends() -> Iterator[tuple[LookReader, socket.socket, socket.socket]]:
    """Give a reader that splits any table, and the far ends of its first and second socket."""
    with ExitStack() as opened:
        pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2)]
        for end in (end for pair in pairs for end in pair):
            opened.enter_context(end)
        first, second = (theirs for _, theirs in pairs)
        first.send(time_wait(LOW) + time_wait(HIGH) + DONE)
        opener = Opener(*(lambda *_, ours=ours: ours for ours, _ in pairs))
        reader = opened.enter_context(LookReader(opener, split_above=0, may_split=always))
        assert len(reader.look().sockets) == 2
        first.recv(4096)
        yield reader, first, second


@in_a_namespace
def test_halves_have_the_rows_of_the_whole_each_once(crowded_pid: int) -> None:
    opener = Opener(open_socket_of(crowded_pid))
    with (
        LookReader(open_socket_of(crowded_pid), split_above=sys.maxsize) as whole,
        LookReader(opener, split_above=1000, may_split=always) as halves,
    ):
        before = at_rest(whole.look().sockets)
        assert max(before.values()) == 1
        assert before.total() > 3000
        assert at_rest(halves.look().sockets) == before
        assert opener.calls == 1
        for _ in range(3):
            look = halves.look()
            assert at_rest(look.sockets) == before
            assert not look.interrupted
        assert opener.calls == 2
        assert at_rest(whole.look().sockets) == before


@in_a_namespace
def test_halves_are_asked_for_only_the_wanted_states(crowded_pid: int) -> None:
    with LookReader(open_socket_of(crowded_pid), split_above=1000, may_split=always) as looks:
        everything = looks.look().sockets
        waiting = looks.look(states=1 << TcpState.TIME_WAIT).sockets
    assert at_rest(waiting) == at_rest(everything[everything["state"] == TcpState.TIME_WAIT])


@in_a_namespace
def test_small_table_stays_whole(crowded_pid: int) -> None:
    opener = Opener(open_socket_of(crowded_pid))
    with LookReader(opener, split_above=1000, may_split=always) as looks:
        looks.look(states=1 << TcpState.LISTEN)
        looks.look()
        assert opener.calls == 1


@in_a_namespace
def test_large_table_stays_whole_while_no_processor_is_idle(crowded_pid: int) -> None:
    opener = Opener(open_socket_of(crowded_pid))
    idle = [False, True]
    with LookReader(opener, split_above=1000, may_split=lambda: idle.pop(0)) as looks:
        calls = []
        for _ in range(3):
            looks.look()
            calls.append(opener.calls)
    assert calls == [1, 1, 2]


@in_a_namespace
def test_cost_is_that_of_all_threads(crowded_pid: int) -> None:
    clocks_ns: Counter[int] = Counter()

    def cpu_ns() -> int:
        """Run slowly in this thread and fast in any other."""
        thread = threading.current_thread()
        ours = thread is threading.main_thread()
        clocks_ns[thread.native_id or 0] += 1 if ours else 1_000_000
        return clocks_ns[thread.native_id or 0]

    with LookReader(
        open_socket_of(crowded_pid), split_above=1000, may_split=always, cpu_ns=cpu_ns
    ) as looks:
        assert looks.look().cost_ns < 1_000_000
        assert 2_000_000 < looks.look().cost_ns < 3_000_000


def refused(_family: int, _kind: int, _protocol: int) -> socket.socket:
    raise LabError("the namespace is closed")


def without_descriptors(_family: int, _kind: int, _protocol: int) -> socket.socket:
    raise OSError(24, "Too many open files")


@in_a_namespace
@pytest.mark.parametrize("second", [refused, without_descriptors, open_socket_here])
def test_reader_without_a_second_socket_in_the_same_namespace_stays_whole(
    crowded_pid: int, second: OpenSocket
) -> None:
    made: list[socket.socket] = []

    def noted(family: int, kind: int, protocol: int) -> socket.socket:
        made.append(second(family, kind, protocol))
        return made[-1]

    opener = Opener(open_socket_of(crowded_pid), noted)
    with LookReader(opener, split_above=1000, may_split=always) as looks:
        before = at_rest(looks.look().sockets)
        for _ in range(2):
            assert at_rest(looks.look().sockets) == before
        assert opener.calls == 2
        assert all(each.fileno() == -1 for each in made)


@in_a_namespace
def test_refusal_of_the_second_half_is_raised(crowded_pid: int) -> None:
    def generic(family: int, kind: int, _protocol: int) -> socket.socket:
        # Generic netlink knows no family 18, the type of the request for a dump.
        return open_socket_of(crowded_pid)(family, kind, NETLINK_GENERIC)

    opener = Opener(open_socket_of(crowded_pid), generic)
    with LookReader(opener, split_above=1000, may_split=always) as looks:
        looks.look()
        with pytest.raises(FileNotFoundError, match="sock_diag"):
            looks.look()


def test_interrupted_half_alone_is_asked_for_again_and_then_admitted(
    ends: tuple[LookReader, socket.socket, socket.socket],
) -> None:
    reader, first, second = ends
    first.send(time_wait(LOW, seq=2) + answer(DONE, 2))
    for seq in (1, 2, 3):
        second.send(answer(LOST_ON_THE_WAY, seq))
    second.send(time_wait(HIGH, seq=4) + answer(DONE, 4))
    look = reader.look()
    assert look.interrupted
    assert list(look.sockets["sport"]) == [LOW]
    for end, times in ((first, 1), (second, 3)):
        end.settimeout(0)
        filters = {end.recv(4096)[76:] for _ in range(times)}
        assert len(filters) == 1
        assert len(filters.pop()) == 12
        with pytest.raises(BlockingIOError):
            end.recv(4096)


@pytest.mark.parametrize("answers", [(answer(DONE, 2), b"not netlink"), (b"not netlink", DONE)])
def test_garbage_in_either_half_is_one_clear_error(
    ends: tuple[LookReader, socket.socket, socket.socket], answers: tuple[bytes, bytes]
) -> None:
    reader, *far = ends
    for end, answer in zip(far, answers, strict=True):
        end.send(answer)
    with pytest.raises(CodecError):
        reader.look()


@in_a_namespace
def test_closed_reader_gives_back_both_sockets_and_threads(crowded_pid: int) -> None:
    made: list[socket.socket] = []

    def noted(family: int, kind: int, protocol: int) -> socket.socket:
        made.append(open_socket_of(crowded_pid)(family, kind, protocol))
        return made[-1]

    before = threading.active_count()
    looks = LookReader(noted, split_above=1000, may_split=always)
    looks.look()
    looks.look()
    assert threading.active_count() == before + 2
    looks.close()
    looks.close()
    assert [end.fileno() for end in made] == [-1, -1]
    assert threading.active_count() == before
    with pytest.raises(OSError, match="Bad file descriptor"):
        looks.look()
