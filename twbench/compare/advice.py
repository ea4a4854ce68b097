"""Sentences drawn from what a comparison measured, each with its figures. Pure.

A rule looks at the content of compare.json and gives as many sentences as it finds, or none. It
speaks of what happened, and names the setting that goes with it; it never guesses.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from twbench.model.outcomes import kind_of_key

Document = Mapping[str, Any]
Row = Mapping[str, Any]
"""A contestant, as compare.json has it."""

_KEEPS = 0.5
"""Connections a page: whoever has fewer keeps them."""
_OPENS = 0.9
_NEARLY_FULL = 0.8
_MANY = 100
"""In TIME_WAIT: fewer are not worth a sentence."""
_MOST = 0.9
_OFTEN = 0.001
"""Share of the attempts that failed."""
_CHURNS = 0.05
_TWICE = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Advice:
    """One sentence."""

    rule: str
    about: tuple[str, ...]
    """Names of contestants."""
    sentence: str

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {"rule": self.rule, "about": list(self.about), "sentence": self.sentence}


def advise(document: Document) -> list[Advice]:
    """Return all that the rules find, in the order of the rules."""
    if not document["rounds"]:
        return []
    return [advice for rule in RULES for advice in rule(document)]


def keepalive_race(document: Document) -> Iterator[Advice]:
    """A client that keeps idle connections longer than a server does, and met the race."""
    rows = _rows(document)
    for row in rows:
        limit, server_s = _idle_limit(row), _shortest_keepalive_s(row)
        races, silent = _of_kind(row, "keepalive_race"), row["totals"]["silent_retries"]
        if limit is None or limit.seconds <= server_s or not races + silent:
            continue
        calm = [
            (other, its)
            for other in rows
            if (its := _idle_limit(other))
            and its.seconds < limit.seconds
            and not _of_kind(other, "keepalive_race") + other["totals"]["silent_retries"]
        ]
        met = f"{races:,} of {row['totals']['attempted']:,} attempts met the keep-alive race"
        repeated = f", and its library repeated {silent:,} in silence" if silent else ""
        without = "".join(f"; {_quoted(o)} with {its.text} had none" for o, its in calm[:1])
        yield Advice(
            rule="keepalive_race",
            about=(row["name"],),
            sentence=f"{_quoted(row)}: {limit.key} {limit.text} is longer than this server's"
            f" {server_s:g} s: {met}{repeated}{without}.",
        )


def silent_retries(document: Document) -> Iterator[Advice]:
    """A library that repeats what failed, and tells nobody."""
    for row in _rows(document):
        silent, totals = row["totals"]["silent_retries"], row["totals"]
        if not silent:
            continue
        told = _failed(row)
        yield Advice(
            rule="silent_retries",
            about=(row["name"],),
            sentence=f"{_quoted(row)}: the server saw at least {silent:,} requests beyond those"
            f" that the client knows of ({_percent(silent, totals['attempted'])}): its library"
            f" repeats what fails. It told of {told:,} failures; {told + silent:,} happened.",
        )


def connection_per_page(document: Document) -> Iterator[Advice]:
    """Contestants that open a connection for each page, beside one of their engine that keeps."""
    by_engine: dict[str, list[Row]] = {}
    for row in _rows(document):
        by_engine.setdefault(row["engine"], []).append(row)
    for engine, rows in by_engine.items():
        opening = [row for row in rows if _median(row, _PER_PAGE) >= _OPENS]
        keeping = [row for row in rows if 0 < _median(row, _PER_PAGE) <= _KEEPS]
        if not opening or not keeping:
            continue
        # whoever opens and wants to keep would take the fastest of those that do
        other = max(keeping, key=lambda row: _median(row, "pages_per_s"))
        each = "; ".join(_cost(row) for row in opening)
        yield Advice(
            rule="connection_per_page",
            about=(*(row["name"] for row in opening), other["name"]),
            sentence=f"With {engine}, a connection for each page: {each}."
            f" Kept connections: {_cost(other)}.",
        )


def ports_nearly_used_up(document: Document) -> Iterator[Advice]:
    """A contestant that came near the end of its ephemeral ports, or reached it."""
    for row in _rows(document):
        capacity, peak = row["ports_capacity"], _median(row, "ports_in_use_peak")
        refused = _of_kind(row, "ports_exhausted")
        if not capacity or (peak < _NEARLY_FULL * capacity and not refused):
            continue
        found_none = f", and {refused:,} attempts found none" if refused else ""
        yield Advice(
            rule="ports_nearly_used_up",
            about=(row["name"],),
            sentence=f"{_quoted(row)}: {peak:,.0f} of {capacity:,} ports towards one destination"
            f" were in use ({_percent(peak, capacity)}){found_none}. Kept connections take fewer;"
            " more source addresses, or a wider net.ipv4.ip_local_port_range, give more.",
        )


def time_wait_side(document: Document) -> Iterator[Advice]:
    """Where TIME_WAIT lies: with whom closes first."""
    sides: dict[str, list[str]] = {}
    for row in _rows(document):
        peaks = _peaks(row)
        total = sum(peaks.values())
        for host, peak in peaks.items():
            if total >= _MANY and peak >= _MOST * total:
                sides.setdefault(host, []).append(f"{_quoted(row)} {peak:,.0f}")
    if sides:
        where = "; on ".join(f"{host}: {', '.join(held)}" for host, held in sides.items())
        yield Advice(
            rule="time_wait_side",
            about=(),
            sentence=f"Who closes first holds TIME_WAIT. At the peak, on {where}.",
        )


def churn(document: Document) -> Iterator[Advice]:
    """A pool that is too small for its users or sites, and so opens connections again."""
    rows = _rows(document)
    keeping = [row for row in rows if 0 < _median(row, _PER_PAGE) <= _KEEPS]
    if not keeping:
        return
    least = min(keeping, key=lambda row: _median(row, _PER_PAGE))
    for row in rows:
        mine = _median(row, _PER_PAGE)
        if mine < _CHURNS or mine < _TWICE * _median(least, _PER_PAGE):
            continue
        if bounds := " and ".join(_too_small(row)):
            yield Advice(
                rule="churn",
                about=(row["name"], least["name"]),
                sentence=f"{_quoted(row)}: {bounds}: {mine:.2f} connections a page, although it"
                f" keeps them; {_quoted(least)} opened {_median(least, _PER_PAGE):.3g}.",
            )


def failed_attempts(document: Document) -> Iterator[Advice]:
    """Contestants with failures that others have not."""
    rows = _rows(document)
    fewest = min((_failed(row) / max(1, row["totals"]["attempted"]) for row in rows), default=0)
    for row in rows:
        attempted, errors = row["totals"]["attempted"], row["totals"]["errors"]
        share = _failed(row) / max(1, attempted)
        if share < _OFTEN or share < _TWICE * fewest:
            continue
        key = max((k for k in errors if kind_of_key(k).name != "run_ended"), key=errors.__getitem__)
        yield Advice(
            rule="failed_attempts",
            about=(row["name"],),
            sentence=f"{_quoted(row)}: {_failed(row):,} of {attempted:,} attempts failed"
            f" ({_percent(_failed(row), attempted)}), {errors[key]:,} of them with {key}:"
            f" {kind_of_key(key).meaning}.",
        )


def undecided(document: Document) -> Iterator[Advice]:
    """The two that are first, where the rounds do not tell them apart."""
    first, *rest = document["ranking"]
    if not rest:
        return
    second = rest[0]
    for pair in document["differences"].get("pages_per_s", ()):
        if {pair["name"], pair["other"]} == {first, second} and not pair["shown"]:
            low, high = pair["low"], pair["high"]
            if low is None or high is None:
                return
            yield Advice(
                rule="undecided",
                about=(first, second),
                sentence=f"'{pair['name']}' and '{pair['other']}' are first, and"
                f" {document['rounds']} rounds show no difference in pages/s: the first lies"
                f" between {1 + low:.3g} and {1 + high:.3g} times the second. More of them"
                " (compare.repeats) tell more.",
            )


RULES: Sequence[Callable[[Document], Iterator[Advice]]] = (
    undecided,
    failed_attempts,
    keepalive_race,
    silent_retries,
    connection_per_page,
    churn,
    ports_nearly_used_up,
    time_wait_side,
)

_PER_PAGE = "connections_per_page"


@dataclass(frozen=True, kw_only=True, slots=True)
class _IdleLimit:
    key: str
    seconds: float

    @property
    def text(self) -> str:
        return "unset" if self.seconds == float("inf") else f"{self.seconds:g} s"


_IDLE_KEYS = {"aiohttp": "keepalive_timeout_s", "httpx": "keepalive_expiry_s"}
"""Of the libraries that let idle connections go; requests and urllib3 never do."""
_OURS = ("auto", "streams", "uring")


def _idle_limit(row: Row) -> _IdleLimit | None:
    """Return for how long a contestant keeps an idle connection; None: it keeps none."""
    client = row["scenario"]["client"]
    engine = client["engine"]
    if engine in _OURS:
        pool = client.get("pool")
        seconds = (pool or {}).get("idle_expiry_s") or float("inf")
        return _IdleLimit(key="client.pool.idle_expiry_s", seconds=seconds) if pool else None
    settings = client.get(engine, {})
    one_use = settings.get("session") == "per-request" or settings.get("force_close")
    if engine not in _IDLE_KEYS or one_use:
        return None
    key = _IDLE_KEYS[engine]
    return _IdleLimit(key=f"client.{engine}.{key}", seconds=settings[key])


def _shortest_keepalive_s(row: Row) -> float:
    """Return the shortest time for which the server, or one of its sites, keeps a connection."""
    scenario = row["scenario"]
    kinds = scenario.get("web", {}).get("kinds", ())
    of_kinds = [kind["keepalive_timeout_s"] for kind in kinds if kind.get("keepalive_timeout_s")]
    return float(min([scenario["server"]["keepalive_timeout_s"], *of_kinds]))


def _too_small(row: Row) -> Iterator[str]:
    """Give each bound on kept connections that is below the users or sites that share it."""
    scenario = row["scenario"]
    client, engine = scenario["client"], scenario["client"]["engine"]
    users = scenario["load"].get("concurrency") or 0
    sites = scenario.get("web", {}).get("sites", 1)
    table = "pool" if engine in _OURS else engine
    settings = client.get(table) or {}
    if settings.get("session") == "per-request":
        return
    for of, key, number, what in (
        ("pool", "size", users, "users"),
        ("pool", "idle_per_site", users, "users"),
        ("httpx", "max_keepalive_connections", users, "users"),
        ("requests", "pool_connections", sites, "sites"),
        ("urllib3", "num_pools", sites, "sites"),
        ("urllib3", "maxsize", users, "users"),
    ):
        bound = settings.get(key) if of == table else None
        # httpx takes 0 for no limit
        if bound and bound < number:
            yield f"client.{table}.{key} {bound} is less than its {number} {what}"


def _rows(document: Document) -> list[Row]:
    return list(document["contestants"])


def _quoted(row: Row) -> str:
    return f"'{row['name']}'"


def _median(row: Row, key: str) -> float:
    return float(row["figures"].get(key, {}).get("median") or 0)


def _peaks(row: Row) -> dict[str, float]:
    """Return the peak of TIME_WAIT by host."""
    prefix = "time_wait_peak."
    return {
        key.removeprefix(prefix): _median(row, key)
        for key in row["figures"]
        if key.startswith(prefix)
    }


def _of_kind(row: Row, name: str) -> int:
    errors = row["totals"]["errors"]
    return sum(count for key, count in errors.items() if kind_of_key(key).name == name)


def _failed(row: Row) -> int:
    errors = row["totals"]["errors"]
    return sum(count for key, count in errors.items() if kind_of_key(key).name != "run_ended")


def _cost(row: Row) -> str:
    cpu = row["figures"].get("client_cpu_us_per_page", {}).get("median")
    of_cpu = f" {cpu:,.0f} µs of CPU a page," if cpu else ""
    return (
        f"{_quoted(row)} opens {_median(row, _PER_PAGE):.3g} a page:{of_cpu}"
        f" {sum(_peaks(row).values()):,.0f} in TIME_WAIT at the peak"
    )


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / max(1, whole):.2g}%"
