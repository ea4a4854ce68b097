"""What the audit is given: the applications' books and the kernels' counters of one run."""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass

from twbench.model.endings import Departure, Ending
from twbench.model.outcomes import kind_of_key
from twbench.model.reports import FleetReport, ServerReport
from twbench.model.states import TIME_WAIT_S, TIME_WAIT_SLACK_S, Side


@dataclass(frozen=True, kw_only=True, slots=True)
class StackAccount:
    """One kernel network stack: which sides it carries, and what it counted during the run."""

    name: str
    sides: frozenset[Side]
    counters: Mapping[str, int]
    """Rises since the first tick, by nstat's names; what is missing is 0."""
    history: tuple[tuple[float, int], ...]
    """(seconds, entries into TIME_WAIT so far) at every tick, in order."""
    time_wait_end: int
    """sockstat `tw` at the last tick."""
    waiting: tuple[int, ...] = ()
    """sockstat `tw` at every tick of `history`."""
    accept_queue_end: int
    """Connections that nobody had accepted at the end."""
    fleet: FleetReport
    """The books of the client hosts on this stack; empty where there are none."""
    server: ServerReport
    """The books of the server, if it is on this stack; else empty."""
    bare_resets: int = 0
    """RSTs without ACK that came from this side, as a wire saw them; 0 without a wire."""
    bare_resets_met: int = 0
    """Likewise those that came from the other side."""

    def count(self, name: str) -> int:
        """Return a kernel counter's rise."""
        return self.counters.get(name, 0)

    @property
    def entries(self) -> int:
        """Return entries into TIME_WAIT.

        TWKilled counts those that are to last for 4 s at most (__inet_twsk_schedule).
        """
        return self.count("TcpExtTW") + self.count("TcpExtTWKilled")

    def departed(self, how: Departure) -> int:
        """Return how many connections the applications on this stack left in a way."""
        return self.fleet.departures[how] + self.server.departures[how]

    @property
    def crossed(self) -> int:
        """Return the closes of which nobody can say whether the peer's FIN was the first."""
        return self.fleet.crossed + self.server.crossed

    @property
    def aborts(self) -> int:
        """Return the closes that the kernel carried out as a reset, whatever they were meant as."""
        return self.count("TcpExtTCPAbortOnClose") + self.count("TcpExtTCPAbortOnData")

    @property
    def unforeseen_resets(self) -> int:
        """Return closes that the kernel turned into a reset, though the application meant a FIN.

        TCPAbortOnClose: unread data lay in the socket; TCPAbortOnData: data came after the close,
        or linger was 0, which is what the application's own resets count as. Resets that were
        booked and never happened are no effect of this kind: they stay in the residual.
        """
        return max(0, self.aborts - self.departed(Departure.ACTIVE_RESET))

    @property
    def untaken_resets(self) -> int:
        """Return the resets of this side's that no close of a socket here brought about.

        A TIME_WAIT sent them, or the peer's RST was there before.
        """
        return max(0, self.departed(Departure.ACTIVE_RESET) - self.aborts)

    def expired(self, removed: int) -> tuple[int, int]:
        """Return at least and at most how many TIME_WAIT had expired by the last tick.

        An entry lasts for TIME_WAIT_S plus what the timer wheel rounds up; `removed` were gone
        before their time.
        """
        if not self.history:
            return 0, 0
        end_s = self.history[-1][0]
        surely = self._entries_by(end_s - TIME_WAIT_S - TIME_WAIT_SLACK_S, later=False)
        perhaps = self._entries_by(end_s - TIME_WAIT_S, later=True)
        return max(0, surely - removed), perhaps

    @property
    def vanished(self) -> int:
        """Return how many TIME_WAIT ended early, at the least.

        At some tick there were so many fewer than had come in since any could have expired.
        """
        times = [t_s for t_s, _ in self.history]
        most = 0
        for (t_s, entries), waiting in zip(self.history, self.waiting, strict=False):
            after = bisect_right(times, t_s - TIME_WAIT_S)
            perhaps_expired = self.history[after][1] if after else 0
            most = max(most, entries - perhaps_expired - waiting)
        return most

    def _entries_by(self, t_s: float, *, later: bool) -> int:
        """Return the entries at the last tick up to `t_s`, or at the first one after it."""
        before = [entries for at_s, entries in self.history if at_s <= t_s]
        after = [entries for at_s, entries in self.history if at_s > t_s]
        if later and before and after:
            return after[0]
        return before[-1] if before else 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Account:
    """A whole run."""

    ending: Ending
    stacks: tuple[StackAccount, ...]
    promised: bool = True
    """False where other programs share the counters, so that nothing can be held to balance."""
    foreign: bool = False
    """Whether the client closes as it likes, and keeps no books of its connections."""

    @property
    def fleet(self) -> FleetReport:
        """Return the books of all client hosts together."""
        total = FleetReport()
        for stack in self.stacks:
            total.add(stack.fleet)
        return total

    @property
    def server(self) -> ServerReport:
        """Return the books of the server."""
        total = ServerReport()
        for stack in self.stacks:
            total.add(stack.server)
        return total

    @property
    def races(self) -> int:
        """Return the requests that met a connection which the server had just closed."""
        return _errors_of_kind(self.fleet, "keepalive_race")

    @property
    def refused(self) -> int:
        """Return the connects that a RST answered."""
        return _errors_of_kind(self.fleet, "refused")


def _errors_of_kind(fleet: FleetReport, name: str) -> int:
    return sum(n for key, n in fleet.errors.items() if kind_of_key(key).name == name)
