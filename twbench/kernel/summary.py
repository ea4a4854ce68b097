"""What a look amounts to: sockets by side and state, ports in use, queues, timers. Pure.

Everything is counted by numpy over whole columns: 200,000 rows take a few milliseconds.
"""

import socket
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twbench.kernel.sockdiag import Sockets
from twbench.model.states import Side, TcpState

Endpoint = tuple[str, int]
"""An address as text and a port."""

BUCKET_S = 5
"""The width of a bucket of the TIME_WAIT histogram, in seconds."""

_STATE_NAMES = {int(state): state.name for state in TcpState}
_PORTS = 65536
_CODES = 2**32
"""Enough for any IPv4 address, and for the rank of any row."""
_NUMBERS = 2**64
_ADDRESS_BYTES = 16
_MAPPED_PREFIX = bytes(10) + b"\xff\xff"


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """The counts of one look.

    `states_by_side`: side → state name → sockets, zeros and LISTEN left out; a state that is not in
    the table is "STATE_n". `listening`: sockets in LISTEN. `ports_in_use`: "remote address:port" →
    distinct (local address, local port) of client sockets inside the port range. `accept_queue`:
    "local address:port" → connections waiting for accept(). `time_wait_left_s`: lower edge of a
    bucket of BUCKET_S seconds → sockets in TIME_WAIT with that time left.
    """

    states_by_side: dict[str, dict[str, int]]
    listening: int
    ports_in_use: dict[str, int]
    accept_queue: dict[str, int]
    time_wait_left_s: dict[int, int]


def summarise(
    sockets: Sockets,
    *,
    servers: Collection[int | Endpoint] | None = None,
    port_range: tuple[int, int] = (0, _PORTS - 1),
) -> Summary:
    """Count the rows of a look.

    A socket is the server's when its local port, or its local address and port, is among `servers`;
    with None, when its local port is one that some socket listens on. `port_range` is inclusive.
    """
    states = np.ascontiguousarray(sockets["state"])
    listen = states == TcpState.LISTEN
    listeners = sockets[listen]
    ports = sockets["sport"].astype(np.intp)
    if servers is None:
        servers = {int(port) for port in listeners["sport"]}
    server = _is_server(sockets, ports, servers)
    low, high = port_range
    client = ~server & ~listen & (ports >= low) & (ports <= high)
    return Summary(
        states_by_side=_by_side(states, server),
        listening=len(listeners),
        ports_in_use=_ports_in_use(sockets, client),
        accept_queue=_accept_queue(listeners),
        time_wait_left_s=_time_left(sockets["expires_ms"][states == TcpState.TIME_WAIT]),
    )


def address_text(family: int, address: bytes) -> str:
    """Return 16 address bytes as text; an IPv4 address mapped into IPv6 is shown as IPv4."""
    if family == socket.AF_INET:
        return socket.inet_ntop(socket.AF_INET, address[:4])
    if address.startswith(_MAPPED_PREFIX):
        return socket.inet_ntop(socket.AF_INET, address[12:])
    return socket.inet_ntop(socket.AF_INET6, address)


def endpoint_text(family: int, address: bytes, port: int) -> str:
    """Return "192.0.2.1:80" or "[2001:db8::1]:80"."""
    text = address_text(family, address)
    return f"[{text}]:{port}" if ":" in text else f"{text}:{port}"


def _is_server(
    sockets: Sockets, ports: NDArray[np.intp], servers: Collection[int | Endpoint]
) -> NDArray[np.bool_]:
    """Tell of each row whether its local end is one of the server's."""
    whole_port = np.zeros(_PORTS, np.bool_)
    whole_port[[server for server in servers if isinstance(server, int)]] = True
    found = whole_port[ports]
    for server in servers:
        if isinstance(server, int):
            continue
        address, port = server
        rows = np.flatnonzero(ports == port)
        family, halves = sockets["family"][rows], _halves(sockets["src"][rows])
        for form_family, form in _forms(address):
            wanted = np.frombuffer(form, np.uint64)
            found[rows] |= (family == form_family) & (halves == wanted).all(axis=1)
    return found


def _forms(address: str) -> tuple[tuple[int, bytes], ...]:
    """Return (family, 16 bytes) of every row that can mean this address."""
    if ":" in address:
        return ((socket.AF_INET6, socket.inet_pton(socket.AF_INET6, address)),)
    packed = socket.inet_pton(socket.AF_INET, address)
    return (
        (socket.AF_INET, packed.ljust(_ADDRESS_BYTES, b"\0")),
        (socket.AF_INET6, _MAPPED_PREFIX + packed),
    )


def _by_side(states: NDArray[np.uint8], server: NDArray[np.bool_]) -> dict[str, dict[str, int]]:
    """Count by side and state, zeros and LISTEN left out."""
    return {
        side.value: {
            _STATE_NAMES.get(state, f"STATE_{state}"): count
            for state, count in enumerate(np.bincount(states[chosen]).tolist())
            if count and state != TcpState.LISTEN
        }
        for side, chosen in ((Side.CLIENT, ~server), (Side.SERVER, server))
    }


def _ports_in_use(sockets: Sockets, chosen: NDArray[np.bool_]) -> dict[str, int]:
    """Count distinct local ends per remote end among the chosen rows."""
    totals: Counter[str] = Counter()
    families = np.ascontiguousarray(sockets["family"])
    for family in (int(socket.AF_INET), int(socket.AF_INET6)):
        rows = np.flatnonzero(chosen & (families == family))
        if not len(rows):
            continue
        source, sources = _codes(sockets["src"][rows]), _CODES
        remote = _ranks(_codes(sockets["dst"][rows]) * _PORTS + sockets["dport"][rows])
        example = np.empty(int(remote.max()) + 1, np.intp)
        example[remote] = rows
        if len(example) * sources * _PORTS > _NUMBERS:
            source, sources = _ranks(source), len(rows)
        ends = remote * (sources * _PORTS) + source * _PORTS + sockets["sport"][rows]
        ends.sort()
        ends = ends[np.append(True, ends[1:] != ends[:-1])]
        starts = np.arange(len(example), dtype=np.uint64) * (sources * _PORTS)
        counts = np.diff(np.searchsorted(ends, starts), append=len(ends))
        for count, row in zip(counts, sockets[example], strict=True):
            label = endpoint_text(family, row["dst"].tobytes(), int(row["dport"]))
            totals[label] += int(count)
    return dict(totals)


def _accept_queue(listeners: Sockets) -> dict[str, int]:
    """Return the accept queue of each local end, summed over SO_REUSEPORT."""
    totals: Counter[str] = Counter()
    for row in listeners:
        label = endpoint_text(int(row["family"]), row["src"].tobytes(), int(row["sport"]))
        totals[label] += int(row["rqueue"])
    return dict(totals)


def _time_left(expires_ms: NDArray[np.uint32]) -> dict[int, int]:
    """Return a histogram by the lower edge of each bucket in seconds, empty buckets left out."""
    edges, counts = np.unique(expires_ms // (BUCKET_S * 1000), return_counts=True)
    return {int(edge) * BUCKET_S: int(count) for edge, count in zip(edges, counts, strict=True)}


def _halves(addresses: NDArray[np.void]) -> NDArray[np.uint64]:
    """Return 16-byte addresses as pairs of numbers, in the machine's order."""
    return np.ascontiguousarray(addresses).view(np.uint64).reshape(-1, 2)


def _codes(addresses: NDArray[np.void]) -> NDArray[np.uint64]:
    """Return a number below _CODES for each address, equal for equal ones alone."""
    halves = _halves(addresses)
    first, second = halves[:, 0], halves[:, 1]
    if second.any():
        return _ranks(_ranks(first) * len(halves) + _ranks(second))
    return _ranks(first) if first.max() >= _CODES else first


def _ranks(keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the rank of each key among the distinct ones: 0, 1, 2 and so on."""
    if (keys == keys[0]).all():
        return np.zeros(len(keys), np.uint64)
    ordered = np.sort(keys)
    distinct = ordered[np.append(True, ordered[1:] != ordered[:-1])]
    return np.searchsorted(distinct, keys).astype(np.uint64)
