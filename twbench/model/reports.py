"""What worker processes tell the run, once a tick: plain counts that add up, as one JSON line.

All counts are increments since the process's previous report, so any subset of lines sums to the
truth up to that moment, and a killed worker loses one tick at most.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, Self

HIGHEST_US = 3_600_000_000
"""The longest latency a histogram tells apart, in microseconds: one hour."""
DIGITS = 3
"""Significant decimal digits of every recorded latency."""
LATENCIES = ("connect", "request", "request_from_intended")
"""The three latencies a fleet measures, all in microseconds."""


@dataclass(kw_only=True, slots=True)
class _Report:
    """Counters that add up."""

    t_ns: int = 0
    """CLOCK_MONOTONIC when the report was made, in nanoseconds."""

    def as_json(self) -> dict[str, Any]:
        """Return a plain dict without the fields that are zero or empty."""
        return {f.name: value for f in fields(self) if (value := getattr(self, f.name))}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Build a report from what `as_json` gave; unlisted fields stay zero."""
        given: dict[str, Any] = {}
        for f in fields(cls):
            if f.name in data:
                value = data[f.name]
                if isinstance(value, Mapping):
                    value = Counter(value) if f.default_factory is Counter else dict(value)
                given[f.name] = value
        return cls(**given)

    def add(self, other: Self) -> None:
        """Add the counts of `other`; of times the last, of first times the first is kept.

        Histograms stay those of each report: they add up only once they are decoded.
        """
        for f in fields(self):
            mine, theirs = getattr(self, f.name), getattr(other, f.name)
            if f.name == "t_ns":
                self.t_ns = max(mine, theirs)
            elif f.name == "first_error_ns":
                for key, at_ns in theirs.items():
                    mine[key] = min(at_ns, mine.get(key, at_ns))
            elif isinstance(mine, Counter):
                mine.update(theirs)
            elif isinstance(mine, int):
                setattr(self, f.name, mine + theirs)


@dataclass(kw_only=True, slots=True)
class FleetReport(_Report):
    """What one fleet worker did since its last report."""

    attempted: int = 0
    ok: int = 0
    retried: int = 0
    """Attempts that repeated a failed one (they are among `attempted`)."""
    connects: int = 0
    """Sockets on which a connection was begun."""
    not_sent: int = 0
    """Of these, the ones that failed before a SYN left the host."""
    established: int = 0
    closed_early: int = 0
    """Connections that the client closed outside of the ending: idle, late, or at the run's end."""
    crossed: int = 0
    """Of these, the closes at which the server's FIN may have been the first after all."""
    received_bytes: int = 0
    cpu_ns: int = 0
    """Processor time that the worker used, user and system, in nanoseconds."""
    errors: Counter[str] = field(default_factory=Counter)
    """Failed attempts by error key."""
    connection_errors: Counter[str] = field(default_factory=Counter)
    """What idle and closing connections saw, by error key; no attempt failed by it."""
    departures: Counter[str] = field(default_factory=Counter)
    """Ended connections by how the client left them."""
    first_error_ns: dict[str, int] = field(default_factory=dict)
    """When each error key was first seen, CLOCK_MONOTONIC in nanoseconds."""
    histograms: dict[str, str] = field(default_factory=dict)
    """Latencies in microseconds by name, as HdrHistogram V2 (compressed, base64)."""


@dataclass(kw_only=True, slots=True)
class ServerReport(_Report):
    """What one server process did since its last report."""

    accepted: int = 0
    requests: int = 0
    redirected: int = 0
    """Of these, the ones answered with a redirect."""
    reopened: int = 0
    """Connections whose SYN ended a TIME_WAIT of this server (tcp_timewait_state_process)."""
    reopened_perhaps: int = 0
    """Likewise, but so late that the TIME_WAIT may have expired by itself."""
    closed_early: int = 0
    """Connections that the server closed outside of the ending: idle, or held for too long."""
    crossed: int = 0
    """Idle closes at which the client's FIN may have been the first after all."""
    held_in_vain: int = 0
    """Connections whose client was to close first and did not within `ending.hold_s`."""
    not_accepted: int = 0
    """accept() calls that failed, for want of descriptors as a rule."""
    departures: Counter[str] = field(default_factory=Counter)
    """Ended connections by how the server left them."""


class PacketFate(StrEnum):
    """What became of a packet on the wire, as its reports count it."""

    SEEN = "seen"
    """It came onto the wire; all others are about what follows."""
    DELIVERED = "delivered"
    """It, or a copy, was handed to the other host."""
    LOST = "lost"
    """By chance: `lab.wire.loss`."""
    DUPLICATED = "duplicated"
    """It was made two, by chance or by a rule."""
    DROPPED_BY_RULE = "dropped_by_rule"
    """Answered in the other host's stead, too."""
    DROPPED_BY_QUEUE = "dropped_by_queue"
    """`lab.wire.queue_packets` waited already."""
    DELAYED = "delayed"
    """By a rule; the delay of every packet does not count."""
    HELD = "held"
    """By a rule: until an event, or behind the next packet."""
    ANSWERED = "answered"
    """With RST or ICMP, by a rule."""
    OVERRUN = "overrun"
    """The carrier was too slow: a socket's buffer was full. Of these packets nothing is known."""
    REFUSED = "refused"
    """The other host's interface would not take it."""
    BARE_RESET = "bare_reset"
    """A RST without ACK: its host answered what met no socket there (tcp_v4_send_reset)."""
    STRAY = "stray"
    """Sent to no address of the lab."""


@dataclass(kw_only=True, slots=True)
class WireReport(_Report):
    """What the wire's carrier did since its last report; packets by the side they came from."""

    client: Counter[str] = field(default_factory=Counter)
    server: Counter[str] = field(default_factory=Counter)
    rules: Counter[str] = field(default_factory=Counter)
    """How many packets each rule of the scenario has decided about."""
    captured: int = 0
    cpu_ns: int = 0
    """Processor time that the carrier used, in nanoseconds."""

    def of(self, *fates: PacketFate) -> int:
        """Return how many packets of both sides met one of these fates."""
        return sum(self.client[fate] + self.server[fate] for fate in fates)
