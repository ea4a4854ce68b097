"""The load generators of others: how each is called, and what it then says. Pure.

All make a connection per request, unless `keep_alive`: the server closes, or they ask it to.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

_UNITS_S = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """What a load is aimed at: an address and port, by so many users, for so many seconds."""

    address: str
    port: int
    users: int
    seconds: int
    exchanges: int
    """About as many as fit into these seconds: for programs that want a number."""
    keep_alive: bool = False

    @property
    def url(self) -> str:
        """Return the page that is asked for."""
        return f"http://{self.address}:{self.port}/"


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """What a load generator says of its load."""

    exchanges: int
    failed: int
    elapsed_s: float
    cpu_s: float | None = None
    """From the first connect to the last close, if the program measures it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tool:
    """A program: its arguments for a target, and how its standard output is read."""

    argv: Callable[[Target], list[str]]
    told: Callable[[str], Told]
    package: str = ""
    """Debian's, if it is one of Debian's."""


class UnreadableError(ValueError):
    """A program's output lacks what it is read for; the text is what was looked for, and where."""


def _find(pattern: str, text: str) -> re.Match[str]:
    found = re.search(pattern, text, re.MULTILINE)
    if found is None:
        raise UnreadableError(f"no {pattern!r} in:\n{text}")
    return found


def _number(pattern: str, text: str) -> float:
    return float(_find(pattern, text)[1])


def _sum(pattern: str, text: str) -> int:
    """Return the sum of all numbers found; programs leave out what did not happen."""
    found = re.finditer(pattern, text, re.MULTILINE)
    return sum(int(number) for each in found for number in each.groups())


def _wrk(target: Target) -> list[str]:
    close = [] if target.keep_alive else ["-H", "Connection: close"]
    many = ["-t1", f"-c{target.users}", f"-d{target.seconds}s", "--timeout=10s"]
    return ["wrk", *many, *close, target.url]


def read_wrk(text: str) -> Told:
    """Read wrk's report. Its seconds have two digits, its rate is exact."""
    made = int(_find(r"^\s*(\d+) requests in ", text)[1])
    errors = r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)"
    unwelcome = _sum(r"Non-2xx or 3xx responses: (\d+)", text)
    rate_per_s = _number(r"^Requests/sec:\s+(\S+)", text)
    return Told(
        exchanges=made - unwelcome,
        failed=_sum(errors, text) + unwelcome,
        elapsed_s=made / rate_per_s if made else 0.0,
    )


def _ab(target: Target) -> list[str]:
    keep = ["-k"] if target.keep_alive else []
    # -t sets -n to 50,000, so -n comes behind it; ab makes room for that many answers
    most = str(max(target.users, 2 * target.exchanges))
    many = ["-q", "-c", str(target.users), "-t", str(target.seconds), "-n", most]
    return ["ab", *many, *keep, target.url]


def read_ab(text: str) -> Told:
    """Read ab's report. Those that failed are among the complete ones."""
    failed = int(_number(r"^Failed requests:\s+(\d+)", text))
    failed += _sum(r"^Non-2xx responses:\s+(\d+)", text)
    return Told(
        exchanges=max(0, int(_number(r"^Complete requests:\s+(\d+)", text)) - failed),
        failed=failed,
        elapsed_s=_number(r"^Time taken for tests:\s+(\S+) seconds", text),
    )


def _hey(target: Target) -> list[str]:
    close = [] if target.keep_alive else ["-disable-keepalive"]
    many = ["-cpus", "1", "-c", str(target.users), "-z", f"{target.seconds}s"]
    return ["hey", *many, *close, target.url]


def read_hey(text: str) -> Told:
    """Read hey's report."""
    good = _sum(r"^\s*\[200\]\s+(\d+) responses", text)
    return Told(
        exchanges=good,
        failed=_sum(r"^\s*\[(?!200)\d+\]\s+(\d+) responses", text)
        + _sum(r"^\s*\[(\d+)\]\s+(?!\d+ responses)\S", text),
        elapsed_s=_number(r"^\s*Total:\s+(\S+) secs", text),
    )


def _h2load(target: Target) -> list[str]:
    close = [] if target.keep_alive else ["-H", "Connection: close"]
    # with -D it never ends when connections are closed (nghttp2 1.52)
    many = ["--h1", "-t1", f"-c{target.users}", f"-n{target.exchanges}"]
    return ["h2load", *many, *close, target.url]


def read_h2load(text: str) -> Told:
    """Read h2load's report."""
    counts = r"^requests: .* (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout"
    succeeded, failed, *_ = map(int, _find(counts, text).groups())
    span, unit = _find(r"^finished in ([\d.]+)(us|ms|s|m),", text).groups()
    return Told(exchanges=succeeded, failed=failed, elapsed_s=float(span) * _UNITS_S[unit])


def _epoll(target: Target) -> list[str]:
    numbers = (target.port, target.users, target.seconds)
    return ["build/epoll", target.address, *map(str, numbers)]


def read_epoll(text: str) -> Told:
    """Read the one line of JSON that bench/clients/epoll.c prints."""
    try:
        told = json.loads(text)
        return Told(
            exchanges=told["connections"],
            failed=told["errors"],
            elapsed_s=told["seconds"],
            cpu_s=told["cpu_seconds"],
        )
    except (ValueError, TypeError, KeyError) as error:
        raise UnreadableError(f"{error!r} in:\n{text}") from error


TOOLS: Mapping[str, Tool] = {
    "wrk": Tool(argv=_wrk, told=read_wrk, package="wrk"),
    "ab": Tool(argv=_ab, told=read_ab, package="apache2-utils"),
    "hey": Tool(argv=_hey, told=read_hey, package="hey"),
    "h2load": Tool(argv=_h2load, told=read_h2load, package="nghttp2-client"),
    "C epoll": Tool(argv=_epoll, told=read_epoll),
}
