"""Every connection takes a local port, of 32768 to 61000 by default; used up, none can be opened.

Source: article 2, section 4, second harm; Linux: inet_init_net(), __inet_hash_connect().
Expected: as many connections towards one destination as the range has ports, then EADDRNOTAVAIL.
Beside it: the default's last port is 60999 (it was 61000 before Linux 4.2); another destination is
served by the same ports; a server's connections share its one port; connect() tries the ports of
one parity first, and is many times dearer once they are taken, unless IP_LOCAL_PORT_RANGE is set;
bind(0) fails by EADDRINUSE. Over more ports as many connections are no matter.
Refuted by: a connection more, or one less, than the range has ports.
"""

from collections.abc import Sequence
from functools import partial

from twbench.claims import port_scenes as scenes
from twbench.claims.claim import Check, Claim, Expected, Finding, Findings, Judgement, Scene, weigh
from twbench.claims.crowd import First
from twbench.claims.port_scenes import FEW, SMALL, WIDE
from twbench.lab.plan import Link


def _judge(findings: Findings, expected: Expected) -> Judgement:
    default, small, few = (
        findings["default-range"],
        findings["small-range"],
        findings["on-the-wire"],
    )
    low, high = default["low"], default["high"]
    parity, wide = findings["first-half"], findings["wide-range"]
    wanted = f"{expected['low_port']:.0f}-{expected['high_port']:.0f}"
    each = expected["connections_per_port"]
    full = [small, few, *([{**default, "ports": high - low + 1}] if default["window"] else [])]
    dearer = parity["past_half_us"] / parity["early_us"]
    server = findings["server-closes-first"]
    again = "too" if _serves_another(findings) else "not all"
    return weigh(
        f"the default range is {low}-{high}, {high - low + 1:,} ports (its end was 61000 before"
        f" Linux 4.2); towards one destination {_served(full)}; the next destination was served by"
        f" the same ports {again}, and past the first half connect() takes {dearer:.1f} times as"
        " much CPU",
        claimed=(
            Check(
                text=f"towards one destination {_served(full)}",
                holds=all(
                    one["connections"] == each * one["ports"] and one["error"] == "EADDRNOTAVAIL"
                    for one in full
                ),
            ),
            Check(
                text=f"the default range is {wanted} (it is {low}-{high})",
                holds=f"{low}-{high}" == wanted,
            ),
        ),
        caveats=_caveats(findings, expected),
        controls=(
            Check(
                text="ended by RST, which leaves no TIME_WAIT, connections went on:"
                f" {findings['reset']['connections']} over {SMALL} ports",
                holds=not findings["reset"]["error"],
            ),
            Check(
                text="closed by the server first, which leaves the client's ports free, they went"
                f" on: {server['connections']} over {SMALL} ports",
                holds=not server["error"],
            ),
            Check(
                text=f"over {wide['ports']} ports, closed by the client first, they went on:"
                f" {wide['connections']} connections",
                holds=not wide["error"] and wide["connections"] > small["ports"],
            ),
        ),
    )


def _served(findings: Sequence[Finding]) -> str:
    """Return how many connections each number of ports served, and how the next one failed."""
    served = [f"{one['connections']:,} connections on {one['ports']:,} ports" for one in findings]
    errors = dict.fromkeys(one["error"] or "no refusal" for one in findings)
    return f"{', '.join(served)}, then {' or '.join(errors)}"


def _serves_another(findings: Findings) -> bool:
    """Return whether ports in TIME_WAIT towards one destination served another."""
    small, few = findings["small-range"], findings["on-the-wire"]
    return bool(small["same_ports"] and few["second_destination_has_one_of_them"])


def _caveats(findings: Findings, expected: Expected) -> tuple[Check, ...]:
    default, small, few = (
        findings["default-range"],
        findings["small-range"],
        findings["on-the-wire"],
    )
    parity, server, bound = (
        findings[name] for name in ("first-half", "server-closes-first", "bind-zero")
    )
    dearer = parity["past_half_us"] / parity["early_us"]
    checks = [
        Check(
            text="exhaustion is towards one destination: the same ports served another"
            f" {small['second_destination']} connections to the server's next port",
            holds=_serves_another(findings),
        ),
        Check(
            text=f"a server's connections share its port: {server['server_time_waits']} TIME_WAITs"
            f" hold {len(server['server_ports'])} local ports there, those of its two listeners",
            holds=server["server_time_waits"]
            > len(server["server_ports"])
            == len(scenes.LISTENING),
        ),
        Check(
            text=f"the refused connect() sent {few['packets_of_the_refused']} packets: the server"
            " never hears of it",
            holds=few["packets_of_the_refused"] == 0,
        ),
        Check(
            text=f"the first {parity['of_one_parity']:,} ports taken are all even or all odd; then"
            f" connect() takes {parity['past_half_us']:.0f} us of CPU instead of"
            f" {parity['early_us']:.0f}, {dearer:.0f} times as much",
            holds=parity["of_one_parity"] == parity["half"] and dearer >= expected["dearer_times"],
        ),
        Check(
            text=f"bind(0) took {bound['bound']} of {bound['ports']} ports, and then fails by"
            f" {bound['error']}, not by EADDRNOTAVAIL",
            holds=bound["bound"] == bound["ports"] and bound["error"] == "EADDRINUSE",
        ),
    ]
    if default["window"]:
        flat = default["past_half_us"] / default["early_us"]
        checks.append(
            Check(
                text=f"with IP_LOCAL_PORT_RANGE there is no such step: {flat:.1f} times as much",
                holds=flat <= expected["cheap_times"],
            )
        )
    return tuple(checks)


def _small(name: str, ending: First, sentence: str, *, ports: int = SMALL) -> Scene:
    return Scene(
        name=name,
        sentence=sentence,
        play=partial(scenes.use_ports_again, ending=ending, ports=ports),
        needs_s=1,
        link=Link.VETH,
        client_sysctls=scenes.range_of(ports),
    )


CLAIM = Claim(
    id="a-port-per-connection",
    sentence="every connection takes a local port at least, of 32768 to 61000 by default, and keeps"
    " it in TIME_WAIT; when all are taken there is none for a new connection",
    sources=(
        "article 2, section 4, second harm",
        "Linux: inet_init_net() (the default range, whose end was 61000 before 4.2)",
        "Linux: __inet_hash_connect() (the search)",
    ),
    expected={
        "low_port": 32768,
        "high_port": 61000,
        "connections_per_port": 1,
        "dearer_times": 5,
        "cheap_times": 3,
    },
    refuted_by="a connection more towards one destination than there are ports, or one less",
    scenes=(
        Scene(
            name="default-range",
            sentence="the range of a fresh host, used up towards one destination with"
            " IP_LOCAL_PORT_RANGE, which scans port after port; then a second destination",
            play=scenes.fill_the_default_range,
            needs_s=3,
            link=Link.VETH,
            expected_sockets=30_000,
        ),
        Scene(
            name="first-half",
            sentence="half of the default range is used up by plain connect(), and a few more:"
            " which ports, and at which cost",
            play=scenes.fill_the_first_half,
            needs_s=3,
            link=Link.VETH,
            expected_sockets=16_000,
        ),
        _small(
            "small-range",
            First.CLIENT,
            f"{SMALL} ports, the client closes first: towards one destination until it is refused,"
            " then towards another",
        ),
        _small(
            "wide-range",
            First.CLIENT,
            f"as many connections, over {WIDE} ports",
            ports=WIDE,
        ),
        _small("reset", First.RESET, "the same, and the client ends each connection by RST"),
        _small("server-closes-first", First.SERVER, "the same, and the server closes first"),
        Scene(
            name="bind-zero",
            sentence=f"{FEW} ports: bind to port 0 until that is refused",
            play=scenes.bind_to_port_zero,
            needs_s=1,
            link=Link.VETH,
            client_sysctls=scenes.range_of(FEW),
        ),
        Scene(
            name="on-the-wire",
            sentence=f"{FEW} ports, all in TIME_WAIT: one connect() more, then one to the server's"
            " next port",
            play=scenes.use_up_a_few_on_the_wire,
            needs_s=1,
            client_sysctls=scenes.range_of(FEW),
        ),
    ),
    judge=_judge,
)
