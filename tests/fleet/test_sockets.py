"""Sockets made by hand: each option reaches the kernel, each failure names its phase."""

import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from twbench.fleet.sockets import SOCKET_OPTIONS, ConnectFailedError, Dialer
from twbench.model.outcomes import Phase
from twbench.model.plans import Endpoint
from twbench.model.scenario import SocketOptions

LOOPBACK = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}

# What is asked for, and the bytes with which getsockopt(2) answers.
ASKED: dict[str, tuple[Any, bytes]] = {
    "SO_LINGER": (7, struct.pack("=ii", 1, 7)),
    "SO_REUSEADDR": (True, struct.pack("=i", 1)),
    "SO_KEEPALIVE": (True, struct.pack("=i", 1)),
    # sock_setsockopt doubles both, for its own bookkeeping
    "SO_SNDBUF": (20_000, struct.pack("=i", 40_000)),
    "SO_RCVBUF": (30_000, struct.pack("=i", 60_000)),
    "TCP_NODELAY": (True, struct.pack("=i", 1)),
    "TCP_USER_TIMEOUT": (1234, struct.pack("=i", 1234)),
    "TCP_SYNCNT": (3, struct.pack("=i", 3)),
    "TCP_KEEPIDLE": (11, struct.pack("=i", 11)),
    "TCP_KEEPINTVL": (12, struct.pack("=i", 12)),
    "TCP_KEEPCNT": (4, struct.pack("=i", 4)),
    "IP_BIND_ADDRESS_NO_PORT": (True, struct.pack("=i", 1)),
    "IP_LOCAL_PORT_RANGE": ((40_000, 40_100), struct.pack("=I", 40_100 << 16 | 40_000)),
}


@pytest.fixture(params=[socket.AF_INET, socket.AF_INET6], ids=["ipv4", "ipv6"])
def listener(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    with socket.create_server((LOOPBACK[request.param], 0), family=request.param) as made:
        yield made


def endpoint_of(listener: socket.socket) -> Endpoint:
    address, port = listener.getsockname()[:2]
    return address, port


def dialer(listener: socket.socket, *, bind: bool = False, **options: object) -> Dialer:
    return Dialer(family=listener.family, options=options, bind=bind)


def test_every_option_of_a_scenario_is_tried_here() -> None:
    assert set(ASKED) == set(SOCKET_OPTIONS) == set(SocketOptions.model_fields)


@pytest.mark.parametrize("name", ASKED)
async def test_option_is_set_before_the_connection_is_made(
    name: str, listener: socket.socket, request: pytest.FixtureRequest
) -> None:
    if name == "IP_LOCAL_PORT_RANGE":
        request.getfixturevalue("free_window")
    value, expected = ASKED[name]
    option = SOCKET_OPTIONS[name]
    source, endpoint = LOOPBACK[listener.family], endpoint_of(listener)
    made = await dialer(listener, **{name: value}).dial(source, endpoint)
    with made:
        assert made.getpeername()[:2] == endpoint
        assert made.getsockopt(option.level, option.number, len(expected)) == expected


async def test_window_of_ports_is_kept_to_and_its_end_is_ports_exhausted(
    listener: socket.socket, free_window: Callable[[int], tuple[int, int]]
) -> None:
    source, endpoint = LOOPBACK[listener.family], endpoint_of(listener)
    low, high = free_window(3)
    narrow = dialer(listener, IP_LOCAL_PORT_RANGE=(low, high))
    made = [await narrow.dial(source, endpoint) for _ in range(3)]
    try:
        assert sorted(s.getsockname()[1] for s in made) == [low, low + 1, high]
        with pytest.raises(ConnectFailedError, match="EADDRNOTAVAIL") as failure:
            await narrow.dial(source, endpoint)
        assert failure.value.phase is Phase.CONNECT
    finally:
        for each in made:
            each.close()


async def test_source_address_is_bound_where_asked() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        made = await dialer(listener, bind=True).dial("127.0.0.99", endpoint_of(listener))
        with made:
            assert made.getsockname()[0] == "127.0.0.99"


@pytest.mark.parametrize(
    ("source", "destination", "bind", "phase", "error"),
    [
        ("192.0.2.1", None, True, Phase.BIND, "EADDRNOTAVAIL"),
        ("127.0.0.1", ("127.0.0.1", 1), False, Phase.CONNECT, "ECONNREFUSED"),
        ("127.0.0.1", ("127.0.0.1", 1), True, Phase.CONNECT, "ECONNREFUSED"),
    ],
)
async def test_failure_names_its_phase_and_errno(
    source: str, destination: Endpoint | None, bind: bool, phase: Phase, error: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        target = destination or endpoint_of(listener)
        with pytest.raises(ConnectFailedError) as failure:
            await dialer(listener, bind=bind).dial(source, target)
    assert (failure.value.phase, failure.value.error) == (phase, error)


async def test_option_that_the_kernel_refuses_fails_the_connect() -> None:
    bad = Dialer(family=socket.AF_INET, options={"TCP_KEEPIDLE": 100_000}, bind=False)
    with pytest.raises(ConnectFailedError) as failure:
        await bad.dial("127.0.0.1", ("127.0.0.1", 1))
    assert (failure.value.phase, failure.value.error) == (Phase.CONNECT, "EINVAL")
