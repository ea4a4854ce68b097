"""What crosses the pipe to a worker comes out as it went in, on one line."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from twbench.model.links import WirePort
from twbench.model.parse import parse_scenario
from twbench.model.plans import CarrierPlan, CarrierStart, FleetPlan, ServerPlan, share
from twbench.model.scenario import EndingSpec, ServerSpec, WireSpec
from twbench.model.states import Side

SCENARIO = parse_scenario(
    """
    name = "plan"
    description = "two\\nlines"
    [lab.client.sysctl]
    "net.ipv4.tcp_tw_reuse" = 1
    "net.ipv4.ip_local_port_range" = "32768 36863"
    [load]
    mode = "open"
    stages = [{ duration_s = 1.5, rate_per_s = 100 }, { duration_s = 2, rate_per_s = 0 }]
    [client.pool]
    size = 7
    [client.socket]
    IP_LOCAL_PORT_RANGE = [40000, 40100]
    """,
    source="test",
)
FLEET = FleetPlan(
    scenario=SCENARIO,
    worker=1,
    workers=3,
    sources=("10.0.0.1", "fd00::1"),
    destinations=(("10.0.1.1", 8080), ("fd00::2", 8081)),
)
SERVER = ServerPlan(
    server=ServerSpec(response_bytes=3),
    ending=EndingSpec(kind="server-rst"),
    family="ipv6",
    endpoints=(("::1", 8080),),
    by_url=True,
)
CARRIER = CarrierStart(
    plan=CarrierPlan(
        wire=WireSpec(loss=0.1, rules=("drop client→server FIN",)),
        ports=(
            WirePort(
                host="client",
                side=Side.CLIENT,
                interface="client",
                mac=bytes((2, 0, 0, 0, 0, 17)),
                addresses=("10.0.0.1", "fd00::1"),
            ),
        ),
        own_rules=("hold FIN until FIN from the other side",),
        hold_s=2.5,
    ),
    sockets=(7,),
    capture=None,
)
Plan = FleetPlan | ServerPlan | CarrierStart


@pytest.mark.parametrize("plan", [FLEET, SERVER, CARRIER], ids=["fleet", "server", "carrier"])
def test_plan_survives_the_pipe_as_one_line(plan: Plan) -> None:
    line = plan.as_line()
    assert line.index(b"\n") == len(line) - 1
    assert type(plan).from_line(line) == plan


@pytest.mark.parametrize("plan", [FLEET, SERVER, CARRIER], ids=["fleet", "server", "carrier"])
def test_plan_with_a_key_too_many_is_refused(plan: Plan) -> None:
    line = json.dumps({**json.loads(plan.as_line()), "extra": 1}).encode()
    with pytest.raises(ValidationError, match="extra"):
        type(plan).from_line(line)


def test_plan_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        FLEET.worker = 2  # type: ignore[misc]


@given(total=st.integers(0, 10**9), workers=st.integers(1, 64))
def test_shares_add_up_and_differ_by_one_at_most(total: int, workers: int) -> None:
    shares = [share(total, worker, workers) for worker in range(workers)]
    assert sum(shares) == total
    assert max(shares) - min(shares) <= 1
    assert shares == sorted(shares, reverse=True)
