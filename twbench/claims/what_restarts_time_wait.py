"""A retransmitted FIN restarts the 2MSL timer of TIME_WAIT; a RST in its exact place ends it.

Source: article 2, section 3, question 4; RFC 9293 section 3.10.7.4; RFC 1337;
tcp_timewait_state_process() in net/ipv4/tcp_minisocks.c.
Expected: when TIME_WAIT has lasted a while, a FIN sets its timer to 60 s again, as any other
segment with ACK and without RST does; a SYN or FIN without ACK leaves it, and so do a RST out of
place and no packet at all. A RST in place ends TIME_WAIT, unless tcp_rfc1337 = 1.
Refuted by: a retransmitted FIN that leaves the timer as it was.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

from twbench.claims.claim import (
    Check,
    Claim,
    Expected,
    Finding,
    Findings,
    Judgement,
    Scene,
    SetUpError,
    weigh,
)
from twbench.claims.common import EACH_FIN_ONCE
from twbench.claims.scenery import Scenery
from twbench.model.states import Side, TcpState
from twbench.trace.scripts import ANSWER, close_in_turn, exchange
from twbench.wire.ladder import Crossing, Fate, Step
from twbench.wire.packet import Flag, tcp_packet
from twbench.wire.stage import Stage

RESTARTS, LEAVES, ENDS = "restarts", "leaves", "ends"
"""What a packet does to TIME_WAIT: its timer is set to 60 s again, runs on, or is gone with it."""
LAST_ACK_LOST_ONCE = "drop client→server ACK after server FIN, once"
NEXT_FINS_LATE = "hold server→client FIN after server FIN"
REPLIES_LOST = "drop client→server ACK"
"""The server is closed, and would answer them with a RST in the exact place."""
RFC_1337 = {"net.ipv4.tcp_rfc1337": "1"}

_HELD_S = 2.5
_SLOW_S = 2.0
"""A second look that comes later could not tell a timer that restarted from one that ran on."""
_ATTEMPTS = 4
_WITHIN_S = 20.0
_FIN = Flag.FIN | Flag.ACK
_SO_FAR = len(ANSWER) + 2
"""The sequence space that the server has used, SYN and FIN included."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """A packet that meets the client's TIME_WAIT as if from the server, and what it must do to it.

    `behind` is how far its sequence number lies behind the one after the server's FIN; `answered`
    says whether TIME_WAIT acknowledges it.
    """

    name: str
    what: str
    flags: Flag
    behind: int
    effect: str
    answered: bool
    payload: bytes = b""
    rules: tuple[str, ...] = (REPLIES_LOST,)
    sysctls: Mapping[str, str] = field(default_factory=dict)


PROBES = (
    Probe(
        name="fin", what="a copy of the FIN",
        flags=_FIN, behind=1, effect=RESTARTS, answered=True,
    ),
    Probe(
        name="old-data", what="old data",
        flags=Flag.PSH | Flag.ACK, behind=6, payload=ANSWER[-5:], effect=RESTARTS, answered=True,
    ),
    Probe(
        name="old-ack", what="an ACK one behind its place",
        flags=Flag.ACK, behind=1, effect=RESTARTS, answered=True,
    ),
    Probe(
        name="old-syn-ack", what="the old SYN+ACK",
        flags=Flag.SYN | Flag.ACK, behind=_SO_FAR, effect=RESTARTS, answered=True,
    ),
    Probe(
        name="ack", what="an ACK in place",
        flags=Flag.ACK, behind=0, effect=RESTARTS, answered=False,
    ),
    Probe(
        name="old-syn", what="an old SYN",
        flags=Flag.SYN, behind=_SO_FAR, effect=LEAVES, answered=True,
    ),
    Probe(
        name="fin-without-ack", what="a FIN without ACK",
        flags=Flag.FIN, behind=1, effect=LEAVES, answered=True,
    ),
    Probe(
        name="rst", what="a RST in place",
        flags=Flag.RST, behind=0, effect=ENDS, answered=False,
    ),
    Probe(
        name="rst-with-ack", what="a RST with ACK in place",
        flags=Flag.RST | Flag.ACK, behind=0, effect=ENDS, answered=False,
    ),
    Probe(
        name="fin-of-a-closed-peer", what="a FIN whose answer a closed peer resets",
        flags=_FIN, behind=1, effect=ENDS, answered=True, rules=(),
    ),
    Probe(
        name="fin-of-a-closed-peer-rfc1337",
        what="a FIN whose answer a closed peer resets, with tcp_rfc1337 = 1",
        flags=_FIN, behind=1, effect=RESTARTS, answered=True, rules=(), sysctls=RFC_1337,
    ),
)  # fmt: skip
CONTROLS = (
    Probe(
        name="rst-one-behind", what="a RST one behind its place",
        flags=Flag.RST, behind=1, effect=LEAVES, answered=False,
    ),
    Probe(
        name="rst-one-ahead", what="a RST one ahead of its place",
        flags=Flag.RST, behind=-1, effect=LEAVES, answered=False,
    ),
    Probe(
        name="rst-rfc1337", what="a RST in place, with tcp_rfc1337 = 1",
        flags=Flag.RST, behind=0, effect=LEAVES, answered=False, sysctls=RFC_1337,
    ),
)  # fmt: skip


def _retransmitted(stage: Stage) -> Finding:
    """Lose the last ACK, and let the FIN that the server sends again arrive late."""
    ends = exchange(stage)
    stage.rules(LAST_ACK_LOST_ONCE, NEXT_FINS_LATE)
    close_in_turn(stage, *ends)
    if not stage.play(for_s=_WITHIN_S, until=lambda: bool(stage.held)):
        raise SetUpError("the server did not send its FIN again")
    return _measure(stage, lambda: stage.release(stage.held[0]))


def _probed(stage: Stage, probe: Probe) -> Finding:
    _close(stage)
    stage.rules(*probe.rules)
    *_, fin = (tcp for _, tcp in stage.film.segments(Side.SERVER) if Flag.FIN in tcp.flags)
    packet = tcp_packet(
        source=stage.address(Side.SERVER),
        destination=stage.address(Side.CLIENT),
        source_port=fin.source_port,
        destination_port=fin.destination_port,
        seq=fin.seq + fin.span - probe.behind,
        ack=fin.ack if Flag.ACK in probe.flags else 0,
        flags=probe.flags,
        payload=probe.payload,
    )
    return _measure(stage, lambda: stage.inject(packet, Side.CLIENT, probe.what))


def _unprobed(stage: Stage) -> Finding:
    _close(stage)
    last, _ = stage.film.segments(Side.CLIENT)[-1]
    stage.film.remark(last, "the last ACK; no packet comes after it")
    return _measure(stage, lambda: stage.pause("no packet comes"))


def _close(stage: Stage) -> None:
    """Bring the client into TIME_WAIT; the server has closed."""
    stage.rules(*EACH_FIN_ONCE)
    close_in_turn(stage, *exchange(stage))
    if not stage.play(for_s=_WITHIN_S, until=lambda: stage.state(Side.SERVER) is TcpState.CLOSE):
        raise SetUpError("the server has not closed")
    stage.play()


def _measure(stage: Stage, act: Callable[[], object]) -> Finding:
    """Read the timer of the client's TIME_WAIT, when it has run for a while, around an act."""
    stage.pause(f"{_HELD_S:g} s in TIME_WAIT", for_s=_HELD_S)
    sent = {side: len(stage.film.segments(side)) for side in Side}
    number, began_s = len(stage.film.steps), stage.elapsed_s
    before = stage.look()[Side.CLIENT]
    act()
    stage.play(until=lambda: any(map(_arrived, stage.film.steps[number:])))
    between_s = stage.elapsed_s - began_s
    arrival = next(filter(_arrived, stage.film.steps[number:]))
    after = arrival.states[Side.CLIENT]
    stage.pause("the answers have arrived")
    if before.state is not TcpState.TIME_WAIT:
        raise SetUpError(f"the client was in {before.name}, not in TIME_WAIT")
    if isinstance(arrival, Crossing):
        left = f"{before.expires_s:.2f} s left before this, {after.expires_s:.2f} s after it"
        stage.mark(arrival, f"the client's TIME_WAIT has {left}")
    fresh = {side: stage.film.segments(side)[sent[side] :] for side in Side}
    resets = [frame for frame, tcp in fresh[Side.SERVER] if Flag.RST in tcp.flags]
    for frame, _ in fresh[Side.CLIENT]:
        stage.film.remark(frame, "TIME_WAIT answers with this ACK")
    for frame in resets:
        stage.film.remark(frame, "the closed server answers that ACK with this RST, in place")
    return {
        "state": stage.look()[Side.CLIENT].name,
        "before_s": before.expires_s,
        "after_s": after.expires_s,
        "between_s": round(between_s, 4),
        "replies": [tcp.label for _, tcp in fresh[Side.CLIENT]],
        "resets": len(resets),
    }


def _arrived(step: Step) -> bool:
    """Return whether a step is what was waited for, not another FIN that is held."""
    return not (isinstance(step, Crossing) and step.fate is Fate.HELD)


def _in_time(attempt: Callable[[Stage], Finding]) -> Callable[[Scenery], Finding]:
    """Attempt it again, with another connection, where the machine was too busy for two looks."""

    def play(at: Scenery) -> Finding:
        for _ in range(_ATTEMPTS):
            at.stage.rules()
            at.stage.held.clear()
            finding = attempt(at.stage)
            if finding["between_s"] <= _SLOW_S:
                return finding
        raise SetUpError("the machine is too busy to read a timer twice in a second or two")

    return play


def effect_of(finding: Finding, expected: Expected) -> str:
    """Return what happened to the timer between two looks: RESTARTS, LEAVES, ENDS, or in words."""
    before_s, after_s = float(finding["before_s"]), float(finding["after_s"])
    between_s, tick_s = float(finding["between_s"]), expected["tick_s"]

    def was(timer_s: float) -> bool:
        return timer_s - between_s - tick_s <= after_s <= timer_s + tick_s

    if finding["state"] != TcpState.TIME_WAIT.name:
        return ENDS
    if was(expected["lifetime_s"]):
        return RESTARTS
    return LEAVES if was(before_s) else f"sets to {after_s:.2f} s"


def _told(what: str, finding: Finding) -> str:
    alive = finding["state"] == TcpState.TIME_WAIT.name
    now = f"{finding['after_s']:.2f} s" if alive else finding["state"]
    answer = f"; answered with {', '.join(finding['replies'])}" if finding["replies"] else ""
    return f"{what}: {finding['before_s']:.2f} s left, then {now}{answer}"


def _judge(findings: Findings, expected: Expected) -> Judgement:
    effects = {name: effect_of(finding, expected) for name, finding in findings.items()}

    def checks(probes: Iterable[Probe]) -> list[Check]:
        return [
            Check(
                text=_told(probe.what, findings[probe.name]),
                holds=effects[probe.name] == probe.effect
                and bool(findings[probe.name]["replies"]) == probe.answered,
            )
            for probe in probes
        ]

    def all_that(effect: str) -> str:
        return ", ".join(p.what for p in PROBES if effects[p.name] == effect) or "nothing"

    real, unprobed = findings["retransmitted-fin"], findings["no-packet"]
    return weigh(
        f"{_told('the retransmitted FIN', real)}. Of made packets, these restart the timer:"
        f" {all_that(RESTARTS)}; these leave it: {all_that(LEAVES)}; these end TIME_WAIT:"
        f" {all_that(ENDS)}",
        claimed=(
            Check(
                text=_told("the retransmitted FIN", real),
                holds=effects["retransmitted-fin"] == RESTARTS,
            ),
            *checks(PROBES),
        ),
        controls=(
            Check(text=_told("no packet", unprobed), holds=effects["no-packet"] == LEAVES),
            *checks(CONTROLS),
        ),
    )


def _scene(probe: Probe) -> Scene:
    return Scene(
        name=probe.name,
        sentence=f"{_HELD_S:g} s into TIME_WAIT comes {probe.what}",
        play=_in_time(partial(_probed, probe=probe)),
        needs_s=_HELD_S + 1,
        client_sysctls=probe.sysctls,
    )


CLAIM = Claim(
    id="what-restarts-time-wait",
    sentence="a FIN that is retransmitted into TIME_WAIT restarts its 2MSL timer, as every late"
    " segment with ACK and without RST does; a RST in its exact place ends TIME_WAIT",
    sources=(
        "article 2, section 3, question 4: 2MSL is counted anew from a retransmitted FIN",
        "(other segments than the FIN, and RST: our addition)",
        "RFC 9293 section 3.10.7.4, TIME-WAIT state",
        "RFC 1337: TIME-WAIT assassination",
        "tcp_timewait_state_process() in net/ipv4/tcp_minisocks.c",
    ),
    expected={"lifetime_s": 60, "tick_s": 0.01},
    refuted_by="a retransmitted FIN after which the timer of TIME_WAIT runs on as before",
    scenes=(
        Scene(
            name="retransmitted-fin",
            sentence="the last ACK is lost; the FIN that the server sends again is kept back, and"
            f" let go {_HELD_S:g} s later",
            play=_in_time(_retransmitted),
            needs_s=_HELD_S + 2,
        ),
        *map(_scene, PROBES),
        Scene(
            name="no-packet",
            sentence=f"{_HELD_S:g} s into TIME_WAIT no packet comes",
            play=_in_time(_unprobed),
            needs_s=_HELD_S + 1,
        ),
        *map(_scene, CONTROLS),
    ),
    judge=_judge,
)
