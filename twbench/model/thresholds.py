"""What a scenario's thresholds may say: a key of summary.json, and comparisons with a number."""

import difflib
import re

from twbench.model.outcomes import KINDS, UNKNOWN, Phase

FIGURES = ("outcomes", "rates", "latency_ms", "hosts", "forecast", "audit", "wire", "load_s")
"""The keys at the top of summary.json that hold figures."""

_ERROR_COUNTS = ("outcomes.errors.", "outcomes.connection_errors.", "outcomes.first_error_s.")
_ERRORS = tuple(
    dict.fromkeys(f"{phase}:{error}:{kind.name}" for (phase, error, _), kind in KINDS.items())
)
_NEW_ERROR = re.compile(rf"({'|'.join(Phase)}):[A-Z0-9_]+:{UNKNOWN.name}")
"""A failure that the table does not list is counted like this."""
_COMPARISON = re.compile(r"\s*(<=|>=|==|!=|<|>)\s*-?[0-9]+(\.[0-9]+)?\s*")


def is_comparison(text: object) -> bool:
    """Return whether `text` compares with a number, as in '>= 100'."""
    return isinstance(text, str) and _COMPARISON.fullmatch(text) is not None


def mistake_in(key: str) -> str:
    """Return what is allowed instead of `key`; empty where it can name a figure."""
    first = key.partition(".")[0]
    if first not in FIGURES:
        return f"{_nearest(first, FIGURES)}allowed is a key in one of: {', '.join(FIGURES)}"
    table = next((table for table in _ERROR_COUNTS if key.startswith(table)), None)
    error = key.removeprefix(table or "")
    if table is None or error in _ERRORS or _NEW_ERROR.fullmatch(error):
        return ""
    return (
        f"{_nearest(error, _ERRORS)}allowed is phase:errno:kind, as in"
        f" '{table}connect:EADDRNOTAVAIL:ports_exhausted'"
    )


def _nearest(name: str, names: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'? " if close else ""
