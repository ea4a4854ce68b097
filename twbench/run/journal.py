"""A run's journal: what processes and kernels tell, into the books and onto the disk."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from twbench.model.errors import RecordError
from twbench.model.reports import FleetReport, ServerReport, WireReport
from twbench.record.schema import EVENTS, LOOKS, OUTCOMES, SAMPLES
from twbench.record.writer import RunWriter
from twbench.run.books import Books
from twbench.run.children import Child, Message
from twbench.sampler.samples import Sample, TickSample

_SECOND_NS = 1_000_000_000


class Journal:
    """Hears of everything as it happens; a disk that takes no more is `refusal`, told once."""

    def __init__(self, writer: RunWriter, books: Books, refused: Callable[[], None]) -> None:
        """Open it; the time counts from now, until `start_ns` is set to when the load begins."""
        self.start_ns = time.monotonic_ns()
        """CLOCK_MONOTONIC."""
        self.events: list[dict[str, Any]] = []
        self.refusal: RecordError | None = None
        self._writer = writer
        self._books = books
        self._refused = refused

    @property
    def seconds(self) -> float:
        """Return the time since the start."""
        return (time.monotonic_ns() - self.start_ns) / _SECOND_NS

    def hear_fleet(self, child: Child, message: Message) -> None:
        """Enter a worker's report."""
        report = FleetReport.from_json(message)
        self._books.hear_fleet(child.host, report)
        self._outcome(child, report.t_ns, message)

    def hear_server(self, child: Child, message: Message) -> None:
        """Enter a server's report; one with nothing but its time is not worth a line."""
        report = ServerReport.from_json(message)
        self._books.server.add(report)
        if len(message) > 1:
            self._outcome(child, report.t_ns, message)

    def hear_carrier(self, child: Child, message: Message) -> None:
        """Enter the report of a wire's carrier, likewise."""
        report = WireReport.from_json(message)
        self._books.wire.add(report)
        if report.client or report.server:
            self._outcome(child, report.t_ns, message)

    def hear_sample(self, sample: Sample) -> None:
        """Enter a tick or a look."""
        self._books.stacks[sample.stack].hear(sample)
        stream = SAMPLES if isinstance(sample, TickSample) else LOOKS
        self._append(stream, sample.as_json(self.start_ns))

    def event(self, what: str, detail: str = "") -> None:
        """Enter something that is no figure."""
        line = {"t_s": round(self.seconds, 3), "event": what, "detail": detail.strip()}
        self.events.append(line)
        self._append(EVENTS, line)

    def write(self, name: str, document: Mapping[str, Any]) -> None:
        """Write a whole file."""
        try:
            self._writer.write_json(name, document)
        except RecordError as refusal:
            self._refuse(refusal)

    def flush(self) -> None:
        """Bring what was appended onto the disk."""
        try:
            self._writer.flush()
        except RecordError as refusal:
            self._refuse(refusal)

    def _outcome(self, child: Child, t_ns: int, message: Message) -> None:
        at_s = round((t_ns - self.start_ns) / _SECOND_NS, 4)
        self._append(OUTCOMES, {"t_s": at_s, "host": child.host, "from": child.name, **message})

    def _append(self, stream: str, line: dict[str, Any]) -> None:
        try:
            self._writer.append(stream, line, now_s=time.monotonic())
        except RecordError as refusal:
            self._refuse(refusal)

    def _refuse(self, refusal: RecordError) -> None:
        if self.refusal is None:
            self.refusal = refusal
            self._refused()
