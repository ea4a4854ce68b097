"""How a server answers and leaves: fixed by the plan, or chosen by a request's URL."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from urllib.parse import parse_qs, urlsplit

from twbench.model.endings import ENDINGS
from twbench.model.plans import ServerPlan

BY_URL = frozenset(
    name for name, ending in ENDINGS.items() if ending.answered and not ending.needs_wire
)
"""Endings that a URL may choose: those in which the request is read and answered."""

_HEAD_END = b"\r\n\r\n"
_LINE = b"twbench sends this line again and again until the body has its size\n"
_LARGEST_BODY = 10_000_000
_LONGEST_DELAY_MS = 600_000.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Behaviour:
    """What the connections of a server do."""

    ending: str
    hold_s: float
    delay_s: float
    keepalive_timeout_s: float
    keepalive_requests: int
    answer: Callable[[bool], bytes]
    """Returns a whole answer; the argument says whether it is its connection's last."""
    by_url: bool = False
    """Whether what is asked for decides; else every request is served alike."""
    redirects: bool = False
    """Whether the answer sends elsewhere."""
    request_timeout_s: float = 60.0
    """How long the first request may take to come."""

    @classmethod
    def of(cls, plan: ServerPlan) -> "Behaviour":
        """Return what a plan asks for."""
        server = plan.server
        prepared = tuple(answer(server.response_bytes, last) for last in (False, True))
        return cls(
            ending=plan.ending.kind,
            hold_s=plan.ending.hold_s,
            delay_s=server.delay_ms / 1000,
            keepalive_timeout_s=server.keepalive_timeout_s,
            keepalive_requests=server.keepalive_requests,
            answer=prepared.__getitem__,
            by_url=plan.by_url or plan.web is not None,
        )


def answer_head(
    body_bytes: int,
    last: bool,  # noqa: FBT001 - as `Behaviour.answer`
    *,
    status: str = "200 OK",
    about: str = "Content-Type: text/plain",
) -> bytes:
    """Return the head of an answer; `last` announces the end of the connection."""
    connection = "close" if last else "keep-alive"
    return (
        f"HTTP/1.1 {status}\r\nServer: twbench\r\n{about}\r\n"
        f"Content-Length: {body_bytes}\r\nConnection: {connection}\r\n\r\n"
    ).encode()


def answer(body_bytes: int, last: bool) -> bytes:  # noqa: FBT001 - as `Behaviour.answer`
    """Return a whole answer with a body of exactly `body_bytes`."""
    return answer_head(body_bytes, last) + filler(body_bytes)


def filler(size_bytes: int) -> bytes:
    """Return plain text of exactly this size."""
    return (_LINE * (size_bytes // len(_LINE) + 1))[:size_bytes]


def without_body(whole: bytes) -> bytes:
    """Return an answer as HEAD gets it: the head alone, with the length that GET would get."""
    return whole[: whole.index(_HEAD_END) + len(_HEAD_END)]


def chosen_by_url(usual: Behaviour, url: bytes) -> Behaviour:
    """Return the behaviour that `/<ending>?bytes=N&delay_ms=N` asks for.

    An ending that is named is shown at once: this request is then the connection's last. What the
    URL does not name stays as usual; an unknown ending or a bad number gets a 404.
    """
    try:
        parts = urlsplit(url.decode("latin-1"))
        asked = parse_qs(parts.query, keep_blank_values=True)
        query = {name: float(values[-1]) for name, values in asked.items()}
    except ValueError:
        return not_found(usual)
    named = parts.path.strip("/")
    ending = named or usual.ending
    size = query.pop("bytes", None)
    delay_ms = query.pop("delay_ms", usual.delay_s * 1000)
    known = ending in BY_URL or ending == usual.ending
    fits = 0 <= (size or 0) <= _LARGEST_BODY and 0 <= delay_ms <= _LONGEST_DELAY_MS
    if query or not known or not fits or (size or 0) % 1:
        return not_found(usual)
    requests = 1 if named and named != "server-idle" else usual.keepalive_requests
    chosen = replace(usual, ending=ending, delay_s=delay_ms / 1000, keepalive_requests=requests)
    if size is None:
        return chosen
    return replace(chosen, answer=partial(answer, int(size)))


def not_found(usual: Behaviour) -> Behaviour:
    """Return the behaviour towards a request for what there is not."""
    return replace(usual, answer=partial(answer_head, 0, status="404 Not Found"))
