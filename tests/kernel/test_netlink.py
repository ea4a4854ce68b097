"""One netlink socket: real dumps, with and without a filter, and what it makes of trouble."""

import errno
import os
import socket
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from twbench.kernel import sockdiag
from twbench.kernel.errors import CodecError
from twbench.kernel.netlink import DiagSocket
from twbench.kernel.portfilter import PortFilter, PortTest
from twbench.kernel.process import open_socket_of
from twbench.kernel.sockdiag import ALL_STATES, Chunk, Sockets, decode, join
from twbench.model.states import TcpState

Pair = tuple[socket.socket, socket.socket]

NETLINK_GENERIC = 16
DATAGRAM_LIMIT = 64 * 1024
DONE = bytes.fromhex("14000000 0300 0200 01000000 00000000 00000000")
LOST_ON_THE_WAY = DONE[:6] + b"\x12" + DONE[7:]
"""The same with NLM_F_DUMP_INTR."""

in_a_namespace = pytest.mark.namespaces


class Lossy(socket.socket):
    """Loses a datagram as the kernel does (netlink_overrun), and counts what it was asked."""

    lost = False
    asked = 0

    def send(self, *arguments: Any) -> int:  # noqa: ANN401 - as the socket's own
        self.asked += 1
        return super().send(*arguments)

    def recv_into(self, *arguments: Any) -> int:  # noqa: ANN401 - as the socket's own
        count = super().recv_into(*arguments)
        if not self.lost:
            self.lost = True
            raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))
        return count


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        yield ours, theirs


def answer(message: bytes, seq: int) -> bytes:
    """The message as the answer to the request of this number."""
    return message[:8] + seq.to_bytes(4, sys.byteorder) + message[12:]


def rows_of(diag: DiagSocket, only: PortFilter | None = None) -> Sockets:
    dump = diag.dump(states=ALL_STATES, only=only)
    assert not dump.interrupted
    return join(dump.parts)


def identities(sockets: Sockets) -> list[bytes]:
    """The cookies, the kernel's own names of its sockets."""
    return sorted(row.tobytes() for row in sockets["cookie"])


@in_a_namespace
def test_filtered_dumps_hold_what_the_filter_accepts(crowded_pid: int) -> None:
    diag = DiagSocket(open_socket_of(crowded_pid))
    whole = rows_of(diag)
    assert len(whole) > 3000
    assert {TcpState(state) for state in whole["state"]} == {
        TcpState.ESTABLISHED,
        TcpState.SYN_SENT,
        TcpState.FIN_WAIT2,
        TcpState.TIME_WAIT,
        TcpState.CLOSE_WAIT,
        TcpState.LISTEN,
    }
    assert set(whole["family"]) == {socket.AF_INET, socket.AF_INET6}
    for test in PortTest:
        local = test in (PortTest.LOCAL_AT_LEAST, PortTest.LOCAL_AT_MOST)
        ports = whole["sport" if local else "dport"]
        for port in (0, 1, int(np.median(ports)), int(ports.max()), 65535):
            only = PortFilter(test=test, port=port)
            assert identities(rows_of(diag, only)) == identities(whole[only.accepts(whole)])
    diag.close()


@in_a_namespace
def test_lost_datagram_is_asked_for_again(pid: int) -> None:
    made: list[Lossy] = []

    def lossy(family: int, kind: int, protocol: int) -> socket.socket:
        opened = open_socket_of(pid)(family, kind, protocol)
        made.append(Lossy(family, kind, protocol, fileno=opened.detach()))
        return made[0]

    with open_socket_of(pid)(socket.AF_INET, socket.SOCK_STREAM, 0) as listener:
        listener.listen()
        diag = DiagSocket(lossy)
        assert [row["sport"] for row in rows_of(diag)] == [listener.getsockname()[1]]
        assert made[0].asked == 2
        diag.close()


def test_dump_interrupted_every_time_says_so(pair: Pair) -> None:
    ours, theirs = pair
    diag = DiagSocket(lambda _family, _kind, _protocol: ours)
    for seq in (1, 2, 3):
        theirs.send(answer(LOST_ON_THE_WAY, seq))
    assert diag.dump(states=ALL_STATES).interrupted
    theirs.settimeout(0)
    assert [theirs.recv(4096)[8] for _ in range(3)] == [1, 2, 3]
    theirs.send(answer(LOST_ON_THE_WAY, 4))
    theirs.send(answer(DONE, 5))
    assert not diag.dump(states=ALL_STATES).interrupted


class Overrun(socket.socket):
    """Asks twice with next to no room, the first time: the refusal of the second overruns it."""

    asked = 0

    def setsockopt(self, *arguments: Any) -> None:  # noqa: ANN401 - as the socket's own
        if arguments[1] == socket.SO_RCVBUF:
            arguments = (*arguments[:2], 1)
        super().setsockopt(*arguments)

    def send(self, *arguments: Any) -> int:  # noqa: ANN401 - as the socket's own
        self.asked += 1
        if self.asked == 1:
            super().send(*arguments)
        return super().send(*arguments)


@in_a_namespace
def test_overrun_by_the_kernel_is_noticed_and_the_dump_asked_for_again(crowded_pid: int) -> None:
    made: list[Overrun] = []

    def overrun(family: int, kind: int, protocol: int) -> socket.socket:
        opened = open_socket_of(crowded_pid)(family, kind, protocol)
        made.append(Overrun(family, kind, protocol, fileno=opened.detach()))
        return made[-1]

    plain, diag = DiagSocket(open_socket_of(crowded_pid)), DiagSocket(overrun)
    assert identities(rows_of(diag)) == identities(rows_of(plain))
    assert [each.asked for each in made] == [2]
    for each in (plain, diag):
        each.close()


class Stuck(socket.socket):
    """Breaks off as a dump does for which the kernel found no memory: ENOBUFS, then silence."""

    told = False

    def recv_into(self, *_arguments: Any) -> int:  # noqa: ANN401 - as the socket's own
        code = errno.EAGAIN if self.told else errno.ENOBUFS
        self.told = True
        raise OSError(code, os.strerror(code))


@in_a_namespace
@pytest.mark.parametrize(("stuck", "interrupted"), [(1, False), (2, False), (3, True)])
def test_dump_that_broke_off_is_asked_for_again_on_a_new_socket(
    pid: int, stuck: int, interrupted: bool
) -> None:
    made: list[socket.socket] = []

    def open_socket(family: int, kind: int, protocol: int) -> socket.socket:
        opened = open_socket_of(pid)(family, kind, protocol)
        if len(made) < stuck:
            opened = Stuck(family, kind, protocol, fileno=opened.detach())
        made.append(opened)
        return opened

    with open_socket_of(pid)(socket.AF_INET, socket.SOCK_STREAM, 0) as listener:
        listener.listen()
        diag = DiagSocket(open_socket)
        dump = diag.dump(states=ALL_STATES)
        assert (dump.interrupted, len(join(dump.parts))) == (interrupted, 0 if interrupted else 1)
        assert len(rows_of(diag)) == 1
        assert len(made) == stuck + 1
        assert [each.fileno() for each in made[:stuck]] == [-1] * stuck
        diag.close()


class Failing(socket.socket):
    """Fails once, after a datagram of a dump has been taken from the kernel."""

    failure: BaseException | None = None

    def recv_into(self, *arguments: Any) -> int:  # noqa: ANN401 - as the socket's own
        count = super().recv_into(*arguments)
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure
        return count


class Opener:
    """Opens sockets in the namespace of `pid`, the first of them failing, and keeps them all."""

    def __init__(self, pid: int, failure: BaseException) -> None:
        self.pid = pid
        self.failure = failure
        self.made: list[socket.socket] = []

    def __call__(self, family: int, kind: int, protocol: int) -> socket.socket:
        opened = open_socket_of(self.pid)(family, kind, protocol)
        if not self.made:
            opened = Failing(family, kind, protocol, fileno=opened.detach())
            opened.failure = self.failure
        self.made.append(opened)
        return opened


FAILURES = pytest.mark.parametrize(
    "failure", [CodecError("no dump"), TimeoutError(errno.ETIMEDOUT, "late"), KeyboardInterrupt()]
)


@in_a_namespace
@FAILURES
def test_dump_after_one_that_was_not_read_to_its_end_is_whole(
    crowded_pid: int, failure: BaseException
) -> None:
    opener = Opener(crowded_pid, failure)
    diag, plain = DiagSocket(opener), DiagSocket(open_socket_of(crowded_pid))
    with pytest.raises(type(failure)):
        diag.dump(states=ALL_STATES)
    assert identities(rows_of(diag)) == identities(rows_of(plain))
    assert [each.fileno() == -1 for each in opener.made] == [True, False]
    for each in (diag, plain):
        each.close()


@in_a_namespace
def test_new_socket_in_another_namespace_is_refused(pid: int, crowded_pid: int) -> None:
    opener = Opener(crowded_pid, CodecError("no dump"))
    diag = DiagSocket(opener)
    before = diag.namespace()
    with pytest.raises(CodecError):
        diag.dump(states=ALL_STATES)
    opener.pid = pid
    for _ in range(2):
        with pytest.raises(OSError, match="another one now") as caught:
            diag.dump(states=ALL_STATES)
        assert caught.value.errno == errno.ESTALE
        assert opener.made[-1].fileno() == -1
    opener.pid = crowded_pid
    assert len(rows_of(diag)) > 3000
    assert diag.namespace() == before
    diag.close()


@in_a_namespace
def test_closed_socket_stays_closed_after_a_failure(crowded_pid: int) -> None:
    opener = Opener(crowded_pid, CodecError("no dump"))
    diag = DiagSocket(opener)
    with pytest.raises(CodecError):
        diag.dump(states=ALL_STATES)
    diag.close()
    for _ in range(2):
        with pytest.raises(OSError, match="Bad file descriptor"):
            diag.dump(states=ALL_STATES)
    assert len(opener.made) == 1


class Late(socket.socket):
    """Has nothing yet when it is first asked, so that the rest of the dump is waited for."""

    asked = False

    def recv_into(self, *arguments: Any) -> int:  # noqa: ANN401 - as the socket's own
        if not self.asked:
            self.asked = True
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return super().recv_into(*arguments)


@in_a_namespace
def test_dump_that_is_waited_for_is_decoded_once(
    crowded_pid: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(family: int, kind: int, protocol: int) -> socket.socket:
        opened = open_socket_of(crowded_pid)(family, kind, protocol)
        return Late(family, kind, protocol, fileno=opened.detach())

    sizes: list[int] = []

    def measured(chunk: memoryview) -> Chunk:
        sizes.append(len(chunk))
        return decode(chunk)

    monkeypatch.setattr(sockdiag, "decode", measured)
    plain, diag = DiagSocket(open_socket_of(crowded_pid)), DiagSocket(late)
    whole = identities(rows_of(plain))
    (whole_bytes,) = sizes
    assert identities(rows_of(diag)) == whole
    assert len(sizes) > 3
    assert sum(sizes[1:]) == whole_bytes
    for each in (plain, diag):
        each.close()


@in_a_namespace
def test_sockets_that_stay_are_each_seen_once_while_others_come_and_go(crowded_pid: int) -> None:
    diag = DiagSocket(open_socket_of(crowded_pid))
    held = 1 << TcpState.ESTABLISHED | 1 << TcpState.CLOSE_WAIT
    stay = identities(join(diag.dump(states=held).parts))
    assert len(stay) > 300
    over = threading.Event()

    def come_and_go() -> None:
        make = open_socket_of(crowded_pid)
        with make(socket.AF_INET, socket.SOCK_STREAM, 0) as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            while not over.is_set():
                with make(socket.AF_INET, socket.SOCK_STREAM, 0) as client:
                    client.connect(listener.getsockname())
                    listener.accept()[0].close()

    crowd = threading.Thread(target=come_and_go)
    crowd.start()
    try:
        for _ in range(20):
            dump = diag.dump(states=ALL_STATES)
            seen = Counter(identities(join(dump.parts)))
            assert {seen[each] for each in stay} == {1}
            assert not dump.interrupted
    finally:
        over.set()
        crowd.join()
        diag.close()


def test_refused_dump_raises_the_kernels_errno() -> None:
    def generic(family: int, kind: int, _protocol: int) -> socket.socket:
        # Generic netlink knows no family 18, the type of the request for a dump.
        return socket.socket(family, kind, NETLINK_GENERIC)

    diag = DiagSocket(generic)
    with pytest.raises(FileNotFoundError, match="sock_diag"):
        diag.dump(states=ALL_STATES)
    diag.close()


@pytest.mark.parametrize(
    "garbage", [b"", b"not netlink", bytes(16), DONE[:18], DONE[:12], b"\x14" * 100]
)
def test_bytes_that_are_no_dump_are_one_clear_error(pair: Pair, garbage: bytes) -> None:
    ours, theirs = pair
    theirs.send(garbage)
    with pytest.raises(CodecError):
        DiagSocket(lambda _family, _kind, _protocol: ours).dump(states=ALL_STATES)


def test_answer_to_another_request_is_refused(pair: Pair) -> None:
    ours, theirs = pair
    theirs.send(answer(DONE, 7))
    with pytest.raises(CodecError, match="no answer to request 1"):
        DiagSocket(lambda _family, _kind, _protocol: ours).dump(states=ALL_STATES)


def test_datagram_that_may_have_been_cut_is_refused(pair: Pair) -> None:
    ours, theirs = pair
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, DATAGRAM_LIMIT)
    noop = bytes.fromhex("10000000 0100 0000 01000000 00000000")
    theirs.send(noop * (DATAGRAM_LIMIT // len(noop)) + DONE)
    with pytest.raises(CodecError, match="or more"):
        DiagSocket(lambda _family, _kind, _protocol: ours).dump(states=ALL_STATES)


@in_a_namespace
def test_sockets_know_whether_they_share_a_namespace(pid: int, crowded_pid: int) -> None:
    here, again, elsewhere = (
        DiagSocket(open_socket_of(where)) for where in (pid, pid, crowded_pid)
    )
    assert here.namespace() == again.namespace() != elsewhere.namespace()
    for diag in (here, again, elsewhere):
        diag.close()
