"""A connection's life as chains of io_uring operations, prepared once for a plan. Pure.

A chain's first completion that matters is CONNECT's; what goes before is silent unless it fails.
"""

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from twbench.fleet import part
from twbench.fleet.exchanges import Exchanges
from twbench.fleet.sockets import SOCKET_OPTIONS
from twbench.model.plans import FleetPlan
from twbench.uring import operations as do
from twbench.uring.operations import Slot, SocketCommand
from twbench.uring.probe import Ability
from twbench.uring.sqe import Flag, Hole, Op, Sqe
from twbench.uring.structs import sockaddr
from twbench.uring.template import Template, batch, chain

STEP_BITS = 4
"""So many low bits of a token are a `Step`; above them is the slot."""
PIECE_BYTES = 4096
"""The most that is received at once where a head may begin."""
_SILENT = Flag.CQE_SKIP_SUCCESS
_SLOT = Slot(Hole("slot"))


class Step(IntEnum):
    """What an operation is in a connection's life."""

    OPEN = 0
    """Make the socket and set its options."""
    BIND = 1
    CONNECT = 2
    SEND = 3
    """With receives behind it in the chain; says something only when it fails."""
    SEND_ALONE = 4
    """A receive waits already."""
    FIRST = 5
    """Receive into the slot's first buffer."""
    SECOND = 6
    """Receive into its second: the first may not have been read yet."""
    REST = 7
    """Receive a further piece of a body, of which only the length matters."""
    SHUT = 8
    """Send the FIN after a request for which a receive waits already."""
    INSTALL = 9
    ASIDE = 10
    """Nobody waits for it: close, cancel and the like."""


OPENING = ("opening", "opening, last")
"""Names of chains: for any exchange of a connection, and for its last."""
FURTHER = ("further", "further, last")
ALONE = ("alone", "alone, last")
BY_ROAD = frozenset({*OPENING, *FURTHER, *ALONE})
"""Chains with holes that depend on the source and destination."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Lives:
    """The chains of a plan, by name.

    opening: make a socket, connect, send a request, receive.
    further: send a further request and receive; alone: the same where a receive waits already.
    receive, rest (of a body), close, reset, install (a descriptor), cancel: as they say.

    Holes: `slot`, `token` (of the step 0), `first` and `second` (buffers), `rest` and `rest_bytes`;
    of those `BY_ROAD` also `request`, `request_bytes`, `to` and `source` (addresses of sockaddrs).
    """

    chains: Mapping[str, Template]
    receives: tuple[int, int]
    """How many receives there are in an opening or further chain: any, last."""


def needed(plan: FleetPlan) -> tuple[Ability, ...]:
    """Return what a kernel's io_uring must be able to do for a plan."""
    common = (Op.SOCKET, Op.CONNECT, Op.SEND, Op.RECV, Op.CLOSE, Op.ASYNC_CANCEL, Op.TIMEOUT)
    half_closes = plan.scenario.ending.kind == "client-half-close"
    sets_options = part.socket_options(plan) or plan.scenario.ending.kind == "client-rst"
    return (
        *common,
        *((Op.BIND,) if part.binds_first(plan) else ()),
        *((Op.SHUTDOWN,) if half_closes else ()),
        *((Op.URING_CMD, SocketCommand.SETSOCKOPT) if sets_options else ()),
    )


def lives_of(plan: FleetPlan, values_at: Mapping[str, int]) -> Lives:
    """Return a plan's chains; `values_at` says where each of `option_values` lies in memory."""
    kind = plan.scenario.ending.kind
    half_closes = kind == "client-half-close"
    make = (
        *_make(plan, values_at),
        *((_bind(plan),) if part.binds_first(plan) else ()),
        _connect(plan),
    )
    # if a RST has come first, the receive that follows says so
    shutdown = _shutdown(Step.ASIDE, _SILENT | Flag.IO_HARDLINK)
    half_close = (shutdown,) if half_closes else ()
    answer = (_receive(Step.FIRST, "first"),)
    # a client that moves first does so once it has read the answer; any other waits for the FIN
    fin = () if kind in Exchanges.MOVES else (_receive(Step.SECOND, "second"),)
    send, alone = _send(Step.SEND), _send(Step.SEND_ALONE)
    aside = _token(Step.ASIDE)
    rest = do.recv(_SLOT, addr=Hole("rest"), length=Hole("rest_bytes"), user_data=_token(Step.REST))
    close = do.close(_SLOT, flags=_SILENT, user_data=aside)
    linger = _set("SO_LINGER", values_at[LINGER_ZERO], 8, aside)
    chains = (
        chain(*make, send, *answer),
        chain(*make, send, *half_close, *answer, *fin),
        chain(send, *answer),
        chain(send, *half_close, *answer, *fin),
        chain(alone),
        chain(alone, *((_shutdown(Step.SHUT, Flag.NONE),) if half_closes else ())),
        chain(*answer),
        chain(rest),
        chain(close),
        batch(linger, close),
        chain(do.install(_SLOT, user_data=_token(Step.INSTALL))),
        batch(*_cancels()),
    )
    names = ("receive", "rest", "close", "reset", "install", "cancel")
    return Lives(
        chains=dict(zip((*OPENING, *FURTHER, *ALONE, *names), chains, strict=True)),
        receives=(len(answer), len(answer) + len(fin)),
    )


LINGER_ZERO = "linger zero"


def option_values(plan: FleetPlan) -> dict[str, bytes]:
    """Return the values that chains point to, as bytes: each option's, and `LINGER_ZERO`."""
    packed = {
        name: SOCKET_OPTIONS[name].pack(value) for name, value in part.socket_options(plan).items()
    }
    return packed | {LINGER_ZERO: SOCKET_OPTIONS["SO_LINGER"].pack(0)}


def _token(step: Step) -> Hole:
    return Hole("token", step)


def _make(plan: FleetPlan, values_at: Mapping[str, int]) -> tuple[Sqe, ...]:
    family = socket.AF_INET if plan.scenario.lab.family == "ipv4" else socket.AF_INET6
    token = _token(Step.OPEN)
    made = do.socket(_SLOT, family=family, kind=socket.SOCK_STREAM, flags=_SILENT, user_data=token)
    packed = option_values(plan)
    options = (
        _set(name, values_at[name], len(packed[name]), token) for name in part.socket_options(plan)
    )
    return made, *options


def _set(name: str, at: int, length: int, token: Hole) -> Sqe:
    option = SOCKET_OPTIONS[name]
    return do.setsockopt(
        _SLOT,
        level=option.level,
        name=option.number,
        addr=at,
        length=length,
        flags=_SILENT,
        user_data=token,
    )


def _bind(plan: FleetPlan) -> Sqe:
    size, token = _sockaddr_bytes(plan), _token(Step.BIND)
    return do.bind(_SLOT, addr=Hole("source"), addr_bytes=size, flags=_SILENT, user_data=token)


def _connect(plan: FleetPlan) -> Sqe:
    size, token = _sockaddr_bytes(plan), _token(Step.CONNECT)
    return do.connect(_SLOT, addr=Hole("to"), addr_bytes=size, user_data=token)


def _sockaddr_bytes(plan: FleetPlan) -> int:
    return len(sockaddr(plan.sources[0], 0))


def _send(step: Step) -> Sqe:
    return do.send(
        _SLOT,
        addr=Hole("request"),
        length=Hole("request_bytes"),
        msg_flags=socket.MSG_NOSIGNAL | socket.MSG_WAITALL,
        flags=_SILENT if step is Step.SEND else Flag.NONE,
        user_data=_token(step),
    )


def _shutdown(step: Step, flags: Flag) -> Sqe:
    return do.shutdown(_SLOT, how=socket.SHUT_WR, flags=flags, user_data=_token(step))


def _receive(step: Step, buffer: str) -> Sqe:
    return do.recv(_SLOT, addr=Hole(buffer), length=PIECE_BYTES, user_data=_token(step))


def _cancels() -> tuple[Sqe, ...]:
    """Return one for each step that can take its time; what is not there is none the worse."""
    steps = (Step.CONNECT, Step.SEND, Step.SEND_ALONE, Step.FIRST, Step.SECOND, Step.REST)
    aside = _token(Step.ASIDE)
    return tuple(do.cancel(token=_token(step), flags=_SILENT, user_data=aside) for step in steps)
