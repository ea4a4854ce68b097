"""What several claims share: a calm start, the way into LAST_ACK, and the times of segments."""

import errno
import fcntl
import itertools
import sys
import termios
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twbench.claims.claim import NotHereError, SetUpError
from twbench.model.states import Side, TcpState
from twbench.trace.scripts import exchange
from twbench.wire.endpoint import Endpoint
from twbench.wire.rules import Kind, kinds_of
from twbench.wire.stage import Stage

LAST_ACK_LOST = "drop client→server ACK after server FIN"
"""Every acknowledgement of the server's FIN is lost."""
EACH_FIN_ONCE = (
    "drop client→server FIN after client FIN",
    "drop server→client FIN after server FIN",
)
"""A slow wire makes a host send its FIN again: that would restart TIME_WAIT, or have it reset."""
COUNTERS = (
    "TcpRetransSegs",
    "TcpExtTCPLossProbes",
    "TcpExtTCPTimeouts",
    "TcpExtTCPAbortOnTimeout",
    "TcpExtTCPTimeWaitOverflow",
    "TcpOutRsts",
)
"""What tells of retransmissions and of how they ended, by nstat's names."""

_GLANCE_S = 0.25
_BY_TURNS = threading.Lock()
"""Exchanges that begin at once would slow each other's wire down."""
_MOST_RTO_US = 250_000
_STEADY_WITHIN_S = 90.0
_MOST_NAPS = 20
_LATE_S = 0.02
_LEAVES_WITHIN_S = 20.0


def wait_to(
    stage: Stage, until: Callable[[], bool], what: str, within_s: float = _LEAVES_WITHIN_S
) -> None:
    """Play until a condition holds; `what` is waited for. SetUpError where it does not come."""
    if not stage.play(for_s=within_s, until=until):
        raise SetUpError(f"waited {within_s:g} s for {what}")


def come_to(stage: Stage, side: Side, *states: TcpState) -> None:
    """Play until a side is in one of these states. SetUpError where it does not come there."""
    wanted = " or ".join(state.name for state in states)
    wait_to(stage, lambda: stage.state(side) in states, f"the {side} to be in {wanted}")


def close_each(stage: Stage, first: Endpoint, second: Endpoint) -> None:
    """Close one end, then the other, until only the first one's TIME_WAIT is left.

    Raises SetUpError where they do not come there.
    """
    first.close()
    come_to(stage, first.side, TcpState.FIN_WAIT2)
    second.receive()
    second.close()
    come_to(stage, second.side, TcpState.CLOSE)
    stage.play()


def unacknowledged_bytes(end: Endpoint) -> int:
    """Return how much an end has sent that was not acknowledged yet (SIOCOUTQ)."""
    unacknowledged = fcntl.ioctl(end.socket, termios.TIOCOUTQ, bytes(4))
    return int.from_bytes(unacknowledged, sys.byteorder)


def steady_exchange(stage: Stage) -> tuple[Endpoint, Endpoint]:
    """Exchange request and answer on a connection whose both ends know it as fast; return both.

    The first time-out is the smoothed round trip + 200 ms (tcp_set_rto), and the wire's round trip
    is as long as the machine is busy: one over 50 ms is thrown away. SetUpError if all are.
    """
    end_s = time.monotonic() + _STEADY_WITHIN_S
    while time.monotonic() < end_s:
        _wait_for_calm(stage)
        with _BY_TURNS:
            client, server = exchange(stage)
        if max(end.info()["rto_us"] for end in (client, server)) <= _MOST_RTO_US:
            return client, server
        client.reset()
        stage.play()
        server.close()
        stage.pause("the machine was busy and the wire slow; once more")
    raise SetUpError("the wire is too slow to time retransmissions: the machine is busy")


def into_last_ack(
    stage: Stage,
    leave: Callable[[Endpoint], object] = Endpoint.close,
    begin: Callable[[Stage], tuple[Endpoint, Endpoint]] = steady_exchange,
) -> Endpoint:
    """Close the client, then let the server `leave`; return its end, which has sent its FIN."""
    client, server = begin(stage)
    client.close()
    _play_past(stage, Side.CLIENT, TcpState.ESTABLISHED, TcpState.FIN_WAIT1)
    server.receive()
    leave(server)
    _play_past(stage, Side.SERVER, TcpState.CLOSE_WAIT)
    stage.play()
    return server


def destroy_time_wait(stage: Stage) -> None:
    """Destroy the client's TIME_WAIT. NotHereError without CONFIG_INET_DIAG_DESTROY."""
    if stage.state(Side.CLIENT) is not TcpState.TIME_WAIT:
        raise SetUpError("the client has no TIME_WAIT to destroy")
    try:
        stage.destroy(Side.CLIENT)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        raise NotHereError("this kernel does not destroy sockets (SOCK_DESTROY)") from None


def require_hits(stage: Stage) -> None:
    """Raise SetUpError unless each rule in force has met a packet."""
    missed = [rule for rule, count in stage.hits().items() if not count]
    if missed:
        raise SetUpError(f"no packet came for: {'; '.join(missed)}")


def frames(stage: Stage, side: Side, kind: Kind) -> list[int]:
    """Return the frame numbers of a side's packets of a kind."""
    sent = (frame for frame, _ in stage.film.segments(side))
    return [frame for frame in sent if kind in kinds_of(stage.film.packet(frame))]


def copies(stage: Stage, side: Side, kind: Kind) -> list[int]:
    """Return the frames of a side's newest segment of a kind, the first and every repetition.

    Raises SetUpError where there is none.
    """
    of_kind = frames(stage, side, kind)
    if not of_kind:
        raise SetUpError(f"no {kind} came from the {side}")
    seq = {frame: tcp.seq for frame, tcp in stage.film.segments(side)}
    return [frame for frame in of_kind if seq[frame] == seq[of_kind[-1]]]


def timetable(stage: Stage, side: Side, kind: Kind) -> dict[str, Any]:
    """Return when a side's newest segment of a kind was sent, and number it in the capture.

    `sent_s` counts from the first time, `waits_s` lie between; `resets` is how many RSTs the side
    has sent in all.
    """
    of_it = copies(stage, side, kind)
    sent_s = [(stage.film.time_ns(frame) - stage.film.time_ns(of_it[0])) / 1e9 for frame in of_it]
    for number, (frame, at_s) in enumerate(zip(of_it, sent_s, strict=True)):
        if number:
            note = f"retransmission {number} of the {kind}, {at_s:.2f} s after the first"
            stage.film.remark(frame, note)
    return {
        "sent_s": [round(at_s, 3) for at_s in sent_s],
        "waits_s": [round(after - before, 3) for before, after in itertools.pairwise(sent_s)],
        "resets": len(frames(stage, side, Kind.RST)),
    }


def play_until_gone(stage: Stage, side: Side, *, since: int, within_s: float) -> float:
    """Play until a side knows the connection no more; return how long after a frame, in seconds.

    Raises SetUpError where it still does after `within_s`.
    """
    end_s = time.monotonic() + within_s
    while (state := stage.state(side)) is not TcpState.CLOSE:
        if time.monotonic() > end_s:
            raise SetUpError(f"the {side} is still in {state.name} after {within_s:g} s")
        stage.play(for_s=_GLANCE_S)
    return round((time.time_ns() - stage.film.time_ns(since)) / 1e9, 2)


def rises(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """Return by how much each of COUNTERS rose, where the kernel has it."""
    return {name: after[name] - before[name] for name in COUNTERS if name in before}


def listed(seconds: Sequence[float]) -> str:
    """Return times as people write them: "0.21, 0.42, 26.7"."""
    return ", ".join(f"{each:.2f}" if each < 1 else f"{each:.1f}" for each in seconds)


def _play_past(stage: Stage, side: Side, *states: TcpState) -> None:
    """Play until a side is in none of these states; SetUpError where it does not leave them."""
    left = " or ".join(state.name for state in states)
    wait_to(stage, lambda: stage.state(side) not in states, f"the {side} to leave {left}")


def _wait_for_calm(stage: Stage) -> None:
    """Wait until a nap is not late, or for a few seconds: many experiments begin at once."""
    for _ in range(_MOST_NAPS):
        began_s = time.monotonic()
        stage.play(for_s=_GLANCE_S)
        if time.monotonic() - began_s < _GLANCE_S + _LATE_S:
            return
