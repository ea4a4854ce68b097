"""A lost last ACK brings the FIN again, which only TIME_WAIT can acknowledge; CLOSED answers RST.

Source: article 1, reason 2 for TIME_WAIT; article 2, section 3; RFC 9293 sections 3.6.1 and
3.10.7.1 (CLOSED answers whatever comes with RST); tcp_timewait_state_process.
Expected: the FIN comes again at least once, and never when the ACK arrives. With TIME_WAIT it is
acknowledged, without it answered with RST, of which the passive application hears as ECONNRESET.
Refuted by: a FIN that does not come again, or that TIME_WAIT leaves without an ACK.
"""

from twbench.claims.claim import Check, Claim, Expected, Finding, Findings, Judgement, Scene, weigh
from twbench.claims.common import (
    LAST_ACK_LOST,
    copies,
    destroy_time_wait,
    frames,
    into_last_ack,
    play_until_gone,
    require_hits,
    rises,
)
from twbench.claims.scenery import Scenery
from twbench.model.states import Side, TcpState
from twbench.trace.scripts import exchange
from twbench.wire.endpoint import Endpoint
from twbench.wire.rules import Kind

_NOTES = {
    "ACK": "TIME_WAIT acknowledges the FIN",
    "RST": "this RST answers a FIN for which there is no TIME_WAIT (any more)",
}
_WITHIN_S = 20.0
_LOOK_ON_S = 1.0


def _play(at: Scenery, *, closes: bool = False, destroys: bool = False) -> Finding:
    """Bring the server into LAST_ACK, and say how it came out and what its application heard."""
    stage = at.stage
    before = stage.counters(Side.CLIENT)
    server = into_last_ack(stage, Endpoint.close if closes else Endpoint.shutdown, exchange)
    require_hits(stage)
    if destroys:
        destroy_time_wait(stage)
    first_fin, *early = copies(stage, Side.SERVER, Kind.FIN)
    sockets = stage.sockets(Side.SERVER)
    orphans = sockets[(sockets["state"] == TcpState.LAST_ACK) & (sockets["inode"] == 0)]
    stage.rules()
    gone_s = play_until_gone(stage, Side.SERVER, since=first_fin, within_s=_WITHIN_S)
    client = stage.look()[Side.CLIENT]
    stage.pause("and nothing more comes", for_s=_LOOK_ON_S)
    answer, segment = stage.film.segments(Side.CLIENT)[-1]
    stage.film.remark(answer, _NOTES.get(segment.label, segment.label))
    return {
        "fins_again": len(copies(stage, Side.SERVER, Kind.FIN)) - 1 - len(early),
        "answer": segment.label,
        "client_afterwards": client.name,
        "server_gone_s": gone_s,
        "server_resets": len(frames(stage, Side.SERVER, Kind.RST)),
        "orphan": len(orphans) == 1,
        "application": [] if closes else _hear(server),
        "client_counters": rises(before, stage.counters(Side.CLIENT)),
    }


def _hear(server: Endpoint) -> list[str]:
    """Return what an application gets that reads once and writes twice."""
    return [str(server.receive()), str(server.send(b"late")), str(server.send(b"later"))]


def _judge(findings: Findings, expected: Expected) -> Judgement:
    kept, destroyed = findings["time-wait"], findings["destroyed"]
    never, closed, heard = findings["never-had-one"], findings["closed"], findings["nothing-lost"]
    without = (destroyed, never)
    read, written, again = destroyed["application"]
    answers = " or ".join(dict.fromkeys(each["answer"] for each in without))
    orphaned = "; one that had called close() heard nothing" if closed["orphan"] else ""
    return weigh(
        f"with the last ACK lost the FIN came again {_often(kept)}, and TIME_WAIT"
        f" answered {kept['answer']}; without TIME_WAIT the answer was {answers}. The passive"
        f" application's recv() then gave {read}, its send() {written}, the next {again}{orphaned}",
        claimed=(
            Check(
                text=f"the FIN came again {_often(kept)} when the ACK was lost, and"
                f" TIME_WAIT answered {kept['answer']}",
                holds=kept["fins_again"] >= expected["fins_again"] and kept["answer"] == "ACK",
            ),
            Check(
                text="without TIME_WAIT, destroyed or never there, the FIN was answered with RST",
                holds=all(each["answer"] == "RST" for each in without),
            ),
            Check(
                text=f"the passive application, its descriptor open, got {written} from its write",
                holds=all("ECONNRESET" in each["application"] for each in without),
            ),
        ),
        caveats=(
            Check(
                text="after close() LAST_ACK belongs to no descriptor: the RST was told to nobody",
                holds=closed["answer"] == "RST" and closed["orphan"],
            ),
            Check(
                text=f"reading hid it: recv() gave {read}",
                holds="ECONNRESET" not in read,
            ),
        ),
        controls=(
            Check(
                text="when the ACK was not lost, no FIN came again",
                holds=heard["fins_again"] == 0 and heard["answer"] == "ACK",
            ),
            Check(
                text="with TIME_WAIT the passive application never met ECONNRESET",
                holds="ECONNRESET" not in [*kept["application"], *heard["application"]],
            ),
        ),
    )


def _often(finding: Finding) -> str:
    times = finding["fins_again"]
    return "once" if times == 1 else f"{times} times"


CLAIM = Claim(
    id="lost-last-ack",
    sentence="when the last ACK is lost the passive side sends its FIN again; TIME_WAIT answers"
    " with an ACK, a side already CLOSED with RST, and the passive application gets an error",
    sources=(
        "article 1, reason 2 for TIME_WAIT",
        "article 2, section 3, why TIME_WAIT is needed",
        "RFC 9293 sections 3.6.1 and 3.10.7.1",
        "tcp_timewait_state_process",
    ),
    expected={"fins_again": 1},
    refuted_by="a FIN that does not come again, or that TIME_WAIT leaves without an ACK",
    scenes=(
        Scene(
            name="time-wait",
            sentence="the last ACK is lost; the client keeps its TIME_WAIT",
            play=_play,
            needs_s=4,
            rules=(LAST_ACK_LOST,),
        ),
        Scene(
            name="destroyed",
            sentence="the last ACK is lost, and the client's TIME_WAIT is destroyed",
            play=lambda at: _play(at, destroys=True),
            needs_s=4,
            rules=(LAST_ACK_LOST,),
        ),
        Scene(
            name="closed",
            sentence="the same, and the server's application has called close(), not shutdown()",
            play=lambda at: _play(at, closes=True, destroys=True),
            needs_s=4,
            rules=(LAST_ACK_LOST,),
        ),
        Scene(
            name="never-had-one",
            sentence="tcp_max_tw_buckets = 0 allows no TIME_WAIT: the first FIN meets none",
            play=_play,
            needs_s=4,
            client_sysctls={"net.ipv4.tcp_max_tw_buckets": "0"},
        ),
        Scene(
            name="nothing-lost",
            sentence="the last ACK arrives",
            play=_play,
            needs_s=4,
        ),
    ),
    judge=_judge,
)
