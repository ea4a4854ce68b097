"""What the sampler hands out: one record a reading, each with its doubt. Pure data."""

from dataclasses import dataclass
from typing import Any

from twbench.kernel.readers import Look, Tick
from twbench.kernel.summary import Summary

_S = 1_000_000_000

_NOT_COUNTERS = {"TcpRtoAlgorithm", "TcpRtoMin", "TcpRtoMax", "TcpMaxConn", "TcpCurrEstab"}
"""Constants and the one level among the counters of snmp (RFC 4022)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TickSample:
    """The cheap counters of one stack.

    `t_ns` is when the reading began, `lateness_ns` how long after it was due, `cost_ns` the CPU
    time it took. `sockstat` is as of now; `counters` are rises since the first tick, without zeros.
    `missed` readings were skipped since the one before.
    """

    stack: str
    t_ns: int
    lateness_ns: int
    cost_ns: int
    source: str
    missed: int
    sockstat: dict[str, int]
    counters: dict[str, int]

    def as_json(self, start_ns: int) -> dict[str, Any]:
        """Return a plain dict, its time `t_s` in seconds since `start_ns`."""
        return {
            "stack": self.stack,
            "t_s": _seconds(self.t_ns - start_ns),
            "lateness_ms": _milliseconds(self.lateness_ns),
            "cost_ms": _milliseconds(self.cost_ns),
            "source": self.source,
            "missed": self.missed,
            "sockstat": self.sockstat,
            "counters": self.counters,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class LookSample:
    """Every socket of one stack, counted.

    `label` says why it was taken: "scheduled", "peak", or what the caller said. `sockets` is the
    number of rows. `interrupted`: rows were lost on the way. `cost_ns` includes the counting. The
    counts are those of `twbench.kernel.summary.Summary`.
    """

    stack: str
    label: str
    t_ns: int
    lateness_ns: int
    cost_ns: int
    source: str
    missed: int
    interrupted: bool
    sockets: int
    states_by_side: dict[str, dict[str, int]]
    listening: int
    ports_in_use: dict[str, int]
    accept_queue: dict[str, int]
    time_wait_left_s: dict[int, int]

    def as_json(self, start_ns: int) -> dict[str, Any]:
        """Return a plain dict, its time `t_s` in seconds since `start_ns`."""
        return {
            "stack": self.stack,
            "label": self.label,
            "t_s": _seconds(self.t_ns - start_ns),
            "lateness_ms": _milliseconds(self.lateness_ns),
            "cost_ms": _milliseconds(self.cost_ns),
            "source": self.source,
            "missed": self.missed,
            "interrupted": self.interrupted,
            "sockets": self.sockets,
            "states_by_side": self.states_by_side,
            "listening": self.listening,
            "ports_in_use": self.ports_in_use,
            "accept_queue": self.accept_queue,
            "time_wait_left_s": {str(edge): n for edge, n in self.time_wait_left_s.items()},
        }


Sample = TickSample | LookSample


@dataclass(frozen=True, kw_only=True, slots=True)
class Moment:
    """When a reading began, how late that was, what it cost, how many were missed before it."""

    t_ns: int
    lateness_ns: int
    cost_ns: int
    missed: int


def tick_sample(stack: str, moment: Moment, tick: Tick, base: dict[str, int]) -> TickSample:
    """Return the record of a tick; `base` is what the counters were at the first one."""
    rises = {
        name: value - base.get(name, 0)
        for name, value in tick.counters.items()
        if name not in _NOT_COUNTERS
    }
    return TickSample(
        stack=stack,
        t_ns=moment.t_ns,
        lateness_ns=moment.lateness_ns,
        cost_ns=moment.cost_ns,
        source=tick.source,
        missed=moment.missed,
        sockstat=tick.sockstat,
        counters={name: rise for name, rise in rises.items() if rise},
    )


def look_sample(stack: str, label: str, moment: Moment, look: Look, summary: Summary) -> LookSample:
    """Return the record of a look and what it amounts to."""
    return LookSample(
        stack=stack,
        label=label,
        t_ns=moment.t_ns,
        lateness_ns=moment.lateness_ns,
        cost_ns=moment.cost_ns,
        source=look.source,
        missed=moment.missed,
        interrupted=look.interrupted,
        sockets=look.count,
        states_by_side=summary.states_by_side,
        listening=summary.listening,
        ports_in_use=summary.ports_in_use,
        accept_queue=summary.accept_queue,
        time_wait_left_s=summary.time_wait_left_s,
    )


def _seconds(ns: int) -> float:
    return round(ns / _S, 6)


def _milliseconds(ns: int) -> float:
    return round(ns / 1e6, 4)
