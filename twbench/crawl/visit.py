"""One user's visit to a page, and the pause after it."""

import time
from types import TracebackType
from typing import Protocol, Self

from twbench.crawl.frontier import Target
from twbench.fleet.part import LONGEST_PAUSE_NS, SHORTEST_PAUSE_NS
from twbench.model.outcomes import Phase

_UNCONNECTED = frozenset({Phase.RESOLVE, Phase.BIND, Phase.CONNECT})


class Books(Protocol):
    """Where visits are booked."""

    def end(self, visit: "Visit", error: BaseException | None) -> None:
        """Book what has become of it."""


class CrawlerError(Exception):
    """A crawler does not do its part; the message says what it should do."""


class Visit:
    """One attempt at a page: `with visit:` around its fetching books what becomes of it.

    An exception that leaves the block before `got` is the page's failure: it is booked by its
    cause, and goes no further. One after it is the crawler's own, and does.
    """

    __slots__ = (
        "_pages",
        "began_ns",
        "body_bytes",
        "failed_in",
        "got_ns",
        "status",
        "target",
        "url",
    )

    def __init__(self, pages: Books, target: Target, url: str) -> None:
        """Be handed out by `pages`."""
        self._pages = pages
        self.target = target
        self.began_ns = self.got_ns = self.status = self.body_bytes = 0
        self.failed_in: Phase | None = None
        self.url = url

    def got(self, status: int, body_bytes: int) -> None:
        """Tell of a whole answer: its HTTP status, and the size of its body."""
        self.status = status
        self.body_bytes = body_bytes
        # last: whoever cuts a thread off takes what has this for whole
        self.got_ns = time.monotonic_ns()

    def __enter__(self) -> Self:
        """Begin the attempt, now."""
        if self.began_ns:
            raise CrawlerError("a visit is one attempt: take the next from pages")
        self.began_ns = time.monotonic_ns()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        """Book the outcome, and keep a page's failure from going further."""
        self._pages.end(self, error)
        if self.got_ns:
            return False
        if error is None:
            raise CrawlerError("a visit ended without its answer: call visit.got(status, bytes)")
        return isinstance(error, Exception)


class Rest:
    """The pauses of one user: to think, and, longer and longer, while there is no connection."""

    def __init__(self, think_ns: int) -> None:
        """Take the time to think after each page, in nanoseconds."""
        self._think_ns = think_ns
        self._unconnected_ns = SHORTEST_PAUSE_NS

    def after(self, visit: Visit) -> int:
        """Return how long to pause after a visit, in nanoseconds."""
        if visit.failed_in is None or visit.failed_in not in _UNCONNECTED:
            self._unconnected_ns = SHORTEST_PAUSE_NS
            return self._think_ns
        pause_ns = self._unconnected_ns
        self._unconnected_ns = min(2 * pause_ns, LONGEST_PAUSE_NS)
        return max(pause_ns, self._think_ns)
