"""Notices that TIME_WAIT has stopped rising. Pure: one count in, one decision out."""

from dataclasses import dataclass, replace

MARGIN = 0.02
"""A count must pass the highest by this share to be a new height: a plateau is never still."""

LEAST_RISE = 50
"""A rise of fewer sockets than this is not worth an extra look."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Peak:
    """Has the count risen, and has it stopped?

    The rule: the count rises when it passes the highest so far by MARGIN of it and by at least
    LEAST_RISE. Once it has risen and `patience` counts in a row were no new height, it is at its
    peak: said once, and again only after another such rise.
    """

    patience: int
    height: int = 0
    waited: int = 0
    rising: bool = False

    def step(self, count: int) -> tuple["Peak", bool]:
        """Return the detector after one more count, and whether an extra look is due now."""
        if count >= self.height + max(LEAST_RISE, MARGIN * self.height):
            return replace(self, height=count, waited=0, rising=True), False
        if not self.rising:
            return self, False
        if self.waited + 1 < self.patience:
            return replace(self, waited=self.waited + 1), False
        return replace(self, waited=0, rising=False), True
