"""Every connection takes a local port, of 32768 to 61000 by default; used up, none can be opened.

Source: article 2, section 4, second harm; Linux: inet_init_net(), __inet_hash_connect().
Expected: as many connections towards one destination as the range has ports, then EADDRNOTAVAIL.
Beside it: the default's last port is 60999; another destination is served by the same ports; a
server's connections share its one port; connect() tries the ports of one parity first, and is many
times dearer once they are taken, unless IP_LOCAL_PORT_RANGE is set; bind(0) fails by EADDRINUSE.
Refuted by: a connection more, or one less, than the range has ports.
"""

import socket
from collections.abc import Sequence
from functools import partial
from statistics import median

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
from twbench.claims.closing import end_in_turn
from twbench.claims.crowd import First, Made, Order, crowd
from twbench.claims.scenery import Scenery
from twbench.kernel.readers import LookReader
from twbench.lab.plan import Link
from twbench.model.outcomes import errno_name
from twbench.model.states import Side, TcpState
from twbench.wire.stage import SERVER_PORT

RANGE = "net.ipv4.ip_local_port_range"
SMALL = 256
FEW = 4
SAMPLE = 300
"""Connections whose cost is compared."""
_LISTENING = (SERVER_PORT, SERVER_PORT + 1)


def _range(at: Scenery) -> tuple[int, int]:
    low, high = at.lab.sysctls("client", [RANGE])[RANGE].split()
    return int(low), int(high)


def _range_of(ports: int) -> dict[str, str]:
    return {RANGE: f"40000 {40000 + ports - 1}"}


def _median_us(made: Made, first: int) -> float:
    """Return what a connect() took from the number `first` on, in microseconds of CPU time."""
    return round(median(made.cpu_ns[first : first + SAMPLE]) / 1000, 1)


def _costs(made: Made, half: int) -> Finding:
    return {"early_us": _median_us(made, SAMPLE), "past_half_us": _median_us(made, half)}


def _play_default(at: Scenery) -> Finding:
    """Fill the whole default range: cheap, because IP_LOCAL_PORT_RANGE scans port after port."""
    low, high = _range(at)
    ports = high - low + 1
    with crowd(at, ports=2) as of:
        made = of.make(Order(count=ports + 1, window=(low, high)))
        if not made.ports and made.error == "ENOPROTOOPT":
            return {"low": low, "high": high, "window": False}
        of.settle()
        more = of.make(Order(count=SAMPLE, window=(low, high), to=1))
    return {
        "low": low,
        "high": high,
        "window": True,
        "connections": len(made.ports),
        "error": made.error,
        "lowest_port": min(made.ports),
        "highest_port": max(made.ports),
        "second_destination": len(more.ports),
        **_costs(made, (ports + 1) // 2),
    }


def _play_parity(at: Scenery) -> Finding:
    """Fill the first half of the default range, and go a little further."""
    low, high = _range(at)
    half = (high - low + 2) // 2
    with crowd(at) as of:
        made = of.make(Order(count=half + SAMPLE))
        of.settle()
    if made.error:
        raise SetUpError(f"connection {len(made.ports)}: {made.error}")
    return {
        "half": half,
        "of_one_parity": _run_of_one_parity(made.ports),
        **_costs(made, half),
    }


def _run_of_one_parity(ports: Sequence[int]) -> int:
    """Return after how many ports the first of the other parity comes."""
    parity = ports[0] % 2
    return next((n for n, port in enumerate(ports) if port % 2 != parity), len(ports))


def _play_small(at: Scenery, ending: First) -> Finding:
    """Open up to three times as many connections as there are ports, to two destinations."""
    with crowd(at, ports=2) as of:
        first, second = (of.make(Order(count=3 * SMALL, ending=ending, to=to)) for to in (0, 1))
        of.settle()
    with LookReader(lambda *kind: at.lab.socket("server", *kind)) as reader:
        rows = reader.look().sockets
    waiting = rows[rows["state"] == TcpState.TIME_WAIT]
    return {
        "ports": SMALL,
        "connections": len(first.ports),
        "error": first.error,
        "second_destination": len(second.ports),
        "same_ports": set(first.ports) == set(second.ports),
        "server_time_waits": len(waiting),
        "server_ports": sorted({int(port) for port in waiting["sport"]}),
    }


def _play_bind(at: Scenery) -> Finding:
    """Bind sockets to port 0 until that is refused, on a range of a few ports."""
    client = at.lab.hosts["client"]
    bound: list[socket.socket] = []
    error = ""
    try:
        while not error and len(bound) <= FEW:
            made = at.lab.socket(client.stack, socket.AF_INET, socket.SOCK_STREAM)
            bound.append(made)
            try:
                made.bind((client.addresses[0], 0))
            except OSError as refused:
                error = errno_name(refused.errno)
    finally:
        for each in bound:
            each.close()
    return {"ports": FEW, "bound": len(bound) - bool(error), "error": error}


def _play_few(at: Scenery) -> Finding:
    """Show on the wire that the connection for which there is no port sends nothing at all."""
    stage = at.stage
    ports = []
    for _ in range(FEW):
        client, server = stage.connection()
        ports.append(client.port)
        end_in_turn(at, client, server)
    listener = stage.listener()
    before = len(stage.ladder("", "").crossings)
    refused = stage.endpoint(Side.CLIENT).connect(stage.address(Side.SERVER), SERVER_PORT)
    stage.play()
    sent = len(stage.ladder("", "").crossings) - before
    listener.socket.close()
    client, _server = stage.connection(port=_LISTENING[1])
    syn = stage.ladder("", "").crossings[before + sent]
    stage.mark(syn, f"port {client.port} serves another destination, though it is in TIME_WAIT")
    return {
        "ports": FEW,
        "connections": len(set(ports)),
        "error": refused.error,
        "packets_of_the_refused": sent,
        "second_destination_has_one_of_them": client.port in ports,
    }


def _judge(findings: Findings, expected: Expected) -> Judgement:
    default, small, few = (
        findings["default-range"],
        findings["small-range"],
        findings["on-the-wire"],
    )
    low, high = default["low"], default["high"]
    parity, bound = findings["first-half"], findings["bind-zero"]
    wanted = f"{expected['low_port']:.0f}-{expected['high_port']:.0f}"
    each = expected["connections_per_port"]
    full = [small, few, *([{**default, "ports": high - low + 1}] if default["window"] else [])]
    dearer = parity["past_half_us"] / parity["early_us"]
    server = findings["server-closes-first"]
    return weigh(
        f"the default range is {low}-{high}, {high - low + 1:,} ports; towards one destination it"
        f" serves exactly as many connections, then EADDRNOTAVAIL; the same ports serve the next"
        f" destination, and past the first half connect() takes {dearer:.0f} times as much CPU",
        claimed=(
            Check(
                text=f"{', '.join(str(one['ports']) for one in full)} ports served"
                f" {', '.join(str(one['connections']) for one in full)} connections towards one"
                f" destination; the next: {', '.join(one['error'] for one in full)}",
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
                text=f"a bind(0) for every port took {bound['bound']} of {bound['ports']}",
                holds=bound["bound"] == bound["ports"],
            ),
        ),
    )


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
            holds=small["same_ports"] and few["second_destination_has_one_of_them"],
        ),
        Check(
            text=f"a server's connections share its port: {server['server_time_waits']} TIME_WAITs"
            f" hold {len(server['server_ports'])} local ports there, those of its two listeners",
            holds=server["server_time_waits"] > len(server["server_ports"]) == len(_LISTENING),
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
            text=f"bind(0) fails by {bound['error']}, not by EADDRNOTAVAIL",
            holds=bound["error"] == "EADDRINUSE",
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


def _small(name: str, ending: First, sentence: str) -> Scene:
    return Scene(
        name=name,
        sentence=sentence,
        play=partial(_play_small, ending=ending),
        needs_s=1,
        link=Link.VETH,
        client_sysctls=_range_of(SMALL),
    )


CLAIM = Claim(
    id="a-port-per-connection",
    sentence="every connection takes a local port at least, of 32768 to 61000 by default, and keeps"
    " it in TIME_WAIT; when all are taken there is none for a new connection",
    sources=(
        "article 2, section 4, second harm",
        "Linux: inet_init_net() (the default range), __inet_hash_connect() (the search)",
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
            play=_play_default,
            needs_s=3,
            link=Link.VETH,
            expected_sockets=30_000,
        ),
        Scene(
            name="first-half",
            sentence="half of the default range is used up by plain connect(), and a few more:"
            " which ports, and at which cost",
            play=_play_parity,
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
        _small("reset", First.RESET, "the same, and the client ends each connection by RST"),
        _small("server-closes-first", First.SERVER, "the same, and the server closes first"),
        Scene(
            name="bind-zero",
            sentence=f"{FEW} ports: bind to port 0 until that is refused",
            play=_play_bind,
            needs_s=1,
            link=Link.VETH,
            client_sysctls=_range_of(FEW),
        ),
        Scene(
            name="on-the-wire",
            sentence=f"{FEW} ports, all in TIME_WAIT: one connect() more, then one to the server's"
            " next port",
            play=_play_few,
            needs_s=1,
            client_sysctls=_range_of(FEW),
        ),
    ),
    judge=_judge,
)
