"""What a plan says, without making anything."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twbench.lab.plan import (
    MAX_ADDRESSES,
    MAX_CLIENT_HOSTS,
    MAX_EHASH_ENTRIES,
    MIN_EHASH_ENTRIES,
    LabPlan,
    Link,
    ehash_entries_for,
    is_sysctl_of_a_stack,
)
from twbench.lab.protocol import plan_as_json, plan_from_json
from twbench.model.errors import ScenarioError
from twbench.model.links import WirePort
from twbench.model.states import Side

IFNAMSIZ = 16

BENCHMARK_NETWORKS = {
    4: ipaddress.ip_network("198.18.0.0/15"),
    6: ipaddress.ip_network("2001:2::/48"),
}


@st.composite
def plans(draw: st.DrawFn) -> LabPlan:
    link, family = draw(st.sampled_from(Link)), draw(st.sampled_from((4, 6)))
    few = link is Link.HOST and family == 6
    addresses = st.sampled_from((1,) if few else (1, 2, MAX_ADDRESSES))
    return LabPlan(
        link=link,
        family=family,
        client_hosts=draw(st.sampled_from((1, 2, 9))),
        addresses_per_client=draw(addresses),
        server_addresses=draw(addresses),
        expected_sockets=draw(st.integers(0, 10**6)),
    )


def test_one_client_is_client_and_several_are_numbered() -> None:
    assert [host.name for host in LabPlan().hosts] == ["client", "server"]
    several = LabPlan(client_hosts=3)
    assert [host.name for host in several.hosts] == ["client-1", "client-2", "client-3", "server"]


@pytest.mark.parametrize(
    ("link", "stacks"),
    [
        (Link.VETH, ("client-1", "client-2", "server")),
        (Link.WIRE, ("client-1", "client-2", "server")),
        (Link.LOOPBACK, ("lab",)),
        (Link.HOST, ("machine",)),
    ],
)
def test_each_link_has_its_stacks(link: Link, stacks: tuple[str, ...]) -> None:
    plan = LabPlan(link=link, client_hosts=2)
    assert plan.stacks == stacks
    assert plan.stack_of("server") == stacks[-1]
    assert plan.stack_of("client-1") == stacks[0]


def test_only_a_wire_has_a_middle_and_no_host_is_there() -> None:
    middles = {link: LabPlan(link=link).middle for link in Link}
    assert middles == {link: "wire" if link is Link.WIRE else None for link in Link}
    assert "wire" not in LabPlan(link=Link.WIRE).stacks


def test_the_wires_ports_are_named_like_the_hosts_clients_first() -> None:
    plan = LabPlan(link=Link.WIRE, client_hosts=2)
    assert plan.wire_ports == (
        WirePort(
            host="client-1",
            side=Side.CLIENT,
            interface="client-1",
            mac=bytes.fromhex("020000000001"),
            addresses=("198.18.1.1",),
        ),
        WirePort(
            host="client-2",
            side=Side.CLIENT,
            interface="client-2",
            mac=bytes.fromhex("020000000002"),
            addresses=("198.18.2.1",),
        ),
        WirePort(
            host="server",
            side=Side.SERVER,
            interface="server",
            mac=bytes.fromhex("020000000003"),
            addresses=("198.19.0.1",),
        ),
    )
    assert LabPlan().wire_ports == ()


def test_the_largest_wires_ports_have_distinct_macs_and_names_that_fit() -> None:
    ports = LabPlan(link=Link.WIRE, client_hosts=MAX_CLIENT_HOSTS).wire_ports
    assert len({port.mac for port in ports}) == len(ports) == MAX_CLIENT_HOSTS + 1
    assert max(len(port.interface) for port in ports) <= IFNAMSIZ - 1


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("net.ipv4.tcp_sack", True),
        ("net.ipv4.conf.all.rp_filter", True),
        ("kernel.hostname", False),
        ("net.a/../../kernel", False),
        ("net.ipv4.tcp_sack\n", False),
    ],
)
def test_only_names_below_net_can_be_a_stacks_sysctl(name: str, own: bool) -> None:
    assert is_sysctl_of_a_stack(name) is own


def test_an_unknown_host_has_no_stack() -> None:
    with pytest.raises(KeyError):
        LabPlan().stack_of("elsewhere")


@given(plan=plans())
def test_a_plan_within_the_limits_has_no_problems_and_its_addresses_are_distinct(
    plan: LabPlan,
) -> None:
    assert plan.problems() == ()
    taken = [address for host in plan.hosts for address in host.addresses]
    parsed = [ipaddress.ip_address(address) for address in taken]
    assert all(address.version == plan.family for address in parsed)
    if not (plan.link is Link.HOST and plan.family == 6):
        assert len(set(parsed)) == len(parsed)
    if plan.link in {Link.VETH, Link.WIRE}:
        assert all(address in BENCHMARK_NETWORKS[plan.family] for address in parsed)
    if plan.link is Link.HOST:
        assert all(address.is_loopback for address in parsed)


@given(plan=plans())
def test_a_plan_reaches_the_keeper_unchanged(plan: LabPlan) -> None:
    assert plan_from_json(plan_as_json(plan)) == plan


def test_sysctls_and_ports_reach_the_keeper_unchanged() -> None:
    plan = LabPlan(
        server_ports=(80, 443),
        client_sysctls={"net.ipv4.tcp_tw_reuse": "1"},
        server_sysctls={"net.ipv4.tcp_sack": "0"},
    )
    assert plan_from_json(plan_as_json(plan)) == plan


@pytest.mark.parametrize(
    ("expected", "buckets"),
    [(0, MIN_EHASH_ENTRIES), (4096, 4096), (4097, 8192), (100_000, 131072)],
)
def test_a_table_has_a_bucket_for_each_expected_socket(expected: int, buckets: int) -> None:
    assert ehash_entries_for(expected) == buckets
    assert LabPlan(expected_sockets=expected).buckets == buckets


@given(expected=st.integers(0, 2 * MAX_EHASH_ENTRIES))
def test_a_table_is_a_power_of_two_that_the_kernel_takes(expected: int) -> None:
    size = ehash_entries_for(expected)
    assert size.bit_count() == 1
    assert min(expected, MAX_EHASH_ENTRIES) <= size <= MAX_EHASH_ENTRIES


def test_a_given_table_size_goes_before_the_expected_sockets() -> None:
    assert LabPlan(expected_sockets=10**6, ehash_entries=1024).buckets == 1024


@pytest.mark.parametrize(
    ("plan", "key"),
    [
        (LabPlan(client_hosts=0), "lab.client.hosts"),
        (LabPlan(client_hosts=251), "lab.client.hosts"),
        (LabPlan(addresses_per_client=251), "lab.client.addresses"),
        (LabPlan(server_addresses=0), "lab.server.addresses"),
        (LabPlan(server_ports=(80, 65536)), "lab.server.ports[1]"),
        (LabPlan(expected_sockets=-1), "lab.expected_sockets"),
        (LabPlan(ehash_entries=1000), "lab.ehash_entries"),
        (LabPlan(ehash_entries=0), "lab.ehash_entries"),
        (LabPlan(link=Link.HOST, family=6, server_addresses=2), "lab.server.addresses"),
        (LabPlan(client_sysctls={"kernel.x": "1"}), "lab.client.kernel.x"),
        (LabPlan(client_sysctls={"net.a/../../b": "1"}), "lab.client.net.a/../../b"),
        (LabPlan(client_sysctls={"net...x": "1"}), "lab.client.net...x"),
        (
            LabPlan(link=Link.HOST, server_sysctls={"net.ipv4.tcp_sack": "1"}),
            "lab.server.net.ipv4.tcp_sack",
        ),
        (
            LabPlan(
                link=Link.LOOPBACK,
                client_sysctls={"net.ipv4.tcp_sack": "1"},
                server_sysctls={"net.ipv4.tcp_sack": "0"},
            ),
            "lab.client.net.ipv4.tcp_sack, lab.server.net.ipv4.tcp_sack",
        ),
    ],
)
def test_a_mistake_is_told_by_its_key(plan: LabPlan, key: str) -> None:
    assert [problem.key for problem in plan.problems()] == [key]


def test_an_unknown_family_is_a_problem() -> None:
    assert [problem.key for problem in LabPlan(family=5, client_hosts=1).problems()] == [
        "lab.family"
    ]


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(ScenarioError) as caught:
        LabPlan(client_hosts=0, server_addresses=0, client_sysctls={"vm.x": "1"}).check()
    assert len(caught.value.problems) == 3


def test_both_sides_of_a_shared_stack_may_ask_for_the_same() -> None:
    same = {"net.ipv4.tcp_sack": "0"}
    plan = LabPlan(link=Link.LOOPBACK, client_sysctls=same, server_sysctls=same)
    assert plan.problems() == ()
    assert plan.sysctls_of("lab") == same


def test_over_a_veth_each_side_has_its_own_sysctls() -> None:
    plan = LabPlan(client_sysctls={"net.ipv4.a": "1"}, server_sysctls={"net.ipv4.b": "2"})
    assert plan.sysctls_of("client") == {"net.ipv4.a": "1"}
    assert plan.sysctls_of("server") == {"net.ipv4.b": "2"}


def test_the_largest_plan_has_distinct_addresses() -> None:
    plan = LabPlan(client_hosts=250, addresses_per_client=250, server_addresses=250)
    assert plan.problems() == ()
    assert len({address for host in plan.hosts for address in host.addresses}) == 250 * 251
