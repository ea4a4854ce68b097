"""The server on io_uring: slots accept, receive, answer and close in chains, with few words.

Every listener has `armed` slots that accept, and wants `target` of them. A slot that is done
accepts anew within the same chain while fewer are armed; from half of the target on, free slots
are added. A listener with none armed, where no slot is free, is `hungry`: the next slot that is
done goes to the one that has been so for longest. Until then connections wait in its accept queue.
"""

import os
import resource
import socket
import sys
from collections import deque

from twbench.model.scenario import Family
from twbench.server.behaviour import Behaviour
from twbench.server.chains import ATOM_BYTES, BITS, MASK, ChainMaker, Step, install, token
from twbench.server.http import Listener
from twbench.server.ledger import Ledger
from twbench.server.requests import Recogniser
from twbench.server.slots import AFTER_LAST, HEAR, SlotConnection
from twbench.server.transport import address_of
from twbench.uring.cqe import Completion
from twbench.uring.memory import Memory
from twbench.uring.pump import Pump
from twbench.uring.ring import Ring
from twbench.uring.sqe import Op
from twbench.uring.structs import SOCKADDR_BYTES

NEEDED = (
    *(Op.ACCEPT, Op.RECV, Op.SEND, Op.CLOSE, Op.ASYNC_CANCEL, Op.TIMEOUT),
    Op.FIXED_FD_INSTALL,
)
"""What a kernel must be able to do."""

_USUAL_SLOTS = 16_384
_LEAVING_SHARE = 8
_KEPT_DESCRIPTORS = 64
_ARMED_SHARE = 4
_MOST_ARMED = 256
_MOST_ARMED_EACH = 128
_LARGEST_SILENT = 16_384
"""So many bytes fit into an empty socket at once; a larger answer may take its time."""
_REST_NS = 10_000_000
_LOOK_AGAIN_NS = 5_000_000
_NS_PER_S = 1_000_000_000
_PEERS: dict[Family, tuple[int, slice]] = {"ipv4": (16, slice(2, 8)), "ipv6": (28, slice(2, 24))}
"""The size of a sockaddr, and where port and address lie in it."""
_PEER_ROOM = -(-SOCKADDR_BYTES // 8) * 8


def slots_for(listeners: int, connections: int = 0) -> int:
    """Return how many slots to have where so many connections are expected at once.

    RLIMIT_NOFILE bounds the slots (io_sqe_files_register) and, apart from them, the descriptors:
    every connection may have one of its own beside its slot. Raises ValueError if the connections
    do not fit, or not one for each listener.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = soft - _KEPT_DESCRIPTORS - listeners
    if most < max(listeners, connections):
        whom = f"{connections} connections on " if connections else ""
        raise ValueError(
            f"{soft} descriptors (RLIMIT_NOFILE) are too few for {whom}{listeners} listeners"
        )
    # a client may have begun anew while its last connection is being closed
    return min(most, max(_USUAL_SLOTS, connections + connections // _LEAVING_SHARE))


class UringListener(Listener):
    """What the connections of one listening address share."""

    def __init__(
        self, behaviour: Behaviour, ledger: Ledger, server: "UringServer", *, target: int
    ) -> None:
        """Begin with no connection; `target` is how many slots accept if there are enough."""
        super().__init__(behaviour, ledger)
        self.now_ns = server.now_ns
        self.armed = 0
        """How many slots accept, or will within the chain that closes them."""
        self.maker: ChainMaker
        self.target = target
        self.answers = (behaviour.answer(False), behaviour.answer(True))  # noqa: FBT003 - as `Behaviour.answer`
        self.keepalive_requests = behaviour.keepalive_requests
        self.keepalive_timeout_ns = round(behaviour.keepalive_timeout_s * _NS_PER_S)
        self.after_last = AFTER_LAST.get(behaviour.ending)
        self._server = server
        largest = max(map(len, self.answers))
        plain = not (behaviour.by_url or behaviour.delay_s) and largest <= _LARGEST_SILENT
        self.recognise = Recogniser().read if plain else _recognise_nothing

    def consumed(self) -> None:
        """Hear that an accept is over."""
        self.armed -= 1
        if self.armed <= self.target // 2:
            self._server.feed(self)


def _recognise_nothing(_data: bytes) -> bool | None:
    return None


class UringServer:
    """A ring with its slots. Made in a running loop; `run` serves until `close`."""

    def __init__(self, *, family: Family, listeners: int, slots: int | None = None) -> None:
        """Make room for so many listeners and connections, by default as `slots_for` has it.

        Raises RingRefusedError where the kernel gives no ring, another OSError where it refuses
        what a ring needs, ValueError for too few descriptors.
        """
        slots = slots_for(listeners) if slots is None else slots
        self._slots = slots
        share = min(slots // _ARMED_SHARE, _MOST_ARMED) // listeners
        self._target = max(1, min(_MOST_ARMED_EACH, share))
        peer_bytes, self._peer = _PEERS[family]
        # pages that no slot has used yet take no memory
        self._memory = Memory(8 + slots * (ATOM_BYTES + _PEER_ROOM))
        self._peer_bytes_at = self._memory.place(peer_bytes.to_bytes(4, sys.byteorder))
        self._ring = Ring()
        try:
            self._ring.register_files(slots + listeners)
            self._ring.place(0, -1)
            self._ring.notify()
            self._ring.turn()
            self._pump = Pump(self._ring, self._complete)
        except BaseException:
            self._ring.close()
            raise
        self.awaited: set[SlotConnection] = set()
        """Slots whose accept is under way, or over without a word."""
        self._connections: list[SlotConnection] = []
        self._free: list[SlotConnection] = []
        self._hungry: deque[UringListener] = deque()
        self._stash: list[Completion] = []
        self._sockets: list[socket.socket] = []
        self._running = self._closed = self._looking = False
        self.push = self._ring.push
        self.wake = self._pump.wake
        self.at = self._pump.at

    def listen(self, sock: socket.socket, behaviour: Behaviour, ledger: Ledger) -> UringListener:
        """Serve what comes to a listening socket, which is the server's from now on."""
        slot = self._slots + len(self._sockets)
        listener = UringListener(behaviour, ledger, self, target=self._target)
        listener.maker = ChainMaker(
            slot,
            peer_bytes=self._peer_bytes_at,
            kept=_place(listener.answers[False]),
            last=_place(listener.answers[True]),
        )
        self._ring.place(slot, sock.fileno())
        self._sockets.append(sock)
        self.feed(listener)
        return listener

    def look(self) -> None:
        """Find the connections that have sent nothing yet; to be called about ten times a second.

        Where there are many, more may wait behind them: it looks again soon.
        """
        found = self._look()
        if found:
            self.wake()
        if found >= self._target and not self._looking:
            self._looking = True
            self.at(self._pump.now_ns + _LOOK_AGAIN_NS, self._look_again)

    def _look_again(self) -> None:
        self._looking = False
        self.look()

    def _look(self) -> int:
        return sum(each.look() for each in tuple(self.awaited))

    async def run(self) -> None:
        """Serve until `close` is called, and close every socket and the ring then."""
        self._running = True
        try:
            await self._pump.run()
        finally:
            self._running = False
            self.close()

    def close(self) -> None:
        """Serve no longer. What is not running is closed at once; a second call does nothing."""
        if self._running:
            self._pump.stop()
        elif not self._closed:
            self._closed = True
            self._release()

    def _release(self) -> None:
        for sock in self._sockets:
            # closing alone does not end the accepts that are under way
            sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        self._pump.take(self._ring.turn())
        self._look()
        self._ring.close()
        for connection in self._connections:
            connection.release()
        self._memory.close()

    # slots

    def feed(self, listener: "UringListener") -> None:
        """Let more slots accept from a listener, up to its target."""
        while listener.armed < listener.target and (connection := self._take_slot()):
            listener.armed += 1
            connection.arm(listener)
        if not listener.armed and listener not in self._hungry:
            self._hungry.append(listener)

    def _take_slot(self) -> SlotConnection | None:
        if self._free:
            return self._free.pop()
        index = len(self._connections)
        if index >= self._slots:
            return None
        memory = self._memory
        buffer, peer = memory.reserve(ATOM_BYTES), memory.reserve(_PEER_ROOM)
        connection = SlotConnection(
            self,
            index,
            buffer=memory.view(buffer, ATOM_BYTES),
            peer=memory.view(peer, _PEER_ROOM)[self._peer],
            places=(buffer, peer),
        )
        self._connections.append(connection)
        return connection

    def rearms(self, listener: "UringListener") -> bool:
        """Return, and count, whether a slot that closes is to accept from its listener again."""
        more = listener.armed < listener.target and not self._hungry
        listener.armed += more
        return more

    def free(self, connection: SlotConnection) -> None:
        """Have a slot back; it accepts where none does."""
        if self._hungry:
            listener = self._hungry.popleft()
            listener.armed += 1
            connection.arm(listener)
        else:
            self._free.append(connection)

    def refused(self, connection: SlotConnection, listener: "UringListener") -> None:
        """Let the slot of a failed accept rest, and free it then."""
        if self._closed:
            return
        listener.ledger.report.not_accepted += 1
        self.at(self._pump.now_ns + _REST_NS, lambda: self._recover(connection, listener))

    def _recover(self, connection: SlotConnection, listener: "UringListener") -> None:
        self.free(connection)
        self.feed(listener)

    # completions and time

    def now_ns(self) -> int:
        """Return when the completions under way were fetched: CLOCK_MONOTONIC."""
        return self._pump.now_ns

    def install(self, slot: int) -> int:
        """Return an ordinary descriptor of a slot's socket. Raises OSError."""
        result = self.ask(install(slot), token(slot, Step.INSTALL))
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        return result

    def ask(self, operation: bytes, answer: int) -> int:
        """Return the result of an operation that is over at once; `answer` is its token."""
        self._ring.push(operation)
        result = None
        while result is None:
            for completion in self._ring.turn(wait=1):
                if completion[0] == answer:
                    result = completion[1]
                else:
                    self._stash.append(completion)
        if self._stash:
            self.at(0, self._unstash)
            self.wake()
        return result

    def came_across(self, answer: int) -> bool:
        """Return whether `ask` came across a completion with this token."""
        return any(completion[0] == answer for completion in self._stash)

    def heard(self, completion: Completion) -> bool:
        """Return, once, whether `ask` came across this."""
        if completion not in self._stash:
            return False
        self._stash.remove(completion)
        return True

    def _unstash(self) -> None:
        found, self._stash = self._stash, []
        self._pump.take(found)

    def _complete(self, found: list[Completion]) -> None:
        connections, hear, bits, mask = self._connections, HEAR, BITS, MASK
        for user_data, result, _ in found:
            hear[user_data & mask](connections[user_data >> bits], result)


def _place(answer: bytes) -> tuple[int, int]:
    return address_of(answer), len(answer)
