"""A worker's books: what it counts as it goes, handed over as one report a tick."""

import time

import numpy as np
from hdrh.histogram import HdrHistogram

from twbench.model.outcomes import Phase, error_key, kind_of
from twbench.model.reports import DIGITS, HIGHEST_US, LATENCIES, FleetReport


class Ledger:
    """Counts for the current tick; `take` closes the tick.

    Latencies are kept as bare nanoseconds and folded into histograms once a tick: a histogram's
    own `record_value` for each of them would cost more than the rest of the accounting.
    """

    def __init__(self) -> None:
        """Open the books, all zero."""
        self.report = FleetReport()
        self.cpu_ns = 0
        """Processor time that the process had used when the current tick began."""
        self.connect_ns: list[int] = []
        self.request_ns: list[int] = []
        self.intended_ns: list[int] = []
        self._seen: set[str] = set()

    def error(self, phase: Phase, error: str, *, reused: bool, now_ns: int) -> None:
        """Book a failed attempt."""
        key = error_key(phase, error, reused=reused)
        self.report.errors[key] += 1
        if key not in self._seen:
            self._seen.add(key)
            self.report.first_error_ns[key] = now_ns

    def refuse(self, phase: Phase, error: str, *, dialled: bool = False) -> None:
        """Book an attempt that got no connection; `dialled`: a socket was begun for it."""
        self.error(phase, error, reused=False, now_ns=time.monotonic_ns())
        if dialled and not kind_of(phase, error).syn_left:
            self.report.not_sent += 1

    def connection_error(self, phase: Phase, error: str) -> None:
        """Book what an idle or closing connection saw; no attempt fails by it."""
        self.report.connection_errors[error_key(phase, error)] += 1

    def take(self, now_ns: int, *, cpu_ns: int = 0) -> FleetReport:
        """Close the tick: return its report and begin the next.

        `cpu_ns` is the processor time that the process has used by now; 0: it was not asked for.
        """
        report, self.report = self.report, FleetReport()
        report.t_ns = now_ns
        if cpu_ns:
            report.cpu_ns, self.cpu_ns = cpu_ns - self.cpu_ns, cpu_ns
        latencies_ns = (self.connect_ns, self.request_ns, self.intended_ns)
        for name, values in zip(LATENCIES, latencies_ns, strict=True):
            if values:
                report.histograms[name] = encode(values)
                values.clear()
        return report


def encode(latencies_ns: list[int]) -> str:
    """Return latencies as an HdrHistogram V2 of microseconds (compressed, base64)."""
    histogram = HdrHistogram(1, HIGHEST_US, DIGITS)
    values_us = np.clip(np.array(latencies_ns, dtype=np.int64) // 1000, 1, HIGHEST_US)
    # as record_value does it for each: below 2^11 buckets are 1 wide, then they double
    magnitude = histogram.sub_bucket_half_count_magnitude
    width = np.maximum(np.frexp(values_us)[1] - magnitude - 1, 0)
    indices, counts = np.unique((width << magnitude) + (values_us >> width), return_counts=True)
    np.frombuffer(histogram.counts, np.uint64)[indices] = counts
    histogram.total_count = len(latencies_ns)
    histogram.min_value, histogram.max_value = int(values_us.min()), int(values_us.max())
    encoded: bytes = histogram.encode()
    return encoded.decode()
