"""Who is first, and what failed."""

import math
from collections.abc import Iterator

from twbench.compare.rules.rows import Advice, Document, failed, percent, quoted, rows_of
from twbench.model.outcomes import kind_of_key

_OFTEN = 0.001
"""Share of the attempts that failed."""
_TWICE = 2
_LEAST = math.exp(-50)
"""Ratios below this are told as this."""


def undecided(document: Document) -> Iterator[Advice]:
    """The two that are first, where the rounds do not tell them apart, or not by much."""
    about = tuple(document["ranking"][:2])
    for pair in document["differences"].get("pages_per_s", ()):
        unsure = not pair["shown"] and pair["low"] is not None and pair["high"] is not None
        if {pair["name"], pair["other"]} != {*about} or not unsure:
            continue
        low, ratio, high = (1 + pair[key] for key in ("low", "change", "high"))
        if pair["name"] != about[0]:
            low, ratio, high = (1 / max(_LEAST, each) for each in (high, ratio, low))
        first, second = (f"'{name}'" for name in about)
        rounds, relevant = pair["rounds"], document["method"]["relevant"]
        alike = max(high - 1, 1 - low) < relevant
        if low < 1 < high and not alike:
            sentence = (
                f"{rounds} rounds do not tell {first} and {second} apart: the pages/s of {first}"
                f" are between {low:.4g} and {high:.4g} times those of {second}; more rounds"
                " (compare.repeats) may."
            )
        elif alike or abs(pair["change"]) < relevant:
            sentence = (
                f"{first} and {second} differ by less than {100 * relevant:g}%: the pages/s of"
                f" {first} are {ratio:.4g} times those of {second}."
            )
        else:
            continue
        yield Advice(rule="undecided", about=about, sentence=sentence)


def failed_attempts(document: Document) -> Iterator[Advice]:
    """Contestants with failures that others have not."""
    rows = rows_of(document)
    fewest = min((failed(row) / max(1, row["totals"]["attempted"]) for row in rows), default=0)
    for row in rows:
        attempted, errors = row["totals"]["attempted"], row["totals"]["errors"]
        share = failed(row) / max(1, attempted)
        if share < _OFTEN or share < _TWICE * fewest:
            continue
        key = max((k for k in errors if kind_of_key(k).name != "run_ended"), key=errors.__getitem__)
        yield Advice(
            rule="failed_attempts",
            about=(row["name"],),
            sentence=f"{quoted(row)}: {failed(row):,} of {attempted:,} attempts failed"
            f" ({percent(failed(row), attempted)}), {errors[key]:,} of them with {key}:"
            f" {kind_of_key(key).meaning}.",
        )
