"""Sentences drawn from what a comparison measured, each with its figures. Pure.

A rule looks at the content of compare.json and gives as many sentences as it finds, or none. It
speaks of what happened, and names the setting that goes with it; it never guesses.
"""

from collections.abc import Callable, Iterator, Sequence

from twbench.compare.rules.keepalive import keepalive_race, silent_retries
from twbench.compare.rules.outcomes import failed_attempts, undecided
from twbench.compare.rules.pools import churn, connection_per_page
from twbench.compare.rules.ports import ports_nearly_used_up, time_wait_side
from twbench.compare.rules.rows import Advice, Document

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


def advise(document: Document) -> list[Advice]:
    """Return all that the rules find, in the order of the rules."""
    if not document["rounds"]:
        return []
    return [advice for rule in RULES for advice in rule(document)]
