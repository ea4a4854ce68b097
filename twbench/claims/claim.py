"""What a claim is: a sentence, where it comes from, scenes to play, and a judge of what they found.

Pure data. Scenes bring findings (JSON), the judge weighs them against what was expected, so
findings that were kept can be judged again, and against another expectation.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from twbench.lab.plan import Link
from twbench.model.errors import TwbenchError

if TYPE_CHECKING:
    from twbench.claims.scenery import Scenery

Finding = Mapping[str, Any]
"""What one scene found, as JSON; times end in `_s`, sizes in `_bytes`."""
Findings = Mapping[str, Finding]
"""By the scene's name."""
Expected = Mapping[str, float]
"""By name, with the unit in it; a judge looks up every tolerance here too."""


class Verdict(StrEnum):
    """What came of a claim on this kernel."""

    CONFIRMED = "confirmed"
    REFUTED = "refuted"
    NUANCED = "nuanced"
    """True in part, or only under conditions that it leaves out."""
    UNSUPPORTED = "unsupported"
    """This kernel or machine lacks what the experiment needs."""
    INCONCLUSIVE = "inconclusive"
    """The experiment's set-up did not take, or its control shows that it tells nothing."""


class SetUpError(TwbenchError):
    """The experiment did not come about: the packet to drop was never there."""


class NotHereError(TwbenchError):
    """This kernel or machine lacks what the scene needs; the text says what."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One thing that was looked at, in words with its figures, and whether it was so."""

    text: str
    holds: bool

    def as_json(self) -> dict[str, Any]:
        """Return the check as a JSON object."""
        return {"text": self.text, "holds": self.holds}


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """A verdict, what was found in a sentence or two, and every check behind it."""

    verdict: Verdict
    finding: str
    claimed: tuple[Check, ...] = ()
    """What the claim says. The first is its core: without it the claim is refuted."""
    caveats: tuple[Check, ...] = ()
    """What is so beside the claim, and makes it only half the truth."""
    controls: tuple[Check, ...] = ()
    """The same set-up with the mechanism off gives the other outcome."""

    def as_json(self) -> dict[str, Any]:
        """Return the checks by their part."""
        return {
            "claimed": [check.as_json() for check in self.claimed],
            "caveats": [check.as_json() for check in self.caveats],
            "controls": [check.as_json() for check in self.controls],
        }


def weigh(
    finding: str,
    *,
    claimed: Sequence[Check],
    controls: Sequence[Check],
    caveats: Sequence[Check] = (),
) -> Judgement:
    """Return the judgement that these checks make.

    Inconclusive when a control fails; refuted when the first claimed check fails; nuanced when
    another one does, or when a caveat holds; else confirmed.
    """
    if not all(check.holds for check in controls):
        verdict = Verdict.INCONCLUSIVE
    elif not claimed[0].holds:
        verdict = Verdict.REFUTED
    elif not all(check.holds for check in claimed) or any(check.holds for check in caveats):
        verdict = Verdict.NUANCED
    else:
        verdict = Verdict.CONFIRMED
    return Judgement(
        verdict=verdict,
        finding=finding,
        claimed=tuple(claimed),
        caveats=tuple(caveats),
        controls=tuple(controls),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """One experiment on hosts of its own."""

    name: str
    sentence: str
    """What is set up, and what is looked at."""
    play: Callable[["Scenery"], Finding]
    needs_s: float
    """About how long it takes."""
    link: Link | None = Link.WIRE
    """None where the scene makes its own lab, as one that runs a scenario does."""
    rules: tuple[str, ...] = ()
    """The wire's, from the start."""
    client_sysctls: Mapping[str, str] = field(default_factory=dict)
    server_sysctls: Mapping[str, str] = field(default_factory=dict)
    family: int = 4
    expected_sockets: int = 64
    alone: bool = False
    """Whether other experiments beside it would spoil what it measures."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """A claim of the articles, and how it is put to the kernel."""

    id: str
    sentence: str
    sources: tuple[str, ...]
    """Article and paragraph, RFC section, kernel function."""
    expected: Expected
    refuted_by: str
    """What would refute it, in words."""
    scenes: tuple[Scene, ...]
    judge: Callable[[Findings, Expected], Judgement]
    """Pure."""

    @property
    def needs_s(self) -> float:
        """Return about how long its scenes take side by side, in seconds."""
        return max(scene.needs_s for scene in self.scenes)
