"""A run's books: what every process and every kernel has told so far."""

from collections import Counter, defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from hdrh.histogram import HdrHistogram

from twbench.model.reports import (
    DIGITS,
    HIGHEST_US,
    LATENCIES,
    FleetReport,
    ServerReport,
    WireReport,
)
from twbench.sampler.samples import LookSample, Sample, TickSample

_SECOND_NS = 1_000_000_000
PERCENTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99_9": 99.9}


def histogram() -> HdrHistogram:
    """Return an empty histogram of microseconds, up to an hour, with three digits."""
    return HdrHistogram(1, HIGHEST_US, DIGITS)


@dataclass(kw_only=True, slots=True)
class StackBooks:
    """What was read of one kernel network stack."""

    time_wait: list[tuple[int, int, int]] = field(default_factory=list)
    """At every tick: CLOCK_MONOTONIC ns, sockstat `tw`, entries into TIME_WAIT so far."""
    last: TickSample | None = None
    look: LookSample | None = None
    states_peak: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """Side to state to the most sockets seen in a look."""
    ports_peak: int = 0
    looks: list[tuple[int, dict[str, int]]] = field(default_factory=list)
    """At every look: CLOCK_MONOTONIC ns, and TIME_WAIT sockets by side."""

    opened: deque[tuple[int, int]] = field(default_factory=deque)
    """At the ticks of the last second: CLOCK_MONOTONIC ns, and connects begun so far."""

    def hear(self, sample: Sample) -> None:
        """Enter a tick or a look."""
        if isinstance(sample, TickSample):
            self.last = sample
            counters = sample.counters
            self.opened.append((sample.t_ns, counters.get("TcpActiveOpens", 0)))
            while self.opened[0][0] < sample.t_ns - _SECOND_NS:
                self.opened.popleft()
            entries = counters.get("TcpExtTW", 0) + counters.get("TcpExtTWKilled", 0)
            self.time_wait.append((sample.t_ns, sample.sockstat.get("tw", 0), entries))
            return
        self.look = sample
        by_side = sample.states_by_side
        for side, states in by_side.items():
            for state, count in states.items():
                peak = self.states_peak[side]
                peak[state] = max(peak[state], count)
        waiting = {side: states.get("TIME_WAIT", 0) for side, states in by_side.items()}
        self.looks.append((sample.t_ns, waiting))
        self.ports_peak = max(self.ports_peak, *sample.ports_in_use.values(), 0)

    @property
    def opened_per_s(self) -> float:
        """Return the connects begun on this stack in the last second, as its kernel has them."""
        return self.opened[-1][1] - self.opened[0][1] if self.opened else 0

    @property
    def quiet(self) -> bool:
        """Return whether the last look saw nothing but TIME_WAIT and listeners."""
        if self.look is None:
            return False
        kinds = {s for states in self.look.states_by_side.values() for s, n in states.items() if n}
        return kinds <= {"TIME_WAIT"} and not any(self.look.accept_queue.values())


class Books:
    """All reports and samples of a run, added up."""

    def __init__(self, stacks: tuple[str, ...], clients: tuple[str, ...]) -> None:
        """Open a page for each stack and each client host."""
        self.stacks = {name: StackBooks() for name in stacks}
        self.fleets = {name: FleetReport() for name in clients}
        self.server = ServerReport()
        self.wire = WireReport()
        self.latencies = {name: histogram() for name in LATENCIES}
        self.established: list[tuple[int, int]] = []
        """At every report: CLOCK_MONOTONIC ns, and connections established so far."""
        self._recent: deque[FleetReport] = deque()

    @property
    def fleet(self) -> FleetReport:
        """Return the reports of all client hosts, added up."""
        total = FleetReport()
        for report in self.fleets.values():
            total.add(report)
        return total

    def hear_fleet(self, host: str, report: FleetReport) -> None:
        """Enter a worker's report."""
        self.fleets[host].add(report)
        for name, encoded in report.histograms.items():
            self.latencies[name].decode_and_add(encoded)
        before = self.established[-1][1] if self.established else 0
        self.established.append((report.t_ns, before + report.established))
        self._recent.append(report)

    def recent(self, now_ns: int) -> tuple[FleetReport, HdrHistogram]:
        """Return the last second of the fleet: its sums, and its request latencies."""
        while self._recent and self._recent[0].t_ns < now_ns - _SECOND_NS:
            self._recent.popleft()
        total, latency = FleetReport(), histogram()
        for report in self._recent:
            total.add(report)
            if encoded := report.histograms.get("request"):
                latency.decode_and_add(encoded)
        return total, latency


def percentiles_ms(recorded: HdrHistogram) -> Mapping[str, float] | None:
    """Return the percentiles and the maximum of a histogram, in milliseconds; None if empty."""
    if not recorded.get_total_count():
        return None
    found = recorded.get_percentile_to_value_dict(list(PERCENTILES.values()))
    named = {name: found[percentile] / 1000 for name, percentile in PERCENTILES.items()}
    return named | {"max": recorded.get_max_value() / 1000}
