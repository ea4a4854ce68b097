"""One direction of the wire, as `[lab.wire]` describes it: chance, queue and delay. Pure."""

from collections import deque
from random import Random

from twbench.model.scenario import WireSpec
from twbench.model.states import Side

_NS_PER_MS = 1_000_000


class Line:
    """Takes packets one after another and says when each arrives; times in nanoseconds.

    What is lost or doubled depends on the seed, the side and the order of its packets alone. The
    queue is drop-tail: it holds what has not left yet at `rate_mbit_per_s`, the packet being sent
    included. Packets arrive in the order in which they entered.
    """

    def __init__(self, spec: WireSpec, origin: Side) -> None:
        """Begin with an empty queue, for the packets that come from `origin`."""
        self._loss = spec.loss
        self._duplication = spec.duplication
        self._random = Random(f"{spec.seed} {origin}").random
        self._delay_ns = round(spec.delay_ms * _NS_PER_MS)
        rate = spec.rate_mbit_per_s
        self._ns_per_byte = 8_000 / rate if rate else 0.0
        self._queue_packets = spec.queue_packets
        self._leaves_ns: deque[int] = deque()
        self._last_ns = 0

    def loses(self) -> bool:
        """Return whether the next packet is lost."""
        return self._loss > 0 and self._random() < self._loss

    def doubles(self) -> bool:
        """Return whether the next packet is made two."""
        return self._duplication > 0 and self._random() < self._duplication

    def enter(self, now_ns: int, length: int) -> int | None:
        """Return when a packet of `length` bytes arrives; None where the queue is full."""
        leaves_ns = now_ns
        if self._ns_per_byte:
            waiting = self._leaves_ns
            while waiting and waiting[0] <= now_ns:
                waiting.popleft()
            if len(waiting) >= self._queue_packets:
                return None
            begins_ns = waiting[-1] if waiting else now_ns
            leaves_ns = begins_ns + round(length * self._ns_per_byte)
            waiting.append(leaves_ns)
        self._last_ns = max(self._last_ns, leaves_ns + self._delay_ns)
        return self._last_ns
