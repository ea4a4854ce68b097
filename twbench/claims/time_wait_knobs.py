"""tcp_tw_reuse, tcp_max_tw_buckets, SO_LINGER 0 and SO_REUSEADDR are the cure for many TIME_WAITs.

Source: article 1 ("usually where the kernel's parameters were not tuned"); it names no knob, these
are the ones that are often named; ip-sysctl; socket(7).
Expected: each takes something of TIME_WAIT away, and each costs something: the SYN from a port that
is reused while the peer is in LAST_ACK is not taken until a RST has ended that; without a bucket
the peer's FIN is answered by RST; a linger time of 0 throws unsent data away; SO_REUSEADDR ends
the TIME_WAIT of the same four-tuple at once.
Refuted by: more TIME_WAITs than tcp_max_tw_buckets allows, or any of connections with a linger time
of 0.
"""

from collections.abc import Callable, Mapping
from functools import partial

from twbench.claims import knob_scenes as scenes
from twbench.claims.claim import (
    Check,
    Claim,
    Expected,
    Finding,
    Findings,
    Judgement,
    Scene,
    weigh,
)
from twbench.claims.crowd import First
from twbench.claims.knob_scenes import BUCKETS, PORTS
from twbench.claims.scenery import Scenery
from twbench.lab.plan import Link

_FEW_PORTS = {scenes.RANGE: scenes.range_of(PORTS)}
_ONE_PORT = {scenes.RANGE: scenes.ONE_PORT, scenes.REUSE: "1"}


def _judge(findings: Findings, expected: Expected) -> Judgement:
    default, reuse = findings["defaults"], findings["tw-reuse-1"]
    buckets, linger = findings["few-buckets"], findings["linger-0"]
    lost, restart = findings["reuse-in-last-ack"], findings["server-restart"]
    unsent = findings["linger-0-unsent"]
    loss = unsent["sent_bytes"] - unsent["read_bytes"]
    ports = int(expected["ports"])
    return weigh(
        f"of {default['time_waits']} TIME_WAITs tcp_max_tw_buckets = {BUCKETS} left"
        f" {buckets['time_waits']}, SO_LINGER 0 left {linger['time_waits']}; tcp_tw_reuse = 1 left"
        f" {reuse['time_waits_again']} of {reuse['time_waits']} and gave {reuse['again']} ports"
        f" back after {scenes.PATIENCE_S} s. With it a port whose last ACK was lost took"
        f" {lost['resets']} RST and {lost['syns']} SYNs; without a bucket a peer's FIN got"
        f" {findings['no-bucket']['answer']}; SO_LINGER 0 threw {loss:,} bytes away",
        claimed=(
            Check(
                text=f"tcp_max_tw_buckets = {BUCKETS} left {buckets['time_waits']} of {ports}"
                f" TIME_WAITs (TCPTimeWaitOverflow {buckets['TCPTimeWaitOverflow']}), SO_LINGER 0"
                f" left {linger['time_waits']}",
                holds=buckets["time_waits"] == expected["buckets"] and linger["time_waits"] == 0,
            ),
            Check(
                text=f"tcp_tw_reuse = 1: after {scenes.PATIENCE_S} s all {reuse['again']} ports"
                f" served again (TWRecycled {reuse['TWRecycled']})",
                holds=reuse["again"] == ports == reuse["TWRecycled"] and not reuse["error"],
            ),
            Check(
                text="SO_REUSEADDR: a server can bind to its port beside TIME_WAIT; without it"
                f" {restart['without']}",
                holds=restart["without"] == "EADDRINUSE" and not restart["with"],
            ),
        ),
        caveats=(*_limits(findings, ports), *_risks(findings)),
        controls=_controls(findings, ports),
    )


def _limits(findings: Findings, ports: int) -> tuple[Check, ...]:
    """Give what each knob does not do."""
    reuse, restart = findings["tw-reuse-1"], findings["server-restart"]
    between, loopback = findings["tw-reuse-2"], findings["tw-reuse-2-loopback"]
    plain = findings["tw-reuse-1-no-timestamps"]
    return (
        Check(
            text=f"tcp_tw_reuse = 2, the default, gives nothing back between hosts"
            f" ({between['error']}), only over a loopback ({loopback['again']} ports)",
            holds=between["error"] == "EADDRNOTAVAIL" and loopback["again"] == ports,
        ),
        Check(
            text=f"tcp_tw_reuse = 1 needs timestamps: without them {plain['error']}",
            holds=plain["error"] == "EADDRNOTAVAIL",
        ),
        Check(
            text=f"it shortens nothing: {reuse['time_waits']} TIME_WAITs before,"
            f" {reuse['time_waits_again']} after; before the delay was over: {reuse['too_early']}",
            holds=reuse["time_waits"] == reuse["time_waits_again"] == ports
            and reuse["too_early"] in {"EADDRNOTAVAIL", "unknown"},
        ),
        Check(
            text=f"SO_REUSEADDR takes none away on a server: {restart['time_waits']} is still left",
            holds=restart["time_waits"] == 1,
        ),
    )


def _risks(findings: Findings) -> tuple[Check, ...]:
    """Give what each knob costs."""
    lost, full = findings["reuse-in-last-ack"], findings["no-bucket"]
    unsent, again = findings["linger-0-unsent"], findings["same-four-tuple"]
    return (
        Check(
            text="tcp_tw_reuse = 1 while the peer is still in LAST_ACK: the SYN is not taken,"
            f" {lost['resets']} RST ends the old connection, {lost['syns']} SYNs were needed",
            holds=lost["syns"] > 1 and lost["resets"] > 0,
        ),
        Check(
            text=f"tcp_max_tw_buckets = 0: the peer's FIN is answered by {full['answer']}, and the"
            f" peer's socket has {full['server_error']}",
            holds="RST" in full["answer"] and full["server_error"] == "ECONNRESET",
        ),
        Check(
            text=f"SO_LINGER 0: of {unsent['sent_bytes']:,} bytes {unsent['read_bytes']:,} were"
            f" read, then {unsent['end']}",
            holds=unsent["read_bytes"] < unsent["sent_bytes"] and unsent["end"] == "ECONNRESET",
        ),
        Check(
            text="SO_REUSEADDR on a client that binds to its port again throws TIME_WAIT away at"
            f" once, and its protection with it, even with tcp_tw_reuse = 0: {again['time_waits']}"
            f" before, {again['time_waits_again']} after",
            holds=again["connect"] == "EINPROGRESS" and not again["time_waits_again"],
        ),
    )


def _controls(findings: Findings, ports: int) -> tuple[Check, ...]:
    """Give the same without each knob."""
    default, off = findings["defaults"], findings["tw-reuse-0"]
    in_time, bucket = findings["reuse-after-last-ack"], findings["a-bucket"]
    sent, plain = findings["close-unsent"], findings["same-four-tuple-no-timestamps"]
    free = findings["server-restart-after-reset"]
    return (
        Check(
            text=f"with the defaults {default['connections']} connections left"
            f" {default['time_waits']} TIME_WAITs, and the next got {default['error']}",
            holds=default["time_waits"] == ports and default["error"] == "EADDRNOTAVAIL",
        ),
        Check(
            text=f"tcp_tw_reuse = 0: after the same wait {off['again']} ports, {off['error']}",
            holds=off["again"] == 0 and off["error"] == "EADDRNOTAVAIL",
        ),
        Check(
            text=f"reuse after the last ACK had arrived: {in_time['syns']} SYN, no stall",
            holds=in_time["same_port"] and in_time["syns"] == 1 and not in_time["resets"],
        ),
        Check(
            text=f"with a bucket the peer's FIN is answered by {bucket['answer']}",
            holds=bucket["answer"] == "ACK" and not bucket["server_error"],
        ),
        Check(
            text=f"close() without SO_LINGER: all {sent['read_bytes']:,} bytes were read",
            holds=sent["read_bytes"] == sent["sent_bytes"],
        ),
        Check(
            text="without TIME_WAIT, after a RST, a server can bind to its port without"
            f" SO_REUSEADDR too{_but(free['without'])}",
            holds=not free["without"] and not free["time_waits"],
        ),
        Check(
            text="the same four-tuple without timestamps, which tell old segments from new:"
            f" {plain['connect']}",
            holds=plain["connect"] == "EADDRNOTAVAIL" and plain["time_waits_again"] == 1,
        ),
    )


def _but(error: str) -> str:
    """Return what speaks against it, as the end of a sentence."""
    return f": {error}" if error else ""


def _scene(
    name: str,
    sentence: str,
    play: Callable[[Scenery], Finding],
    sysctls: Mapping[str, str] | None = None,
    link: Link = Link.WIRE,
) -> Scene:
    return Scene(
        name=name,
        sentence=sentence,
        play=play,
        needs_s=4,
        link=link,
        client_sysctls=sysctls or {},
    )


def _churn(name: str, sentence: str, play: Callable[[Scenery], Finding], **knobs: str) -> Scene:
    sysctls = {f"net.ipv4.{knob}": value for knob, value in knobs.items()}
    said = f"{PORTS} ports, each used once, and then again: {sentence}"
    return _scene(name, said, play, {**_FEW_PORTS, **sysctls}, Link.VETH)


_AFTER_A_WAIT = partial(scenes.churn, patience_s=scenes.PATIENCE_S)

CLAIM = Claim(
    id="time-wait-knobs",
    sentence="many TIME_WAITs are a matter of tuning: tcp_tw_reuse, tcp_max_tw_buckets, SO_LINGER 0"
    " and SO_REUSEADDR are the cure",
    sources=(
        "article 1, the question after the states: 'usually where no kernel parameter was tuned'",
        "often said of these knobs: the articles name none",
        "Linux: Documentation/networking/ip-sysctl.rst; socket(7)",
        "Linux: tcp_twsk_unique, tcp_time_wait, inet_twsk_alloc, tcp_close, inet_csk_get_port",
    ),
    expected={"ports": PORTS, "buckets": BUCKETS},
    refuted_by="more TIME_WAITs than tcp_max_tw_buckets allows, or any after SO_LINGER 0",
    scenes=(
        _churn("defaults", "the defaults", scenes.churn),
        _churn("tw-reuse-0", "tcp_tw_reuse = 0", _AFTER_A_WAIT, tcp_tw_reuse="0"),
        _churn("tw-reuse-1", "tcp_tw_reuse = 1", scenes.churn_with_reuse, tcp_tw_reuse="1"),
        _churn(
            "tw-reuse-1-no-timestamps",
            "tcp_tw_reuse = 1 without timestamps",
            _AFTER_A_WAIT,
            tcp_tw_reuse="1",
            tcp_timestamps="0",
        ),
        _churn("tw-reuse-2", "tcp_tw_reuse = 2", _AFTER_A_WAIT, tcp_tw_reuse="2"),
        _scene(
            "tw-reuse-2-loopback",
            f"{PORTS} ports, each used once, and then again: tcp_tw_reuse = 2 over one loopback",
            scenes.churn_with_reuse,
            {**_FEW_PORTS, scenes.REUSE: "2"},
            Link.LOOPBACK,
        ),
        _churn(
            "few-buckets",
            f"tcp_max_tw_buckets = {BUCKETS}",
            scenes.churn,
            tcp_max_tw_buckets=str(BUCKETS),
        ),
        _churn("linger-0", "SO_LINGER 0", partial(scenes.churn, ending=First.RESET)),
        _scene(
            "reuse-in-last-ack",
            "the last ACK is lost; then the client's only port is reused (tcp_tw_reuse = 1)",
            partial(scenes.reuse_a_port, lose_last_ack=True),
            _ONE_PORT,
        ),
        _scene(
            "reuse-after-last-ack",
            "the last ACK arrives; then the client's only port is reused (tcp_tw_reuse = 1)",
            partial(scenes.reuse_a_port, lose_last_ack=False),
            _ONE_PORT,
        ),
        _scene(
            "no-bucket",
            "the client closes first, with tcp_max_tw_buckets = 0",
            scenes.close_with_full_buckets,
            {scenes.MAX_BUCKETS: "0"},
        ),
        _scene("a-bucket", "the same, with the default", scenes.close_with_full_buckets),
        _scene(
            "linger-0-unsent",
            "the client sends more than one flight, and closes at once with SO_LINGER 0",
            partial(scenes.leave_in_mid_sentence, reset=True),
        ),
        _scene(
            "close-unsent",
            "the same, and closes without SO_LINGER",
            partial(scenes.leave_in_mid_sentence, reset=False),
        ),
        _scene(
            "server-restart",
            "the server closes first, and then binds to its port again",
            partial(scenes.restart_a_server, reset=False),
        ),
        _scene(
            "server-restart-after-reset",
            "the server leaves by RST, and then binds to its port again",
            partial(scenes.restart_a_server, reset=True),
        ),
        _scene(
            "same-four-tuple",
            "the client closes first, binds to its port again with SO_REUSEADDR, and connects",
            scenes.connect_again,
            {scenes.REUSE: "0"},
        ),
        _scene(
            "same-four-tuple-no-timestamps",
            "the same without timestamps",
            scenes.connect_again,
            {scenes.REUSE: "0", scenes.TIMESTAMPS: "0"},
        ),
    ),
    judge=_judge,
)
