"""What a look amounts to: sockets by side and state, ports in use, queues, timers. Pure.

Everything is counted by numpy over whole columns: 200,000 rows take a few milliseconds.
"""

import socket
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twbench.kernel.sockdiag import SOCKETS, Sockets, join
from twbench.model.states import Side, TcpState

Endpoint = tuple[str, int]
"""An address as text and a port."""

BUCKET_S = 5
"""The width of a bucket of the TIME_WAIT histogram, in seconds."""

_STATE_NAMES = {int(state): state.name for state in TcpState}
_PORTS = 65536
_CODES = 2**32
"""Enough for any IPv4 address, and for the rank of any row."""
_MOST_CELLS = 2**24
"""Of a table with a byte for each end: beyond that, sorting is cheaper."""
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
"""2**64 over the golden ratio: its multiples spread over the high bits (Knuth, 6.4)."""
_SLOT_SHIFT = np.uint64(48)
_WORDS = np.dtype(
    {
        "names": [
            "kinds",
            "ends",
            "src_first",
            "src_second",
            "dst_first",
            "dst_second",
            "expires_ms",
        ],
        "formats": ["<u2", ">u4", "u8", "u8", "u8", "u8", "u4"],
        "offsets": [0, 4, 8, 16, 24, 32, 52],
        "itemsize": SOCKETS.itemsize,
    }
)
"""`SOCKETS` with neighbouring fields as one, and addresses as numbers."""
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
    *parts: Sockets,
    servers: Collection[int | Endpoint] | None = None,
    port_range: tuple[int, int] = (0, _PORTS - 1),
) -> Summary:
    """Count the rows of a look, which may come in parts.

    A socket is the server's when its local port, or its local address and port, is among `servers`;
    with None, when its local port is one that some socket listens on. `port_range` is inclusive.
    """
    sockets = _Columns(parts)
    states = sockets.states
    listen = states == TcpState.LISTEN
    listeners = join([part[part["state"] == TcpState.LISTEN] for part in parts])
    ports = sockets.sports
    if servers is None:
        servers = {int(port) for port in listeners["sport"]}
    server = _is_server(sockets, servers)
    low, high = port_range
    client = ~server & ~listen & (ports >= low) & (ports <= high)
    return Summary(
        states_by_side=_by_side(states, server),
        listening=len(listeners),
        ports_in_use=_ports_in_use(sockets, client),
        accept_queue=_accept_queue(listeners),
        time_wait_left_s=_time_left(sockets.of("expires_ms")[states == TcpState.TIME_WAIT]),
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


class _Columns:
    """The columns of some rows, each gathered once, in the machine's byte order."""

    def __init__(self, parts: Sequence[Sockets]) -> None:
        self._parts = [part.view(_WORDS) for part in parts] or [np.empty(0, _WORDS)]
        # Neighbours in a row come at the price of one.
        kinds, ends = self.of("kinds"), self.of("ends")
        self.families, self.states = kinds & 0xFF, kinds >> 8
        self.sports, self.dports = ends >> 16, ends & 0xFFFF

    def of(self, name: str) -> NDArray[Any]:
        """Return one column as an array of its own."""
        column = np.concatenate([part[name] for part in self._parts])
        return column.astype(column.dtype.newbyteorder("="), copy=False)

    def any(self, name: str) -> bool:
        """Tell whether a column has anything but zeros."""
        return any(part[name].any() for part in self._parts)

    def rows(self, chosen: NDArray[np.intp]) -> Sockets:
        """Return these few rows whole."""
        starts = np.cumsum([0, *map(len, self._parts)])
        part = np.searchsorted(starts, chosen, side="right") - 1
        few = [self._parts[p][row - starts[p]] for p, row in zip(part, chosen, strict=True)]
        return np.array(few, _WORDS).view(SOCKETS)


def _is_server(sockets: _Columns, servers: Collection[int | Endpoint]) -> NDArray[np.bool_]:
    """Tell of each row whether its local end is one of the server's."""
    whole_port = np.zeros(_PORTS, np.bool_)
    whole_port[[server for server in servers if isinstance(server, int)]] = True
    found: NDArray[np.bool_] = whole_port[sockets.sports]
    for server in servers:
        if isinstance(server, int):
            continue
        address, port = server
        rows = sockets.sports == port
        for family, form in _forms(address):
            first, second = np.frombuffer(form, np.uint64)
            found |= (
                rows
                & (sockets.families == family)
                & (sockets.of("src_first") == first)
                & (sockets.of("src_second") == second)
            )
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


def _by_side(
    states: NDArray[np.integer[Any]], server: NDArray[np.bool_]
) -> dict[str, dict[str, int]]:
    """Count by side and state, zeros and LISTEN left out."""
    return {
        side.value: {
            _STATE_NAMES.get(state, f"STATE_{state}"): count
            for state, count in enumerate(np.bincount(states[chosen]).tolist())
            if count and state != TcpState.LISTEN
        }
        for side, chosen in ((Side.CLIENT, ~server), (Side.SERVER, server))
    }


def _ports_in_use(sockets: _Columns, chosen: NDArray[np.bool_]) -> dict[str, int]:
    """Count distinct local ends per remote end among the chosen rows."""
    totals: Counter[str] = Counter()
    for family in (int(socket.AF_INET), int(socket.AF_INET6)):
        rows = np.flatnonzero(chosen & (sockets.families == family))
        if not len(rows):
            continue
        # To pick all is to copy for nothing.
        those = slice(None) if len(rows) == len(chosen) else rows
        source = _ranks(_codes(sockets, "src", those))
        remote = _ranks(_codes(sockets, "dst", those) * _PORTS + sockets.dports[those])
        example = np.empty(int(remote.max()) + 1, np.intp)
        example[remote] = rows
        counts = _distinct(remote, source, sockets.sports[those])
        for count, row in zip(counts.tolist(), sockets.rows(example), strict=True):
            label = endpoint_text(family, row["dst"].tobytes(), int(row["dport"]))
            totals[label] += count
    return dict(totals)


def _distinct(
    remote: NDArray[np.uint64], source: NDArray[np.uint64], port: NDArray[np.integer[Any]]
) -> NDArray[np.intp]:
    """Return how many distinct pairs of source and port each remote has."""
    remotes, sources = int(remote.max()) + 1, int(source.max()) + 1
    ends = (remote * sources + source) * _PORTS + port
    if remotes * sources * _PORTS <= _MOST_CELLS:
        taken = np.zeros(remotes * sources * _PORTS, np.bool_)
        taken[ends] = True
        return np.array([np.count_nonzero(each) for each in taken.reshape(remotes, -1)])
    ends = np.unique(ends)
    starts = np.arange(remotes, dtype=np.uint64) * (sources * _PORTS)
    return np.diff(np.searchsorted(ends, starts), append=len(ends))


def _accept_queue(listeners: Sockets) -> dict[str, int]:
    """Return the accept queue of each local end, summed over SO_REUSEPORT."""
    totals: Counter[str] = Counter()
    for row in listeners:
        label = endpoint_text(int(row["family"]), row["src"].tobytes(), int(row["sport"]))
        totals[label] += int(row["rqueue"])
    return dict(totals)


def _time_left(expires_ms: NDArray[np.uint32]) -> dict[int, int]:
    """Return a histogram by the lower edge of each bucket in seconds, empty buckets left out."""
    edges, counts = _counted(expires_ms // (BUCKET_S * 1000))
    return {edge * BUCKET_S: count for edge, count in zip(edges, counts, strict=True)}


def _counted(numbers: NDArray[np.uint32]) -> tuple[list[int], list[int]]:
    """Return the distinct numbers and how often each is there."""
    if len(numbers) and numbers.max() < _PORTS:
        counts = np.bincount(numbers)
        edges = np.flatnonzero(counts)
        return edges.tolist(), counts[edges].tolist()
    edges, counts = np.unique(numbers, return_counts=True)
    return edges.tolist(), counts.tolist()


def _codes(sockets: _Columns, end: str, rows: NDArray[np.intp] | slice) -> NDArray[np.uint64]:
    """Return a number below _CODES for each address, equal for equal ones alone."""
    first: NDArray[np.uint64] = sockets.of(f"{end}_first")[rows]
    if sockets.any(f"{end}_second"):
        second = sockets.of(f"{end}_second")[rows]
        return _ranks(_ranks(first) * len(first) + _ranks(second))
    return _ranks(first) if first.max() >= _CODES else first


def _ranks(keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the rank of each key among the distinct ones, in any order: 0, 1, 2 and so on."""
    if (keys == keys[0]).all():
        return np.zeros(len(keys), np.uint64)
    # A few keys among many: without a sort, as long as no two of them share a slot.
    slots = (keys * _SPREAD) >> _SLOT_SHIFT
    owners = np.zeros(_PORTS, np.uint64)
    owners[slots] = keys
    if (owners[slots] == keys).all():
        taken = np.zeros(_PORTS, np.uint64)
        taken[slots] = 1
        ranks: NDArray[np.uint64] = np.cumsum(taken, dtype=np.uint64) - np.uint64(1)
        return np.asarray(ranks[slots])
    return np.searchsorted(np.unique(keys), keys).astype(np.uint64)
