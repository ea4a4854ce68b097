"""Which readers are chosen, and what is said about those that could not be."""

import socket
from pathlib import Path

import pytest

from twbench.kernel.choose import open_readers
from twbench.kernel.openers import open_file_here, open_socket_here
from twbench.model.errors import LabError


def refuse_socket(family: int, kind: int, protocol: int) -> socket.socket:
    raise PermissionError(1, f"no {family}/{kind}/{protocol} here")


def refuse_file(path: str) -> int:
    raise FileNotFoundError(2, "nothing of the kind", path)


def no_table(path: str) -> int:
    return refuse_file(path) if "tcp" in path else open_file_here(path)


def test_kernel_interfaces_come_first() -> None:
    with open_readers() as readers:
        assert (readers.ticks.source, readers.looks.source) == ("proc", "sock_diag")
        assert readers.warnings == ()


def test_refused_sock_diag_falls_back_to_the_table_and_says_why() -> None:
    with open_readers(open_socket=refuse_socket) as readers:
        assert readers.looks.source == "proc"
        assert len(readers.warnings) == 1
        assert "looks fell back to proc" in readers.warnings[0]
        assert readers.looks.look().source == "proc"


def test_socket_that_is_no_sock_diag_falls_back_and_is_closed() -> None:
    made = []

    def wrong_socket(_family: int, _kind: int, _protocol: int) -> socket.socket:
        made.append(open_socket_here(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE))
        return made[0]

    with open_readers(open_socket=wrong_socket) as readers:
        assert readers.looks.source == "proc"
    assert made[0].fileno() == -1


def test_nothing_that_works_is_a_lab_error_and_keeps_nothing_open() -> None:
    before = set(Path("/proc/self/fd").iterdir())
    with pytest.raises(LabError, match="looks"):
        open_readers(open_file=no_table, open_socket=refuse_socket)
    with pytest.raises(LabError, match="ticks"):
        open_readers(open_file=refuse_file, open_socket=refuse_socket)
    assert set(Path("/proc/self/fd").iterdir()) == before


@pytest.mark.namespaces
def test_readers_of_another_process_see_its_namespace(pid: int) -> None:
    with open_readers(pid=pid) as readers:
        assert readers.looks.source == "sock_diag"
        assert len(readers.looks.look().sockets) == 0
        assert readers.ticks.tick().counters["TcpActiveOpens"] == 0
