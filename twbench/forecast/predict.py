"""From ports, holds and a load to what will happen, and when.

Symbols: r rate (connections/s), h port hold (s), w TIME_WAIT (s), l lifetime (s), C capacity
(connections), N(t) connections opened by second t.

    ports in use at t     N(t) - N(t - l - h)             r (l + h) once steady
    TIME_WAIT at t        N(t - l) - N(t - l - w)         r w once steady, never more than C
    exhausted             when the ports in use exceed C  C / r, if r (l + h) > C
    sustainable rate      C / (l + h)

For w = h = 60 s and 28,232 ports that is 470 connections/s towards one destination. It is assumed
that `tcp_max_tw_buckets` exceeds C: beyond it the kernel drops TIME_WAIT (TCPTimeWaitOverflow).
"""

from dataclasses import dataclass

from twbench.forecast.budget import Hold, PortBudget
from twbench.forecast.loads import Arrivals, ClosedLoad, OpenLoad


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """What the arithmetic says of a load; None is "never", or "no limit", as told for each.

    Attributes:
        capacity: connections that can hold a port at the same time.
        capacity_per_destination: the same towards one destination.
        time_wait_steady: sockets in TIME_WAIT once the load has gone on at its last rate for
            longer than TIME_WAIT lasts; None where the rate is not known.
        time_wait_peak: the most there will be within the load's duration; None likewise.
        ports_in_use_peak: the most ports held within the load's duration; None likewise.
        exhausted_after_s: seconds until connect() fails with EADDRNOTAVAIL; None: not within the
            load's duration, or the rate is not known.
        cliff_after_s: seconds until the first half of the range is full and each connect() has to
            walk it; None: not reached, or there is no such half.
        cliff_after_connections: connections opened by then; None likewise.
        sustainable_rate_per_s: new connections/s that can go on for ever; None: ports set no limit.
        cheap_rate_per_s: the same without ever reaching the cliff.
    """

    capacity: int
    capacity_per_destination: int
    time_wait_steady: float | None
    time_wait_peak: float | None
    ports_in_use_peak: float | None
    exhausted_after_s: float | None
    cliff_after_s: float | None
    cliff_after_connections: float | None
    sustainable_rate_per_s: float | None
    cheap_rate_per_s: float | None


def predict(budget: PortBudget, load: OpenLoad | ClosedLoad, hold: Hold) -> Forecast:
    """Return what `load` does to the ports of `budget` when each connection stays as in `hold`.

    A closed load holds its `concurrency` ports from the start, whatever `hold.lifetime_s` says.
    """
    if isinstance(load, OpenLoad):
        return _predict(budget, Arrivals(load), _last_rate(load), hold, busy=0)
    after_close = Hold(port_hold_s=hold.port_hold_s, time_wait_s=hold.time_wait_s)
    if load.rate_per_s is None:
        return _predict(budget, None, None, after_close, busy=load.concurrency)
    flow = OpenLoad.constant(rate_per_s=load.rate_per_s, duration_s=load.duration_s)
    return _predict(budget, Arrivals(flow), load.rate_per_s, after_close, busy=load.concurrency)


def predict_capacity(budget: PortBudget) -> Forecast:
    """Return how many ports there are: all that is known where nobody knows how connections end."""
    return Forecast(
        capacity=budget.capacity,
        capacity_per_destination=budget.capacity_per_destination,
        time_wait_steady=None,
        time_wait_peak=None,
        ports_in_use_peak=None,
        exhausted_after_s=None,
        cliff_after_s=None,
        cliff_after_connections=None,
        sustainable_rate_per_s=None,
        cheap_rate_per_s=None,
    )


def _predict(
    budget: PortBudget, flow: Arrivals | None, rate_per_s: float | None, hold: Hold, *, busy: int
) -> Forecast:
    port_s = hold.lifetime_s + hold.port_hold_s
    cliff_s = None
    if budget.cheap_capacity < budget.capacity:
        cliff_s = _exceeds_at(flow, budget.cheap_capacity - busy, port_s)
    most = _time_wait_limit(budget, flow, hold, busy=busy)
    return Forecast(
        capacity=budget.capacity,
        capacity_per_destination=budget.capacity_per_destination,
        time_wait_steady=None if rate_per_s is None else min(rate_per_s * hold.time_wait_s, most),
        time_wait_peak=None if flow is None else min(flow.peak(hold.time_wait_s), most),
        ports_in_use_peak=(
            None if flow is None else min(busy + flow.peak(port_s), float(budget.capacity))
        ),
        exhausted_after_s=_exceeds_at(flow, budget.capacity - busy, port_s),
        cliff_after_s=cliff_s,
        cliff_after_connections=None if cliff_s is None or flow is None else flow.by(cliff_s),
        sustainable_rate_per_s=_per_hold(budget.capacity - busy, port_s),
        cheap_rate_per_s=_per_hold(budget.cheap_capacity - busy, port_s),
    )


def _last_rate(load: OpenLoad) -> float:
    return load.stages[-1].rate_end_per_s


def _exceeds_at(flow: Arrivals | None, limit: int, window_s: float) -> float | None:
    """Return when the flow needs more than `limit` ports; at once where even none is too many."""
    if limit < 0:
        return 0.0
    return None if flow is None else flow.exceeds_at(limit, window_s)


def _time_wait_limit(budget: PortBudget, flow: Arrivals | None, hold: Hold, *, busy: int) -> float:
    """Return how many TIME_WAIT sockets there can be: one for each four-tuple that is ever used.

    A port that is free again before its TIME_WAIT ends is found again in the first half of the
    range, and the other half is never touched until the first is full of ports still held.
    """
    if flow is None or hold.port_hold_s >= hold.time_wait_s:
        return float(budget.capacity)
    port_s = hold.lifetime_s + hold.port_hold_s
    stays_cheap = busy + flow.peak(port_s) <= budget.cheap_capacity
    return float(budget.cheap_capacity if stays_cheap else budget.capacity)


def _per_hold(ports: int, port_s: float) -> float | None:
    return max(ports, 0) / port_s if port_s > 0 else None
