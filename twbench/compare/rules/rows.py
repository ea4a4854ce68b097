"""What a rule gives, and how it reads a contestant of compare.json."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from twbench.compare.figures import failures
from twbench.model.outcomes import kind_of_key

Document = Mapping[str, Any]
Row = Mapping[str, Any]
"""A contestant, as compare.json has it."""

PER_PAGE = "connections_per_page"
KEEPS = 0.5
"""Connections a page: whoever has fewer keeps them."""
OPENS = 0.9
"""Connections a page: whoever has more opens one for each."""
OURS = ("auto", "streams", "uring")
"""Engines whose settings are `[client.pool]`; a library's are in a table of its name."""


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


def rows_of(document: Document) -> list[Row]:
    """Return the contestants."""
    return list(document["contestants"])


def quoted(row: Row) -> str:
    """Return a contestant's name in quotes."""
    return f"'{row['name']}'"


def median_of(row: Row, key: str) -> float:
    """Return the median of a figure; 0 where no round measured it."""
    return float(row["figures"].get(key, {}).get("median") or 0)


def peaks(row: Row) -> dict[str, float]:
    """Return the peak of TIME_WAIT by host."""
    prefix = "time_wait_peak."
    return {
        key.removeprefix(prefix): median_of(row, key)
        for key in row["figures"]
        if key.startswith(prefix)
    }


def of_kind(row: Row, name: str) -> int:
    """Return how many attempts failed for a cause."""
    errors = row["totals"]["errors"]
    return sum(count for key, count in errors.items() if kind_of_key(key).name == name)


def failed(row: Row) -> int:
    """Return how many attempts failed, but for those that the end of the load cut off."""
    return failures(row["totals"]["errors"])


_TWO_DIGITS = 9.95


def percent(part: float, whole: float) -> str:
    """Return a share in words, with two digits or more."""
    share = 100 * part / max(1, whole)
    return f"{share:.0f}%" if share >= _TWO_DIGITS else f"{share:.2g}%"


def table_of(row: Row) -> str:
    """Return the name of the table under `client` that has the settings of its connections."""
    engine: str = row["scenario"]["client"]["engine"]
    return "pool" if engine in OURS else engine


def settings_of(row: Row) -> Mapping[str, Any]:
    """Return that table; empty where there is none."""
    settings: Mapping[str, Any] = row["scenario"]["client"].get(table_of(row)) or {}
    return settings


def same_web(row: Row, other: Row) -> bool:
    """Return whether two contestants met the same server, with the same sites."""
    one, two = row["scenario"], other["scenario"]
    return all(one.get(key) == two.get(key) for key in ("server", "web"))
