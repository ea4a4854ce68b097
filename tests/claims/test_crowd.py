"""Crowds: who is left with TIME_WAIT, what is refused, and how one ends."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from twbench.claims.claim import SetUpError
from twbench.claims.crowd import First, Order, crowd
from twbench.claims.scenery import Scenery
from twbench.kernel.readers import TickReader
from twbench.lab.lab import Lab
from twbench.lab.plan import LabPlan, Link
from twbench.wire.errors import StoppedError

pytestmark = pytest.mark.namespaces
PORTS = 8


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Scenery]:
    sysctls = {"net.ipv4.ip_local_port_range": f"40000 {40000 + PORTS - 1}"}
    with Lab(LabPlan(link=Link.VETH, client_sysctls=sysctls)) as lab:
        yield Scenery(folder=tmp_path, stop=threading.Event(), own_lab=lab, own_stage=None)


def time_waits(at: Scenery, host: str) -> int:
    with TickReader(lambda path: at.lab.open(host, path)) as reader:
        return reader.tick().sockstat["tw"]


@pytest.mark.parametrize(
    ("ending", "client", "server"),
    [(First.CLIENT, 3, 0), (First.SERVER, 0, 3), (First.RESET, 0, 0), (First.KEEP, 0, 0)],
)
def test_time_wait_is_left_to_who_closes_first(
    at: Scenery, ending: First, client: int, server: int
) -> None:
    with crowd(at) as of:
        made = of.make(Order(count=3, ending=ending, from_port=50_000))
        of.settle()
        assert made.ports == (50_000, 50_001, 50_002)
        assert len(made.cpu_ns) == 3
        assert (time_waits(at, "client"), time_waits(at, "server")) == (client, server)


def test_first_refusal_ends_an_order_and_another_port_of_the_server_takes_more(at: Scenery) -> None:
    with crowd(at, ports=2) as of:
        made = of.make(Order(count=PORTS + 5))
        assert (len(made.ports), made.error) == (PORTS, "EADDRNOTAVAIL")
        assert of.make(Order(count=2, to=1)).error == ""


def test_window_bounds_the_ports(at: Scenery) -> None:
    with crowd(at) as of:
        made = of.make(Order(count=5, window=(40_002, 40_004)))
    if made.error == "ENOPROTOOPT":
        pytest.skip("IP_LOCAL_PORT_RANGE came with Linux 6.3")
    assert set(made.ports) == {40_002, 40_003, 40_004}


def test_crowd_that_is_to_stop_stops_and_leaves_no_process(at: Scenery) -> None:
    at.stop.set()
    with crowd(at) as of:
        process = of.process
        with pytest.raises(StoppedError):
            of.make(Order(count=1_000_000, ending=First.RESET))
    assert process.poll() is not None
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)


def test_crowd_whose_process_is_gone_is_no_experiment(at: Scenery) -> None:
    with crowd(at) as of:
        of.process.kill()
        of.process.wait()
        with pytest.raises(SetUpError, match="ended"):
            of.make(Order(count=1))
