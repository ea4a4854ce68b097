"""Sockets that listen, and endpoints that are refused, on real ports of the loopback."""

import socket
from collections.abc import Iterator

import pytest

from twbench.model.plans import Endpoint
from twbench.model.scenario import Family
from twbench.process.listening import CannotListenError, listen, refuse_taken

ANY: Endpoint = ("127.0.0.1", 0)


@pytest.fixture
def shared() -> Iterator[Endpoint]:
    """Give the endpoint of a listener that lets others of its user join."""
    with listen(ANY, family="ipv4", backlog=1) as sock:
        yield sock.getsockname()


def test_two_may_listen_on_one_port(shared: Endpoint) -> None:
    with listen(shared, family="ipv4", backlog=1) as second:
        assert second.getsockname() == shared
        assert second.getblocking() is False


def test_port_that_could_be_shared_is_taken_all_the_same(shared: Endpoint) -> None:
    expected = rf"cannot listen on 127\.0\.0\.1 port {shared[1]}: EADDRINUSE"
    with pytest.raises(CannotListenError, match=expected) as caught:
        refuse_taken(shared, family="ipv4")
    assert caught.value.error == "EADDRINUSE"


def test_port_taken_on_every_address_is_taken_on_each() -> None:
    with (
        listen(("0.0.0.0", 0), family="ipv4", backlog=1) as sock,
        pytest.raises(CannotListenError, match="EADDRINUSE"),
    ):
        refuse_taken(("127.0.0.1", sock.getsockname()[1]), family="ipv4")


def test_free_port_is_free_still_after_it_was_asked_about() -> None:
    with listen(ANY, family="ipv4", backlog=1) as sock:
        endpoint: Endpoint = sock.getsockname()
    for _ in range(3):
        refuse_taken(endpoint, family="ipv4")
    listen(endpoint, family="ipv4", backlog=1).close()


def test_port_in_time_wait_is_free() -> None:
    with listen(ANY, family="ipv4", backlog=1) as listener:
        listener.setblocking(True)  # noqa: FBT003 - the socket module's own
        endpoint: Endpoint = listener.getsockname()
        with socket.create_connection(endpoint) as client:
            accepted, _ = listener.accept()
            accepted.close()
            assert client.recv(1) == b""
    refuse_taken(endpoint, family="ipv4")


@pytest.mark.parametrize(
    ("endpoint", "family", "error"),
    [
        (("192.0.2.1", 8080), "ipv4", {"EADDRNOTAVAIL"}),
        (("2001:db8::1", 8080), "ipv6", {"EADDRNOTAVAIL", "EAFNOSUPPORT"}),
    ],
)
def test_address_that_is_not_to_be_had_is_refused_with_its_reason(
    endpoint: Endpoint, family: Family, error: set[str]
) -> None:
    with pytest.raises(CannotListenError) as listening:
        listen(endpoint, family=family, backlog=1)
    with pytest.raises(CannotListenError) as asking:
        refuse_taken(endpoint, family=family)
    assert listening.value.error == asking.value.error
    assert asking.value.error in error
