"""From a plan to the interfaces, addresses, routes and sysctls of each stack. Pure.

Each client host has its own veth to the server. The server's addresses stand on its `lo`, so it
answers for all of them on every veth. It reaches a client's addresses *through* the client's
first one: one neighbour entry a link, whatever the number of addresses (the neighbour table and
its limit `gc_thresh3` belong to the whole machine, net/core/neighbour.c).

Over the wire each host, the server too, has one veth, `eth0`, to the middle stack. Everything
leaves by it, without asking for a neighbour, and the kernel there passes nothing on.
"""

from dataclasses import dataclass, field

from twbench.lab.plan import (
    LabPlan,
    Link,
    client_v4,
    client_v6,
    server_v4,
    server_v6,
)
from twbench.model.links import MIDDLE_STACK

DEFAULT_SYSCTLS = {
    # A small table of its own also gives a stack a small limit: half the buckets (tcp_ipv4.c,
    # tcp_set_hashinfo). 262144 is what a machine with a full-sized table has.
    "net.ipv4.tcp_max_tw_buckets": "262144",
    # Likewise a 128th of the buckets, at least 128.
    "net.ipv4.tcp_max_syn_backlog": "4096",
}
"""Written on every stack of the lab, unless the plan sets the same name."""

LINK_SYSCTLS = {
    # Addresses must work at once: no duplicate address detection (RFC 4862 section 5.4).
    "net.ipv6.conf.default.accept_dad": "0",
    "net.ipv6.conf.default.dad_transmits": "0",
    # No packets in the lab but the load's own.
    "net.ipv6.conf.default.router_solicitations": "0",
    # An image or a container may switch IPv6 off by default.
    "net.ipv6.conf.all.disable_ipv6": "0",
    "net.ipv6.conf.default.disable_ipv6": "0",
}
"""Written on the stacks of an IPv6 lab before their interfaces are made."""

WIRE_SYSCTLS = {
    # bbr, which a machine may have as its default, paces with timers (net/ipv4/tcp_bbr.c).
    "net.ipv4.tcp_congestion_control": "reno",
}
"""Written on the hosts of a wire lab, unless the plan sets the same name."""

_NEAR = "eth0"
"""A client's end of its veth, and every host's over the wire."""

_SILENT = {
    "net.ipv6.conf.all.disable_ipv6": "1",
    "net.ipv6.conf.default.disable_ipv6": "1",
}
"""Where IPv6 is not the load's, it would only say by itself what it says on every new link."""

_MIDDLE_SYSCTLS = {
    # A new namespace inherits IPv4's from the machine (net.core.devconf_inherit_init_net).
    "net.ipv4.ip_forward": "0",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Address:
    """One address to put on an interface of a stack."""

    interface: str
    address: str
    prefix_length: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Route:
    """One route of a stack: `destination` as CIDR text, on-link where there is no gateway."""

    destination: str
    interface: str
    gateway: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Veth:
    """A pair of interfaces, one end in each of two stacks; `mac` is the first one's if given."""

    stack: str
    interface: str
    peer_stack: str
    peer_interface: str
    mac: bytes | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class StackWiring:
    """What one stack is given, in the order in which it is applied.

    `hushed` are sysctls too, for kernels that have them. `bare` interfaces know no neighbours
    (IFF_NOARP) and have no offloads, so that a packet socket behind them sees whole packets.
    """

    name: str
    link_sysctls: dict[str, str]
    hushed: dict[str, str] = field(default_factory=dict)
    bare: tuple[str, ...] = ()
    addresses: tuple[Address, ...] = ()
    routes: tuple[Route, ...] = ()
    sysctls: dict[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Wiring:
    """All stacks of a lab, its middle last, and the veths between them; `family` is 4 or 6."""

    family: int
    buckets: int
    stacks: tuple[StackWiring, ...]
    veths: tuple[Veth, ...]


def wire(plan: LabPlan) -> Wiring:
    """Return the wiring of `plan`, which must have no problems and a link other than "host"."""
    addresses: dict[str, list[Address]] = {name: [] for name in plan.stacks}
    routes: dict[str, list[Route]] = {name: [] for name in plan.stacks}
    veths: list[Veth] = []
    v6 = plan.family == 6  # noqa: PLR2004 - the name of the family
    if plan.link is Link.VETH:
        veths = _wire_veths(plan, addresses, routes)
    elif plan.link is Link.WIRE:
        veths = _wire_middle(plan, addresses, routes)
    elif v6:
        # 127.0.0.0/8 is all local already; of IPv6 only ::1 is (RFC 4291 section 2.5.3).
        addresses["lab"] = [
            Address(interface="lo", address=address, prefix_length=128)
            for host in plan.hosts
            for address in host.addresses
            if address != "::1"
        ]
    wired = plan.link is Link.WIRE
    stacks = [
        StackWiring(
            name=name,
            link_sysctls=LINK_SYSCTLS if v6 else {},
            hushed=_SILENT if wired and not v6 else {},
            bare=(_NEAR,) if wired else (),
            addresses=tuple(addresses[name]),
            routes=tuple(routes[name]),
            sysctls=DEFAULT_SYSCTLS | (WIRE_SYSCTLS if wired else {}) | plan.sysctls_of(name),
        )
        for name in plan.stacks
    ]
    if plan.middle is not None:
        ends = tuple(veth.peer_interface for veth in veths)
        middle = StackWiring(
            name=plan.middle, link_sysctls={}, hushed=_SILENT, bare=ends, sysctls=_MIDDLE_SYSCTLS
        )
        stacks.append(middle)
    return Wiring(
        family=plan.family, buckets=plan.buckets, stacks=tuple(stacks), veths=tuple(veths)
    )


def _wire_middle(
    plan: LabPlan, addresses: dict[str, list[Address]], routes: dict[str, list[Route]]
) -> list[Veth]:
    """Fill in addresses and routes of hosts that reach everything by `eth0`; return the veths."""
    v4 = plan.family == 4  # noqa: PLR2004 - the name of the family
    single, everywhere = (32, "0.0.0.0/0") if v4 else (128, "::/0")
    veths = []
    for port in plan.wire_ports:
        stack = plan.stack_of(port.host)
        addresses[stack] += [
            Address(interface=_NEAR, address=a, prefix_length=single) for a in port.addresses
        ]
        routes[stack].append(Route(destination=everywhere, interface=_NEAR))
        veths.append(
            Veth(
                stack=stack,
                interface=_NEAR,
                peer_stack=MIDDLE_STACK,
                peer_interface=port.interface,
                mac=port.mac,
            )
        )
    return veths


def _wire_veths(
    plan: LabPlan, addresses: dict[str, list[Address]], routes: dict[str, list[Route]]
) -> list[Veth]:
    """Fill in addresses and routes of a star of veths around the server; return the veths."""
    v4 = plan.family == 4  # noqa: PLR2004 - the name of the family
    on_link, single = (24, 32) if v4 else (64, 128)
    servers = f"{server_v4(0)}/24" if v4 else f"{server_v6(0)}/64"
    server = plan.server.stack
    addresses[server] += [
        Address(interface="lo", address=a, prefix_length=single) for a in plan.server.addresses
    ]
    veths = []
    for number, client in enumerate(plan.clients, start=1):
        far = f"eth{number}"
        transfer = client_v4(number, 254) if v4 else client_v6(number, 0xFFFF)
        network = f"{client_v4(number, 0)}/24" if v4 else f"{client_v6(number, 0)}/64"
        first = client.addresses[0]
        addresses[client.stack] += [
            Address(interface=_NEAR, address=a, prefix_length=on_link) for a in client.addresses
        ]
        routes[client.stack].append(Route(destination=servers, interface=_NEAR, gateway=transfer))
        addresses[server].append(Address(interface=far, address=transfer, prefix_length=single))
        routes[server] += [
            Route(destination=f"{first}/{single}", interface=far),
            Route(destination=network, interface=far, gateway=first),
        ]
        veths.append(
            Veth(stack=client.stack, interface=_NEAR, peer_stack=server, peer_interface=far)
        )
    return veths
