"""Everything twbench raises on purpose, in one small tree.

The world's faults (a reset, a refusal, a full port range) are data and are counted, never raised.
What is raised here stops the program: the user asked for something impossible, or the machine
refuses what the lab needs. The command line prints the message alone and leaves with `exit_status`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


class TwbenchError(Exception):
    """Base of the tree; `exit_status` is what the command line leaves with."""

    exit_status: ClassVar[int] = 1


class UsageError(TwbenchError):
    """The arguments, the environment or the results folder cannot be used as asked."""

    exit_status = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One mistake in a scenario: where it stands, what was found there, what is allowed."""

    key: str
    found: str
    allowed: str

    def __str__(self) -> str:
        """Return the mistake as one line."""
        return f"{self.key}: found {self.found}; {self.allowed}"


class ScenarioError(UsageError):
    """A scenario with one or more mistakes, all of them reported at once."""

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        """Keep the mistakes of the scenario read from `source` (a path or a description)."""
        self.source = source
        self.problems = tuple(problems)
        count = f"{len(self.problems)} problem{'s' if len(self.problems) != 1 else ''}"
        super().__init__("\n".join([f"{source}: {count}", *(f"  {p}" for p in self.problems)]))


class RecordError(UsageError):
    """The results folder takes no more: disk full, quota, size limit. Earlier lines are safe."""


class LabError(TwbenchError):
    """The lab cannot be made on this machine; `remedy` says what would help."""

    exit_status = 3

    def __init__(self, what: str, *, remedy: str = "run `twbench doctor`") -> None:
        """Say what was refused and how to mend it."""
        self.what = what
        self.remedy = remedy
        super().__init__(f"{what}\n  remedy: {remedy}")
