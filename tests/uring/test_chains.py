"""Whole connections as chains, against real sockets of this machine."""

import errno
import gc
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from twbench.uring import operations as do
from twbench.uring.cqe import MORE, Completion
from twbench.uring.memory import Memory
from twbench.uring.operations import Into, Slot, SocketCommand
from twbench.uring.ring import Ring
from twbench.uring.sqe import Flag, Hole, Op, Sqe
from twbench.uring.structs import sockaddr, timespec
from twbench.uring.template import chain

Until = Callable[[int], list[Completion]]
Need = Callable[..., None]

CONNECTION = Slot(0)
SOCKET, CONNECT, SEND, RECV, CLOSE, TIMEOUT, LAST = range(1, 8)
SILENT, HARD = Flag.CQE_SKIP_SUCCESS, Flag.IO_HARDLINK
SOON_NS, LONG_NS = 50_000_000, 600_000_000_000
CANCELLED = -errno.ECANCELED


def opening(memory: Memory, address: tuple[str, int], flags: Flag = Flag.NONE) -> list[Sqe]:
    addr = memory.place(sockaddr(*address))
    return [
        do.socket(
            CONNECTION,
            family=socket.AF_INET,
            kind=socket.SOCK_STREAM,
            user_data=SOCKET,
            flags=flags,
        ),
        do.connect(CONNECTION, addr=addr, addr_bytes=16, user_data=CONNECT, flags=flags),
    ]


def results(found: list[Completion]) -> list[tuple[int, int]]:
    """Return the completions without their flags: whether a FIN is there already is a race."""
    return [(token, result) for token, result, _ in found]


class Peer(threading.Thread):
    """Accepts one connection and does with it what it is told, on a thread of its own."""

    def __init__(self, listener: socket.socket, act: Callable[[socket.socket], None]) -> None:
        super().__init__()
        self._listener, self._act = listener, act

    def run(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            connection.settimeout(60)
            self._act(connection)

    def __enter__(self) -> None:
        self.start()

    def __exit__(self, *_: object) -> None:
        self.join()


def answer(content: bytes) -> Callable[[socket.socket], None]:
    """Read one request and answer it with `content`."""

    def act(connection: socket.socket) -> None:
        connection.recv(100)
        connection.sendall(content)

    return act


def keep(connection: socket.socket) -> None:
    """Say nothing until the other side is gone."""
    connection.recv(100)


def refusing_address() -> tuple[str, int]:
    """Return an address at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address: tuple[str, int] = listener.getsockname()
    return address


def test_connection_is_one_chain_with_one_completion(
    ring: Ring, memory: Memory, listener: socket.socket, until: Until
) -> None:
    buffer = memory.reserve(100)
    lifetime = [
        *opening(memory, listener.getsockname(), SILENT),
        do.send(CONNECTION, addr=memory.place(b"ask"), length=3, user_data=SEND, flags=SILENT),
        do.recv(CONNECTION, addr=buffer, length=100, user_data=RECV, flags=SILENT),
        do.close(CONNECTION, user_data=CLOSE),
    ]
    with Peer(listener, answer(b"given")):
        ring.push(chain(*lifetime).fill())
        assert until(CLOSE) == [(CLOSE, 0, 0)]
    assert bytes(memory.view(buffer, 6)) == b"given\0"


def test_every_step_tells_its_result_unless_silenced(
    ring: Ring, memory: Memory, listener: socket.socket, until: Until
) -> None:
    lifetime = [
        *opening(memory, listener.getsockname()),
        do.link_timeout(addr=memory.place(timespec(LONG_NS)), user_data=TIMEOUT, flags=SILENT),
        do.send(CONNECTION, addr=memory.place(b"ask"), length=3, user_data=SEND),
        do.recv(CONNECTION, addr=memory.reserve(100), length=100, user_data=RECV),
        do.close(CONNECTION, user_data=CLOSE),
    ]
    with Peer(listener, answer(b"given")):
        ring.push(chain(*lifetime).fill())
        assert results(until(CLOSE)) == [
            (SOCKET, 0),
            (CONNECT, 0),
            (SEND, 3),
            (RECV, 5),
            (CLOSE, 0),
        ]


@pytest.mark.parametrize("flags", [SILENT, Flag.NONE])
def test_refused_connect_breaks_the_chain_and_leaves_the_slot(
    flags: Flag, ring: Ring, memory: Memory, until: Until
) -> None:
    close = do.close(CONNECTION, user_data=CLOSE)
    ring.push(chain(*opening(memory, refusing_address(), flags), close).fill())
    found = until(CONNECT if flags else CLOSE)
    assert (CONNECT, -errno.ECONNREFUSED, 0) in found
    assert ((CLOSE, CANCELLED, 0) in found) == (flags is Flag.NONE)
    ring.push(do.close(CONNECTION, user_data=LAST).pack())
    assert until(LAST) == [(LAST, 0, 0)]


@pytest.mark.parametrize("flags", [SILENT, Flag.NONE])
def test_linked_timeout_cancels_its_operation_and_a_hard_link_still_closes(
    flags: Flag, ring: Ring, memory: Memory, listener: socket.socket, until: Until
) -> None:
    limit = memory.place(timespec(SOON_NS))
    buffer = memory.reserve(9)
    lifetime = [
        *opening(memory, listener.getsockname(), SILENT),
        do.recv(CONNECTION, addr=buffer, length=9, user_data=RECV, flags=SILENT | HARD),
        do.link_timeout(addr=limit, user_data=TIMEOUT, flags=flags),
        do.close(CONNECTION, user_data=CLOSE),
    ]
    with Peer(listener, keep):
        ring.push(chain(*lifetime).fill())
        found = until(CLOSE)
    expected = {(RECV, CANCELLED, 0), (CLOSE, 0, 0)}
    assert set(found) == expected | (set() if flags else {(TIMEOUT, -errno.ETIME, 0)})


@pytest.mark.parametrize(("flags", "closed"), [(Flag.NONE, CANCELLED), (HARD, 0)])
def test_short_answer_breaks_a_soft_link_and_not_a_hard_one(
    flags: Flag,
    closed: int,
    ring: Ring,
    memory: Memory,
    listener: socket.socket,
    until: Until,
) -> None:
    whole = socket.MSG_WAITALL
    buffer = memory.reserve(100)
    lifetime = [
        *opening(memory, listener.getsockname(), SILENT),
        do.send(CONNECTION, addr=memory.place(b"ask"), length=3, user_data=SEND, flags=SILENT),
        do.recv(CONNECTION, addr=buffer, length=100, msg_flags=whole, user_data=RECV, flags=flags),
        do.close(CONNECTION, user_data=CLOSE),
    ]
    with Peer(listener, answer(b"short")):
        ring.push(chain(*lifetime).fill())
        assert results(until(CLOSE)) == [(RECV, 5), (CLOSE, closed)]


def test_receiving_whole_joins_what_comes_in_pieces(
    ring: Ring, memory: Memory, listener: socket.socket, until: Until
) -> None:
    def piecemeal(connection: socket.socket) -> None:
        for piece in (b"one", b"two", b"three"):
            connection.sendall(piece)
            connection.recv(1)

    buffer = memory.reserve(11)
    byte = memory.place(b".")
    with Peer(listener, piecemeal):
        ring.push(chain(*opening(memory, listener.getsockname())).fill())
        until(CONNECT)
        whole = socket.MSG_WAITALL
        ring.push(
            do.recv(CONNECTION, addr=buffer, length=11, msg_flags=whole, user_data=RECV).pack()
        )
        for token in (20, 21, 22):
            ring.push(do.send(CONNECTION, addr=byte, length=1, user_data=token).pack())
        found = until(RECV)
    assert (RECV, 11) in results(found)
    assert bytes(memory.view(buffer, 11)) == b"onetwothree"


def test_reset_is_told_with_its_errno(
    ring: Ring, memory: Memory, listener: socket.socket, until: Until
) -> None:
    def unread(connection: socket.socket) -> None:
        connection.recv(1)  # and b"sk" stays

    lifetime = [
        *opening(memory, listener.getsockname(), SILENT),
        do.send(CONNECTION, addr=memory.place(b"ask"), length=3, user_data=SEND, flags=SILENT),
        do.recv(CONNECTION, addr=memory.reserve(9), length=9, user_data=RECV, flags=HARD),
        do.close(CONNECTION, user_data=CLOSE),
    ]
    with Peer(listener, unread):
        ring.push(chain(*lifetime).fill())
        assert results(until(CLOSE)) == [(RECV, -errno.ECONNRESET), (CLOSE, 0)]


def test_half_close_lets_the_answer_come(
    ring: Ring, memory: Memory, listener: socket.socket, until: Until
) -> None:
    def answer_after_fin(connection: socket.socket) -> None:
        assert connection.recv(9) == b""
        connection.sendall(b"late")

    with Peer(listener, answer_after_fin):
        ring.push(
            chain(
                *opening(memory, listener.getsockname(), SILENT),
                do.shutdown(CONNECTION, how=socket.SHUT_WR, flags=SILENT),
                do.recv(CONNECTION, addr=memory.reserve(9), length=9, user_data=RECV),
            ).fill()
        )
        assert results(until(RECV)) == [(RECV, 4)]


def test_option_in_a_chain_makes_the_close_a_reset(
    ring: Ring, memory: Memory, listener: socket.socket, until: Until, need: Need
) -> None:
    need(SocketCommand.SETSOCKOPT)
    seen: list[BaseException] = []

    def expect_reset(connection: socket.socket) -> None:
        try:
            connection.recv(1)
        except OSError as error:
            seen.append(error)

    linger = memory.place((1).to_bytes(4, "little") + bytes(4))
    option = do.setsockopt(
        CONNECTION,
        level=socket.SOL_SOCKET,
        name=socket.SO_LINGER,
        addr=linger,
        length=8,
        flags=SILENT,
    )
    with Peer(listener, expect_reset):
        ring.push(
            chain(
                *opening(memory, listener.getsockname(), SILENT),
                option,
                do.close(CONNECTION, user_data=CLOSE),
            ).fill()
        )
        assert until(CLOSE) == [(CLOSE, 0, 0)]
    assert [type(error) for error in seen] == [ConnectionResetError]


def test_queues_and_options_can_be_read(
    ring: Ring, memory: Memory, until: Until, need: Need
) -> None:
    need(SocketCommand.SIOCINQ, SocketCommand.GETSOCKOPT)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ring.push(chain(*opening(memory, listener.getsockname())).fill())
        until(CONNECT)
        peer, _ = listener.accept()
        with peer:
            peer.sendall(b"four")
            ring.push(do.poll(CONNECTION, events=1, user_data=LAST).pack())
            until(LAST)
            ring.push(do.queued(CONNECTION, SocketCommand.SIOCINQ, user_data=LAST).pack())
            assert until(LAST) == [(LAST, 4, 0)]
            value = memory.reserve(4)
            level, name = socket.SOL_SOCKET, socket.SO_TYPE
            ring.push(
                do.getsockopt(
                    CONNECTION, level=level, name=name, addr=value, length=4, user_data=LAST
                ).pack()
            )
            assert until(LAST) == [(LAST, 4, 0)]
            assert memory.view(value, 4).cast("i")[0] == socket.SOCK_STREAM


def test_bound_source_and_a_listener_without_descriptors(
    ring: Ring, memory: Memory, until: Until, need: Need
) -> None:
    need(Op.BIND, Op.LISTEN)
    server, client = Slot(1), Slot(2)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    addr = memory.place(sockaddr("127.0.0.1", port))
    source = memory.place(sockaddr("127.0.0.1", 0))
    kind = socket.SOCK_STREAM
    ring.push(
        chain(
            do.socket(server, family=socket.AF_INET, kind=kind, flags=SILENT),
            do.bind(server, addr=addr, addr_bytes=16, flags=SILENT),
            do.listen(server, backlog=16, user_data=1),
        ).fill()
    )
    assert until(1) == [(1, 0, 0)]
    ring.push(do.accept(server, Slot(3), user_data=2).pack())
    ring.push(
        chain(
            do.socket(client, family=socket.AF_INET, kind=kind, flags=SILENT),
            do.bind(client, addr=source, addr_bytes=16, flags=SILENT),
            do.connect(client, addr=addr, addr_bytes=16, flags=SILENT),
        ).fill()
    )
    assert until(2) == [(2, 0, 0)]


def test_one_accept_takes_every_connection_until_cancelled(
    ring: Ring, listener: socket.socket, until: Until
) -> None:
    ring.pick_slots_from(8, 8)
    accept = do.accept(listener.fileno(), Into.FREE_SLOT, multishot=True, user_data=1)
    ring.push(accept.pack())
    ring.submit()
    for slot in (8, 9, 10):
        with socket.create_connection(listener.getsockname()):
            assert until(1) == [(1, slot, MORE)]
    ring.push(do.cancel(token=1, user_data=2).pack())
    assert (1, CANCELLED, 0) in until(1)


def test_connection_that_waits_is_cancelled_by_its_slot(
    ring: Ring, memory: Memory, listener: socket.socket, until: Until
) -> None:
    with Peer(listener, keep):
        ring.push(
            chain(
                *opening(memory, listener.getsockname()),
                do.recv(CONNECTION, addr=memory.reserve(9), length=9, user_data=RECV, flags=HARD),
                do.close(CONNECTION, user_data=CLOSE),
            ).fill()
        )
        until(CONNECT)
        found: list[Completion] = []
        while CLOSE not in (token for token, _, _ in found):
            how = do.CancelFlag.ALL
            ring.push(do.cancel(file=CONNECTION, how=how, user_data=LAST).pack())
            found += until(LAST)
    assert [each for each in results(found) if each[0] != LAST] == [(RECV, CANCELLED), (CLOSE, 0)]


def serve(listener: socket.socket, count: int) -> None:
    """Answer so many connections and close them first."""
    for _ in range(count):
        connection, _ = listener.accept()
        with connection:
            connection.recv(100)
            connection.sendall(b"given")


def resident_kib() -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError


def test_ten_thousand_connections_take_no_descriptor_and_no_memory(
    ring: Ring, memory: Memory, listener: socket.socket
) -> None:
    slots, total = 16, 10_000
    slot = Slot(Hole("slot"))
    addr = memory.place(sockaddr(*listener.getsockname()))
    ask = memory.place(b"ask")
    lifetime = chain(
        do.socket(slot, family=socket.AF_INET, kind=socket.SOCK_STREAM, flags=SILENT),
        do.connect(slot, addr=addr, addr_bytes=16, flags=SILENT),
        do.send(slot, addr=ask, length=3, flags=SILENT),
        do.recv(slot, addr=Hole("buffer"), length=64, flags=SILENT),
        do.close(slot, user_data=Hole("token")),
    )
    chains = [lifetime.fill(slot=n, buffer=memory.reserve(64), token=n) for n in range(slots)]
    server = threading.Thread(target=serve, args=(listener, total))
    server.start()
    started, over = slots, 0
    for each in chains:
        ring.push(each)
    marks: list[tuple[int, int]] = []
    while over < total:
        for token, result, _ in ring.turn(wait=1):
            assert result == 0
            over += 1
            if started < total:
                ring.push(chains[token])
                started += 1
            if over in {total // 5, total}:
                gc.collect()
                marks.append((len(list(Path("/proc/self/fd").iterdir())), resident_kib()))
    server.join()
    (descriptors_before, kib_before), (descriptors_after, kib_after) = marks
    assert abs(descriptors_after - descriptors_before) <= 1  # the server's own one
    assert kib_after - kib_before < 1024
