"""What a stage sees of a host, on real hosts."""

import errno
import os
import socket
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from twbench.lab.lab import Lab
from twbench.lab.plan import LabPlan
from twbench.model.states import Side, TcpState
from twbench.wire.ladder import EndState
from twbench.wire.lookout import Lookout, end_state

WITHIN_S = 30
WireLab = tuple[Lab, LabPlan]
pytestmark = pytest.mark.namespaces


@pytest.fixture
def lookout(wire_lab: WireLab) -> Iterator[Lookout]:
    with closing(Lookout(wire_lab[0], "client")) as made:
        yield made


@pytest.fixture
def connecting(wire_lab: WireLab) -> Iterator[socket.socket]:
    """Give a socket that connects to a server that nothing leads to: nobody works the wire."""
    lab, plan = wire_lab
    with lab.socket("client", socket.AF_INET, socket.SOCK_STREAM) as made:
        made.settimeout(0)
        assert made.connect_ex((plan.server.addresses[0], 80)) == errno.EINPROGRESS
        yield made


def test_connection_is_found_by_its_ports_seen_from_the_host(
    lookout: Lookout, connecting: socket.socket
) -> None:
    port = connecting.getsockname()[1]
    (row,) = lookout.between(port, 80)
    assert row["state"] == TcpState.SYN_SENT
    assert len(lookout.between(80, port)) == len(lookout.between(port, 81)) == 0
    seen = end_state(lookout.between(port, 80))
    assert (seen.state, seen.timer) == (TcpState.SYN_SENT, 1)
    assert 0 < seen.expires_s <= 1


def test_where_there_is_no_row_the_end_is_closed(lookout: Lookout) -> None:
    assert end_state(lookout.between(1, 2)) == EndState(state=TcpState.CLOSE)


def test_listener_is_seen_while_there_is_one(wire_lab: WireLab, lookout: Lookout) -> None:
    assert not lookout.listens()
    with wire_lab[0].socket("client", socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.listen()
        assert lookout.listens()
    # the lab's keeper, which made the socket, can hold its copy a moment longer
    end_s = time.monotonic() + WITHIN_S
    while lookout.listens():
        assert time.monotonic() < end_s


def test_destroyed_connection_is_gone_and_its_owner_is_told(
    lookout: Lookout, connecting: socket.socket
) -> None:
    port = connecting.getsockname()[1]
    assert lookout.destroy(port, 81) == 0
    assert lookout.destroy(port, 80) == 1
    assert not len(lookout.between(port, 80))
    assert connecting.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNABORTED


def test_counters_are_the_hosts_own(wire_lab: WireLab, lookout: Lookout) -> None:
    lab, plan = wire_lab
    before = lookout.counters()
    with (
        closing(Lookout(lab, "server")) as other,
        lab.socket("client", socket.AF_INET, socket.SOCK_STREAM) as made,
    ):
        made.settimeout(0)
        made.connect_ex((plan.server.addresses[0], 80))
        after = lookout.counters()
        assert after["TcpActiveOpens"] == before["TcpActiveOpens"] + 1
        assert after["sockstat_inuse"] == before["sockstat_inuse"] + 1
        assert other.counters()["TcpActiveOpens"] == 0
    assert {"sockstat_tw", "TcpExtTW", "TcpOutRsts"} <= after.keys()


def test_nothing_stays_open_when_it_is_closed(wire_lab: WireLab) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - counted, as they are
    lookout = Lookout(wire_lab[0], str(Side.SERVER))
    assert len(os.listdir("/proc/self/fd")) > before  # noqa: PTH208
    lookout.close()
    lookout.close()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
