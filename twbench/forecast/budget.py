"""How many ports there are, in which order they are taken, and for how long each stays taken.

A connection is its four-tuple (RFC 9293 section 3.1), so the same local port serves every
destination once: a range of P ports on S client addresses towards D destinations (address and
port) gives P x S x D connections at a time. Sources: `__inet_hash_connect` and
`__inet_check_established` in net/ipv4/inet_hashtables.c, `tcp_twsk_unique` in net/ipv4/tcp_ipv4.c.
"""

import math
from dataclasses import dataclass
from enum import Enum

from twbench.model.states import TIME_WAIT_S

LAST_PORT = 65535


class Scan(Enum):
    """In which order connect() tries the ports of the range."""

    PARITY = "parity"
    """Every port of the low end's parity first, then the others: the default.

    Once the first half is full, each connect walks all of it before it finds a port.
    """

    WINDOW = "window"
    """Step 1 through the window of IP_LOCAL_PORT_RANGE (Linux 6.3): no half comes first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PortBudget:
    """The ports a load can draw on, the load being spread evenly over sources and destinations.

    Attributes:
        range_low: first port of `ip_local_port_range` or of the window, inclusive.
        range_high: last port, inclusive.
        reserved_ports: how many of them `ip_local_reserved_ports` takes away.
        source_addresses: client addresses, on all client hosts together.
        destinations: server endpoints (address and port); use 1 where all load goes to one.
        scan: the order in which ports are tried.

    Raises:
        ValueError: the numbers describe no range, or leave no port in it.
    """

    range_low: int = 32768
    range_high: int = 60999
    reserved_ports: int = 0
    source_addresses: int = 1
    destinations: int = 1
    scan: Scan = Scan.PARITY

    def __post_init__(self) -> None:
        if not 1 <= self.range_low <= self.range_high <= LAST_PORT:
            raise ValueError(f"no port range: {self.range_low} to {self.range_high}")
        if not 0 <= self.reserved_ports < self.range_high - self.range_low + 1:
            raise ValueError(f"{self.reserved_ports} reserved ports leave none in the range")
        if self.source_addresses < 1 or self.destinations < 1:
            raise ValueError("a load needs at least one source address and one destination")

    @property
    def ports(self) -> int:
        """Ports that one source address has towards one destination."""
        return self.range_high - self.range_low + 1 - self.reserved_ports

    @property
    def capacity_per_destination(self) -> int:
        """Connections towards one destination that can hold a port at the same time."""
        return self.ports * self.source_addresses

    @property
    def capacity(self) -> int:
        """Connections that can hold a port at the same time, in total."""
        return self.capacity_per_destination * self.destinations

    @property
    def cheap_capacity(self) -> int:
        """Connections, in total, before connect() has to look for a port beyond the first half.

        Reserved ports are taken to lie evenly in both halves.
        """
        if self.scan is Scan.WINDOW:
            return self.capacity
        return (self.ports + 1) // 2 * self.source_addresses * self.destinations


@dataclass(frozen=True, kw_only=True, slots=True)
class Hold:
    """For how long a finished connection stays, which depends on who closed first, and how.

    Attributes:
        port_hold_s: seconds from the close until connect() may take the client's port again.
        time_wait_s: seconds for which the connection is counted in TIME_WAIT, on either host.
        lifetime_s: seconds from connect() to close(), when the port is held in any case. A closed
            load has its own: concurrency / rate.
    """

    port_hold_s: float
    time_wait_s: float
    lifetime_s: float = 0.0

    def __post_init__(self) -> None:
        for seconds in (self.port_hold_s, self.time_wait_s, self.lifetime_s):
            if not 0 <= seconds < math.inf:
                raise ValueError(f"a hold is finite and not negative, not {seconds}")


CLIENT_TIME_WAIT = Hold(port_hold_s=TIME_WAIT_S, time_wait_s=TIME_WAIT_S)
"""The client closes first: its TIME_WAIT holds its port."""

SERVER_TIME_WAIT = Hold(port_hold_s=0.0, time_wait_s=TIME_WAIT_S)
"""The server closes first: TIME_WAIT is there, and the client's port is free at once."""

REUSED_TIME_WAIT = Hold(port_hold_s=1.0, time_wait_s=TIME_WAIT_S)
"""The client closes first, with `tcp_tw_reuse=1` and timestamps: free again after 1 s.

The second is `tcp_tw_reuse_delay`'s default; the sockets are counted in TIME_WAIT until then.
"""

NO_TIME_WAIT = Hold(port_hold_s=0.0, time_wait_s=0.0)
"""The connection ends in a reset: nobody waits."""
