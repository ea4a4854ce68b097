"""`twbench diff`: two results folders beside each other, and whether a change is too large."""

import math
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from twbench.cli.exits import Exit
from twbench.cli.options import Json
from twbench.cli.show import print_json, stdout
from twbench.compare.diff import Change, Diff, Figure, Kind, Subject, diff
from twbench.compare.gates import judge, parse_gate
from twbench.compare.subjects import read_subject
from twbench.model.errors import UsageError

_LARGE = 10_000
_NOT_SHOWN = "no difference shown"

_WHAT = "a run's folder, a comparison's, or a scenario's TOML file"
FailIf = Annotated[
    list[str] | None,
    typer.Option(
        "--fail-if",
        metavar="'KEY OP CHANGE'",
        help=(
            "leave with exit status 4 if the figure changed so from A to B: OP is > >= < or <=,"
            " CHANGE relative (+10%) or absolute (-3); can be given many times"
        ),
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "diff",
        help="Compare two results folders, or two scenarios: what differs from A to B.",
        epilog=(
            "Example: twbench diff results/reference/keep-alive results/reference/keepalive-race"
            " --fail-if 'hosts.client.time_wait.peak > +10%'"
        ),
    )(compare)


def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help=_WHAT)],
    b: Annotated[Path, typer.Argument(metavar="B", help="what became of it, of the same kind")],
    fail_if: FailIf = None,
    *,
    every: Annotated[
        bool, typer.Option("--all", help="every number, not only those people ask for")
    ] = False,
    json: Json = False,
) -> None:
    """Print what differs, and weigh it."""
    gates = [parse_gate(text) for text in fail_if or ()]
    one, other = read_subject(a), read_subject(b)
    if one.kind is not other.kind:
        raise UsageError(
            f"{a} is {one.kind} and {b} {other.kind}; allowed are two of a kind:"
            " runs, comparisons or scenarios"
        )
    found = diff(one, other, every=every)
    judged = [(gate, judge(gate, one, other)) for gate in gates]
    met = [(gate, change) for gate, change in judged if gate.is_met(change)]
    if json:
        document = as_json(one, other, found)
        document["fail_if"] = [
            {"expression": gate.text, "met": gate.is_met(change), **_change_json(change)}
            for gate, change in judged
        ]
        print_json(document)
    else:
        stdout().print(render(one, other, found))
    for gate, change in met:
        told = f"{_figure(change.a)} -> {_figure(change.b)} ({_moved(change)})"
        sys.stderr.write(f"twbench: --fail-if '{gate.text}' is met: {told}\n")
    if met:
        raise typer.Exit(Exit.THRESHOLD_MISSED)


def as_json(a: Subject, b: Subject, found: Diff) -> dict[str, Any]:
    """Return the document that `--json` prints; of nothing to something `relative` is null."""
    return {
        "a": {"kind": a.kind.name.lower(), "name": a.name},
        "b": {"kind": b.kind.name.lower(), "name": b.name},
        "context": {key: {"a": one, "b": other} for key, one, other in found.context},
        "figures": {change.key: _change_json(change) for change in found.changes},
    }


def _change_json(change: Change) -> dict[str, Any]:
    relative = change.relative
    return {
        "a": change.a.value,
        "b": change.b.value,
        "absolute": None if change.absolute is None else float(change.absolute),
        "relative": float(relative) if isinstance(relative, Fraction) else None,
        "shown": change.shown,
    }


def render(a: Subject, b: Subject, found: Diff) -> RenderableType:
    """Return a diff as a person reads it: what it depends on first."""
    return Group(*_parts(a, b, found))


def _parts(a: Subject, b: Subject, found: Diff) -> Iterator[RenderableType]:
    yield Text(f"A  {a.name}\nB  {b.name}\n")
    scenarios = a.kind is Kind.SCENARIO
    if found.context:
        title = "what differs" if scenarios else "not alike in A and B: what the figures depend on"
        yield Text(title, style="bold")
        table = _table("key", "A", "B")
        for key, one, other in found.context:
            table.add_row(key, _said(one), _said(other))
        yield from (table, Text())
    elif scenarios:
        yield Text("no key differs")
    else:
        yield Text("scenario, kernel, versions and sysctls are alike\n")
    if found.changes:
        yield Text("figures that differ", style="bold")
        table = _table("figure", "A", "B", "change", "")
        for change in found.changes:
            absolute = change.absolute
            by = "" if absolute is None else f"{'+' if absolute > 0 else ''}{_short(absolute)}"
            table.add_row(change.key, _figure(change.a), _figure(change.b), by, _moved(change))
        yield table
    elif not scenarios:
        yield Text("no figure differs")


def _table(first: str, *columns: str) -> Table:
    table = Table(header_style="dim")
    table.add_column(first, overflow="fold")
    for column in columns:
        table.add_column(column, justify="right", overflow="fold")
    return table


def _said(value: object) -> str:
    return "unset" if value is None else str(value)


def _figure(figure: Figure) -> str:
    if figure.value is None:
        return "-"
    text = _short(figure.value)
    if figure.low is None or figure.high is None:
        return text
    return f"{text} [{_short(figure.low)}, {_short(figure.high)}]"


def _short(number: float | Fraction) -> str:
    """Return a whole number in full, of another four digits or those before the point."""
    if isinstance(number, bool):
        return "yes" if number else "no"
    value = float(number)
    return f"{value:,.0f}" if value.is_integer() or abs(value) >= _LARGE else f"{value:,.4g}"


def _moved(change: Change) -> str:
    """Return the relative change in words."""
    relative = change.relative
    if relative is None:
        return "in A alone" if change.b.value is None else "in B alone"
    if not change.shown:
        return _NOT_SHOWN
    return f"{float(relative):+,.1%}" if math.isfinite(relative) else "from nothing"
