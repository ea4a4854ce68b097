"""Parser of /proc/net/tcp and /proc/net/tcp6 into rows of `SOCKETS`. Pure.

Slower by far than sock_diag, but an ordinary user may read it of any process's namespace.
Sources: tcp4_seq_show in net/ipv4/tcp_ipv4.c, tcp6_seq_show in net/ipv6/tcp_ipv6.c.
"""

import socket
import sys
from functools import lru_cache

import numpy as np

from twbench.kernel.errors import CodecError
from twbench.kernel.sockdiag import SOCKETS, Sockets

JIFFY_MS = 10
"""The file's times are in USER_HZ, 100 a second for every program (jiffies_to_clock_t)."""

_ADDRESS_HEX = {8: socket.AF_INET, 32: socket.AF_INET6}


def parse_table(text: bytes) -> Sockets:
    """Return one row a line, skipping the heading. Raises CodecError for a malformed line."""
    lines = text.split(b"\n")
    if lines[-1]:
        raise CodecError("the last line of the table is cut off")
    try:
        rows = [_row(line.split()) for line in lines[1:-1]]
    except (ValueError, IndexError, KeyError, OverflowError) as error:
        raise CodecError(f"not a socket table: {error}") from error
    try:
        return np.array(rows, SOCKETS) if rows else np.empty(0, SOCKETS)
    except (OverflowError, ValueError) as error:
        raise CodecError(f"a number of the socket table is out of range: {error}") from error


def _row(words: list[bytes]) -> tuple[int | bytes, ...]:
    """Return the fields of one line in the order of `SOCKETS`."""
    local, local_port = words[1].split(b":")
    remote, remote_port = words[2].split(b":")
    queued, unread = words[4].split(b":")
    timer, when = words[5].split(b":")
    return (
        _ADDRESS_HEX[len(local)],
        int(words[3], 16),
        int(timer, 16),
        int(words[6], 16),
        int(local_port, 16),
        int(remote_port, 16),
        _address(local),
        _address(remote),
        0,
        bytes(8),
        int(when, 16) * JIFFY_MS,
        int(unread, 16),
        int(queued, 16),
        int(words[7]),
        int(words[9]),
    )


@lru_cache(maxsize=4096)
def _word(digits: bytes) -> bytes:
    """Return the four bytes of a word in memory order."""
    return int(digits, 16).to_bytes(4, sys.byteorder)


def _address(digits: bytes) -> bytes:
    """Return 16 bytes in network order; the file prints words of 32 bits in the host's order."""
    words = (digits[at : at + 8] for at in range(0, len(digits), 8))
    return b"".join(map(_word, words)).ljust(16, b"\0")
