"""Makes the stacks of a wiring: namespaces, veths, addresses, routes, sysctls. For the keeper.

`build` makes them all, `rebuild` puts a fresh one in the place of one host's.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from twbench.lab.namespaces import (
    enter_network,
    leave_machine,
    new_network,
    open_namespace,
    write_text,
)
from twbench.lab.offloads import switch_off
from twbench.lab.sysctls import path_of, read_sysctls, write_sysctls
from twbench.lab.wiring import StackWiring, Veth, Wiring
from twbench.model.errors import LabError

_IFA_F_NODAD = 0x02
_RT_SCOPE_LINK = 253
_TABLE_SYSCTL = "net.ipv4.tcp_child_ehash_entries"


@dataclass(frozen=True, kw_only=True)
class Built:
    """What stands: a descriptor of each stack's network namespace, and of the user namespace.

    `user` is None where no user namespace was needed. `warnings` is what could not be had.
    `retired` are the namespaces of stacks that `rebuild` replaced; open, so that no other
    namespace gets the number of theirs while what runs in them is ours to end.
    """

    wiring: Wiring
    user: int | None
    stacks: dict[str, int]
    warnings: tuple[str, ...]
    retired: list[int] = field(default_factory=list)


def build(wiring: Wiring) -> Built:
    """Make everything in `wiring` and stay in one of its stacks; LabError where it is refused.

    The process must have one thread (unshare(2)). The machine's own namespace is left for good
    first, so nothing here can write to it.
    """
    user = open_namespace("user") if leave_machine() else None
    nursery = open_namespace("net")
    warnings = _size_tables(wiring.buckets)
    stacks: dict[str, int] = {}
    try:
        for stack in wiring.stacks:
            about = f"network namespace {len(stacks) + 1} of {len(wiring.stacks)}"
            stacks[stack.name] = _new_stack(stack, nursery, about)
    finally:
        os.close(nursery)
    with _links_refused():
        _make_veths(wiring.veths, stacks)
        for stack in wiring.stacks:
            enter_network(stacks[stack.name])
            _configure(stack)
    for stack in wiring.stacks:
        enter_network(stacks[stack.name])
        write_sysctls(stack.name, stack.sysctls)
    return Built(wiring=wiring, user=user, stacks=stacks, warnings=warnings)


def rebuild(built: Built, name: str) -> None:
    """Put a fresh namespace in the place of host stack `name` of a wire lab; stay in it.

    The old one loses its veth and is kept in `built.retired`. LabError where something is
    refused: then, unless it was the namespace itself, the host is cut off.
    """
    wiring = built.wiring
    (stack,) = (each for each in wiring.stacks if each.name == name)
    (veth,) = (each for each in wiring.veths if each.stack == name)
    (middle,) = (each for each in wiring.stacks if each.name == veth.peer_stack)
    parent = built.stacks[middle.name]
    enter_network(parent)
    _size_tables(wiring.buckets)
    fresh = _new_stack(stack, parent, f"a fresh network namespace for {name}")
    built.retired.append(built.stacks[name])
    built.stacks[name] = fresh
    with _links_refused():
        enter_network(parent)
        with IPRoute() as route:
            route.link("del", index=_indexes(route)[veth.peer_interface])
        _make_veths([veth], built.stacks)
        enter_network(parent)
        _configure(replace(middle, bare=(veth.peer_interface,)))
        enter_network(fresh)
        _configure(stack)
    write_sysctls(name, stack.sysctls)


@contextmanager
def _links_refused() -> Iterator[None]:
    """Turn the kernel's refusal of a link, address, route or offload into a LabError."""
    try:
        yield
    except NetlinkError as error:
        raise LabError(f"links of the lab: {os.strerror(error.code)} ({error})") from None
    except OSError as error:
        raise LabError(f"links of the lab: {error}") from None


def _new_stack(stack: StackWiring, parent: int, about: str) -> int:
    """Return a new namespace with the sysctls that count before its interfaces are made."""
    try:
        made = new_network(parent)
    except OSError as error:
        raise LabError(
            f"{about}: {error.strerror}",
            remedy="sudo sysctl -w user.max_net_namespaces=15000, or fewer client hosts",
        ) from None
    write_sysctls(stack.name, stack.link_sysctls)
    hushed = {name: value for name, value in stack.hushed.items() if path_of(name).exists()}
    write_sysctls(stack.name, hushed)
    return made


def _size_tables(buckets: int) -> tuple[str, ...]:
    """Give the stacks made from here tables of their own; return a warning where that is refused.

    A want, not a need: with the machine's shared table everything works, only slower to look at.
    """
    try:
        write_text(str(path_of(_TABLE_SYSCTL)), str(buckets))
    except OSError as error:
        shared = read_sysctls(["net.ipv4.tcp_ehash_entries"]).get("net.ipv4.tcp_ehash_entries")
        warning = (
            f"{_TABLE_SYSCTL} = {buckets}: {error.strerror}; the hosts share the machine's socket"
            f" table (tcp_ehash_entries {shared or 'unknown'}), which makes each full look slower"
        )
        return (warning,)
    return ()


def _make_veths(veths: Iterable[Veth], stacks: dict[str, int]) -> None:
    """Make every pair from its peer's end, one netlink socket for each such stack."""
    with ExitStack() as open_routes:
        routes: dict[str, IPRoute] = {}
        for veth in veths:
            if veth.peer_stack not in routes:
                enter_network(stacks[veth.peer_stack])
                routes[veth.peer_stack] = open_routes.enter_context(IPRoute())
            near = {"ifname": veth.interface, "net_ns_fd": stacks[veth.stack]}
            if veth.mac is not None:
                near["address"] = veth.mac.hex(":")
            routes[veth.peer_stack].link("add", kind="veth", ifname=veth.peer_interface, peer=near)


def _configure(stack: StackWiring) -> None:
    """Bring up every interface of the current stack, then add its addresses and routes."""
    with IPRoute() as route:
        index = _indexes(route)
        # Not the tunnels that some kernels put in every namespace (net.core.fb_tunnels_only...).
        used = {"lo", *stack.bare} | {each.interface for each in stack.addresses}
        for name in sorted(used):
            if name in stack.bare:
                switch_off(name)
            route.link("set", index=index[name], state="up", arp=name not in stack.bare)
        for each in stack.addresses:
            # IPv4 has no such flag to heed (net/ipv4/devinet.c).
            flags = {"flags": _IFA_F_NODAD} if ":" in each.address else {}
            route.addr(
                "add",
                index=index[each.interface],
                address=each.address,
                prefixlen=each.prefix_length,
                **flags,
            )
        for path in stack.routes:
            # A gateway must be reached by a narrower scope (net/ipv4/fib_semantics.c).
            via = {"gateway": path.gateway} if path.gateway else {"scope": _RT_SCOPE_LINK}
            route.route("add", dst=path.destination, oif=index[path.interface], **via)


def _indexes(route: IPRoute) -> dict[str, int]:
    """Return the index of every interface of the stack behind `route`, by name."""
    return {link.get("ifname"): link["index"] for link in route.get_links()}
