"""Only the side that closes first holds TIME_WAIT.

Source: article 1, below the state diagram; article 2, section 2; RFC 9293 section 3.6.
Expected: one TIME_WAIT on the host that closes first, none on the other, whichever closes first
and by whichever call; both, where the FINs cross; nobody, where a RST ends the connection.
Refuted by: a first closer without TIME_WAIT, or a second one with it.
"""

from collections.abc import Iterable

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
from twbench.claims.common import EACH_FIN_ONCE, wait_to
from twbench.claims.scenery import Scenery
from twbench.model.endings import ENDINGS
from twbench.model.states import Side, TcpState
from twbench.trace.scripts import SCRIPTS
from twbench.wire.packet import Flag
from twbench.wire.stage import Stage

IN_TURN = ("client-fin", "server-fin", "client-half-close", "server-half-close")
CROSSING = "simultaneous"
RESETS = ("client-rst", "server-rst", "server-unread")
_ENDED = {TcpState.TIME_WAIT, TcpState.CLOSE}


def _play(at: Scenery, ending: str) -> Finding:
    stage = at.stage
    SCRIPTS[ending](stage)
    wait_to(
        stage,
        lambda: {end.state for end in stage.look().values()} <= _ENDED,
        "both ends to be in TIME_WAIT or CLOSED",
    )
    stage.pause("both applications are done: who waits now?")
    ladder = stage.ladder("", "")
    first = next(call.side for call in ladder.calls if call.text.startswith(("close", "shutdown")))
    crossed = all("CLOSING" in ladder.states(side) for side in Side)
    if crossed != (ending == CROSSING):
        raise SetUpError(f"the FINs {'crossed' if crossed else 'did not cross'}")
    waits = {side: _time_waits(stage, side) for side in Side}
    for side in Side:
        _mark(stage, side, resets=side in ENDINGS[ending].resets, waits=bool(waits[side]))
    return {
        "first": str(first),
        "time_waits": {str(side): count for side, count in waits.items()},
        "TcpExtTW": {str(side): stage.counters(side)["TcpExtTW"] for side in Side},
        "states": {str(side): list(ladder.states(side)) for side in Side},
    }


def _time_waits(stage: Stage, side: Side) -> int:
    return int((stage.sockets(side)["state"] == TcpState.TIME_WAIT).sum())


def _mark(stage: Stage, side: Side, *, resets: bool, waits: bool) -> None:
    """Mark the packet with which a side ends the connection. SetUpError for RST instead of FIN."""
    sent = stage.film.segments(side)
    if resets != any(Flag.RST in tcp.flags for _, tcp in sent):
        raise SetUpError(f"the {side} sent {'no' if resets else 'a'} RST")
    ends = Flag.RST if resets else Flag.FIN
    for frame in [frame for frame, tcp in sent if ends in tcp.flags][:1]:
        after = "TIME_WAIT" if waits else "nothing"
        stage.film.remark(frame, f"the {side} ends it with this {ends.name}, and then has {after}")


def _holds(finding: Finding, *, first: float, second: float) -> bool:
    """Return whether sock_diag and the kernel's counter both tell of so many TIME_WAITs."""
    closer = Side(finding["first"])
    return all(
        (counts[closer], counts[closer.other]) == (first, second)
        for counts in (finding["time_waits"], finding["TcpExtTW"])
    )


def _told(name: str, finding: Finding) -> str:
    waits = finding["time_waits"]
    return (
        f"{name}: the {finding['first']} closed first;"
        f" TIME_WAIT: client {waits['client']}, server {waits['server']}"
    )


def _who(findings: Iterable[Finding]) -> str:
    """Return who held TIME_WAIT in any of these: "both sides", "the client" or "nobody"."""
    holders = {side for each in findings for side in Side if each["time_waits"][side]}
    sides = " and ".join(f"the {side}" for side in Side if side in holders)
    return "both sides" if holders == set(Side) else sides or "nobody"


def _judge(findings: Findings, expected: Expected) -> Judgement:
    first, second = expected["time_waits_of_first"], expected["time_waits_of_second"]

    def checks(names: Iterable[str], *, first: float, second: float) -> list[Check]:
        return [
            Check(
                text=_told(name, findings[name]),
                holds=_holds(findings[name], first=first, second=second),
            )
            for name in names
        ]

    in_turn = checks(IN_TURN, first=first, second=second)
    each = expected["time_waits_of_each_when_crossing"]
    crossing = checks([CROSSING], first=each, second=each)
    after_reset = expected["time_waits_after_reset"]
    resets = checks(RESETS, first=after_reset, second=after_reset)
    right = sum(check.holds for check in in_turn)
    return weigh(
        f"in {right} of {len(in_turn)} closes in turn the side that closed first held TIME_WAIT,"
        f" and it alone; when the FINs crossed, {_who([findings[CROSSING]])} held it; after a RST"
        f" {_who(findings[name] for name in RESETS)} did",
        claimed=(
            Check(
                text="closed in turn, the first to close has TIME_WAIT, and no other",
                holds=right == len(in_turn),
            ),
            *in_turn,
        ),
        caveats=crossing,
        controls=resets,
    )


def _scene(ending: str) -> Scene:
    return Scene(
        name=ending,
        sentence=ENDINGS[ending].sentence,
        play=lambda at: _play(at, ending),
        needs_s=2,
        rules=EACH_FIN_ONCE,
    )


CLAIM = Claim(
    id="only-the-first-closer-waits",
    sentence="only the side that closes the connection first holds TIME_WAIT",
    sources=(
        "article 1, below the state diagram: TIME_WAIT is kept by the active closer",
        "article 2, section 2: only who closes actively has TIME_WAIT",
        "RFC 9293 section 3.6, figures 12 and 13",
    ),
    expected={
        "time_waits_of_first": 1,
        "time_waits_of_second": 0,
        "time_waits_of_each_when_crossing": 1,
        "time_waits_after_reset": 0,
    },
    refuted_by="a first closer that holds no TIME_WAIT, or a second one that holds one",
    scenes=tuple(_scene(ending) for ending in (*IN_TURN, CROSSING, *RESETS)),
    judge=_judge,
)
