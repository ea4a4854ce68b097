"""An application's end, on the loopback of this machine."""

import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from twbench.model.states import Side, TcpState
from twbench.wire.endpoint import Endpoint, Outcome

LOOPBACK = "127.0.0.1"
WITHIN_S = 30


@dataclass(slots=True)
class Notebook:
    """Writes down what endpoints tell of themselves."""

    calls: list[tuple[Side, str, str]] = field(default_factory=list)
    followed: list[tuple[int, int]] = field(default_factory=list)
    inodes: list[tuple[Side, int]] = field(default_factory=list)

    def called(self, side: Side, text: str, outcome: Outcome) -> None:
        self.calls.append((side, text, str(outcome)))

    def closed(self, side: Side, inode: int) -> None:
        self.inodes.append((side, inode))

    def follow(self, client_port: int, server_port: int) -> None:
        self.followed.append((client_port, server_port))


Pair = tuple[Endpoint, Endpoint]


@pytest.fixture
def notebook() -> Notebook:
    return Notebook()


@pytest.fixture
def endpoint(notebook: Notebook) -> Iterator[Endpoint]:
    with socket.socket() as made:
        yield Endpoint(made, Side.CLIENT, notebook)


@pytest.fixture
def listener(notebook: Notebook) -> Iterator[Endpoint]:
    with socket.socket() as made:
        end = Endpoint(made, Side.SERVER, notebook)
        end.bind(LOOPBACK, 0)
        end.listen(5)
        yield end


@pytest.fixture
def pair(notebook: Notebook, endpoint: Endpoint, listener: Endpoint) -> Iterator[Pair]:
    endpoint.connect(LOOPBACK, listener.port)
    eventually(lambda: listener.is_readable)
    server = listener.accept()
    notebook.calls.clear()
    with server.socket:
        yield endpoint, server


def eventually(condition: Callable[[], bool]) -> None:
    end_s = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.001)


@pytest.mark.parametrize(
    ("outcome", "text"),
    [
        (Outcome(), ""),
        (Outcome(value=100), "100"),
        (Outcome(value=b"hello"), "5 bytes"),
        (Outcome(value=b""), "0 bytes: end of file"),
        (Outcome(error="ECONNRESET"), "ECONNRESET"),
    ],
)
def test_outcome_is_told_in_a_few_words(outcome: Outcome, text: str) -> None:
    assert str(outcome) == text


def test_only_received_bytes_are_data() -> None:
    assert Outcome(value=b"hello").data == b"hello"
    assert Outcome(value=5).data == Outcome(error="EAGAIN").data == b""


def test_every_call_is_recorded_with_side_and_outcome(
    notebook: Notebook, endpoint: Endpoint, listener: Endpoint
) -> None:
    port = listener.port
    endpoint.connect(LOOPBACK, port)
    eventually(lambda: listener.is_readable)
    server = listener.accept()
    endpoint.send(b"hello")
    eventually(lambda: server.is_readable)
    server.receive()
    server.receive()
    endpoint.shutdown()
    eventually(lambda: server.is_readable)
    server.receive()
    server.close()
    assert notebook.calls == [
        (Side.SERVER, "bind(0)", ""),
        (Side.SERVER, "listen()", ""),
        (Side.CLIENT, "connect()", "EINPROGRESS"),
        (Side.SERVER, "accept()", ""),
        (Side.CLIENT, "send(5 bytes)", "5"),
        (Side.SERVER, "recv()", "5 bytes"),
        (Side.SERVER, "recv()", "EAGAIN"),
        (Side.CLIENT, "shutdown(SHUT_WR)", ""),
        (Side.SERVER, "recv()", "0 bytes: end of file"),
        (Side.SERVER, "close()", ""),
    ]
    assert notebook.followed == [(endpoint.port, port)]


def test_connect_that_never_starts_is_not_followed(notebook: Notebook, endpoint: Endpoint) -> None:
    assert endpoint.connect("255.255.255.255", 80).error
    assert notebook.followed == []


def test_nothing_to_accept_is_no_call(notebook: Notebook, listener: Endpoint) -> None:
    notebook.calls.clear()
    with pytest.raises(BlockingIOError):
        listener.accept()
    assert notebook.calls == []


def test_pending_error_is_told_once(endpoint: Endpoint) -> None:
    with socket.socket() as bound:
        bound.bind((LOOPBACK, 0))
        endpoint.connect(LOOPBACK, bound.getsockname()[1])
        eventually(lambda: endpoint.is_readable)
    assert [endpoint.error(), endpoint.error()] == ["ECONNREFUSED", ""]


def test_reset_is_what_the_other_side_sees(pair: Pair, notebook: Notebook) -> None:
    client, server = pair
    client.reset()
    eventually(lambda: server.is_readable)
    assert server.receive() == Outcome(error="ECONNRESET")
    assert server.send(b"more") == Outcome(error="EPIPE")
    assert notebook.calls[0] == (Side.CLIENT, "close(), SO_LINGER 0", "")


def test_receive_takes_no_more_than_asked(pair: Pair) -> None:
    client, server = pair
    assert not server.is_readable
    client.send(b"hello")
    eventually(lambda: server.is_readable)
    assert server.receive(2).data == b"he"
    assert server.is_readable
    assert server.receive().data == b"llo"
    assert not server.is_readable


def test_info_reads_the_fields_of_struct_tcp_info(pair: Pair) -> None:
    client, _ = pair
    info = client.info()
    assert info["state"] == TcpState.ESTABLISHED
    assert info["rto_us"] >= info["rtt_us"] > 0
    assert 200_000 <= info["rto_us"] <= 120_000_000
    quiet = ("retransmits", "probes", "backoff", "lost", "total_retrans", "unacked")
    assert {name: info[name] for name in quiet} == dict.fromkeys(quiet, 0)
    client.shutdown()
    assert client.info()["state"] != TcpState.ESTABLISHED
