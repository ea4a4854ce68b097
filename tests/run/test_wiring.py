"""Rules that no wire could keep are told by their key, and what a wire did is told in words."""

from collections import Counter
from typing import Any

import pytest

from twbench.model.endings import ENDINGS
from twbench.model.errors import ScenarioError
from twbench.model.parse import build_scenario
from twbench.model.reports import PacketFate, WireReport
from twbench.model.scenario import Scenario
from twbench.run.planning import carrier_plan, lab_plan
from twbench.run.wiring import carried, meddling_of, own_rules


def scenario(kind: str = "client-fin", link: str = "wire", **lab: Any) -> Scenario:  # noqa: ANN401 - of [lab]
    return build_scenario(
        {
            "name": "wired",
            "ending": {"kind": kind, "hold_s": 3},
            "server": {"keepalive_timeout_s": 1},
            "lab": {"link": link, **lab},
            "load": {"concurrency": 1, "duration_s": 1},
        },
        source="test",
    )


def rules(*lines: str, family: str = "ipv4") -> Scenario:
    return scenario(wire={"rules": lines}, family=family)


def test_every_mistake_in_the_rules_is_told_by_its_key() -> None:
    with pytest.raises(ScenarioError) as raised:
        lab_plan(rules("drop FIN", "drop FINN", "hold FIN", "refuse SYN with icmp 8/0"))
    told = {problem.key: str(problem) for problem in raised.value.problems}
    assert told.keys() == {f"lab.wire.rules.{number}" for number in (1, 2, 3)}
    directions = "client→server, server→client"
    assert f"found 'FINN' in 'drop FINN'; allowed is {directions}, any," in told["lab.wire.rules.1"]
    assert "found hold alone in 'hold FIN'; allowed is 'hold … until" in told["lab.wire.rules.2"]
    assert "found ICMP type 8 in 'refuse SYN with icmp 8/0';" in told["lab.wire.rules.3"]
    assert all(each.count("rule") == 1 for each in told.values())


def test_icmp_of_a_rule_is_the_familys() -> None:
    lab_plan(rules("refuse SYN with icmp 3/1"))
    lab_plan(rules("refuse SYN with icmp 1/4", family="ipv6"))
    with pytest.raises(ScenarioError, match="an ICMP error of IPv4"):
        lab_plan(rules("refuse SYN with icmp 1/4"))


def test_carrier_is_told_the_wire_and_where_it_meets_each_host() -> None:
    asked = scenario(wire={"loss": 0.5}, client={"hosts": 2})
    plan = carrier_plan(asked, lab_plan(asked))
    assert plan is not None
    assert (plan.wire.loss, plan.hold_s, plan.own_rules) == (0.5, 3, ())
    assert [port.host for port in plan.ports] == ["client-1", "client-2", "server"]


@pytest.mark.parametrize("link", ["veth", "loopback", "host"])
def test_other_links_have_no_carrier(link: str) -> None:
    asked = scenario(link=link)
    assert carrier_plan(asked, lab_plan(asked)) is None


@pytest.mark.parametrize("kind", ENDINGS)
def test_only_the_ending_that_needs_it_has_fins_held(kind: str) -> None:
    held = [line for line in own_rules(scenario(kind)) if line.startswith("hold FIN")]
    assert len(held) == ENDINGS[kind].needs_wire


def test_wire_that_only_carried_did_not_meddle() -> None:
    crossing = scenario("simultaneous")
    report = WireReport(
        client=Counter(
            {PacketFate.SEEN: 9, PacketFate.DELIVERED: 9, PacketFate.HELD: 3, PacketFate.STRAY: 1}
        ),
        rules=Counter(dict.fromkeys(own_rules(crossing), 3)) + Counter({"pass SYN": 2}),
    )
    assert meddling_of(report, crossing) == ""
    assert meddling_of(WireReport(), scenario(link="veth")) == ""


@pytest.mark.parametrize(
    ("report", "told"),
    [
        (WireReport(client=Counter({"lost": 2}), server=Counter({"lost": 1})), "(lost: 3)"),
        (WireReport(server=Counter({"overrun": 1234})), "(too fast for the carrier: 1,234)"),
        (WireReport(rules=Counter({"delay FIN by 5 ms": 1})), "('delay FIN by 5 ms': 1)"),
    ],
)
def test_whatever_else_it_did_is_told_by_name(report: WireReport, told: str) -> None:
    assert meddling_of(report, scenario()).endswith(f"not held to balance {told}")


def test_every_fate_of_both_sides_is_in_the_summary() -> None:
    summed = carried(WireReport(client=Counter({"lost": 2}), captured=5, cpu_ns=1_500_000))
    assert summed["client"]["lost"] == 2
    assert summed["server"] == dict.fromkeys(map(str, PacketFate), 0)
    assert (summed["captured"], summed["cpu_s"], summed["rules"]) == (5, 0.002, {})
