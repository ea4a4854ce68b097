"""RST comes of a closed port, a crash in mid-exchange, an unknown connection, too many repetitions.

Source: article 1, the list of when RST is sent; RFC 9293 sections 3.5.2, 3.6.1 and 3.10.7.1; RFC
1122 sections 4.2.2.13 and 4.2.3.6; tcp_v4_send_reset, __tcp_close, tcp_write_err,
tcp_keepalive_timer.
Expected: of a closed port and an unknown connection at least one RST each. Of the crashes, one for
a process killed with data unread, and one for a host that is back when the next segment comes; none
for a process that had read all, nor from a cut cable. Of those that give up, only keep-alive's end.
Refuted by: a closed port that does not answer with RST.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from twbench.claims.claim import Check, Claim, Expected, Finding, Findings, Judgement, Scene, weigh
from twbench.claims.resets import (
    ACKS_LOST,
    FEW_ACKS_LOST,
    PROBES,
    STRANGER_ACK,
    USER_TIMEOUT_MS,
    cut,
    keep_alive,
    kill,
    knock,
    lose_acks,
    lose_last_acks,
    lose_third_acks,
    meet_strangers,
    reboot,
)
from twbench.claims.scenery import Scenery

GIVEN_UP = {
    "data-unacknowledged": "data",
    "user-timeout": "data with TCP_USER_TIMEOUT",
    "last-ack-lost": "FIN",
    "third-ack-lost": "SYN+ACK",
}
"""The scenes in which one end gives up what it has sent again and again, and what that is."""
SILENT = ("killed-with-nothing-unread", "host-reboots", "cable-pulled")
"""The crashes that send no RST by themselves."""


def _judge(findings: Findings, expected: Expected) -> Judgement:
    closed, unread = findings["closed-port"], findings["killed-with-unread-data"]
    read, back, cable = (findings[name] for name in SILENT)
    probed = findings["keep-alive-unanswered"]
    given_up = "; ".join(_gave_up(what, findings[name]) for name, what in GIVEN_UP.items())
    return weigh(
        f"RSTs of the server: {closed['resets']['server']} from a closed port; to these segments of"
        f" connections that nobody has: {_listed(_reset_strangers(findings))};"
        f" {unread['resets_at_once']} when its process was killed with data unread,"
        f" {read['resets_at_once']} ({read['fins']['server']} FIN) when all was read;"
        f" {back['resets_at_once']} when its host crashed, {back['resets']['server']} once that was"
        f" back; {cable['resets']['server']} for a pulled cable; {probed['resets']['server']} after"
        f" {probed['probes']} keep-alive probes without an answer. Given up: {given_up}",
        claimed=(
            Check(
                text=f"a closed port answers with RST: {_heard(closed)}",
                holds=_server_resets(closed, expected) and _heard(closed) == "ECONNREFUSED",
            ),
            Check(
                text=f"a process killed with data unread is reset: {_heard(unread)}",
                holds=_server_resets(unread, expected) and _heard(unread) == "ECONNRESET",
            ),
            Check(
                text=f"segments of unknown connections are reset, with the seq that they"
                f" acknowledge: {_listed(_reset_strangers(findings))}",
                holds=_server_resets(findings["unknown-connection"], expected)
                and _reset_strangers(findings) == _strangers(findings, but="RST"),
            ),
            Check(
                text="whoever gives up after retransmissions sends RST:"
                f" {sum(findings[name]['resets_at_once'] for name in GIVEN_UP)} were seen",
                holds=all(findings[n]["resets_at_once"] >= expected["resets"] for n in GIVEN_UP),
            ),
        ),
        caveats=(
            Check(
                text=f"a process killed with nothing unread sends {read['fins']['server']} FIN and"
                " no RST",
                holds=read["resets_at_once"] == 0 and read["fins"]["server"] > 0,
            ),
            Check(
                text="a crashed host says nothing; once it is back, the next segment gets RST:"
                f" {_heard(back)}",
                holds=back["resets_at_once"] == 0 and _server_resets(back, expected),
            ),
            Check(
                text=f"a pulled cable resets nothing: {cable['sent_into_it']} times the data was"
                " sent into it, and it arrived when the cable was back",
                holds=not _any_reset(cable) and cable["arrives_at_last"],
            ),
            Check(
                text=f"keep-alive sends RST when {probed['probes']} probes had no answer",
                holds=_server_resets(probed, expected) and "ECONNRESET" in probed["heard"],
            ),
        ),
        controls=(
            Check(
                text="a port on which somebody listens, and a known connection, send no RST",
                holds=not _any_reset(findings["open-port"]),
            ),
            Check(
                text="a RST of an unknown connection is not answered",
                holds=not findings["unknown-connection"]["answers"]["RST"],
            ),
            Check(
                text="as often sent again below the limit, data is acknowledged and the connection"
                f" lives on: {findings['data-acknowledged-late']['sent_again']} times",
                holds=findings["data-acknowledged-late"]["gave_up_s"] is None
                and not _any_reset(findings["data-acknowledged-late"]),
            ),
            Check(
                text="whoever gave up had sent its segment again: "
                + _listed([f"{findings[name]['sent_again']} times" for name in GIVEN_UP]),
                holds=all(findings[n]["sent_again"] >= expected["sent_again"] for n in GIVEN_UP),
            ),
            Check(
                text=f"with {findings['keep-alive-answered']['probes']} probes answered, no RST",
                holds=not _any_reset(findings["keep-alive-answered"])
                and findings["keep-alive-answered"]["probes"] >= PROBES,
            ),
        ),
    )


def _heard(finding: Finding) -> str:
    """Return what the client's application heard."""
    return str(finding["heard"][0])


def _gave_up(what: str, finding: Finding) -> str:
    after = "never" if (s := finding["gave_up_s"]) is None else f"after {s:.1f} s"
    return f"{what} {after} with {finding['resets_at_once'] or 'no'} RST"


def _server_resets(finding: Finding, expected: Expected) -> bool:
    return bool(finding["resets"]["server"] >= expected["resets"])


def _any_reset(finding: Finding) -> bool:
    return any(finding["resets"].values())


def _strangers(findings: Findings, *, but: str) -> list[str]:
    return [kind for kind in findings["unknown-connection"]["answers"] if kind != but]


def _reset_strangers(findings: Findings) -> list[str]:
    """Return the kinds of segments that got one RST, with the seq that they acknowledged."""
    answers = findings["unknown-connection"]["answers"]
    right = [{"flags": "RST", "seq": STRANGER_ACK}]
    return [kind for kind, answer in answers.items() if answer == right]


def _listed(words: Sequence[str]) -> str:
    return ", ".join(words) or "none"


def _scene(
    name: str,
    sentence: str,
    play: Callable[[Scenery], Finding],
    *,
    needs_s: float = 2,
    client: Mapping[str, str] | None = None,
    server: Mapping[str, str] | None = None,
) -> Scene:
    return Scene(
        name=name,
        sentence=sentence,
        play=play,
        needs_s=needs_s,
        client_sysctls=client or {},
        server_sysctls=server or {},
    )


CLAIM = Claim(
    id="four-causes-of-rst",
    sentence="RST is sent by a closed port, by a side that crashed in mid-exchange, in answer to a"
    " segment of no known connection, and by a side whose retransmissions exceeded their limit",
    sources=(
        "article 1, the list of when RST is sent",
        "RFC 9293 sections 3.5.2, 3.6.1 and 3.10.7.1; RFC 1122 sections 4.2.2.13 and 4.2.3.6",
        "tcp_v4_send_reset, __tcp_close, tcp_write_err, tcp_keepalive_timer",
    ),
    expected={"resets": 1, "sent_again": 1},
    refuted_by="a closed port that does not answer with RST",
    scenes=(
        _scene(
            "closed-port",
            "a SYN for a port on which nobody listens",
            partial(knock, listens=False),
        ),
        _scene(
            "open-port",
            "a SYN for a port on which somebody listens, then a request and its answer",
            partial(knock, listens=True),
        ),
        _scene(
            "killed-with-unread-data",
            "the server's process is killed (SIGKILL) before it has read the request",
            partial(kill, unread=True),
        ),
        _scene(
            "killed-with-nothing-unread",
            "the server's process is killed when it has answered; then the client asks once more",
            partial(kill, unread=False),
        ),
        _scene(
            "host-reboots",
            "the server's host crashes and is back a moment later; then the client asks once more",
            reboot,
            needs_s=3,
        ),
        _scene(
            "cable-pulled",
            "the server's cable is pulled, the client asks once more, the cable is put back",
            cut,
            needs_s=3,
        ),
        _scene(
            "unknown-connection",
            "segments of every kind reach a server that has no such connection",
            meet_strangers,
        ),
        _scene(
            "data-unacknowledged",
            "every ACK of the client's data is lost until it gives up (tcp_retries2 = 2)",
            partial(lose_acks, rule=ACKS_LOST),
            needs_s=5,
            client={"net.ipv4.tcp_retries2": "2"},
        ),
        _scene(
            "data-acknowledged-late",
            "four ACKs of the client's data are lost, the next one arrives; the limit is usual",
            partial(lose_acks, rule=FEW_ACKS_LOST),
            needs_s=3,
        ),
        _scene(
            "user-timeout",
            "every ACK of the client's data is lost; TCP_USER_TIMEOUT limits the time to 0.7 s",
            partial(lose_acks, rule=ACKS_LOST, user_timeout_ms=USER_TIMEOUT_MS),
            needs_s=3,
        ),
        _scene(
            "last-ack-lost",
            "every ACK of the server's FIN is lost until it gives up (tcp_orphan_retries = 2)",
            lose_last_acks,
            needs_s=6,
            server={"net.ipv4.tcp_orphan_retries": "2"},
        ),
        _scene(
            "third-ack-lost",
            "every ACK of the server's SYN+ACK is lost until it gives up (tcp_synack_retries = 1);"
            " then the client asks",
            lose_third_acks,
            needs_s=6,
            server={"net.ipv4.tcp_synack_retries": "1"},
        ),
        _scene(
            "keep-alive-unanswered",
            "the server probes an idle connection each second, and every answer is lost",
            partial(keep_alive, answered=False),
            needs_s=11,
        ),
        _scene(
            "keep-alive-answered",
            "the server probes an idle connection each second, and is answered",
            partial(keep_alive, answered=True),
            needs_s=4,
        ),
    ),
    judge=_judge,
)
