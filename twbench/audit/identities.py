"""The identities: each a kernel's figure on the left, the applications' figure on the right.

Between the two stand named terms: effects that move one of the figures and that some other
counter, or the other side's books, tells of by itself. Of a few effects only a bound is known that
way: their term is what the identity needs, up to that bound, which is told with it. What then
remains is the residual, and it is shown.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from twbench.audit.account import Account, StackAccount
from twbench.audit.foreign import foreign_identities
from twbench.audit.identity import Identity, identity
from twbench.model.endings import Departure
from twbench.model.outcomes import Phase
from twbench.model.reports import FleetReport, ServerReport
from twbench.model.states import Side


@dataclass(frozen=True, kw_only=True, slots=True)
class Audit:
    """All identities of a run."""

    identities: tuple[Identity, ...]
    promised: bool
    """False where the counters are shared with other programs: then nothing can fail to balance."""

    @property
    def balanced(self) -> bool:
        """Return whether every residual is 0, as far as that was promised."""
        return not self.promised or all(not i.residual for i in self.identities)

    def as_json(self) -> dict[str, Any]:
        """Return the audit as summary.json has it."""
        return {
            "balanced": self.balanced,
            "promised": self.promised,
            "identities": [identity.as_json() for identity in self.identities],
        }


def audit(account: Account) -> Audit:
    """Draw up every identity of a run."""
    if account.foreign:
        found = tuple(foreign_identities(account))
        return Audit(identities=found, promised=account.promised)
    identities = [*_fleet(account)]
    for stack in account.stacks:
        if Side.CLIENT in stack.sides:
            identities.append(_active_opens(stack))
        if Side.SERVER in stack.sides:
            identities.append(_passive_opens(stack))
        identities += [_time_wait_entries(stack), _resets(account, stack)]
        identities.append(_time_wait_end(account, stack))
    identities += _ending(account)
    return Audit(identities=tuple(identities), promised=account.promised)


def _fleet(account: Account) -> Iterator[Identity]:
    fleet, server = account.fleet, account.server
    failed = sum(fleet.errors.values())
    yield identity("fleet: attempted = ok + errors", fleet.attempted, fleet.ok + failed)
    yield identity(
        "fleet: established = departed", fleet.established, sum(fleet.departures.values())
    )
    waiting = sum(stack.accept_queue_end for stack in account.stacks)
    yield identity(
        "fleet: established = server: accepted",
        fleet.established,
        server.accepted,
        left_in_the_accept_queue=waiting,
    )


def _active_opens(stack: StackAccount) -> Identity:
    return identity(
        f"{stack.name}: TcpActiveOpens = connects whose SYN left",
        stack.count("TcpActiveOpens"),
        stack.fleet.connects - stack.fleet.not_sent,
    )


def _passive_opens(stack: StackAccount) -> Identity:
    return identity(
        f"{stack.name}: TcpPassiveOpens = accepted",
        stack.count("TcpPassiveOpens"),
        stack.server.accepted,
        left_in_the_accept_queue=stack.accept_queue_end,
    )


def _time_wait_entries(stack: StackAccount) -> Identity:
    closed = stack.departed(Departure.ACTIVE_CLOSE)
    overflow = stack.count("TcpExtTCPTimeWaitOverflow")
    missing = closed - stack.unforeseen_resets - overflow - stack.entries
    return identity(
        f"{stack.name}: TcpExtTW + TcpExtTWKilled = active closes",
        stack.entries,
        closed,
        closes_that_became_resets=-stack.unforeseen_resets,
        TCPTimeWaitOverflow=-overflow,
        FINs_that_crossed=-min(max(missing, 0), stack.crossed),
        bounds={"FINs_that_crossed": stack.crossed},
    )


def _silent_resets(account: Account, stack: StackAccount) -> int:
    """Return the resets that no counter of their own shows: a request met an orphaned FIN_WAIT_2.

    tcp_timewait_state_process answers it with RST and ends the TIME_WAIT, so they are the resets
    and the missing TIME_WAIT that nothing else explains. The client's books bound their number:
    each is a request that met a closed connection.
    """
    if Side.SERVER not in stack.sides:
        return 0
    most = min(_unexplained_resets(account, stack), account.races - stack.unforeseen_resets)
    gone = stack.count("TcpExtTWRecycled") + stack.server.reopened
    least, _ = stack.expired(gone + stack.server.reopened_perhaps + most)
    return max(0, min(most, stack.entries - gone - least - stack.time_wait_end))


def _unexplained_resets(account: Account, stack: StackAccount) -> int:
    return max(0, stack.count("TcpOutRsts") - sum(_open_resets(account, stack).values()))


def _open_resets(account: Account, stack: StackAccount) -> dict[str, int]:
    """Return the resets that some counter or book shows by itself."""
    return {
        "active_resets": stack.departed(Departure.ACTIVE_RESET),
        "closes_that_became_resets": stack.unforeseen_resets,
        "refused_connects": account.refused if Side.SERVER in stack.sides else 0,
    }


def _resets(account: Account, stack: StackAccount) -> Identity:
    """Compare the RSTs that left with those that somebody meant, or that something tells of.

    A client whose request met a closed connection also sends a FIN when it reads the server's. If
    that leaves before the RST to the request has come, it finds no socket either: a second RST.
    Over a wire an ACK can still be under way when its receiver resets, and the wire can bring a
    packet twice, or late: what then meets no socket is answered with a RST that the wire tells.
    Without a wire it is a retransmission on a machine too busy to acknowledge in time, or an ACK
    that was overtaken on its way from one processor to another.
    """
    shown = _open_resets(account, stack)
    silent = _silent_resets(account, stack)
    twice = account.races if Side.SERVER in stack.sides else 0
    unexplained = _unexplained_resets(account, stack) - silent
    met_none = min(unexplained, twice)
    overtaken = sum(_overtaken(account, peer) for peer in _peers(account, stack))
    strays = max(stack.bare_resets, _retransmitted_to(account, stack), overtaken)
    return identity(
        f"{stack.name}: TcpOutRsts = active resets",
        stack.count("TcpOutRsts"),
        shown.pop("active_resets"),
        requests_that_met_FIN_WAIT_2=silent,
        FINs_that_met_no_socket=met_none,
        packets_that_met_no_socket=min(unexplained - met_none, strays),
        bounds={
            "requests_that_met_FIN_WAIT_2": account.races - stack.unforeseen_resets,
            "FINs_that_met_no_socket": twice,
            "packets_that_met_no_socket": strays,
        },
        **shown,
    )


def _retransmitted_to(account: Account, stack: StackAccount) -> int:
    """Return how many segments the stack's peers sent again; each may have met no socket."""
    return sum(peer.count("TcpRetransSegs") for peer in _peers(account, stack))


def _overtaken(account: Account, stack: StackAccount) -> int:
    """Return how many ACKs of the stack came after the last one, to where no socket was any more.

    veth queues a packet for the processor that sends it, so two that are sent on different ones
    can change places. Two kernels tell of it independently: the one sent a RST that nothing else
    explains, and the other lost a TIME_WAIT to it before its time.
    """
    counted = stack.count("TcpExtTWRecycled") + stack.server.reopened
    resets = sum(_unexplained_resets(account, peer) for peer in _peers(account, stack))
    return max(0, min(resets, stack.vanished - counted - stack.server.reopened_perhaps))


def _peers(account: Account, stack: StackAccount) -> list[StackAccount]:
    return [each for each in account.stacks if each is not stack] or [stack]


def _time_wait_end(account: Account, stack: StackAccount) -> Identity:
    """Compare what is left with what came in; how much expired is known to within 2 s.

    The server takes every connection that it closed for one that waits, so where closes became
    resets, or crossed, it can have counted as many reopened TIME_WAIT too many. A RST that answers
    a late packet, or a retransmission, or an overtaken ACK, can end the TIME_WAIT that it comes to
    (RFC 1337).
    """
    recycled = stack.count("TcpExtTWRecycled")
    reopened, perhaps = stack.server.reopened, stack.server.reopened_perhaps
    silent = _silent_resets(account, stack)
    least, most = stack.expired(recycled + reopened + perhaps + silent)
    missing = stack.entries - recycled - reopened - silent - stack.time_wait_end
    never = min(reopened, stack.unforeseen_resets + stack.crossed)
    overtaken = _overtaken(account, stack)
    may_kill = max(stack.bare_resets_met, stack.count("TcpRetransSegs"), overtaken)
    killed = min(max(missing - most - perhaps, 0), may_kill)
    return identity(
        f"{stack.name}: sockstat tw at the end = entries - expired",
        stack.time_wait_end,
        stack.entries,
        TWRecycled=-recycled,
        reopened_by_a_SYN=-reopened,
        of_these_had_no_TIME_WAIT=min(max(-missing, 0), never),
        ended_by_a_request=-silent,
        ended_by_a_RST=-killed,
        expired=-min(max(missing, least), most + perhaps),
        bounds={
            "of_these_had_no_TIME_WAIT": never,
            "expired": most + perhaps,
            "ended_by_a_RST": may_kill,
        },
    )


def _ending(account: Account) -> Iterator[Identity]:
    """Hold the run to its ending: who may close or reset first, and what may be seen."""
    ending = account.ending
    books: dict[Side, FleetReport | ServerReport] = {
        Side.CLIENT: account.fleet,
        Side.SERVER: account.server,
    }
    for side, book in books.items():
        if ending.departure(side) is not Departure.ACTIVE_CLOSE:
            yield identity(
                f"{ending.name}: the {side} closes none first",
                book.departures[Departure.ACTIVE_CLOSE],
                0,
                idle_or_late_or_at_the_end_of_the_run=book.closed_early,
            )
        if ending.departure(side) is not Departure.ACTIVE_RESET:
            yield identity(
                f"{ending.name}: the {side} resets none",
                book.departures[Departure.ACTIVE_RESET],
                0,
            )
    yield identity(
        f"{ending.name}: nobody waited in vain for the first closer",
        account.fleet.connection_errors[_NO_CLOSE] + account.server.held_in_vain,
        0,
    )
    seen = account.fleet.errors + account.fleet.connection_errors
    foreign = {key: n for key, n in seen.items() if _is_foreign(key, ending.may_see)}
    yield Identity(
        name=f"{ending.name}: errors that this ending does not bring about",
        left=sum(foreign.values()),
        right=0,
    )


_OF_THE_CONNECTION = frozenset({Phase.WRITE, Phase.READ, Phase.CLOSE, Phase.IDLE})
_OF_ANY_ENDING = frozenset({"TIMEOUT", "CANCELLED", "STATUS"})
_NO_CLOSE = "close:TIMEOUT:peer_did_not_close"


def _is_foreign(key: str, may_see: frozenset[str]) -> bool:
    """Return whether an error came with the connection's end and is not among the ending's."""
    phase, error, name = key.split(":")
    usual = phase not in _OF_THE_CONNECTION or error in _OF_ANY_ENDING
    return not (usual or key in may_see or name in ("keepalive_race", "closed_while_idle"))
