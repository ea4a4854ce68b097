"""A server process's books, and its memory of the TIME_WAIT that it left behind."""

import time
from itertools import takewhile

from twbench.model.endings import Departure
from twbench.model.reports import ServerReport
from twbench.model.states import TIME_WAIT_S, TIME_WAIT_SLACK_S

_SECOND_NS = 1_000_000_000
_SURELY_NS = round(TIME_WAIT_S * _SECOND_NS)
_PERHAPS_NS = round((TIME_WAIT_S + TIME_WAIT_SLACK_S) * _SECOND_NS)

Peer = tuple[str, int] | bytes
"""Address and port of a client, as an engine has them: one listener's are all of one kind."""


class Ledger:
    """Counts for the current tick; `take` closes the tick.

    No kernel counter tells that a SYN ended a TIME_WAIT early (tcp_timewait_state_process answers
    TCP_TW_SYN), so each listener remembers which peers it closed first, and when.
    """

    def __init__(self) -> None:
        """Open the books, all zero."""
        self.report = ServerReport()

    def accepted(self, peer: Peer | None, left_ns: dict[Peer, int]) -> None:
        """Book a new connection; `left_ns` is its listener's memory of active closes."""
        self.report.accepted += 1
        if peer is None or not left_ns:
            return
        closed_ns = left_ns.pop(peer, None)
        if closed_ns is None:
            return
        age_ns = time.monotonic_ns() - closed_ns
        if age_ns < _SURELY_NS:
            self.report.reopened += 1
        elif age_ns < _PERHAPS_NS:
            self.report.reopened_perhaps += 1

    def departed(
        self,
        how: Departure,
        peer: Peer | None,
        left_ns: dict[Peer, int],
        now_ns: int | None = None,
    ) -> None:
        """Book the end of a connection.

        A batch that gives one `now_ns` object for all of its connections keeps the memory small:
        about 80 bytes for each address and port in it, for 65 s, and not 115.
        """
        self.report.departures[how.value] += 1
        if how is Departure.ACTIVE_CLOSE and peer is not None:
            left_ns[peer] = time.monotonic_ns() if now_ns is None else now_ns

    @staticmethod
    def forget(left_ns: dict[Peer, int]) -> None:
        """Drop from a listener's memory whatever no longer waits: TIME_WAIT is surely over."""
        # accepted() takes a peer out before departed() puts it in again, so the oldest come first
        before_ns = time.monotonic_ns() - _PERHAPS_NS
        for peer, _ in [*takewhile(lambda left: left[1] <= before_ns, left_ns.items())]:
            del left_ns[peer]

    def take(self, now_ns: int) -> ServerReport:
        """Close the tick: return its report and begin the next."""
        report, self.report = self.report, ServerReport()
        report.t_ns = now_ns
        return report
