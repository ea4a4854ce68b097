"""Idle connections that a server closes as they are used, and what is then sent again unseen."""

from collections.abc import Iterator
from dataclasses import dataclass

from twbench.compare.rules.rows import (
    Advice,
    Document,
    Row,
    failed,
    of_kind,
    percent,
    quoted,
    rows_of,
    same_web,
    settings_of,
    table_of,
)
from twbench.model.crawling import Web
from twbench.model.sites import Sites

_IDLE_KEYS = {
    "aiohttp": "keepalive_timeout_s",
    "httpx": "keepalive_expiry_s",
    "pool": "idle_expiry_s",
}
"""Of those that let idle connections go, by table; requests and urllib3 never do."""
_KEEPS_NONE = {
    "session": "per-request",
    "force_close": True,
    "requests_per_connection": 1,
    "max_keepalive_connections": 0,
    "keepalive_expiry_s": 0,
}
"""Settings with which no connection lies idle."""

_REPEATING = frozenset({"aiohttp", "urllib3"})
"""Libraries that by default send again what failed, and tell nobody (twbench.crawl.engines)."""


def keepalive_race(document: Document) -> Iterator[Advice]:
    """A client that keeps idle connections longer than a server does, and met the race."""
    rows = rows_of(document)
    for row in rows:
        limit, wait = _idle_limit(row), _shortest_wait(row)
        if limit is None or wait is None or limit.seconds <= wait.seconds or not _met(row):
            continue
        calm = [
            (other, its)
            for other in rows
            if same_web(row, other)
            and (its := _idle_limit(other))
            and its.seconds < wait.seconds
            and not _met(other)
        ]
        races, silent = of_kind(row, "keepalive_race"), row["totals"]["silent_retries"]
        met = f"{races:,} of {row['totals']['attempted']:,} attempts met the keep-alive race"
        repeated = f", and it repeated at least {silent:,} in silence" if silent else ""
        without = "".join(f"; {quoted(o)} with {its.text} had none" for o, its in calm[:1])
        yield Advice(
            rule="keepalive_race",
            about=(row["name"], *(other["name"] for other, _ in calm[:1])),
            sentence=f"{quoted(row)}: {limit.key} {limit.text} is longer than {wait.text}:"
            f" {met}{repeated}{without}.",
        )


def silent_retries(document: Document) -> Iterator[Advice]:
    """A library that repeats what failed, and tells nobody."""
    for row in rows_of(document):
        silent, totals = row["totals"]["silent_retries"], row["totals"]
        if not silent:
            continue
        told, why = failed(row), "its crawler sends more requests than it tells of"
        if table_of(row) in _REPEATING:
            why = (
                f"its library repeats what fails. It told of {told:,} failures;"
                f" at least {told + silent:,} happened"
            )
        yield Advice(
            rule="silent_retries",
            about=(row["name"],),
            sentence=f"{quoted(row)}: at least {silent:,} requests came to the server's host beyond"
            f" those that the client tells of ({percent(silent, totals['attempted'])}): {why}.",
        )


def _met(row: Row) -> bool:
    """Return whether a contestant met the race, and told of it or not."""
    return bool(of_kind(row, "keepalive_race") or row["totals"]["silent_retries"])


@dataclass(frozen=True, kw_only=True, slots=True)
class _IdleLimit:
    key: str
    seconds: float

    @property
    def text(self) -> str:
        return "unset" if self.seconds == float("inf") else f"{self.seconds:g} s"


def _idle_limit(row: Row) -> _IdleLimit | None:
    """Return for how long a contestant keeps an idle connection; None: it keeps none."""
    table, settings = table_of(row), settings_of(row)
    keeps_none = any(settings.get(key) == value for key, value in _KEEPS_NONE.items())
    if table not in _IDLE_KEYS or not settings or keeps_none:
        return None
    key = _IDLE_KEYS[table]
    return _IdleLimit(key=f"client.{table}.{key}", seconds=settings.get(key) or float("inf"))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Wait:
    """For how long a server keeps a connection that lies idle."""

    seconds: float
    kind: str | None = None
    """Of the sites that do so; None: the server as it is."""

    @property
    def text(self) -> str:
        if self.kind is None:
            return f"this server's {self.seconds:g} s"
        return f"the {self.seconds:g} s of its '{self.kind}' sites"


def _shortest_wait(row: Row) -> _Wait | None:
    """Return the shortest among the sites that there are; None: each closes after one answer."""
    scenario = row["scenario"]
    server, web = scenario["server"], Web.model_validate(scenario.get("web") or {"sites": 1})
    # which kind a site is of depends on its number alone
    sites = Sites(web, median_bytes=0, seed=0)
    waits = []
    for kind in {sites.kind(number) for number in range(web.sites)}:
        usual = _Wait(seconds=server["keepalive_timeout_s"])
        own_s = kind and kind.keepalive_timeout_s
        requests = (kind and kind.keepalive_requests) or server["keepalive_requests"]
        if requests > 1:
            waits.append(_Wait(seconds=own_s, kind=kind.name) if kind and own_s else usual)
    return min(waits, key=lambda wait: (wait.seconds, wait.kind or ""), default=None)
