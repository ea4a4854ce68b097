"""From a plan to interfaces, addresses and routes."""

import ipaddress

import pytest

from twbench.lab.plan import LabPlan, Link
from twbench.lab.wiring import (
    DEFAULT_SYSCTLS,
    LINK_SYSCTLS,
    WIRE_SYSCTLS,
    Address,
    Route,
    Veth,
    wire,
)


def test_one_client_over_a_veth_is_wired_like_this() -> None:
    wiring = wire(LabPlan(addresses_per_client=2))
    client, server = wiring.stacks
    assert wiring.veths == (
        Veth(stack="client", interface="eth0", peer_stack="server", peer_interface="eth1"),
    )
    assert client.addresses == (
        Address(interface="eth0", address="198.18.1.1", prefix_length=24),
        Address(interface="eth0", address="198.18.1.2", prefix_length=24),
    )
    assert client.routes == (
        Route(destination="198.19.0.0/24", interface="eth0", gateway="198.18.1.254"),
    )
    assert server.addresses == (
        Address(interface="lo", address="198.19.0.1", prefix_length=32),
        Address(interface="eth1", address="198.18.1.254", prefix_length=32),
    )
    assert server.routes == (
        Route(destination="198.18.1.1/32", interface="eth1"),
        Route(destination="198.18.1.0/24", interface="eth1", gateway="198.18.1.1"),
    )


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("hosts", [1, 3, 250])
def test_every_route_of_the_server_covers_the_addresses_of_its_client(
    family: int, hosts: int
) -> None:
    plan = LabPlan(family=family, client_hosts=hosts, addresses_per_client=10)
    by_name = {stack.name: stack for stack in wire(plan).stacks}
    wide = [
        ipaddress.ip_network(route.destination)
        for route in by_name["server"].routes
        if route.gateway
    ]
    assert len(wide) == hosts
    for network, client in zip(wide, plan.clients, strict=True):
        assert all(ipaddress.ip_address(address) in network for address in client.addresses)
    servers = ipaddress.ip_network(by_name[plan.clients[0].name].routes[0].destination)
    assert all(ipaddress.ip_address(address) in servers for address in plan.server.addresses)


@pytest.mark.parametrize("family", [4, 6])
def test_no_address_is_given_twice(family: int) -> None:
    wiring = wire(LabPlan(family=family, client_hosts=250, addresses_per_client=250))
    taken = [address.address for stack in wiring.stacks for address in stack.addresses]
    assert len(taken) == len(set(taken)) == 250 * 250 + 250 + 1


def test_an_ipv4_loopback_needs_no_addresses_and_an_ipv6_one_does() -> None:
    (lab,) = wire(LabPlan(link=Link.LOOPBACK, addresses_per_client=2)).stacks
    assert lab.addresses == ()
    (lab,) = wire(LabPlan(link=Link.LOOPBACK, family=6, server_addresses=2)).stacks
    assert [address.address for address in lab.addresses] == ["2001:2:0:1::1", "2001:2:0:ffff::2"]


def test_what_the_user_sets_goes_before_the_labs_own() -> None:
    plan = LabPlan(server_sysctls={"net.ipv4.tcp_max_tw_buckets": "7"})
    client, server = wire(plan).stacks
    assert client.sysctls == DEFAULT_SYSCTLS
    assert server.sysctls == DEFAULT_SYSCTLS | {"net.ipv4.tcp_max_tw_buckets": "7"}


def test_only_ipv6_labs_touch_ipv6_settings() -> None:
    assert all(stack.link_sysctls == {} for stack in wire(LabPlan()).stacks)
    assert all(stack.link_sysctls == LINK_SYSCTLS for stack in wire(LabPlan(family=6)).stacks)


def test_one_client_over_the_wire_is_wired_like_this() -> None:
    wiring = wire(LabPlan(link=Link.WIRE, server_addresses=2))
    client, server, middle = wiring.stacks
    assert wiring.veths == (
        Veth(
            stack="client",
            interface="eth0",
            peer_stack="wire",
            peer_interface="client",
            mac=bytes.fromhex("020000000001"),
        ),
        Veth(
            stack="server",
            interface="eth0",
            peer_stack="wire",
            peer_interface="server",
            mac=bytes.fromhex("020000000002"),
        ),
    )
    assert client.addresses == (Address(interface="eth0", address="198.18.1.1", prefix_length=32),)
    assert server.addresses == (
        Address(interface="eth0", address="198.19.0.1", prefix_length=32),
        Address(interface="eth0", address="198.19.0.2", prefix_length=32),
    )
    everywhere = (Route(destination="0.0.0.0/0", interface="eth0"),)
    assert client.routes == server.routes == everywhere
    assert client.bare == server.bare == ("eth0",)
    assert (middle.name, middle.bare) == ("wire", ("client", "server"))
    assert (middle.addresses, middle.routes) == ((), ())
    assert middle.sysctls == {"net.ipv4.ip_forward": "0"}


def test_ipv6_over_the_wire_is_on_for_the_hosts_and_off_in_the_middle() -> None:
    client, server, middle = wire(LabPlan(link=Link.WIRE, family=6)).stacks
    assert client.link_sysctls == server.link_sysctls == LINK_SYSCTLS
    assert client.routes == (Route(destination="::/0", interface="eth0"),)
    assert client.hushed == {}
    assert middle.hushed["net.ipv6.conf.default.disable_ipv6"] == "1"
    client, _, _ = wire(LabPlan(link=Link.WIRE)).stacks
    assert client.hushed == middle.hushed


def test_the_wires_own_sysctls_are_for_its_hosts_and_give_way_to_the_plans() -> None:
    name = "net.ipv4.tcp_congestion_control"
    plan = LabPlan(link=Link.WIRE, client_sysctls={name: "cubic"})
    client, server, _ = wire(plan).stacks
    assert client.sysctls == DEFAULT_SYSCTLS | {name: "cubic"}
    assert server.sysctls == DEFAULT_SYSCTLS | WIRE_SYSCTLS
    assert server.sysctls[name] == "reno"
    assert name not in wire(LabPlan()).stacks[0].sysctls
