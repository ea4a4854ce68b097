"""Makes the stacks of a wiring: namespaces, veths, addresses, routes, sysctls. For the keeper."""

import os
from contextlib import ExitStack
from dataclasses import dataclass

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from twbench.lab.namespaces import (
    enter_network,
    leave_machine,
    new_network,
    open_namespace,
    write_text,
)
from twbench.lab.sysctls import path_of, read_sysctls, write_sysctls
from twbench.lab.wiring import StackWiring, Wiring
from twbench.model.errors import LabError

_IFA_F_NODAD = 0x02
_RT_SCOPE_LINK = 253
_TABLE_SYSCTL = "net.ipv4.tcp_child_ehash_entries"


@dataclass(frozen=True, kw_only=True)
class Built:
    """What stands: a descriptor of each stack's network namespace, and of the user namespace.

    `user` is None where no user namespace was needed. `warnings` is what could not be had.
    """

    user: int | None
    stacks: dict[str, int]
    warnings: tuple[str, ...]


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
            stacks[stack.name] = new_network(nursery)
            write_sysctls(stack.name, stack.link_sysctls)
    except OSError as error:
        raise LabError(
            f"network namespace {len(stacks) + 1} of {len(wiring.stacks)}: {error.strerror}",
            remedy="sudo sysctl -w user.max_net_namespaces=15000, or fewer client hosts",
        ) from None
    finally:
        os.close(nursery)
    try:
        _make_veths(wiring, stacks)
        for stack in wiring.stacks:
            enter_network(stacks[stack.name])
            _configure(stack)
    except NetlinkError as error:
        raise LabError(f"links of the lab: {os.strerror(error.code)} ({error})") from None
    for stack in wiring.stacks:
        enter_network(stacks[stack.name])
        write_sysctls(stack.name, stack.sysctls)
    return Built(user=user, stacks=stacks, warnings=warnings)


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


def _make_veths(wiring: Wiring, stacks: dict[str, int]) -> None:
    """Make every pair from its peer's end, one netlink socket for each such stack."""
    with ExitStack() as open_routes:
        routes: dict[str, IPRoute] = {}
        for veth in wiring.veths:
            if veth.peer_stack not in routes:
                enter_network(stacks[veth.peer_stack])
                routes[veth.peer_stack] = open_routes.enter_context(IPRoute())
            routes[veth.peer_stack].link(
                "add",
                kind="veth",
                ifname=veth.peer_interface,
                peer={"ifname": veth.interface, "net_ns_fd": stacks[veth.stack]},
            )


def _configure(stack: StackWiring) -> None:
    """Bring up every interface of the current stack, then add its addresses and routes."""
    with IPRoute() as route:
        index = {link.get("ifname"): link["index"] for link in route.get_links()}
        # Not the tunnels that some kernels put in every namespace (net.core.fb_tunnels_only...).
        used = {"lo"} | {each.interface for each in stack.addresses}
        for name in sorted(used):
            route.link("set", index=index[name], state="up")
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
