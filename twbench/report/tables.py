"""What the tables of a summary have in common."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

Summary = Mapping[str, Any]
EXHAUSTED = "exhausted_after_s"


def new_table(title: str, first: str, *columns: str) -> Table:
    """Return a table whose columns but the first hold figures."""
    table = Table(title=title, title_justify="left", title_style="bold", header_style="dim")
    table.add_column(first)
    for column in columns:
        table.add_column(column, justify="right", overflow="fold")
    return table


def figure_or_unknown(value: float | None, how: str) -> str:
    """Return a figure in a format, or that nobody knows it."""
    return "unknown" if value is None else format(value, how)


def count_of(figures: Mapping[str, Any], key: str, *, none: str = "unknown") -> str:
    """Return a count among the figures; `none` is said where it is not known."""
    value = figures.get(key)
    return none if value is None else f"{value:,.0f}"


def moment_of(figures: Mapping[str, Any], key: str) -> str:
    """Return when something happened, in seconds; `never` where it did not."""
    value = figures.get(key)
    return "never" if value is None else f"after {value:.2f} s"
