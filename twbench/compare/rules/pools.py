"""Whether connections are kept, and what a pool that is too small for its users does to that."""

from collections.abc import Iterator
from dataclasses import dataclass

from twbench.compare.rules.rows import (
    KEEPS,
    OPENS,
    PER_PAGE,
    Advice,
    Document,
    Row,
    median_of,
    peaks,
    quoted,
    rows_of,
    same_web,
    settings_of,
    table_of,
)

_CHURNS = 0.05
_TWICE = 2


def connection_per_page(document: Document) -> Iterator[Advice]:
    """Contestants that open a connection for each page, beside one of their engine that keeps."""
    by_engine: dict[str, list[Row]] = {}
    for row in rows_of(document):
        by_engine.setdefault(row["engine"], []).append(row)
    for engine, rows in by_engine.items():
        opening = [row for row in rows if median_of(row, PER_PAGE) >= OPENS]
        keeping = [row for row in rows if _keeps(row)]
        if not opening or not keeping:
            continue
        # whoever opens and wants to keep would take the fastest of those that do
        other = max(keeping, key=lambda row: median_of(row, "pages_per_s"))
        each = "; ".join(_cost(row) for row in opening)
        yield Advice(
            rule="connection_per_page",
            about=(*(row["name"] for row in opening), other["name"]),
            sentence=f"With {engine}, a connection for each page: {each}."
            f" Kept connections: {_cost(other)}.",
        )


def churn(document: Document) -> Iterator[Advice]:
    """A pool that is too small for its users or sites, and one that opens less at the same web."""
    rows = rows_of(document)
    for row in rows:
        keeping = [other for other in rows if _keeps(other) and same_web(row, other)]
        least = min(keeping, key=lambda other: median_of(other, PER_PAGE), default=row)
        mine, fewest = median_of(row, PER_PAGE), median_of(least, PER_PAGE)
        bounds = " and ".join(_too_small(row))
        if mine < _CHURNS or mine < _TWICE * fewest or not bounds:
            continue
        although = ", although it keeps them" if mine < OPENS else ""
        yield Advice(
            rule="churn",
            about=(row["name"], least["name"]),
            sentence=f"{quoted(row)}: {bounds}, and it opened {mine:.2f} connections a"
            f" page{although}; {quoted(least)} opened {fewest:.3g}.",
        )


def _keeps(row: Row) -> bool:
    return 0 < median_of(row, PER_PAGE) <= KEEPS


def _cost(row: Row) -> str:
    cpu = row["figures"].get("client_cpu_us_per_page", {}).get("median")
    of_cpu = f" {cpu:,.0f} µs of CPU a page," if cpu else ""
    return (
        f"{quoted(row)} opens {median_of(row, PER_PAGE):.3g} a page:{of_cpu}"
        f" {sum(peaks(row).values()):,.0f} in TIME_WAIT at the peak"
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Bound:
    """A bound on kept connections, and who shares them."""

    table: str
    key: str
    shared_by: str
    of_fleet: bool = False
    """It is divided among the workers; any other is of each worker, or of each thread."""


_BOUNDS = (
    # users wait for a connection in use; what is idle makes room for another site's
    _Bound(table="pool", key="size", shared_by="sites", of_fleet=True),
    _Bound(table="pool", key="idle_per_site", shared_by="users"),
    _Bound(table="pool", key="idle", shared_by="users", of_fleet=True),
    _Bound(table="httpx", key="max_keepalive_connections", shared_by="users"),
    _Bound(table="requests", key="pool_connections", shared_by="sites"),
    _Bound(table="urllib3", key="num_pools", shared_by="sites"),
    _Bound(table="urllib3", key="maxsize", shared_by="users"),
)


def _too_small(row: Row) -> Iterator[str]:
    """Give each bound on kept connections that is below the users or sites that share it."""
    scenario, settings = row["scenario"], settings_of(row)
    table, web = table_of(row), scenario.get("web")
    # none of them is kept, whatever the bounds
    if settings.get("session") == "per-request" or settings.get("requests_per_connection") == 1:
        return
    # without sites the fleet plays a pool of one bound, its users'
    if table == "pool" and not web:
        return
    workers = scenario["client"]["workers"] * scenario["lab"]["client"]["hosts"]
    users = -(-(scenario["load"].get("concurrency") or 0) // workers)
    of_each = " of each worker" if workers > 1 else ""
    sharing = {"sites": (web or {"sites": 1})["sites"], "users": users}
    for bound in _BOUNDS:
        given = settings.get(bound.key) if bound.table == table else None
        if given is None:
            continue
        setting = f"client.{table}.{bound.key} {given}"
        most = given
        if bound.of_fleet and workers > 1:
            most = max(1, given // workers)
            setting += f", {most} for each worker,"
        number = sharing[bound.shared_by]
        if most == 0:
            yield f"{setting} keeps none"
        elif most < number:
            whose = of_each if bound.shared_by == "users" else ""
            yield f"{setting} is less than the {number} {bound.shared_by}{whose}"
