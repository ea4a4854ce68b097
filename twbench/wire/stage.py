"""Stop-motion: two hosts, one wire, and nothing that moves unseen.

After every call and every packet the stage waits until both kernels are quiet, reads the state of
both ends, and only then lets the next packet go. A kernel is quiet when it has answered an echo
that was sent after everything else: the thread is pinned to one processor, whose backlog is worked
off in order.

`play` delivers what waits on the wire, one packet at a time, and asks the rules about each. Timers
of the kernels run on meanwhile, but what they send waits too.
"""

import heapq
import itertools
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from twbench.kernel.sockdiag import Sockets
from twbench.model.links import MIDDLE_STACK, WirePort
from twbench.model.states import Side, TcpState
from twbench.wire.cable import QUIET_WITHIN_S, Cable
from twbench.wire.endpoint import Endpoint, Outcome
from twbench.wire.errors import StageError, StoppedError
from twbench.wire.film import Film
from twbench.wire.ladder import Call, Crossing, EndState, Fate, Ladder, Pause
from twbench.wire.lookout import Hosts, Lookout, end_state
from twbench.wire.packet import Packet
from twbench.wire.port import pin_to_one_processor
from twbench.wire.rules import Action, Decision, Rule, Rulebook, answer_to

SERVER_PORT = 80
_CONNECTED_WITHIN_S = 5.0
"""Enough for a SYN that is lost a few times: it is sent again after 1, 2 and 3 s."""
_MOST_PACKETS = 5_000
"""Of one `play`: every load is bounded."""
_GLANCE_S = 0.05
"""How often a condition, and a wish to stop, is looked at while nothing crosses."""
_MOMENT_S = 0.001


@dataclass(frozen=True, kw_only=True, slots=True)
class Waiting:
    """A packet on the wire: whose it is, or seems to be, and its number in the capture."""

    origin: Side
    packet: Packet
    frame: int
    decision: Decision | None = None
    """Of the rules, which are asked once."""

    @property
    def note(self) -> str:
        """Return the rule that decided about it, as text."""
        return str(self.decision.rule) if self.decision and self.decision.rule else ""


class Stage:
    """Two hosts and the wire between them, for one thread, from `__enter__` to `__exit__`."""

    def __init__(
        self,
        hosts: Hosts,
        ports: Sequence[WirePort],
        *,
        rules: Sequence[Rule | str] = (),
        seed: int = 0,
        stop: threading.Event | None = None,
    ) -> None:
        """Take the wire's ports of one client host and the server; `rules` as in rules.py."""
        self.film = Film()
        self.held: list[Waiting] = []
        self.unplugged: set[Side] = set()
        self._hosts = hosts
        self._cable = Cable(ports, lambda *kind: hosts.socket(MIDDLE_STACK, *kind))
        self._plans = self._cable.plans
        self._seed = seed
        self._rulebook = self._book(rules)
        self._stop = stop or threading.Event()
        self._lookouts: dict[Side, Lookout] = {}
        self._on_the_wire: deque[Waiting] = deque()
        self._delayed: list[tuple[int, int, Waiting]] = []
        self._order = itertools.count(1)
        self._followed = (0, 0)
        self._was_there: set[Side] = set()
        self._endpoints: list[Endpoint] = []
        self._processors: set[int] = set()
        self._began_s = 0.0

    def __enter__(self) -> Self:
        """Plug both hosts in."""
        self._processors = pin_to_one_processor()
        self._began_s = time.monotonic()
        try:
            for side in self._plans:
                self._plug(side)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close what was opened; the ladder and the capture stay."""
        self._end()

    # What applications do

    def endpoint(self, side: Side) -> Endpoint:
        """Return a new TCP socket on a side."""
        host = self._plans[side]
        family = socket.AF_INET6 if self._family == 6 else socket.AF_INET  # noqa: PLR2004 - IPv6
        made = self._hosts.socket(host.host, family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        endpoint = Endpoint(made, side, self)
        self._endpoints.append(endpoint)
        return endpoint

    def listener(self, *, port: int = SERVER_PORT, backlog: int = 128) -> Endpoint:
        """Return a listening socket on the server."""
        listener = self.endpoint(Side.SERVER)
        listener.set(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(self.address(Side.SERVER), port)
        listener.listen(backlog)
        return listener

    def connection(self, *, port: int = SERVER_PORT) -> tuple[Endpoint, Endpoint]:
        """Open a connection and return both its ends; the listener is closed again.

        A lost packet is waited for: the kernels send it again after a second. Raises StageError
        where the connection does not come about.
        """
        listener = self.listener(port=port)
        client = self.endpoint(Side.CLIENT)
        client.connect(self.address(Side.SERVER), port)
        self.play(for_s=_CONNECTED_WITHIN_S, until=self._is_decided)
        self.play()
        server = self.accept(listener)
        listener.discard()
        return client, server

    def _is_decided(self) -> bool:
        """Return whether the server has the connection, or the client has given up."""
        ends = self.look()
        return (
            ends[Side.SERVER].state is TcpState.ESTABLISHED
            or ends[Side.CLIENT].state is TcpState.CLOSE
        )

    def accept(self, listener: Endpoint) -> Endpoint:
        """Take a connection from the accept queue; StageError where there is none."""
        try:
            taken = listener.accept()
        except BlockingIOError:
            raise StageError("the connection did not come about: nothing to accept") from None
        self._endpoints.append(taken)
        return taken

    def address(self, side: Side) -> str:
        """Return the first address of a side."""
        return self._plans[side].addresses[0]

    def called(self, side: Side, text: str, outcome: Outcome) -> None:
        """Record a call and its outcome, when both kernels are quiet again."""
        self._settle()
        states = self.look()
        self.film.steps.append(
            Call(t_s=self.elapsed_s, states=states, side=side, text=text, result=str(outcome))
        )

    def closed(self, side: Side, inode: int) -> None:
        """Wait until no descriptor of a socket is left; StageError if one stays.

        A process that another thread is just starting has copies of all, from fork to exec.
        """
        end_s = time.monotonic() + QUIET_WITHIN_S
        while inode in self.sockets(side)["inode"]:
            if time.monotonic() > end_s:
                raise StageError(f"another process holds the {side}'s socket, which stays open")
            time.sleep(_MOMENT_S)

    def follow(self, client_port: int, server_port: int) -> None:
        """Show the connection between these ports from here on."""
        self._followed = client_port, server_port
        self._was_there.clear()

    # What the wire does

    def play(self, *, for_s: float = 0.0, until: Callable[[], bool] | None = None) -> bool:
        """Deliver packets, one at a time, until none waits and `for_s` seconds have passed.

        A delayed packet is waited for, a held one is not. Ends at once when `until` holds, and then
        returns True; else returns whether there was no such condition. Raises StageError after
        5,000 packets, StoppedError when asked to stop.
        """
        end_s = time.monotonic() + for_s
        left = _MOST_PACKETS
        while left:
            if self._stop.is_set():
                raise StoppedError("stopped while the wire was playing")
            if until is not None and until():
                return True
            self._collect()
            if self._on_the_wire:
                self._let_cross(self._on_the_wire.popleft())
                left -= 1
                continue
            rest_s = end_s - time.monotonic()
            if rest_s <= 0 and not self._delayed:
                return until is None
            glance_s = min(rest_s, _GLANCE_S) if rest_s > 0 else _GLANCE_S
            self._cable.wait(min(glance_s, self._next_due_s()))
        raise StageError(f"{_MOST_PACKETS} packets in one go: some host never stops sending")

    def pause(self, text: str, *, for_s: float = 0.0) -> None:
        """Play for so long, then put a rung with both states and these words on the ladder."""
        self.play(for_s=for_s)
        self.note(text)

    def note(self, text: str) -> None:
        """Put a rung with both states and these words on the ladder."""
        self.film.steps.append(Pause(t_s=self.elapsed_s, states=self.look(), text=text))

    def rules(self, *rules: Rule | str) -> None:
        """Put these rules in the place of those before; what they hold is held until `release`."""
        self._rulebook = self._book(rules)
        self.held = [
            replace(each, decision=replace(each.decision, hold=None))
            for each in self.held
            if each.decision
        ]

    def hits(self) -> dict[str, int]:
        """Return how many packets each rule in force has decided about."""
        return {str(rule): count for rule, count in self._rulebook.hits.items()}

    def release(self, *waiting: Waiting) -> None:
        """Put held packets, all by default, back on the wire: the next `play` delivers them."""
        for each in waiting or tuple(self.held):
            self.held.remove(each)
            self._on_the_wire.append(each)

    def inject(self, packet: Packet, to: Side, note: str) -> Crossing:
        """Give a packet to a host, as if the other side had sent it."""
        frame = self.film.expose(time.time_ns(), packet, None)
        waiting = Waiting(origin=to.other, packet=packet, frame=frame)
        self._cable.send(to, packet)
        return self._record(waiting, Fate.INJECTED, note)

    def unplug(self, side: Side) -> None:
        """Pull a side's cable: what it sends, and what is sent to it, is lost."""
        self.unplugged.add(side)
        self.pause(f"the {side}'s cable is pulled")

    def plug_in(self, side: Side) -> None:
        """Put a side's cable back."""
        self.unplugged.discard(side)
        self.pause(f"the {side}'s cable is back")

    def reboot(self, side: Side) -> None:
        """Replace a side's host by a fresh one with the same addresses: it knows no connection."""
        self._collect()
        self._unplug(side)
        self._hosts.reboot(self._plans[side].host)
        self._plug(side)
        self.pause(f"the {side} has rebooted")

    def destroy(self, side: Side) -> None:
        """Destroy the followed connection's socket, or TIME_WAIT, on a side (SOCK_DESTROY).

        Raises StageError where there is none.
        """
        if not self._lookouts[side].destroy(*self._local_ports(side)):
            raise StageError(f"the {side} has no socket to destroy")
        self._settle()
        self.pause(f"the {side}'s socket is destroyed")

    # What can be seen

    @property
    def elapsed_s(self) -> float:
        """Return the time since the stage was entered, in seconds."""
        return time.monotonic() - self._began_s

    def look(self) -> dict[Side, EndState]:
        """Return the state of both ends of the followed connection now."""
        return {side: self._end_state(side) for side in Side}

    def state(self, side: Side) -> TcpState:
        """Return the state of one end now."""
        return self._end_state(side).state

    def sockets(self, side: Side) -> Sockets:
        """Return every TCP socket of a side, TIME_WAIT and listeners included."""
        return self._lookouts[side].sockets()

    def counters(self, side: Side) -> dict[str, int]:
        """Return a host's counters by nstat's names, and sockstat's as `sockstat_tw` and so on."""
        return self._lookouts[side].counters()

    def mark(self, crossing: Crossing, text: str) -> None:
        """Put a comment on a packet in the capture: this one decides."""
        self.film.remark(crossing.frame, text)

    def ladder(self, title: str, sentence: str) -> Ladder:
        """Return what happened so far."""
        return self.film.ladder(title, sentence)

    # How

    @property
    def _family(self) -> int:
        return 6 if ":" in self.address(Side.CLIENT) else 4

    def _book(self, rules: Sequence[Rule | str]) -> Rulebook:
        return Rulebook(rules, seed=self._seed, family=self._family)

    def _plug(self, side: Side) -> None:
        self._cable.plug(side)
        self._lookouts[side] = Lookout(self._hosts, self._plans[side].host)

    def _unplug(self, side: Side) -> None:
        self._cable.pull(side)
        if lookout := self._lookouts.pop(side, None):
            lookout.close()

    def _end(self) -> None:
        for endpoint in self._endpoints:
            endpoint.socket.close()
        for side in Side:
            self._unplug(side)
        os.sched_setaffinity(0, self._processors)

    def _settle(self) -> None:
        """Wait until both kernels are quiet, and take what they have sent onto the wire."""
        self._cable.settle()
        self._collect()

    def _collect(self) -> None:
        """Take what the hosts have sent, and what has waited long enough, onto the wire."""
        for t_ns, origin, packet in self._cable.take():
            frame = self.film.expose(t_ns, packet, origin)
            self._on_the_wire.append(Waiting(origin=origin, packet=packet, frame=frame))
        now_ns = time.monotonic_ns()
        while self._delayed and self._delayed[0][0] <= now_ns:
            self._on_the_wire.append(heapq.heappop(self._delayed)[2])

    def _next_due_s(self) -> float:
        if not self._delayed:
            return _GLANCE_S
        return (self._delayed[0][0] - time.monotonic_ns()) / 1e9

    def _let_cross(self, waiting: Waiting) -> None:
        """Do with a packet what the rules say; about one that they let go they are not asked."""
        if self.unplugged:
            self._record(waiting, Fate.DROPPED, "the cable is pulled")
        elif waiting.decision is not None:
            self._deliver(waiting, Fate.RELEASED)
        else:
            decision = self._rulebook.decide(waiting.origin, waiting.packet)
            freed = self._rulebook.freed()
            self._let_go(lambda held: held.hold in freed)
            self._obey(replace(waiting, decision=decision), decision)

    def _obey(self, waiting: Waiting, decision: Decision) -> None:
        """Perform a decision of the rulebook."""
        match decision.action:
            case Action.PASS:
                self._deliver(waiting, Fate.DELIVERED)
            case Action.DROP:
                self._record(waiting, Fate.DROPPED, waiting.note)
            case Action.HOLD | Action.REORDER:
                self.held.append(waiting)
                self._record(waiting, Fate.HELD, waiting.note)
            case Action.DELAY:
                self._delay(waiting, decision.by_ns)
                self._record(waiting, Fate.HELD, waiting.note)
            case Action.DUPLICATE:
                self._deliver(waiting, Fate.DUPLICATED)
                self._delay(waiting, decision.by_ns)
            case Action.RESET | Action.REFUSE:
                self._answer(waiting, decision)
        if decision.action is not Action.REORDER:
            self._let_go(lambda held: held.action is Action.REORDER, origin=waiting.origin)

    def _let_go(self, is_meant: Callable[[Decision], bool], *, origin: Side | None = None) -> None:
        """Deliver the held packets that are meant, and of that side where one is named."""
        for each in tuple(self.held):
            if each.decision and is_meant(each.decision) and origin in (None, each.origin):
                self.held.remove(each)
                self._deliver(each, Fate.RELEASED)

    def _delay(self, waiting: Waiting, by_ns: int) -> None:
        due_ns = time.monotonic_ns() + by_ns
        heapq.heappush(self._delayed, (due_ns, next(self._order), waiting))

    def _answer(self, waiting: Waiting, decision: Decision) -> None:
        """Lose a packet and answer it as a firewall does, if it is one that may be answered."""
        answer = answer_to(decision, waiting.packet)
        self._record(waiting, Fate.ANSWERED if answer else Fate.DROPPED, waiting.note)
        if answer:
            self.inject(answer, to=waiting.origin, note=waiting.note)

    def _deliver(self, waiting: Waiting, fate: Fate) -> Crossing:
        self._cable.send(waiting.origin.other, waiting.packet)
        return self._record(waiting, fate, waiting.note)

    def _record(self, waiting: Waiting, fate: Fate, note: str) -> Crossing:
        self._settle()
        if note:
            self.film.remark(waiting.frame, f"{fate}: {note}")
        crossing = Crossing(
            t_s=self.elapsed_s,
            states=self.look(),
            origin=waiting.origin,
            segment=self.film.segment(waiting.packet),
            fate=fate,
            frame=waiting.frame,
            note=note,
        )
        self.film.steps.append(crossing)
        return crossing

    def _local_ports(self, side: Side) -> tuple[int, int]:
        """Return the followed connection's (local, remote) port on a side; (0, 0) before one."""
        client, server = self._followed
        return (client, server) if side is Side.CLIENT else (server, client)

    def _end_state(self, side: Side) -> EndState:
        lookout = self._lookouts[side]
        found = end_state(lookout.between(*self._local_ports(side)))
        if found.state is not TcpState.CLOSE:
            self._was_there.add(side)
        elif side not in self._was_there and lookout.listens():
            return EndState(state=TcpState.LISTEN)
        return found
