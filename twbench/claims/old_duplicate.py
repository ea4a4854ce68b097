"""A stray segment (SEQ=300) of an earlier connection is taken as data by the next one.

Source: article 2, section 3, case 2 and the figure with SEQ=300; article 1, reason 1 for TIME_WAIT;
RFC 9293 sections 3.4.3 and 3.6.1; RFC 7323 section 5; RFC 5961 section 5.2; tcp_rcv_established.
Expected: with every guard off, the 100 bytes at 299 are the earlier connection's; no call fails.
Each guard alone keeps the stream clean: the client's TIME_WAIT, the clock behind the ISN, PAWS
(timestamps), and the check of the acknowledgement, which only the very next segment escapes.
Refuted by: a stream that stays clean with every guard off.

The article has the stray reach the client. Here it reaches the server, since only the end that
connects can choose its ISN (TCP_REPAIR); the code that receives is the same.
"""

from collections.abc import Mapping, Sequence
from functools import partial

from twbench.claims.claim import Check, Claim, Expected, Finding, Findings, Judgement, Scene, weigh
from twbench.claims.common import close_each, come_to, destroy_time_wait
from twbench.claims.stray import Plot, play, runs, wrong_bytes
from twbench.model.states import Side, TcpState
from twbench.wire.endpoint import Endpoint
from twbench.wire.stage import Stage

NO_RST = "drop RST"
"""A FIN that a busy machine has sent twice brings a RST at last, which ends TIME_WAIT."""

_GUARDS = {
    "time-wait-kept": "a TIME_WAIT at the client",
    "time-wait-at-the-server": "a TIME_WAIT at the server",
    "timestamps": "timestamps without a TIME_WAIT",
    "isn-clock": "the natural ISN without a TIME_WAIT",
    "not-the-next": "a stray that is not the very next segment",
    "defaults": "the kernel's defaults without a TIME_WAIT",
}
"""What may keep the stream clean, by the scene that has it."""
_NO_TIMESTAMPS = {"net.ipv4.tcp_timestamps": "0"}


def _reset(stage: Stage, client: Endpoint, server: Endpoint) -> None:
    client.reset()
    come_to(stage, Side.SERVER, TcpState.CLOSE)
    server.receive()
    server.close()


def _in_turn(stage: Stage, first: Endpoint, second: Endpoint) -> None:
    stage.rules(NO_RST)
    close_each(stage, first, second)
    stage.rules()


def _server_first(stage: Stage, client: Endpoint, server: Endpoint) -> None:
    _in_turn(stage, server, client)


def _time_wait_destroyed(stage: Stage, client: Endpoint, server: Endpoint) -> None:
    _in_turn(stage, client, server)
    destroy_time_wait(stage)


def _judge(findings: Findings, expected: Expected) -> Judgement:
    bare, kept = findings["unguarded"], findings["time-wait-kept"]
    destroyed, elsewhere = findings["time-wait-destroyed"], findings["time-wait-at-the-server"]
    paws, clock, early = (findings[name] for name in ("timestamps", "isn-clock", "not-the-next"))
    wrong = wrong_bytes(bare)
    first = int(expected["wrong_from_byte"])
    as_told = list(range(first, first + int(expected["wrong_bytes"])))
    guards = {each: wrong_bytes(findings[name]) for name, each in _GUARDS.items()}
    kept_clean = _listed([each for each, taken in guards.items() if not taken])
    let_through = _listed([each for each, taken in guards.items() if taken])
    return weigh(
        f"with every guard off the client sent {runs(bare['sent'])}, the server read"
        f" {runs(bare['read'])}: {len(wrong)} bytes are wrong, and {len(bare['failed_calls'])}"
        f" calls failed. What kept the stream clean: {kept_clean}; what did not: {let_through}",
        claimed=(
            Check(
                text=f"without TIME_WAIT, {len(wrong)} bytes of what the server read, from byte"
                f" {wrong[0] if wrong else 'none'} on, are the earlier connection's",
                holds=wrong == as_told,
            ),
            Check(text="no call failed on either side", holds=not bare["failed_calls"]),
            Check(
                text="it is the same where TIME_WAIT was there and was destroyed",
                holds=wrong_bytes(destroyed) == as_told,
            ),
        ),
        caveats=(
            Check(text="timestamps alone keep it clean", holds=not wrong_bytes(paws)),
            Check(text="the natural ISN alone keeps it clean", holds=not wrong_bytes(clock)),
            Check(
                text="a stray that is not the very next segment is not taken",
                holds=not wrong_bytes(early),
            ),
            Check(
                text="with the kernel's defaults, and no TIME_WAIT, it stays clean",
                holds=not wrong_bytes(findings["defaults"]),
            ),
            Check(
                text="a TIME_WAIT at the server did not prevent it: the client's RST ended it",
                holds=wrong_bytes(elsewhere) == as_told,
            ),
        ),
        controls=(
            Check(
                text=f"a TIME_WAIT at the client kept the ports ({kept['refused']}); the stray was"
                f" answered with {kept['answer']}, and TIME_WAIT outlived that",
                holds=kept["refused"] == "EADDRNOTAVAIL"
                and kept["time_waits"]["client"] == 1
                and not wrong_bytes(kept),
            ),
            _counted(paws, "TcpExtPAWSEstab", expected["paws_drops"]),
            _counted(early, "TcpExtTCPChallengeACK", expected["challenge_acks"]),
            Check(
                text=f"the natural ISN goes one on every {clock['isn_tick_ns']:g} ns",
                holds=abs(clock["isn_tick_ns"] - expected["isn_tick_ns"])
                <= expected["isn_tick_slack_ns"],
            ),
        ),
    )


def _listed(words: Sequence[str]) -> str:
    return ", ".join(words) or "nothing"


def _counted(finding: Finding, counter: str, times: float) -> Check:
    """Return the check that it was this guard, which this counter tells of, that was at work."""
    rise = finding["counted"].get(counter, 0)
    return Check(text=f"its guard was at work: {counter} +{rise}", holds=rise == times)


def _scene(
    name: str,
    sentence: str,
    *,
    sysctls: Mapping[str, str] | None = None,
    plot: Plot,
) -> Scene:
    """Return a scene on hosts without timestamps, unless other sysctls are given for both."""
    chosen = _NO_TIMESTAMPS if sysctls is None else sysctls
    return Scene(
        name=name,
        sentence=sentence,
        play=partial(play, plot=plot),
        needs_s=3,
        client_sysctls=chosen,
        server_sysctls=chosen,
    )


CLAIM = Claim(
    id="old-duplicate",
    sentence="when TIME_WAIT is skipped and the ports are used again, a delayed segment (SEQ=300)"
    " of the earlier connection may be taken as data by the next one, whose stream is then wrong",
    sources=(
        "article 1, reason 1 for TIME_WAIT",
        "article 2, section 3, case 2 and the figure with SEQ=300",
        "RFC 9293 sections 3.4.3 and 3.6.1; RFC 7323 section 5; RFC 5961 section 5.2",
        "tcp_rcv_established, tcp_paws_discard, tcp_ack, secure_tcp_seq",
    ),
    expected={
        "wrong_bytes": 100,
        "wrong_from_byte": 299,
        "paws_drops": 1,
        "challenge_acks": 1,
        "isn_tick_ns": 64,
        "isn_tick_slack_ns": 16,
    },
    refuted_by="a stream that stays clean although every guard is off",
    scenes=(
        _scene(
            "unguarded",
            "SO_LINGER 0 leaves no TIME_WAIT; no timestamps; the next connection has the same ISN",
            plot=Plot(ending=_reset),
        ),
        _scene(
            "time-wait-destroyed",
            "the client closes first and its TIME_WAIT is destroyed; otherwise the same",
            plot=Plot(ending=_time_wait_destroyed),
        ),
        _scene(
            "time-wait-kept",
            "the client closes first and its TIME_WAIT stays; otherwise the same",
            plot=Plot(ending=_in_turn, time_wait=Side.CLIENT),
        ),
        _scene(
            "time-wait-at-the-server",
            "the server closes first and has the TIME_WAIT; otherwise the same",
            plot=Plot(ending=_server_first, time_wait=Side.SERVER),
        ),
        _scene(
            "timestamps",
            "as unguarded, but with timestamps: the stray's is older than what came before it",
            sysctls={"net.ipv4.tcp_timestamps": "1"},
            plot=Plot(ending=_reset),
        ),
        _scene(
            "isn-clock",
            "as unguarded, but the kernel chooses the ISNs: the stray is far below the window",
            plot=Plot(ending=_reset, isn=None),
        ),
        _scene(
            "not-the-next",
            "as unguarded, but the stray comes one segment early: its acknowledgement is checked",
            plot=Plot(ending=_reset, before="ab"),
        ),
        _scene(
            "defaults",
            "SO_LINGER 0 leaves no TIME_WAIT; all else is as the kernel has it",
            sysctls={},
            plot=Plot(ending=_reset, isn=None),
        ),
    ),
    judge=_judge,
)
