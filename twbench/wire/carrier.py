"""The process that carries a wire's packets: a plan comes in on standard input, reports go out.

It is on no host: it meets them by packet sockets of the middle stack that it has been left open.
Out go `{"ready": …}`, a report a tick, and last `{"done": true}`. The line `stop` or the end of the
input ends it.
"""

import os
import select
import socket
import struct
import time
from collections import Counter
from collections.abc import Iterator
from typing import BinaryIO

from twbench.model.plans import CarrierPlan, CarrierStart
from twbench.model.reports import PacketFate, WireReport
from twbench.model.states import Side
from twbench.process.lines import prepare_process, say, settle_memory
from twbench.wire.pcapng import Record, Writer
from twbench.wire.port import Arrival, Port, read_all
from twbench.wire.traffic import Traffic

_SECOND_NS = 1_000_000_000
_TICK_NS = 100_000_000
_INPUT = 0
_CHUNK_BYTES = 65_536

_SOL_PACKET = 263
_PACKET_STATISTICS = 6
_TPACKET_STATS = struct.Struct("=II")
"""Packets and drops since the last read (include/uapi/linux/if_packet.h)."""

_DESTINATION = {4: slice(16, 20), 6: slice(24, 40)}
"""Where an IP header has it (RFC 791, RFC 8200)."""


class Carrier:
    """Moves packets between the ports of a wire, as the plan says."""

    def __init__(
        self,
        plan: CarrierPlan,
        sockets: list[socket.socket],
        capture: BinaryIO | None = None,
    ) -> None:
        """Bind the sockets, one for each of the plan's ports. Raises OSError, RuleError."""
        self._sockets = sockets
        self._ports = [
            Port(port, lambda *_, given=given: given)
            for port, given in zip(plan.ports, sockets, strict=True)
        ]
        self._routes = {
            socket.inet_pton(_family(address), address): port
            for port in self._ports
            for address in port.addresses
        }
        self._traffic = Traffic(
            plan.wire, hold_ns=round(plan.hold_s * _SECOND_NS), own_rules=plan.own_rules
        )
        self._hits: Counter[str] = Counter()
        self._cpu_ns = time.process_time_ns()
        self._capture = _Capture(self._ports, capture, plan.wire.capture_packets)

    def run(self, stop: int) -> None:
        """Carry packets, and report, until something can be read from the descriptor `stop`."""
        next_tick_ns = time.monotonic_ns() + _TICK_NS
        waited_for: list[Port | int] = [*self._ports, stop]
        ready: list[Port | int] = []
        while stop not in ready:
            now_ns = self._carry([port for port in ready if isinstance(port, Port)])
            if now_ns >= next_tick_ns:
                say(self._report(now_ns).as_json())
                next_tick_ns = now_ns + _TICK_NS
            wake_ns = min(self._traffic.next_due_ns or next_tick_ns, next_tick_ns)
            timeout_s = max(0, wake_ns - time.monotonic_ns()) / _SECOND_NS
            # not poll(2): it counts whole milliseconds
            ready, _, _ = select.select(waited_for, (), (), timeout_s)
        say(self._report(time.monotonic_ns()).as_json())

    def _carry(self, ready: list[Port]) -> int:
        """Take what has come in by these ports, hand out what is due; return the time."""
        arrivals = read_all(ready)
        # so far is the kernel's clock of arrivals ahead; a pause in between only delays
        ahead_ns = time.time_ns() - (now_ns := time.monotonic_ns())
        for arrival in arrivals:
            self._take(arrival, min(now_ns, arrival.t_ns - ahead_ns))
        for origin, raw in self._traffic.due(now_ns):
            try:
                self._routes[raw[_DESTINATION[raw[0] >> 4]]].send(raw)
            except OSError:
                self._traffic.counts[origin][PacketFate.REFUSED] += 1
            else:
                self._traffic.counts[origin][PacketFate.DELIVERED] += 1
        return now_ns

    def _take(self, arrival: Arrival, t_ns: int) -> None:
        side, raw = arrival.port.side, arrival.raw
        if raw[_DESTINATION[raw[0] >> 4]] not in self._routes:
            self._traffic.counts[side][PacketFate.STRAY] += 1
            return
        note = self._traffic.take(side, raw, t_ns)
        if self._capture.left:
            self._capture.write(arrival, note)

    def _report(self, now_ns: int) -> WireReport:
        """Return what has happened since the last report."""
        counts = self._traffic.counts
        for dropped, side in self._overruns():
            counts[side][PacketFate.OVERRUN] += dropped
        report = WireReport(
            t_ns=now_ns,
            client=+counts[Side.CLIENT],
            server=+counts[Side.SERVER],
            captured=self._capture.take(),
        )
        for side in Side:
            counts[side].clear()
        hits = Counter({rule: n for rule, n in self._traffic.hits.items() if n})
        report.rules, self._hits = hits - self._hits, hits
        cpu_ns = time.process_time_ns()
        report.cpu_ns, self._cpu_ns = cpu_ns - self._cpu_ns, cpu_ns
        return report

    def _overruns(self) -> Iterator[tuple[int, Side]]:
        for port, sock in zip(self._ports, self._sockets, strict=True):
            stats = sock.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, _TPACKET_STATS.size)
            _, dropped = _TPACKET_STATS.unpack(stats)
            if dropped:
                yield dropped, port.side


class _Capture:
    """The first packets of a run, in a file; one that takes no more ends it."""

    def __init__(self, ports: list[Port], file: BinaryIO | None, most: int) -> None:
        self._interfaces = {port.host: number for number, port in enumerate(ports)}
        self._file = file
        self._taken = 0
        self.left = 0
        if file is not None:
            comment = f"the first {most:,} packets, each as it came onto the wire"
            self._writer = Writer(file, interfaces=[*self._interfaces], comment=comment)
            self.left = most

    def write(self, arrival: Arrival, note: str) -> None:
        interface = self._interfaces[arrival.port.host]
        record = Record(t_ns=arrival.t_ns, interface=interface, data=arrival.raw, comment=note)
        try:
            self._writer.write(record)
        except OSError:
            self.left = 0
        else:
            self.left -= 1
            self._taken += 1

    def take(self) -> int:
        """Hand everything to the kernel; return how many packets were written since."""
        taken, self._taken = self._taken, 0
        if self._file is not None and taken:
            try:
                self._file.flush()
            except OSError:
                self.left = 0
        return taken


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def main() -> None:
    """Carry packets from the plan's line to the line `stop`."""
    prepare_process()
    start = CarrierStart.from_line(_first_line())
    capture = None if start.capture is None else os.fdopen(start.capture, "wb")
    carrier = Carrier(start.plan, [_low(each) for each in start.sockets], capture)
    settle_memory()
    say({"ready": {"engine": "carrier"}})
    carrier.run(_INPUT)
    say({"done": True})


def _first_line() -> bytes:
    """Return the first line of the input, and leave what follows to be waited for."""
    line = b""
    while not line.endswith(b"\n") and (piece := os.read(_INPUT, _CHUNK_BYTES)):
        line += piece
    return line


def _low(descriptor: int) -> socket.socket:
    """Return the socket on the lowest descriptor there is: select(2) knows those below 1024."""
    low = os.dup(descriptor)
    os.close(descriptor)
    return socket.socket(fileno=low)


if __name__ == "__main__":
    main()
