"""How the lab and its keeper talk."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from twbench.lab import protocol

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture(name="pair")
def _pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours, theirs


def test_a_message_arrives_with_its_descriptors(pair: Pair) -> None:
    reader, writer = os.pipe()
    protocol.send(pair[0], {"do": "open", "names": ["a", "b"]}, [writer])
    os.close(writer)
    message, (copy,) = protocol.receive(pair[1])
    assert message == {"do": "open", "names": ["a", "b"]}
    assert not os.get_inheritable(copy)
    os.write(copy, b"through the copy")
    os.close(copy)
    assert os.read(reader, 100) == b"through the copy"
    os.close(reader)


def test_messages_keep_their_bounds_and_order(pair: Pair) -> None:
    protocol.send(pair[0], {"n": 1})
    protocol.send(pair[0], {"n": 2})
    assert protocol.receive(pair[1]) == ({"n": 1}, [])
    assert protocol.receive(pair[1]) == ({"n": 2}, [])


def test_the_most_descriptors_a_lab_can_need_fit_one_message(pair: Pair) -> None:
    reader, writer = os.pipe()
    protocol.send(pair[0], {}, [writer] * 252)
    _, copies = protocol.receive(pair[1])
    assert len(copies) == 252
    for descriptor in (reader, writer, *copies):
        os.close(descriptor)


def test_a_closed_other_side_is_the_end(pair: Pair) -> None:
    pair[0].close()
    with pytest.raises(EOFError):
        protocol.receive(pair[1])


def test_a_message_cut_short_is_refused_and_its_descriptors_closed(pair: Pair) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    reader, writer = os.pipe()
    pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    protocol.send(pair[0], {"long": "x" * 150_000}, [writer])
    os.close(writer)
    with pytest.raises(OSError, match="cut short"):
        protocol.receive(pair[1])
    assert os.read(reader, 1) == b""
    os.close(reader)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
