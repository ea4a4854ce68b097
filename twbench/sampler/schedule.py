"""When the next reading is due. Pure: times come in, decisions go out."""

from dataclasses import dataclass

_S = 1_000_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Slot:
    """The next reading: its number, when it is due, and how many were given up before it."""

    index: int
    due_ns: int
    missed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """Readings at absolute times, `rate_per_s` a second from `start_ns` on: no drift adds up.

    A reading that is late by less than half a period is still taken. One that is later is missed:
    skipped and counted, never made up for, so two readings are never nearer than half a period.
    """

    start_ns: int
    rate_per_s: float

    def __post_init__(self) -> None:
        if not self.rate_per_s > 0:
            raise ValueError(f"a schedule needs a rate above 0, not {self.rate_per_s}")

    def due_ns(self, index: int) -> int:
        """Return when reading `index` (from 0) is due, in nanoseconds of the caller's clock."""
        return self.start_ns + int(index * _S / self.rate_per_s)

    def after(self, index: int, now_ns: int) -> Slot:
        """Return the reading to take after reading `index` ended at `now_ns`; -1 is the start."""
        # The first whose due time plus half a period is not over yet.
        late = (now_ns - self.start_ns) * self.rate_per_s / _S - 0.5
        following = max(index + 1, int(late) + 1 if late >= 0 else 0)
        return Slot(index=following, due_ns=self.due_ns(following), missed=following - index - 1)
