"""A comparison as tables: who is first, what it costs, and what the rounds do not tell apart."""

import io
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

Document = Mapping[str, Any]
"""The content of compare.json."""
Row = Mapping[str, Any]
"""One contestant of it."""

WIDTH = 120
_RANKED_BY = "pages_per_s"
_UNKNOWN = "-"
_BEST = "*"
_TENFOLD = 10
"""An interval that reaches so far says nothing."""


def render_contest(document: Document) -> RenderableType:
    """Return everything a comparison says, as a person reads it."""
    parts: list[RenderableType] = [_title(document)]
    rows = _ranked(document)
    if rows:
        tables = (_ranking(document, rows), _costs(rows), _outcomes(rows), _contestants(rows))
        parts += [part for table in tables for part in (table, Text())]
    parts += _notes(document)
    if document["advice"]:
        parts += [Text(), Text("what was measured says", style="bold")]
        parts += [Text(f"- {each['sentence']}") for each in document["advice"]]
    return Group(*parts)


def contest_text(document: Document) -> str:
    """Return the same as plain text."""
    out = io.StringIO()
    console = Console(file=out, width=WIDTH, highlight=False, color_system=None)
    console.print(render_contest(document))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def _ranked(document: Document) -> list[Row]:
    rows = {row["name"]: row for row in document["contestants"]}
    return [rows[name] for name in document["ranking"]]


def _title(document: Document) -> RenderableType:
    rounds = document["rounds"]
    count = f"{len(document['contestants'])} contestants, {rounds} of {document['repeats']} rounds"
    lines = [Text.assemble((document["name"], "bold"), f"   {count}")]
    if document["description"]:
        lines.append(Text(document["description"].strip()))
    return Group(*lines, Text())


def _ranking(document: Document, rows: Iterable[Row]) -> Table:
    """Return the contestants by pages/s, each held against the reference."""
    reference = document["reference"]
    table = _table("by pages/s", "contestant", "pages/s", "interval", f"against {reference}")
    for label in ("CPU µs/page", "p50 ms", "p99 ms"):
        table.add_column(label, justify="right", no_wrap=True)
    table.columns[3].justify = "left"
    for row in rows:
        table.add_row(
            row["name"],
            _marked(document, row, _RANKED_BY, ",.0f"),
            _interval(row, _RANKED_BY, ",.0f"),
            _against(document, row),
            _marked(document, row, "client_cpu_us_per_page", ",.0f"),
            _marked(document, row, "latency_p50_ms", ",.2f"),
            _marked(document, row, "latency_p99_ms", ",.2f"),
        )
    return table


def _costs(rows: list[Row]) -> Table:
    """Return what each takes of the kernels."""
    hosts = list(dict.fromkeys(host for row in rows for host in _hosts(row)))
    steady = any(_is_known(row, f"time_wait_steady.{host}") for row in rows for host in hosts)
    told = "peak (steady)" if steady else "peak"
    waiting = (f"TIME_WAIT {host}\n{told}" for host in hosts)
    table = _table(
        "what it takes", "contestant", "connections/page", *waiting, "ports in use, peak"
    )
    for row in rows:
        capacity = row["ports_capacity"]
        ports = _median(row, "ports_in_use_peak", ",.0f")
        table.add_row(
            row["name"],
            _median(row, "connections_per_page", ".3f"),
            *(_time_wait(row, host, steady=steady) for host in hosts),
            ports if capacity is None else f"{ports} of {capacity:,}",
        )
    return table


def _outcomes(rows: Iterable[Row]) -> Table:
    """Return what became of all attempts."""
    table = _table(
        "what became of it, all rounds",
        "contestant",
        *("attempts", "failed", "retried", "silently", "audits balanced", "errors"),
    )
    table.columns[-1].justify = "left"
    for row in rows:
        totals, runs = row["totals"], len(row["runs"])
        errors = (f"{count:,} {key}" for key, count in totals["errors"].items())
        table.add_row(
            row["name"],
            f"{totals['attempted']:,}",
            f"{totals['failed']:,}",
            f"{totals['retried']:,}",
            f"{totals['silent_retries']:,}",
            f"{row['sound']} of {runs}",
            "\n".join(errors) or "none",
            style="" if row["sound"] == runs else "bold red",
        )
    return table


def _contestants(rows: Iterable[Row]) -> Table:
    table = _table("contestants", "contestant", "engine", "what is special about it")
    for column in table.columns:
        column.justify = "left"
    for row in rows:
        differs = ", ".join(f"{key} = {_toml(value)}" for key, value in row["differs"].items())
        about = "\n".join(filter(None, (row["description"], differs)))
        table.add_row(row["name"], row["engine"], about)
    return table


def _notes(document: Document) -> list[Text]:
    """Return how the figures came about, and whatever makes them doubtful."""
    method, gate = document["method"], document["gate"]
    covers = method["covers"]
    extent = "" if covers is None else f", which hold the true one in {covers:.0%} of cases"
    notes = [
        Text(
            f"Figures are medians of the rounds, with bootstrap intervals{extent}. A difference is"
            f" shown where it is {method['relevant']:.0%} or more and a paired t test over the"
            " rounds finds it; the chance of a false one anywhere in the comparison is about"
            f" {method['level']:.0%}. {_BEST}: shown to be better than each other one.",
            style="dim",
        )
    ]
    if document["rounds"] < method["fewest_rounds"]:
        few = f"fewer than {method['fewest_rounds']} rounds show no intervals and no differences"
        notes.append(Text(f"! {few}", style="yellow"))
    if failing := document["failing"]:
        many = f"more than {method['failing']:.1%} of the attempts failed, and more than elsewhere"
        told = f"! {', '.join(failing)}: {many}; {_BEST} is left to others, but for pages/s"
        notes.append(Text(told, style="yellow"))
    if document["ended_early"]:
        notes.append(Text(f"! ended early: {document['ended_early']}", style="bold yellow"))
    if left := len(document["left_out"]):
        which = "of rounds that were not finished, or did not begin on clean hosts"
        notes.append(Text(f"! {left} runs are not in the figures: {which}", style="yellow"))
    if gate["clean"]:
        notes.append(Text("Every run began on hosts without TIME_WAIT", style="dim"))
    else:
        notes += [
            Text(f"! {run} did not begin on clean hosts: {_first(first)}", style="bold yellow")
            for run, first in gate["time_wait_first"].items()
            if not first or any(first.values())
        ]
    return notes


def _first(time_wait: Mapping[str, int]) -> str:
    told = ", ".join(f"{count:,} in TIME_WAIT on {host}" for host, count in time_wait.items())
    return told or "nobody looked in time"


def _table(title: str, first: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", header_style="dim")
    table.add_column(first, overflow="fold")
    for column in columns:
        table.add_column(column, justify="right", overflow="fold")
    return table


def _against(document: Document, row: Row) -> Text:
    reference = document["reference"]
    if row["name"] != reference:
        pair = row["against_reference"].get(_RANKED_BY)
        said = _said(document, row, pair)
        return Text(said, style="" if pair and pair["shown"] else "dim")
    if document["best"].get(_RANKED_BY) == reference:
        return Text("best", style="bold green")
    return Text("baseline" if document["baseline"] else "first")


def _said(document: Document, row: Row, pair: Mapping[str, Any] | None) -> str:
    """Return how far a contestant is from the reference, in words."""
    reference, relevant = document["reference"], document["method"]["relevant"]
    if pair is None or pair["low"] is None:
        silent = next((name for name in (row["name"], reference) if _silent(document, name)), None)
        return "not compared: " + (f"{silent} answered no page" if silent else "too few rounds")
    low, high = pair["low"], pair["high"]
    interval = f"({_change(low)} … {_change(high)})"
    if pair["shown"]:
        return f"{_change(pair['change'])} {interval}"
    if low > 0 or high < 0:
        return f"less than {relevant:.0%} from {reference} {interval}"
    if low < 1 / _TENFOLD - 1 or high > _TENFOLD - 1:
        return "no difference shown (more rounds tell more)"
    return f"no difference shown {interval}"


def _silent(document: Document, name: str) -> bool:
    """Return whether a contestant got no page in any round; unknown is not none."""
    row = next(row for row in document["contestants"] if row["name"] == name)
    rates = row["figures"].get(_RANKED_BY, {}).get("values", ())
    known = [rate for rate in rates if rate is not None]
    return bool(known) and not any(known)


def _change(change: float) -> str:
    """Return a change in percent, or as a multiple where percents are many."""
    return f"{change:+.1%}" if change < 1 else f"x{1 + change:.2f}"


def _marked(document: Document, row: Row, key: str, form: str) -> str:
    best = document["best"].get(key) == row["name"]
    return _median(row, key, form) + (_BEST if best else "")


def _median(row: Row, key: str, form: str) -> str:
    if not _is_known(row, key):
        return _UNKNOWN
    return format(row["figures"][key]["median"], form)


def _is_known(row: Row, key: str) -> bool:
    return row["figures"].get(key, {}).get("median") is not None


def _interval(row: Row, key: str, form: str) -> str:
    figure = row["figures"].get(key, {})
    if figure.get("low") is None:
        return _UNKNOWN
    return f"{figure['low']:{form}} … {figure['high']:{form}}"


def _hosts(row: Row) -> list[str]:
    prefix = "time_wait_peak."
    return [key.removeprefix(prefix) for key in row["figures"] if key.startswith(prefix)]


def _time_wait(row: Row, host: str, *, steady: bool) -> str:
    peak = _median(row, f"time_wait_peak.{host}", ",.0f")
    if not steady:
        return peak
    return f"{peak} ({_median(row, f'time_wait_steady.{host}', ',.0f')})"


def _toml(value: object) -> str:
    match value:
        case None:
            return "unset"
        case bool():
            return str(value).lower()
        case str():
            return f'"{value}"'
    return str(value)
