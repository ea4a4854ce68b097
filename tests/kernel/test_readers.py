"""Real sockets of a namespace of the test's own, as every reader shows them."""

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from twbench.kernel.process import open_file_of, open_socket_of
from twbench.kernel.readers import LookReader, TableLookReader, TickReader
from twbench.kernel.sockdiag import Sockets
from twbench.model.states import TIME_WAIT_S, TIME_WAIT_SLACK_S, TcpState

ADDRESSES = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
FAMILIES = pytest.mark.parametrize("family", ADDRESSES)
NamedReader = Callable[[int], LookReader | TableLookReader]
EVERY_READER = pytest.mark.parametrize(
    "reader_of",
    [
        lambda pid: LookReader(open_socket_of(pid)),
        lambda pid: TableLookReader(open_file_of(pid)),
    ],
    ids=["sock_diag", "proc"],
)
in_a_namespace = pytest.mark.namespaces


def descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def listen(pid: int, family: int = socket.AF_INET) -> socket.socket:
    listener = open_socket_of(pid)(family, socket.SOCK_STREAM, 0)
    listener.bind((ADDRESSES[socket.AddressFamily(family)], 0))
    listener.listen(16)
    return listener


def connect(pid: int, listener: socket.socket) -> socket.socket:
    client = open_socket_of(pid)(listener.family, socket.SOCK_STREAM, 0)
    client.connect(listener.getsockname()[:2])
    return client


def rows_in(sockets: Sockets, state: TcpState) -> Sockets:
    rows: Sockets = sockets[sockets["state"] == state]
    return rows


@in_a_namespace
@FAMILIES
@EVERY_READER
def test_client_that_closes_first_is_shown_in_time_wait_with_its_ports_and_timer(
    pid: int, family: int, reader_of: NamedReader
) -> None:
    with listen(pid, family) as listener, reader_of(pid) as reader:
        client = connect(pid, listener)
        server, peer = listener.accept()
        client.close()
        server.close()
        look = reader.look()
        (row,) = rows_in(look.sockets, TcpState.TIME_WAIT)
        assert row["family"] == family
        assert (row["sport"], row["dport"]) == (peer[1], listener.getsockname()[1])
        size = 4 if family == socket.AF_INET else 16
        address = socket.inet_pton(family, peer[0])
        assert (row["src"].tobytes()[:size], row["dst"].tobytes()[:size]) == (address, address)
        left_s = row["expires_ms"] / 1000
        assert TIME_WAIT_S - 5 < left_s < TIME_WAIT_S + TIME_WAIT_SLACK_S
        assert not look.interrupted
        assert look.cost_ns > 0


@in_a_namespace
@EVERY_READER
def test_accept_queue_is_what_nobody_accepted(pid: int, reader_of: NamedReader) -> None:
    with listen(pid) as listener, reader_of(pid) as reader:
        clients = [connect(pid, listener) for _ in range(3)]
        (row,) = rows_in(reader.look().sockets, TcpState.LISTEN)
        assert row["rqueue"] == 3
        listener.accept()[0].close()
        (row,) = rows_in(reader.look().sockets, TcpState.LISTEN)
        assert row["rqueue"] == 2
        for client in clients:
            client.close()


@in_a_namespace
def test_look_and_tick_and_table_count_the_same(pid: int) -> None:
    with (
        listen(pid) as listener,
        listen(pid, socket.AF_INET6) as listener6,
        TickReader(open_file_of(pid)) as ticks,
        LookReader(open_socket_of(pid)) as looks,
        TableLookReader(open_file_of(pid)) as tables,
    ):
        before = ticks.tick().counters
        held = []
        for number, where in enumerate([listener] * 5 + [listener6] * 4):
            client = connect(pid, where)
            server, _ = where.accept()
            if number % 2:
                client.close()
                server.close()
            else:
                held += [client, server]
        tick, look = ticks.tick(), looks.look()
        waiting = rows_in(look.sockets, TcpState.TIME_WAIT)
        assert len(waiting) == tick.sockstat["tw"] == 4
        assert tick.counters["TcpExtTW"] - before["TcpExtTW"] == 4
        full = look.sockets[look.sockets["state"] != TcpState.TIME_WAIT]
        assert (full["family"] == socket.AF_INET).sum() == tick.sockstat["inuse"] == 7
        assert (full["family"] == socket.AF_INET6).sum() == tick.sockstat["inuse6"] == 5
        names = ["family", "state", "sport", "dport", "src", "dst", "rqueue", "inode"]
        assert sorted(row[names].item() for row in look.sockets) == sorted(
            row[names].item() for row in tables.look().sockets
        )
        assert (tick.source, look.source) == ("proc", "sock_diag")
        for end in held:
            end.close()


@in_a_namespace
def test_orphaned_fin_wait_2_is_shown_by_its_substate(pid: int) -> None:
    with (
        listen(pid) as listener,
        LookReader(open_socket_of(pid)) as looks,
        TickReader(open_file_of(pid)) as ticks,
    ):
        client = connect(pid, listener)
        server, _ = listener.accept()
        client.close()
        deadline_s = time.monotonic() + 5
        # The server's acknowledgement may be delayed.
        while TcpState.FIN_WAIT1 in (states := sorted(looks.look().sockets["state"])):
            assert time.monotonic() < deadline_s
            time.sleep(0.005)
        assert states == [TcpState.FIN_WAIT2, TcpState.CLOSE_WAIT, TcpState.LISTEN]
        assert ticks.tick().sockstat["tw"] == 1
        server.close()


@in_a_namespace
def test_only_the_asked_states_are_shown(pid: int) -> None:
    with listen(pid) as listener, LookReader(open_socket_of(pid)) as looks:
        client = connect(pid, listener)
        assert set(looks.look(states=1 << TcpState.LISTEN).sockets["state"]) == {TcpState.LISTEN}
        client.close()


@in_a_namespace
def test_destroyed_time_wait_is_gone_at_once(pid: int) -> None:
    with listen(pid) as listener, LookReader(open_socket_of(pid)) as looks:
        client = connect(pid, listener)
        server, _ = listener.accept()
        client.close()
        server.close()
        (row,) = rows_in(looks.look().sockets, TcpState.TIME_WAIT)
        looks.destroy(row)
        assert len(rows_in(looks.look().sockets, TcpState.TIME_WAIT)) == 0
        with pytest.raises(FileNotFoundError):
            looks.destroy(row)


def test_dump_longer_than_one_message_is_read_to_its_end() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=600) as listener, LookReader() as looks:
        clients = [socket.create_connection(listener.getsockname()) for _ in range(400)]
        port = listener.getsockname()[1]
        for _ in range(2):
            sockets = looks.look().sockets
            established = rows_in(sockets, TcpState.ESTABLISHED)
            assert (established["dport"] == port).sum() == 400
            assert (established["sport"] == port).sum() == 400
        for client in clients:
            client.close()


def test_closed_reader_gives_its_descriptors_back() -> None:
    before = descriptors()
    readers = [TickReader(), LookReader(), TableLookReader()]
    assert len(descriptors() - before) == 7
    for reader in readers:
        reader.close()
        reader.close()
    assert descriptors() == before


def test_reader_that_cannot_open_all_its_files_keeps_none() -> None:
    def open_some(path: str) -> int:
        if path.endswith("netstat"):
            raise PermissionError(path)
        return os.open(path, os.O_RDONLY)

    before = descriptors()
    with pytest.raises(PermissionError):
        TickReader(open_some)
    assert descriptors() == before


def test_host_without_ipv6_is_read_all_the_same() -> None:
    def open_v4(path: str) -> int:
        if path.endswith("6"):
            raise FileNotFoundError(path)
        return os.open(path, os.O_RDONLY)

    with TickReader(open_v4) as ticks, TableLookReader(open_v4) as tables:
        assert "inuse6" not in ticks.tick().sockstat
        assert set(tables.look().sockets["family"]) <= {socket.AF_INET}
