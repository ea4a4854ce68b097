"""What can carry the bundled server, and the choice between them.

`streams` is asyncio, which works everywhere. `uring` is io_uring, which takes less processor time
for each connection, where the kernel has it: FIXED_FD_INSTALL came with Linux 6.8, and a close
that waits for nothing else with 6.13. It holds a bounded number of connections, and leaves the
others unseen in the accept queue.
"""

import asyncio
import socket
from typing import Literal, Protocol

from twbench.model.plans import ServerPlan
from twbench.server.abrupt import AbruptListener
from twbench.server.behaviour import Behaviour
from twbench.server.http import Listener
from twbench.server.ledger import Ledger
from twbench.server.uring import NEEDED, UringServer, slots_for
from twbench.server.web import SiteListener, WebAnswers
from twbench.uring.errors import RingRefusedError
from twbench.uring.probe import probe

_UNREAD = ("server-unread", "crash")


class EngineRefusedError(Exception):
    """The plan wants an engine that cannot be had; the text is one sentence."""


class Engine(Protocol):
    """Serves what comes to listening sockets."""

    name: Literal["streams", "uring"]
    why: str
    """One sentence: why this engine."""

    async def serve(self, sock: socket.socket, ledger: Ledger) -> None:
        """Take a listening socket, and book its connections."""

    async def run(self) -> None:
        """Serve until `close` is called."""

    def reap(self) -> None:
        """End the waits that are over; to be called about ten times a second."""

    def close(self) -> None:
        """Accept nothing more."""


class Streams:
    """asyncio's transports."""

    name: Literal["streams", "uring"] = "streams"

    def __init__(self, plan: ServerPlan, why: str) -> None:
        """Know the plan, and why it is carried this way."""
        self.why = why
        self._plan = plan
        self._web = WebAnswers(plan.web, plan) if plan.web else None
        self._listeners: list[Listener | AbruptListener] = []
        self._over = asyncio.Event()

    async def serve(self, sock: socket.socket, ledger: Ledger) -> None:
        """Take a listening socket, and book its connections."""
        plan = self._plan
        if plan.ending.kind in _UNREAD:
            crash = plan.ending.kind == "crash"
            abrupt = AbruptListener(sock, ledger, crash=crash, hold_s=plan.ending.hold_s)
            self._listeners.append(abrupt)
            return
        listener = self._listener(ledger)
        loop = asyncio.get_running_loop()
        await loop.create_server(listener, sock=sock, backlog=plan.server.backlog)
        self._listeners.append(listener)

    def _listener(self, ledger: Ledger) -> Listener:
        if self._web is None:
            return Listener(Behaviour.of(self._plan), ledger)
        return SiteListener(self._web, ledger)

    async def run(self) -> None:
        """Wait for `close`: the loop does the rest."""
        await self._over.wait()

    def reap(self) -> None:
        """End the waits that are over."""
        for listener in self._listeners:
            listener.reap()

    def close(self) -> None:
        """Accept nothing more."""
        for listener in self._listeners:
            listener.close()
        self._over.set()


class Uring:
    """A ring."""

    name: Literal["streams", "uring"] = "uring"

    def __init__(self, plan: ServerPlan, why: str) -> None:
        """Make the ring. Raises OSError, ValueError for too few descriptors."""
        self.why = why
        self._behaviour = Behaviour.of(plan)
        self._listeners: list[Listener] = []
        listeners = len(plan.endpoints)
        slots = slots_for(listeners, plan.connections)
        self._server = UringServer(family=plan.family, listeners=listeners, slots=slots)

    async def serve(self, sock: socket.socket, ledger: Ledger) -> None:
        """Take a listening socket, and book its connections."""
        self._listeners.append(self._server.listen(sock, self._behaviour, ledger))

    async def run(self) -> None:
        """Serve until `close` is called."""
        await self._server.run()

    def reap(self) -> None:
        """Find the silent connections, and end the waits that are over."""
        self._server.look()
        for listener in self._listeners:
            listener.reap()

    def close(self) -> None:
        """Accept nothing more, and end every connection."""
        self._server.close()


def choose(plan: ServerPlan) -> Engine:
    """Return the engine that a plan asks for, or the best there is.

    Raises:
        EngineRefusedError: the plan insists on io_uring, and it cannot be had.
    """
    if plan.server.engine == "streams":
        return Streams(plan, "the scenario asks for it")
    asked = plan.server.engine == "uring"
    why_not = _why_no_ring(plan)
    if why_not is None:
        try:
            return Uring(plan, "the scenario asks for it" if asked else "the kernel has io_uring")
        except RingRefusedError as error:
            why_not = error.strerror or str(error)
        except OSError as error:
            why_not = f"io_uring cannot be set up: {error.strerror or error}"
        except ValueError as error:
            why_not = str(error)
    if asked:
        raise EngineRefusedError(why_not)
    return Streams(plan, why_not)


def _why_no_ring(plan: ServerPlan) -> str | None:
    """Return one sentence on why a plan cannot be carried by a ring, or None."""
    if plan.ending.kind in _UNREAD:
        return f"the ending {plan.ending.kind!r} takes sockets that are never read"
    if plan.web:
        return "sites are played one by one"
    if plan.by_url:
        return "answers that URLs choose are made one by one"
    return probe().why_not(NEEDED)
