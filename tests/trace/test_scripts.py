"""The scripts of the endings: what both applications do."""

from collections.abc import Mapping

import pytest

from twbench.lab.lab import Lab
from twbench.lab.plan import LabPlan, Link
from twbench.model.endings import ENDINGS
from twbench.model.states import Side, TcpState
from twbench.trace.scripts import SCRIPTS, WITHIN_S, ask, close_in_turn, exchange, play_for, play_to
from twbench.trace.trace import Trace
from twbench.wire.stage import Stage

Traces = Mapping[tuple[str, int], Trace]


def test_every_ending_has_a_script() -> None:
    assert SCRIPTS.keys() == ENDINGS.keys()


@pytest.mark.namespaces
@pytest.mark.parametrize("name", SCRIPTS)
def test_both_applications_let_their_end_go(traces: Traces, name: str) -> None:
    calls = traces[name, 4].ladder.calls
    going = {call.side for call in calls if call.text.startswith("close()")}
    killed = {Side.SERVER} if name == "crash" else set()
    assert going == set(Side) - killed


@pytest.mark.namespaces
@pytest.mark.parametrize(
    ("name", "seen"),
    [
        ("client-rst", (Side.SERVER, "ECONNRESET")),
        ("server-rst", (Side.CLIENT, "ECONNRESET")),
        ("server-unread", (Side.CLIENT, "ECONNRESET")),
        ("crash", (Side.CLIENT, "ECONNRESET")),
        ("client-fin", (Side.SERVER, "0 bytes: end of file")),
        ("server-fin", (Side.CLIENT, "0 bytes: end of file")),
        ("server-idle", (Side.CLIENT, "0 bytes: end of file")),
    ],
)
def test_application_that_is_left_sees_it_in_its_last_receive(
    traces: Traces, name: str, seen: tuple[Side, str]
) -> None:
    read = [call for call in traces[name, 4].ladder.calls if call.text == "recv()"]
    assert (read[-1].side, read[-1].result) == seen


@pytest.mark.namespaces
def test_steps_of_a_script_bring_both_ends_where_they_say() -> None:
    plan = LabPlan(link=Link.WIRE, expected_sockets=64)
    with Lab(plan) as lab, Stage(lab, plan.wire_ports) as stage:
        client, server = ask(stage)
        assert server.is_readable
        server.reset()
        play_for(stage, client)
        assert client.receive().error == "ECONNRESET"

        client, server = exchange(stage)
        assert not client.is_readable
        assert not server.is_readable
        close_in_turn(stage, server, client)
        assert stage.state(Side.SERVER) is TcpState.TIME_WAIT
        assert stage.state(Side.CLIENT) is TcpState.CLOSE


@pytest.mark.namespaces
@pytest.mark.slow
def test_what_never_comes_is_waited_for_a_few_seconds_only() -> None:
    plan = LabPlan(link=Link.WIRE, expected_sockets=64)
    with Lab(plan) as lab, Stage(lab, plan.wire_ports) as stage:
        client, _ = exchange(stage)
        began_s = stage.elapsed_s
        play_for(stage, client)
        play_to(stage, Side.CLIENT, TcpState.FIN_WAIT2)
        assert stage.elapsed_s - began_s >= 2 * WITHIN_S
        assert stage.state(Side.CLIENT) is TcpState.ESTABLISHED
