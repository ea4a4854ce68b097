"""A FIN is sent again after 0.5, 1, 2 … 16 s, so none can come when TIME_WAIT is over.

Source: article 2, section 3, question 3; RFC 6298 (from 1 s, doubling); tcp_set_rto,
tcp_schedule_loss_probe, tcp_retransmit_timer, tcp_syn_linear_timeouts.
Expected, from the article: waits of 0.5, 1, 2, 4, 8 and 16 s (15% either way: the timer wheel adds
up to an eighth, the round trip the rest), each double the last; no FIN after TIME_WAIT's 60 s.
Refuted by: waits that begin or end elsewhere. Data, SYN and SYN+ACK are timed beside the FIN.
"""

import itertools
from collections.abc import Callable, Sequence

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
from twbench.claims.common import (
    LAST_ACK_LOST,
    copies,
    frames,
    into_last_ack,
    listed,
    play_until_gone,
    require_hits,
    rises,
    steady_exchange,
    timetable,
    wait_to,
)
from twbench.claims.scenery import Scenery
from twbench.model.states import Side
from twbench.trace.scripts import REQUEST
from twbench.wire.endpoint import Endpoint
from twbench.wire.rules import Kind
from twbench.wire.stage import SERVER_PORT, Stage

_WITHIN_S = 160.0
_LOOK_ON_S = 3.0
_LET_THROUGH = 2
"""FINs that reach the client before the wire holds them."""

Ask = Callable[[], object]
"""What an application does last, and what it gets."""


def _fin(stage: Stage) -> Ask:
    into_last_ack(stage)
    return lambda: ""


def _data(stage: Stage) -> Ask:
    client, _ = steady_exchange(stage)
    stage.rules("drop client→server DATA")
    client.send(REQUEST)
    stage.play()
    return client.receive


def _handshake(stage: Stage) -> Endpoint:
    stage.listener()
    client = stage.endpoint(Side.CLIENT)
    client.connect(stage.address(Side.SERVER), SERVER_PORT)
    stage.play()
    return client


def _syn(stage: Stage) -> Ask:
    return _handshake(stage).receive


def _syn_ack(stage: Stage) -> Ask:
    """The third ACK is lost, so the client is through, and finds out when it sends."""
    client = _handshake(stage)

    def send_and_receive() -> object:
        client.send(REQUEST)
        stage.play()
        for frame in frames(stage, Side.SERVER, Kind.RST):
            stage.film.remark(frame, "answers data for a connection that the server has forgotten")
        return client.receive()

    return send_and_receive


def _lose(at: Scenery, side: Side, kind: Kind, begin: Callable[[Stage], Ask]) -> Finding:
    """Let a side send what is always lost, or never acknowledged, until it gives up."""
    stage = at.stage
    before = stage.counters(side)
    ask = begin(stage)
    require_hits(stage)
    first = copies(stage, side, kind)[0]
    gone_s = play_until_gone(stage, side, since=first, within_s=_WITHIN_S)
    stage.pause(f"the {side} knows the connection no more", for_s=1.0)
    times = timetable(stage, side, kind)
    if not times["waits_s"]:
        raise SetUpError(f"the {side} sent its {kind} only once")
    return {
        **times,
        "gone_s": gone_s,
        "counters": rises(before, stage.counters(side)),
        "heard": str(ask()),
    }


def _late_fin(at: Scenery) -> Finding:
    """Let the FIN and its first repetition through, hold the rest until TIME_WAIT is over.

    Then the newest arrives. Any other would have restarted TIME_WAIT before.
    """
    stage = at.stage
    into_last_ack(stage)
    first = copies(stage, Side.SERVER, Kind.FIN)[0]

    def answers() -> list[int]:
        return [frame for frame, _ in stage.film.segments(Side.CLIENT) if frame > first]

    wait_to(stage, lambda: len(answers()) >= _LET_THROUGH, "TIME_WAIT to answer the second FIN")
    in_time = stage.film.segments(Side.CLIENT)[-1][1].label
    stage.film.remark(answers()[-1], "TIME_WAIT answers the FIN that came again")
    stage.pause("TIME_WAIT has met the FIN again; from here on the wire holds every FIN")
    over_s = play_until_gone(stage, Side.CLIENT, since=first, within_s=_WITHIN_S)
    if not stage.held:
        raise SetUpError("no FIN was on the wire when TIME_WAIT was over")
    newest = stage.held[-1]
    kept_back = len(stage.held) - 1
    sent_s = (stage.film.time_ns(newest.frame) - stage.film.time_ns(first)) / 1e9
    stage.pause("TIME_WAIT is over, and now the newest FIN arrives")
    stage.release(newest)
    stage.play()
    answer, late = stage.film.segments(Side.CLIENT)[-1]
    stage.film.remark(answer, "answers a FIN that came when TIME_WAIT was over")
    return {
        "time_wait_s": over_s,
        "fin_sent_s": round(sent_s, 2),
        "on_the_wire_s": round(over_s - sent_s, 2),
        "answer_in_time": in_time,
        "kept_back": kept_back,
        "answer": late.label,
    }


def _acknowledged(at: Scenery) -> Finding:
    stage = at.stage
    steady_exchange(stage)
    before = stage.counters(Side.SERVER)
    acked = frames(stage, Side.CLIENT, Kind.ACK)[-1]
    stage.film.remark(acked, "everything is acknowledged with this, so nothing is sent again")
    stage.pause("everything was acknowledged", for_s=_LOOK_ON_S)
    return {"counters": rises(before, stage.counters(Side.SERVER))}


def _judge(findings: Findings, expected: Expected) -> Judgement:
    fin, data, syn, syn_ack = (findings[name] for name in ("fin", "data", "syn", "syn-ack"))
    late, quiet = findings["late-fin"], findings["acknowledged"]
    first_s, longest_s = fin["waits_s"][0], max(fin["waits_s"])
    slack = expected["slack_part"]
    is_late = late["answer"] == "RST" and late["on_the_wire_s"] < expected["msl_s"]
    return weigh(
        f"waits, in s: FIN {_told(fin)}; data {_told(data)}; SYN {_told(syn)}; SYN+ACK"
        f" {_told(syn_ack)}. A FIN sent after {late['fin_sent_s']:.1f} s, that was"
        f" {late['on_the_wire_s']:.1f} s on its way, came when TIME_WAIT was over, and was answered"
        f" {late['answer']}; but {late['kept_back']} FINs before it had to be held, too: any one"
        " that arrives restarts TIME_WAIT (what-restarts-time-wait)",
        claimed=(
            Check(
                text=f"the FIN waited {expected['first_s']:g} s at first, it was {first_s:.2f} s,"
                f" and {expected['longest_s']:g} s at most, it was {longest_s:.1f} s",
                holds=_near(first_s, expected["first_s"], slack)
                and _near(longest_s, expected["longest_s"], slack),
            ),
            Check(
                text="from its first time-out, behind a loss probe, each wait was double the last",
                holds=_doubles(fin["waits_s"][1:], expected["factor"], slack),
            ),
            Check(
                text=f"no FIN that lived less than one MSL ({expected['msl_s']:g} s) came too late",
                holds=not is_late,
            ),
        ),
        caveats=(
            Check(
                text=f"a SYN waited {syn['waits_s'][0]:.1f} s at first, a SYN+ACK"
                f" {syn_ack['waits_s'][0]:.1f} s, data {data['waits_s'][0]:.2f} s",
                holds=not all(
                    _near(each["waits_s"][0], expected["first_s"], slack)
                    for each in (syn, syn_ack, data)
                ),
            ),
        ),
        controls=(
            Check(
                text=f"nothing was sent again within {_LOOK_ON_S:g} s when all was acknowledged",
                holds=quiet["counters"]["TcpRetransSegs"] == 0,
            ),
            Check(
                text="the FIN that came again while TIME_WAIT lasted was answered"
                f" {late['answer_in_time']}",
                holds=late["answer_in_time"] == "ACK",
            ),
        ),
    )


def _near(measured_s: float, wanted_s: float, slack: float) -> bool:
    return abs(measured_s - wanted_s) <= slack * wanted_s


def _doubles(waits_s: Sequence[float], factor: float, slack: float) -> bool:
    pairs = list(itertools.pairwise(waits_s))
    near = (_near(after_s, factor * before_s, slack) for before_s, after_s in pairs)
    return bool(pairs) and all(near)


def _told(finding: Finding) -> str:
    end = finding["heard"] or "nobody to tell"
    reset = f"{finding['resets']} RST" if finding["resets"] else "no RST"
    return f"{listed(finding['waits_s'])}, over at {finding['gone_s']:.0f} s ({reset}, {end})"


CLAIM = Claim(
    id="retransmission-times",
    sentence="a FIN that is not acknowledged is sent again after 0.5, 1, 2 … 16 s, so that none can"
    " come when the other side's TIME_WAIT is over",
    sources=(
        "article 2, section 3, question 3",
        "RFC 6298 sections 2 and 5.5",
        "tcp_set_rto, tcp_schedule_loss_probe, tcp_retransmit_timer, tcp_syn_linear_timeouts",
    ),
    expected={"first_s": 0.5, "longest_s": 16, "factor": 2, "slack_part": 0.15, "msl_s": 30},
    refuted_by="a first wait other than 0.5 s, or a longest one other than 16 s",
    scenes=(
        Scene(
            name="fin",
            sentence="every ACK of the server's FIN is lost",
            play=lambda at: _lose(at, Side.SERVER, Kind.FIN, _fin),
            needs_s=110,
            rules=(LAST_ACK_LOST,),
        ),
        Scene(
            name="data",
            sentence="every data segment of the client is lost; tcp_retries2 = 8",
            play=lambda at: _lose(at, Side.CLIENT, Kind.DATA, _data),
            needs_s=110,
            client_sysctls={"net.ipv4.tcp_retries2": "8"},
        ),
        Scene(
            name="syn",
            sentence="every SYN is lost",
            play=lambda at: _lose(at, Side.CLIENT, Kind.SYN, _syn),
            needs_s=136,
            rules=("drop client→server SYN",),
        ),
        Scene(
            name="syn-ack",
            sentence="every ACK of the server's SYN+ACK is lost",
            play=lambda at: _lose(at, Side.SERVER, Kind.SYN_ACK, _syn_ack),
            needs_s=68,
            rules=("drop client→server ACK",),
        ),
        Scene(
            name="late-fin",
            sentence="the last ACK is lost; one more FIN arrives in TIME_WAIT, and no other before"
            " that is over",
            play=_late_fin,
            needs_s=66,
            rules=(
                "pass 1st server→client FIN",
                "pass 2nd server→client FIN",
                "hold server→client FIN",
                LAST_ACK_LOST,
            ),
        ),
        Scene(
            name="acknowledged",
            sentence="one exchange, and nothing is lost",
            play=_acknowledged,
            needs_s=6,
        ),
    ),
    judge=_judge,
)
