"""Halves of a table of sockets, told apart by a port: how to choose them, how to ask for one. Pure.

The ports of a socket never change while it can be seen, so two halves that have no port in common
hold every socket exactly once, though it passes from state to state between their dumps.
Source: struct inet_diag_bc_op in include/uapi/linux/inet_diag.h, net/ipv4/inet_diag.c.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from twbench.kernel.sockdiag import Sockets, join

_OP = struct.Struct("=BBH")
_SAMPLE = 2048
"""Rows that a choice looks at; a share among so many is true to about one in fifty."""
_LEAST_SHARE = 0.3
"""Of the smaller half: with less, the larger takes nearly as long as the whole."""


class PortTest(IntEnum):
    """A comparison of a port, by the kernel's number of it (INET_DIAG_BC_S_GE and the next)."""

    LOCAL_AT_LEAST = 2
    LOCAL_AT_MOST = 3
    REMOTE_AT_LEAST = 4
    REMOTE_AT_MOST = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class PortFilter:
    """The sockets whose port compares so with `port`."""

    test: PortTest
    port: int

    def accepts(self, sockets: Sockets) -> NDArray[np.bool_]:
        """Tell of each row whether the kernel lets it pass (inet_diag_bc_run)."""
        local = self.test in (PortTest.LOCAL_AT_LEAST, PortTest.LOCAL_AT_MOST)
        ports = sockets["sport" if local else "dport"]
        if self.test in (PortTest.LOCAL_AT_LEAST, PortTest.REMOTE_AT_LEAST):
            return np.asarray(ports >= self.port)
        return np.asarray(ports <= self.port)


Halves = tuple[PortFilter, PortFilter]
"""Two filters, of which every socket passes exactly one."""


def encode_filter(chosen: PortFilter) -> bytes:
    """Return the bytecode that accepts what passes, for INET_DIAG_REQ_BYTECODE.

    Two words: the operation, and the port in the `no` of a second one. `yes` jumps to the end,
    which accepts; `no` beyond it, which refuses.
    """
    length = 2 * _OP.size
    return _OP.pack(chosen.test, length, length + _OP.size) + _OP.pack(0, 0, chosen.port)


def halve(*parts: Sockets) -> Halves | None:
    """Return the filters that halve these rows best by one port, local or remote.

    None when the smaller half would have less than three rows of ten, by a sample of the rows.
    """
    every = max(1, sum(map(len, parts)) // _SAMPLE)
    sample = join([part[::every] for part in parts])
    if not len(sample):
        return None
    candidates = [
        (PortFilter(test=at_most, port=port), PortFilter(test=at_least, port=port + 1))
        for column, at_most, at_least in (
            ("sport", PortTest.LOCAL_AT_MOST, PortTest.LOCAL_AT_LEAST),
            ("dport", PortTest.REMOTE_AT_MOST, PortTest.REMOTE_AT_LEAST),
        )
        # Where many rows share the median, the fairer cut may be on either side of it.
        for port in _around(int(np.median(sample[column])))
    ]
    shares = [float(first.accepts(sample).mean()) for first, _ in candidates]
    smaller, halves = max(
        ((min(share, 1 - share), pair) for share, pair in zip(shares, candidates, strict=True)),
        key=lambda found: found[0],
    )
    return halves if smaller >= _LEAST_SHARE else None


def _around(port: int) -> range:
    """Return the ports that may be the last of the first half, for this one in the middle."""
    return range(max(port - 1, 0), min(port, 65534) + 1)
