"""Closes that wait for the kernel while something else holds a copy of the descriptor."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from twbench.claims.closing import end, end_in_turn
from twbench.claims.scenery import Scenery
from twbench.lab.lab import Lab
from twbench.lab.plan import LabPlan, Link
from twbench.model.states import Side, TcpState
from twbench.trace.scripts import exchange
from twbench.wire.stage import Stage

pytestmark = pytest.mark.namespaces


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Scenery]:
    plan = LabPlan(link=Link.WIRE)
    with Lab(plan) as lab, Stage(lab, plan.wire_ports) as stage:
        yield Scenery(folder=tmp_path, stop=threading.Event(), own_lab=lab, own_stage=stage)


@pytest.mark.parametrize(("reset", "state"), [(False, TcpState.FIN_WAIT1), (True, TcpState.CLOSE)])
def test_close_is_waited_for_while_a_copy_of_the_descriptor_is_open(
    at: Scenery, reset: bool, state: TcpState
) -> None:
    client, _server = exchange(at.stage)
    copy = os.dup(client.socket.fileno())
    timer = threading.Timer(0.3, os.close, [copy])
    timer.start()
    end(at, client, reset=reset)
    timer.join()
    assert at.stage.state(Side.CLIENT) is state


def test_closes_in_turn_leave_time_wait_to_the_first(at: Scenery) -> None:
    client, server = exchange(at.stage)
    end_in_turn(at, server, client)
    assert at.stage.state(Side.SERVER) is TcpState.TIME_WAIT
    assert at.stage.state(Side.CLIENT) is TcpState.CLOSE
