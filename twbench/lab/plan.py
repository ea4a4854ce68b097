"""The description of a lab: which hosts, which link, which sysctls. Pure; nothing is made here.

A *host* is a role with addresses ("client", "client-2", "server"). A *stack* is one kernel network
stack, so one set of sockets, counters and sysctls. Over a veth and over the wire each host has a
stack of its own; over a loopback all hosts share one. The wire's *middle* is a stack too, in which
a userspace program meets the packets of every host; no host lives there.

IPv4 addresses over a veth or the wire come from 198.18.0.0/15 (RFC 2544, appendix C.2.2), IPv6
addresses from 2001:2::/48 (RFC 5180, section 8): set aside for benchmarks, never routed.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

from twbench.model.errors import Problem, ScenarioError
from twbench.model.links import MIDDLE_STACK, WirePort
from twbench.model.states import Side


class Link(StrEnum):
    """What lies between client hosts and server."""

    VETH = "veth"
    WIRE = "wire"
    LOOPBACK = "loopback"
    HOST = "host"


MAX_CLIENT_HOSTS = 250
MAX_ADDRESSES = 250
MIN_EHASH_ENTRIES = 4096
MAX_EHASH_ENTRIES = 1 << 24
"""The most that `tcp_child_ehash_entries` takes (net/ipv4/sysctl_net_ipv4.c)."""

SHARED_STACK = {Link.LOOPBACK: "lab", Link.HOST: "machine"}
"""The one stack of the links on which all hosts share a kernel stack."""

_SYSCTL_NAME = re.compile(r"net(\.[A-Za-z0-9_-]+){2,}")


def ehash_entries_for(expected_sockets: int) -> int:
    """Return how many hash buckets hold `expected_sockets` at one a bucket: a power of two.

    A dump visits every bucket, so a table far larger than the load makes each look slower.
    """
    wanted = max(expected_sockets, MIN_EHASH_ENTRIES)
    return min(1 << (wanted - 1).bit_length(), MAX_EHASH_ENTRIES)


def is_sysctl_of_a_stack(name: str) -> bool:
    """Return whether `name` can be a network namespace's: "net.…", and nothing but a name."""
    return _SYSCTL_NAME.fullmatch(name) is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class HostPlan:
    """One host: its role, the stack that carries it, and its addresses as text."""

    name: str
    side: Side
    stack: str
    addresses: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class LabPlan:
    """A lab as asked for. Sysctls are keyed by kernel name ("net.ipv4.tcp_tw_reuse")."""

    link: Link = Link.VETH
    family: int = 4
    client_hosts: int = 1
    addresses_per_client: int = 1
    server_addresses: int = 1
    server_ports: tuple[int, ...] = ()
    client_sysctls: Mapping[str, str] = field(default_factory=dict)
    server_sysctls: Mapping[str, str] = field(default_factory=dict)
    expected_sockets: int = MIN_EHASH_ENTRIES
    ehash_entries: int | None = None

    @property
    def buckets(self) -> int:
        """Return the size of each stack's own socket table, in buckets."""
        return self.ehash_entries or ehash_entries_for(self.expected_sockets)

    @cached_property
    def clients(self) -> tuple[HostPlan, ...]:
        """Return the client hosts: "client", or "client-1", "client-2" and so on."""
        return tuple(self._client(number) for number in range(1, self.client_hosts + 1))

    @cached_property
    def server(self) -> HostPlan:
        """Return the server host."""
        make = _SERVER_ADDRESS[self.link, self.family]
        return HostPlan(
            name="server",
            side=Side.SERVER,
            stack=SHARED_STACK.get(self.link, "server"),
            addresses=tuple(make(n) for n in range(1, self.server_addresses + 1)),
        )

    @cached_property
    def hosts(self) -> tuple[HostPlan, ...]:
        """Return every host, clients first."""
        return (*self.clients, self.server)

    @cached_property
    def stacks(self) -> tuple[str, ...]:
        """Return the name of each stack once, in the order of the hosts."""
        return tuple(dict.fromkeys(host.stack for host in self.hosts))

    @property
    def middle(self) -> str | None:
        """Return the name of the stack between the hosts, None where there is none.

        It is no host's, so it is not among `stacks`.
        """
        return MIDDLE_STACK if self.link is Link.WIRE else None

    @cached_property
    def wire_ports(self) -> tuple[WirePort, ...]:
        """Return where the middle meets each host, clients first; empty without a middle."""
        if self.middle is None:
            return ()
        return tuple(
            WirePort(
                host=host.name,
                side=host.side,
                interface=host.name,
                mac=bytes((0x02, 0, 0, 0, 0, number)),
                addresses=host.addresses,
            )
            for number, host in enumerate(self.hosts, start=1)
        )

    def stack_of(self, host: str) -> str:
        """Return the name of the stack that carries `host`; KeyError for an unknown host."""
        return {each.name: each.stack for each in self.hosts}[host]

    def sysctls_of(self, stack: str) -> dict[str, str]:
        """Return the sysctls asked for on `stack`; a shared stack gets those of both sides."""
        asked: dict[str, str] = {}
        for host in self.hosts:
            if host.stack == stack:
                asked |= self.client_sysctls if host.side is Side.CLIENT else self.server_sysctls
        return asked

    def problems(self) -> tuple[Problem, ...]:
        """Return every mistake of the plan, each with its key; empty when it can be made."""
        return (*_number_problems(self), *_address_problems(self), *_sysctl_problems(self))

    def check(self) -> None:
        """Raise ScenarioError with all mistakes at once, if there is one."""
        if found := self.problems():
            raise ScenarioError("lab", found)

    def _client(self, number: int) -> HostPlan:
        name = "client" if self.client_hosts == 1 else f"client-{number}"
        make = _CLIENT_ADDRESS[self.link, self.family]
        return HostPlan(
            name=name,
            side=Side.CLIENT,
            stack=SHARED_STACK.get(self.link, name),
            addresses=tuple(make(number, n) for n in range(1, self.addresses_per_client + 1)),
        )


def client_v4(host: int, n: int) -> str:
    """Return a client host's address `n` over a veth, where 254 is the server's, or the wire."""
    return f"198.18.{host}.{n}"


def client_v6(host: int, n: int) -> str:
    """Return address `n` of client host `host` over a veth, the wire or an own loopback."""
    return f"2001:2:0:{host:x}::{n:x}"


def server_v4(n: int) -> str:
    """Return the server's address `n` over a veth or the wire."""
    return f"198.19.0.{n}"


def server_v6(n: int) -> str:
    """Return the server's address `n` over a veth or the wire."""
    return f"2001:2:0:ffff::{n:x}"


def _loopback_client_v4(host: int, n: int) -> str:
    return f"127.1.{host}.{n}"


def _loopback_server_v4(n: int) -> str:
    return f"127.0.0.{n}"


def _loopback_server_v6(n: int) -> str:
    return "::1" if n == 1 else server_v6(n)


_CLIENT_ADDRESS: dict[tuple[Link, int], Callable[[int, int], str]] = {
    (Link.VETH, 4): client_v4,
    (Link.VETH, 6): client_v6,
    (Link.WIRE, 4): client_v4,
    (Link.WIRE, 6): client_v6,
    (Link.LOOPBACK, 4): _loopback_client_v4,
    (Link.LOOPBACK, 6): client_v6,
    (Link.HOST, 4): _loopback_client_v4,
    (Link.HOST, 6): lambda _host, _n: "::1",
}
_SERVER_ADDRESS: dict[tuple[Link, int], Callable[[int], str]] = {
    (Link.VETH, 4): server_v4,
    (Link.VETH, 6): server_v6,
    (Link.WIRE, 4): server_v4,
    (Link.WIRE, 6): server_v6,
    (Link.LOOPBACK, 4): _loopback_server_v4,
    (Link.LOOPBACK, 6): _loopback_server_v6,
    (Link.HOST, 4): _loopback_server_v4,
    (Link.HOST, 6): lambda _n: "::1",
}


def _number_problems(plan: LabPlan) -> list[Problem]:
    limits = {
        "lab.client.hosts": (plan.client_hosts, 1, MAX_CLIENT_HOSTS),
        "lab.client.addresses": (plan.addresses_per_client, 1, MAX_ADDRESSES),
        "lab.server.addresses": (plan.server_addresses, 1, MAX_ADDRESSES),
        "lab.expected_sockets": (plan.expected_sockets, 0, MAX_EHASH_ENTRIES),
        **{f"lab.server.ports[{i}]": (p, 1, 65535) for i, p in enumerate(plan.server_ports)},
    }
    found = [
        Problem(key=key, found=str(value), allowed=f"{low} to {high}")
        for key, (value, low, high) in limits.items()
        if not low <= value <= high
    ]
    if plan.family not in {4, 6}:
        found.append(Problem(key="lab.family", found=str(plan.family), allowed="4 or 6"))
    size = plan.ehash_entries
    if size is not None and (size.bit_count() != 1 or not 1 <= size <= MAX_EHASH_ENTRIES):
        allowed = f"a power of two up to {MAX_EHASH_ENTRIES}"
        found.append(Problem(key="lab.ehash_entries", found=str(size), allowed=allowed))
    return found


def _address_problems(plan: LabPlan) -> list[Problem]:
    if plan.link is not Link.HOST or plan.family != 6:  # noqa: PLR2004 - the name of the family
        return []
    counts = {
        "lab.client.addresses": plan.addresses_per_client,
        "lab.server.addresses": plan.server_addresses,
    }
    allowed = "1: a machine has one IPv6 loopback address, ::1 (use link = 'loopback' or 'veth')"
    return [
        Problem(key=key, found=str(count), allowed=allowed)
        for key, count in counts.items()
        if count > 1
    ]


def _sysctl_problems(plan: LabPlan) -> list[Problem]:
    sides = {"lab.client": plan.client_sysctls, "lab.server": plan.server_sysctls}
    found: list[Problem] = []
    for where, sysctls in sides.items():
        for name, value in sysctls.items():
            key = f"{where}.{name}"
            if plan.link is Link.HOST:
                allowed = "no sysctl: link = 'host' never changes the machine's own settings"
                found.append(Problem(key=key, found=value, allowed=allowed))
            elif not is_sysctl_of_a_stack(name):
                allowed = "a name that starts with 'net.': only those belong to a network namespace"
                found.append(Problem(key=key, found=name, allowed=allowed))
    if plan.link is Link.LOOPBACK:
        for name in plan.client_sysctls.keys() & plan.server_sysctls.keys():
            values = (plan.client_sysctls[name], plan.server_sysctls[name])
            if values[0] != values[1]:
                allowed = "one value: link = 'loopback' has one kernel stack for both sides"
                key = f"lab.client.{name}, lab.server.{name}"
                found.append(Problem(key=key, found=" and ".join(values), allowed=allowed))
    return found
