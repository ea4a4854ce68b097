"""A stage's cable: a port to each of two hosts, and how to know that both kernels are quiet.

Nothing crosses by itself: what comes out of a host waits here until it is taken, and a packet goes
into a host when it is sent.
"""

import itertools
import socket
import time
from collections.abc import Callable, Mapping, Sequence

from twbench.model.links import WirePort
from twbench.model.states import Side
from twbench.wire.errors import StageError
from twbench.wire.packet import Packet, echo_reply_of, echo_request, parse
from twbench.wire.port import Port, read_all, wait_for

QUIET_WITHIN_S = 10.0
_ASK_AGAIN_S = 0.5
_LISTEN_FOR_S = 0.05
_IDENTIFIER = 0x7477
"""Of the wire's own echoes, which are on no ladder and in no capture."""

Arrival = tuple[int, Side, Packet]
"""When it came, in ns since the epoch; from which side; the packet."""


class Cable:
    """Both ports; a side is plugged in once, and again after its host was made anew."""

    def __init__(
        self, ports: Sequence[WirePort], open_socket: Callable[[int, int, int], socket.socket]
    ) -> None:
        """Take the ports of one client host and the server; nothing is opened yet."""
        self.plans: Mapping[Side, WirePort] = {port.side: port for port in ports}
        self._open_socket = open_socket
        self._ports: dict[Side, Port] = {}
        self._arrived: list[Arrival] = []
        self._sequence = itertools.count(1)

    def plug(self, side: Side) -> None:
        """Open a side's port. Raises OSError."""
        self._ports[side] = Port(self.plans[side], self._open_socket)

    def pull(self, side: Side) -> None:
        """Close a side's port, if it is open."""
        if port := self._ports.pop(side, None):
            port.close()

    def send(self, side: Side, packet: Packet) -> None:
        """Give a packet to a side's host. Raises OSError."""
        self._ports[side].send(packet.raw)

    def wait(self, timeout_s: float) -> None:
        """Return when something comes, or after the time-out."""
        wait_for(self._ports.values(), timeout_s)

    def take(self) -> list[Arrival]:
        """Return what came since the last call, in order."""
        self._read()
        taken, self._arrived = self._arrived, []
        return taken

    def settle(self) -> None:
        """Wait until both kernels have worked off everything that was sent to them.

        Raises StageError where a host does not answer.
        """
        for side in self._ports:
            self._settle(side)

    def _settle(self, side: Side) -> None:
        echo = _IDENTIFIER, next(self._sequence) & 0xFFFF
        here, there = (self.plans[each].addresses[0] for each in (side, side.other))
        request = echo_request(source=there, destination=here, identifier=echo[0], sequence=echo[1])
        now_s = ask_s = time.monotonic()
        end_s = now_s + QUIET_WITHIN_S
        while now_s < end_s:
            if now_s >= ask_s:
                # A new veth has no queue, and loses what it is given, until linkwatch has run.
                self.send(side, request)
                ask_s = now_s + _ASK_AGAIN_S
            if echo in self._read():
                return
            self.wait(_LISTEN_FOR_S)
            now_s = time.monotonic()
        raise StageError(f"host {self.plans[side].host} answers no echo in {QUIET_WITHIN_S:g} s")

    def _read(self) -> set[tuple[int, int]]:
        """Keep every packet that waits, and return the wire's own echoes that were answered."""
        answered = set()
        for arrival in read_all(self._ports.values()):
            packet = parse(arrival.raw)
            echo = echo_reply_of(packet)
            if echo is not None and echo[0] == _IDENTIFIER:
                answered.add(echo)
            else:
                self._arrived.append((arrival.t_ns, arrival.port.side, packet))
        return answered
