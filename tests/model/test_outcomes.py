"""The table of failures: (phase, errno, fresh or reused) to a kind, and what real sockets say."""

import errno
import socket
import struct

import pytest

from twbench.model.outcomes import (
    KINDS,
    UNKNOWN,
    Kind,
    Phase,
    errno_name,
    error_key,
    kind_of,
    kind_of_key,
)

OURS = {"LATE", "EOF", "SHORT", "TIMEOUT", "PROTOCOL", "STATUS", "REDIRECTS", "LIMIT", "CANCELLED"}
LOOPBACK = "127.0.0.1"


@pytest.mark.parametrize(
    ("row", "kind"),
    KINDS.items(),
    ids=[f"{p}-{e}-{'reused' if r else 'fresh'}" for p, e, r in KINDS],
)
def test_row_gives_a_key_that_leads_back_to_its_kind(
    row: tuple[str, str, bool], kind: Kind
) -> None:
    phase, error, reused = row
    key = error_key(Phase(phase), error, reused=reused)
    assert key == f"{phase}:{error}:{kind.name}"
    assert kind_of_key(key) is kind


@pytest.mark.parametrize("error", sorted({error for _, error, _ in KINDS}))
def test_error_is_the_kernels_name_or_one_of_ours(error: str) -> None:
    resolver = error.startswith("EAI_") and hasattr(socket, error)
    assert error in errno.errorcode.values() or error in OURS or resolver


def test_names_are_one_word_and_every_kind_has_a_meaning() -> None:
    for kind in KINDS.values():
        assert kind.name.isidentifier()
        assert kind.meaning


@pytest.mark.parametrize("reused", [False, True])
def test_unlisted_pair_is_unknown_and_still_has_a_key(reused: bool) -> None:
    assert kind_of(Phase.READ, "EFAULT", reused=reused) is UNKNOWN
    key = error_key(Phase.READ, "EFAULT", reused=reused)
    assert key == "read:EFAULT:unknown"
    assert kind_of_key(key) is UNKNOWN


def test_key_with_a_kind_that_its_pair_never_has_is_unknown() -> None:
    assert kind_of_key("connect:ECONNREFUSED:keepalive_race") is UNKNOWN


@pytest.mark.parametrize(
    ("phase", "error", "fresh"),
    [
        (Phase.WRITE, "EPIPE", "broken_pipe"),
        (Phase.WRITE, "ECONNRESET", "reset_by_peer"),
        (Phase.READ, "ECONNRESET", "reset_by_peer"),
        (Phase.READ, "EPIPE", "broken_pipe"),
        (Phase.READ, "EOF", "closed_unanswered"),
    ],
)
def test_end_of_a_reused_connection_is_a_race_and_of_a_fresh_one_is_not(
    phase: Phase, error: str, fresh: str
) -> None:
    assert kind_of(phase, error, reused=True).name == "keepalive_race"
    assert kind_of(phase, error, reused=False).name == fresh


@pytest.mark.parametrize("phase", ["write", "read", "idle", "close"])
def test_failure_of_a_connection_always_follows_a_syn(phase: str) -> None:
    assert all(kind.syn_left for (where, _, _), kind in KINDS.items() if where == phase)


@pytest.mark.parametrize(
    ("error", "syn_left"),
    [("EADDRNOTAVAIL", False), ("EMFILE", False), ("ECONNREFUSED", True), ("ETIMEDOUT", True)],
)
def test_connect_knows_whether_a_syn_left(error: str, syn_left: bool) -> None:
    assert kind_of(Phase.CONNECT, error).syn_left is syn_left


@pytest.mark.parametrize(
    ("number", "name"),
    [(errno.ECONNRESET, "ECONNRESET"), (99_999, "E99999"), (-2, "E-2"), (None, "ENone")],
)
def test_errno_has_the_kernels_name_or_its_number(number: int | None, name: str) -> None:
    assert errno_name(number) == name


def key_of(phase: Phase, raised: pytest.ExceptionInfo[OSError]) -> str:
    return error_key(phase, errno_name(raised.value.errno))


def test_connect_to_a_port_without_a_listener_is_refused() -> None:
    with socket.socket() as bound, socket.socket() as client:
        bound.bind((LOOPBACK, 0))
        with pytest.raises(OSError, match="refused") as raised:
            client.connect(bound.getsockname())
    assert key_of(Phase.CONNECT, raised) == "connect:ECONNREFUSED:refused"


def test_bind_to_an_address_of_somebody_else_is_not_local() -> None:
    with socket.socket() as client, pytest.raises(OSError, match="assign") as raised:
        client.bind(("192.0.2.1", 0))
    assert key_of(Phase.BIND, raised) == "bind:EADDRNOTAVAIL:not_local"


def test_connect_from_a_four_tuple_in_use_has_the_errno_of_a_full_port_range() -> None:
    with (
        socket.create_server((LOOPBACK, 0)) as listener,
        socket.socket() as first,
        socket.socket() as second,
    ):
        for each in (first, second):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        first.bind((LOOPBACK, 0))
        first.connect(listener.getsockname())
        second.bind(first.getsockname())
        with pytest.raises(OSError, match="assign") as raised:
            second.connect(listener.getsockname())
    assert key_of(Phase.CONNECT, raised) == "connect:EADDRNOTAVAIL:ports_exhausted"


def test_reset_by_linger_zero_is_read_as_reset_by_peer_and_then_written_as_broken_pipe() -> None:
    with (
        socket.create_server((LOOPBACK, 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
    ):
        server, _ = listener.accept()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))
        server.close()
        with pytest.raises(ConnectionResetError) as read:
            client.recv(1)
        with pytest.raises(BrokenPipeError) as written:
            client.send(b"x")
    assert key_of(Phase.READ, read) == "read:ECONNRESET:reset_by_peer"
    assert key_of(Phase.WRITE, written) == "write:EPIPE:broken_pipe"
