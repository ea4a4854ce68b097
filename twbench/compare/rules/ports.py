"""Ephemeral ports, and TIME_WAIT, which takes them."""

from collections.abc import Iterator

from twbench.compare.rules.rows import (
    Advice,
    Document,
    Row,
    median_of,
    of_kind,
    peaks,
    percent,
    quoted,
    rows_of,
)

_NEARLY_FULL = 0.8
_MANY = 100
"""In TIME_WAIT: fewer are not worth a sentence."""
_MOST = 0.9
_NO_PORT_TO_BIND = "bind:EADDRINUSE:ports_exhausted"
_REUSE = "net.ipv4.tcp_tw_reuse"
_ALWAYS, _ON_LOOPBACK = "1", "2"


def ports_nearly_used_up(document: Document) -> Iterator[Advice]:
    """A contestant that came near the end of its ephemeral ports, or reached it."""
    for row in rows_of(document):
        unbound = row["totals"]["errors"].get(_NO_PORT_TO_BIND, 0)
        refused = of_kind(row, "ports_exhausted") - unbound
        if unbound:
            yield _about(
                row,
                f"bind() found no port for {unbound:,} attempts: it takes one for all destinations"
                " at once. With client.socket.IP_BIND_ADDRESS_NO_PORT connect() takes it, for one"
                " destination alone.",
            )
        capacity, peak = row["ports_capacity"], median_of(row, "ports_in_use_peak")
        near = capacity and peak >= _NEARLY_FULL * capacity
        if capacity and (refused or (near and not unbound and not _reuses(row))):
            found_none = f", and {refused:,} attempts found none" if refused else ""
            yield _about(
                row,
                f"{peak:,.0f} of {capacity:,} ports towards one destination were in use"
                f" ({percent(peak, capacity)}){found_none}. Kept connections take fewer; more"
                " source addresses, or a wider net.ipv4.ip_local_port_range, give more.",
            )


def time_wait_side(document: Document) -> Iterator[Advice]:
    """Where TIME_WAIT lies: with whom closes first."""
    sides: dict[str, list[str]] = {}
    for row in rows_of(document):
        by_host = peaks(row)
        total = sum(by_host.values())
        for host, peak in by_host.items():
            if total >= _MANY and peak >= _MOST * total:
                sides.setdefault(host, []).append(f"{quoted(row)} {peak:,.0f}")
    if sides:
        where = "; on ".join(f"{host}: {', '.join(held)}" for host, held in sides.items())
        yield Advice(
            rule="time_wait_side",
            about=(),
            sentence=f"Who closes first holds TIME_WAIT. At the peak, on {where}.",
        )


def _about(row: Row, sentence: str) -> Advice:
    name = row["name"]
    return Advice(rule="ports_nearly_used_up", about=(name,), sentence=f"{quoted(row)}: {sentence}")


def _reuses(row: Row) -> bool:
    """Return whether a port in TIME_WAIT is free again after a second (tcp_twsk_unique)."""
    lab = row["scenario"]["lab"]
    given = str(lab["client"]["sysctl"].get(_REUSE, _ON_LOOPBACK))
    return given == _ALWAYS or (given == _ON_LOOPBACK and lab["link"] == "loopback")
