"""The identities of a client that keeps no books, and closes as it likes.

The application's figures are the server's books, and these mirrored. Some of a client's doings the
server does not see: a FIN that came just before its own, a reset that came after, data that a host
no longer took. Then the two kernels must tell of it alike, and the one sets the other's bound.
"""

from collections.abc import Iterator, Mapping

from twbench.audit.account import Account, StackAccount
from twbench.audit.identity import Identity, identity
from twbench.audit.mirror import mirrored
from twbench.model.endings import Departure
from twbench.model.states import Side

_UNDER_WAY = 10
"""Segments that a connection may have on their way: the initial window (RFC 6928)."""


def foreign_identities(books: Account) -> Iterator[Identity]:
    """Draw up every identity of a run with a foreign client."""
    account = mirrored(books)
    fleet, server = books.fleet, account.server
    failed = sum(fleet.errors.values())
    yield identity("fleet: attempted = ok + errors", fleet.attempted, fleet.ok + failed)
    departed = sum(server.departures.values())
    yield identity("server: accepted = departed", server.accepted, departed)
    waiting = sum(stack.accept_queue_end for stack in account.stacks)
    for stack in account.stacks:
        peer = next((each for each in account.stacks if each is not stack), stack)
        if Side.CLIENT in stack.sides:
            yield _active_opens(stack, peer, waiting)
        if Side.SERVER in stack.sides:
            yield identity(
                f"{stack.name}: TcpPassiveOpens = accepted",
                stack.count("TcpPassiveOpens"),
                server.accepted,
                left_in_the_accept_queue=waiting,
            )
        yield _time_wait_entries(stack, peer)
        yield _resets(stack, peer)
        yield _time_wait_end(stack, peer)
    yield from _servers_part(account)


def _active_opens(stack: StackAccount, peer: StackAccount, waiting: int) -> Identity:
    """Compare the connects with what the server took.

    Only a connect that an answer ended counts as failed (tcp_done); one that the program gave up
    shows where its SYN, or what came in answer to the SYN-ACK, was of no use.
    """
    opens, accepted = stack.count("TcpActiveOpens"), stack.fleet.connects
    bounds = {
        "connects_that_failed": stack.count("TcpAttemptFails"),
        "connects_given_up": peer.count("TcpAttemptFails")
        + peer.count("TcpExtListenDrops")
        + stack.count("TcpExtTCPSynRetrans"),
    }
    return identity(
        f"{stack.name}: TcpActiveOpens = accepted",
        opens,
        accepted,
        bounds=bounds,
        left_in_the_accept_queue=waiting,
        **_shares(opens - accepted - waiting, bounds),
    )


def _time_wait_entries(stack: StackAccount, peer: StackAccount) -> Identity:
    """Compare the TIME_WAIT that came with the active closes.

    A server that closes after its answer takes itself for the first, though the client's FIN may
    have come in the moment before: then the client has the TIME_WAIT that the server lacks. Where
    the FINs met on the way, both have one. A reset of the client's that comes while the server is
    in FIN_WAIT leaves none.
    """
    closed = stack.departed(Departure.ACTIVE_CLOSE)
    overflow = stack.count("TcpExtTCPTimeWaitOverflow")
    surplus = stack.entries - closed + overflow
    # others of these were closes after the peer's
    became = min(stack.unforeseen_resets, max(0, -surplus))
    surplus += became
    more = {"sent_from_TIME_WAIT": stack.untaken_resets, "FINs_that_crossed": _last(stack)}
    fewer = {
        "FINs_that_crossed": max(0, peer.entries - peer.departed(Departure.ACTIVE_CLOSE)),
        "ended_by_the_peer's_RST": _ended_early(stack, peer),
    }
    shares = _shares(surplus, more) if surplus > 0 else _shares(-surplus, fewer, sign=-1)
    return identity(
        f"{stack.name}: TcpExtTW + TcpExtTWKilled = active closes",
        stack.entries,
        closed,
        bounds=more if surplus > 0 else fewer,
        closes_that_became_resets=-became,
        TCPTimeWaitOverflow=-overflow,
        **shares,
    )


def _ended_early(stack: StackAccount, peer: StackAccount) -> int:
    """Return the resets of the peer's that may have come while this side was in FIN_WAIT."""
    if Side.CLIENT not in stack.sides:
        return peer.unforeseen_resets
    # of those that the server meant, the client's own RST may have come before
    meant = peer.departed(Departure.ACTIVE_RESET) - stack.count("TcpOutRsts")
    return max(0, peer.aborts - max(0, meant))


def _last(stack: StackAccount) -> int:
    """Return how many connections a client's application ended after the server's, as it seemed."""
    fleet = stack.fleet.departures
    return fleet[Departure.PASSIVE_CLOSE] + fleet[Departure.RESET_BY_PEER]


def _resets(stack: StackAccount, peer: StackAccount) -> Identity:
    """Compare the RSTs that left with those that somebody meant, or that something tells of.

    Whoever has reset a connection answers what was on its way to it with a RST too.
    """
    overtaken = _overtaken_resets(stack, peer)
    silent = min(_sent_from_time_wait(stack), _unexplained_resets(stack, peer))
    bounds = {
        "handshakes_that_met_no_socket": _handshakes(stack, peer),
        "packets_that_met_no_socket": _strays(stack, peer),
    }
    shown = stack.departed(Departure.ACTIVE_RESET)
    unexplained = _unexplained_resets(stack, peer) - silent
    return identity(
        f"{stack.name}: TcpOutRsts = active resets",
        stack.count("TcpOutRsts"),
        shown,
        bounds={**bounds, "the_peer_had_reset_before": peer.count("TcpOutRsts")},
        closes_that_became_resets=stack.unforeseen_resets,
        the_peer_had_reset_before=-overtaken,
        data_that_met_FIN_WAIT_2=silent,
        **_shares(unexplained, bounds),
    )


def _overtaken_resets(stack: StackAccount, peer: StackAccount) -> int:
    """Return the server's resets that a RST of the client's came before: its kernel sent none."""
    if Side.CLIENT in stack.sides:
        return 0
    return min(stack.untaken_resets, peer.count("TcpOutRsts"))


def _unexplained_resets(stack: StackAccount, peer: StackAccount) -> int:
    shown = stack.departed(Departure.ACTIVE_RESET) + stack.unforeseen_resets
    return max(0, stack.count("TcpOutRsts") - shown + _overtaken_resets(stack, peer))


def _sent_from_time_wait(stack: StackAccount) -> int:
    """Return the resets with which a FIN_WAIT_2 without owner answered data.

    Each ends that TIME_WAIT, and no counter but TcpOutRsts shows it: so they are resets and missing
    TIME_WAIT that nothing else explains (tcp_timewait_state_process).
    """
    most = max(0, stack.count("TcpOutRsts") - stack.aborts)
    gone = stack.count("TcpExtTWRecycled") + stack.server.reopened
    least, _ = stack.expired(gone + stack.server.reopened_perhaps + most)
    return max(0, min(most, stack.entries - gone - least - stack.time_wait_end))


def _handshakes(stack: StackAccount, peer: StackAccount) -> int:
    """Return the SYNs to closed ports, or the SYN-ACKs to connects that were given up."""
    return max(stack.count("TcpAttemptFails"), peer.count("TcpAttemptFails"))


def _strays(stack: StackAccount, peer: StackAccount) -> int:
    under_way = _UNDER_WAY * (stack.aborts + _sent_from_time_wait(stack))
    return max(stack.bare_resets, peer.count("TcpRetransSegs"), peer.vanished, under_way)


def _time_wait_end(stack: StackAccount, peer: StackAccount) -> Identity:
    """Compare what is left with what came in; how much expired is known to within 5 s.

    The server takes every connection that it closed for one that waits, and may count as reopened
    what the client had closed, or reset.
    """
    recycled = stack.count("TcpExtTWRecycled")
    reopened, perhaps = stack.server.reopened, stack.server.reopened_perhaps
    silent = _sent_from_time_wait(stack)
    least, most = stack.expired(recycled + reopened + perhaps + silent)
    missing = stack.entries - recycled - reopened - silent - stack.time_wait_end
    never = min(
        reopened, max(0, stack.departed(Departure.ACTIVE_CLOSE) - stack.entries) + _last(stack)
    )
    may_kill = max(stack.bare_resets_met, peer.count("TcpOutRsts"))
    return identity(
        f"{stack.name}: sockstat tw at the end = entries - expired",
        stack.time_wait_end,
        stack.entries,
        TWRecycled=-recycled,
        reopened_by_a_SYN=-reopened,
        of_these_had_no_TIME_WAIT=min(max(-missing, 0), never),
        ended_by_data=-silent,
        ended_by_a_RST=-min(max(missing - most - perhaps, 0), may_kill),
        expired=-min(max(missing, least), most + perhaps),
        bounds={
            "of_these_had_no_TIME_WAIT": never,
            "expired": most + perhaps,
            "ended_by_a_RST": may_kill,
        },
    )


def _servers_part(account: Account) -> Iterator[Identity]:
    """Hold the server to its part of the ending."""
    ending, server = account.ending, account.server
    if ending.server is not Departure.ACTIVE_CLOSE:
        yield identity(
            f"{ending.name}: the server closes none first",
            server.departures[Departure.ACTIVE_CLOSE],
            0,
            idle_or_late_or_at_the_end_of_the_run=server.closed_early,
        )
    if ending.server is not Departure.ACTIVE_RESET:
        yield identity(
            f"{ending.name}: the server resets none",
            server.departures[Departure.ACTIVE_RESET],
            0,
        )


def _shares(amount: int, bounds: Mapping[str, int], *, sign: int = 1) -> dict[str, int]:
    """Return an amount laid on effects in turn, on each up to its bound, with a sign."""
    shares = {}
    for name, most in bounds.items():
        shares[name] = sign * max(0, min(amount, most))
        amount -= abs(shares[name])
    return shares
