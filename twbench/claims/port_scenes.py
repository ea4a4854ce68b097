"""The scenes of the claim about ports: how many there are, and what happens when all are taken."""

import socket
from collections.abc import Sequence
from statistics import median

from twbench.claims.claim import Finding, SetUpError
from twbench.claims.common import close_each
from twbench.claims.crowd import First, Made, Order, crowd
from twbench.claims.scenery import Scenery
from twbench.kernel.readers import LookReader
from twbench.model.outcomes import errno_name
from twbench.model.states import Side, TcpState
from twbench.wire.stage import SERVER_PORT

RANGE = "net.ipv4.ip_local_port_range"
SMALL = 256
WIDE = 4 * SMALL
"""More than the connections that any of the small scenes asks for."""
FEW = 4
SAMPLE = 300
"""Connections whose cost is compared."""
LISTENING = (SERVER_PORT, SERVER_PORT + 1)


def _range(at: Scenery) -> tuple[int, int]:
    low, high = at.lab.sysctls("client", [RANGE])[RANGE].split()
    return int(low), int(high)


def range_of(ports: int) -> dict[str, str]:
    """Return the sysctl for a range of so many ports."""
    return {RANGE: f"40000 {40000 + ports - 1}"}


def _median_us(made: Made, first: int) -> float:
    """Return what a connect() took from the number `first` on, in microseconds of CPU time."""
    return round(median(made.cpu_ns[first : first + SAMPLE]) / 1000, 1)


def _costs(made: Made, half: int) -> Finding:
    return {"early_us": _median_us(made, SAMPLE), "past_half_us": _median_us(made, half)}


def fill_the_default_range(at: Scenery) -> Finding:
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


def fill_the_first_half(at: Scenery) -> Finding:
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


def use_ports_again(at: Scenery, ending: First, ports: int) -> Finding:
    """Open up to three times as many connections as SMALL, to each of two destinations."""
    with crowd(at, ports=2) as of:
        first, second = (of.make(Order(count=3 * SMALL, ending=ending, to=to)) for to in (0, 1))
        of.settle()
    with LookReader(lambda *kind: at.lab.socket("server", *kind)) as reader:
        rows = reader.look().sockets
    waiting = rows[rows["state"] == TcpState.TIME_WAIT]
    return {
        "ports": ports,
        "connections": len(first.ports),
        "error": first.error,
        "second_destination": len(second.ports),
        "same_ports": set(first.ports) == set(second.ports),
        "server_time_waits": len(waiting),
        "server_ports": sorted({int(port) for port in waiting["sport"]}),
    }


def bind_to_port_zero(at: Scenery) -> Finding:
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


def use_up_a_few_on_the_wire(at: Scenery) -> Finding:
    """Show on the wire that the connection for which there is no port sends nothing at all."""
    stage = at.stage
    ports = []
    for _ in range(FEW):
        client, server = stage.connection()
        ports.append(client.port)
        close_each(stage, client, server)
    if waiting := FEW - stage.counters(Side.CLIENT)["sockstat_tw"]:
        raise SetUpError(f"{waiting} of {FEW} connections are not in TIME_WAIT")
    listener = stage.listener()
    before = len(stage.ladder("", "").crossings)
    refused = stage.endpoint(Side.CLIENT).connect(stage.address(Side.SERVER), SERVER_PORT)
    stage.play()
    sent = len(stage.ladder("", "").crossings) - before
    listener.socket.close()
    client, _server = stage.connection(port=LISTENING[1])
    syn = stage.ladder("", "").crossings[before + sent]
    stage.mark(syn, f"port {client.port} serves another destination, though it is in TIME_WAIT")
    return {
        "ports": FEW,
        "connections": len(set(ports)),
        "error": refused.error,
        "packets_of_the_refused": sent,
        "second_destination_has_one_of_them": client.port in ports,
    }
