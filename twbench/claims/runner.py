"""Plays the scenes of many claims side by side, each on its own hosts, and judges them.

A *take* is one scene of one claim in one repeat. The scenes that want to be alone are played
first, one after the other; then the others, the longest first.
"""

import threading
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from twbench.claims.claim import (
    Claim,
    Expected,
    Finding,
    Judgement,
    NotHereError,
    Scene,
    SetUpError,
    Verdict,
)
from twbench.claims.scenery import play
from twbench.model.errors import LabError
from twbench.wire.errors import StageError, StoppedError

AT_ONCE = 64
"""Takes side by side; they mostly wait."""
MOST_TRIES = 3
"""Of a take whose set-up does not take."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Take:
    """One scene of one claim in one repeat, which counts from 1."""

    claim: Claim
    scene: Scene
    repeat: int

    def folder(self, results: Path) -> Path:
        """Return where its evidence goes."""
        base = results if self.repeat == 1 else results / "repeats" / str(self.repeat)
        return base / self.claim.id / self.scene.name


class State(StrEnum):
    """How far a take is."""

    PLAYING = "playing"
    PLAYED = "played"
    FAILED = "failed"
    """Its set-up did not take, or it crashed."""
    NOT_HERE = "not here"


@dataclass(frozen=True, kw_only=True, slots=True)
class Played:
    """What came of a take: a finding, or why there is none."""

    take: Take
    state: State
    finding: Finding | None = None
    why: str = ""
    tries: int = 1
    """How often it was played: again, where its set-up did not take."""
    refused: LabError | None = None
    """Why there was no lab to play it in."""
    crashed: bool = False
    """Whether the experiment itself is broken, which is our fault and no verdict."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """A claim's judgement in one repeat, and the takes behind it."""

    claim: Claim
    repeat: int
    expected: Expected
    judgement: Judgement
    played: tuple[Played, ...]

    broken: str = ""
    """The traceback of a judge that crashed."""

    @property
    def crashed(self) -> list[str]:
        """Return the traceback of every part of it that crashed, which is our fault."""
        return [each.why for each in self.played if each.crashed] + [self.broken] * bool(
            self.broken
        )

    def as_json(self) -> dict[str, Any]:
        """Return the result as claims.json has it; evidence is named as the folder has it."""
        return {
            "id": self.claim.id,
            "verdict": str(self.judgement.verdict),
            "sentence": self.claim.sentence,
            "finding": self.judgement.finding,
            "sources": list(self.claim.sources),
            "expected": dict(self.expected),
            "refuted_by": self.claim.refuted_by,
            **self.judgement.as_json(),
            "evidence": [str(each.take.folder(Path())) for each in self.played],
            "findings": {each.take.scene.name: each.finding for each in self.played},
            "tries": {each.take.scene.name: each.tries for each in self.played},
        }


Observer = Callable[[Take, State, str], None]
"""Told of each take as it begins and ends; called from several threads, one at a time."""


def run(
    claims: Sequence[Claim],
    *,
    results: Path,
    repeats: int = 1,
    expected: Mapping[str, float] | None = None,
    at_once: int = AT_ONCE,
    stop: threading.Event,
    observe: Observer = lambda _take, _state, _why: None,
) -> list[Result]:
    """Play and judge the claims, each `repeats` times, and return the results in their order.

    `expected` takes the place of values that a claim expects. Where `stop` is set meanwhile, the
    claims that were played to the end are still judged. Raises LabError where no lab could be made
    for any of them.
    """
    takes = [
        Take(claim=claim, scene=scene, repeat=repeat)
        for repeat in range(1, repeats + 1)
        for claim in claims
        for scene in claim.scenes
    ]
    turn = threading.Lock()

    def perform(take: Take) -> Played:
        with turn:
            observe(take, State.PLAYING, "")
        played = _perform(take, results, stop)
        with turn:
            observe(take, played.state, played.why)
        return played

    done = [perform(take) for take in takes if take.scene.alone and not stop.is_set()]
    together = sorted(
        (take for take in takes if not take.scene.alone),
        key=lambda take: (take.repeat, -take.scene.needs_s),
    )
    with ThreadPoolExecutor(at_once, thread_name_prefix="take") as pool:
        futures = [pool.submit(perform, take) for take in together]
        try:
            done += [future.result() for future in as_completed(futures)]
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    refusals = [each.refused for each in done if each.refused]
    if refusals and len(refusals) == len(done):
        raise refusals[0]
    return list(_judge_all(claims, repeats, done, expected or {}))


def _perform(take: Take, results: Path, stop: threading.Event) -> Played:
    """Play a take, again where its set-up did not take: on a busy machine it may the next time."""
    for tries in range(1, MOST_TRIES + 1):
        played = _try(take, results, stop, tries)
        if played.state is not State.FAILED or played.crashed or played.refused or stop.is_set():
            break
    return played


def _try(take: Take, results: Path, stop: threading.Event, tries: int) -> Played:
    title = f"{take.claim.id}: {take.scene.name}"
    try:
        finding = play(take.scene, title=title, folder=take.folder(results), stop=stop)
    except (SetUpError, StageError, StoppedError) as error:
        return Played(take=take, state=State.FAILED, why=str(error), tries=tries)
    except NotHereError as error:
        return Played(take=take, state=State.NOT_HERE, why=str(error), tries=tries)
    except LabError as error:
        why = f"{error.what}; remedy: {error.remedy}"
        return Played(take=take, state=State.FAILED, why=why, tries=tries, refused=error)
    except Exception:  # noqa: BLE001 - one broken experiment does not spoil the others
        why = traceback.format_exc()
        return Played(take=take, state=State.FAILED, why=why, tries=tries, crashed=True)
    return Played(take=take, state=State.PLAYED, finding=finding, tries=tries)


def _judge_all(
    claims: Iterable[Claim], repeats: int, done: Sequence[Played], expected: Mapping[str, float]
) -> Iterable[Result]:
    for repeat in range(1, repeats + 1):
        for claim in claims:
            played = [
                each for each in done if each.take.claim is claim and each.take.repeat == repeat
            ]
            wanted = {name: expected.get(name, value) for name, value in claim.expected.items()}
            in_order = tuple(sorted(played, key=lambda each: claim.scenes.index(each.take.scene)))
            yield _judged(claim, repeat, wanted, in_order)


def _judged(claim: Claim, repeat: int, expected: Expected, played: tuple[Played, ...]) -> Result:
    broken = ""
    try:
        judgement = judge(claim, played, expected)
    except Exception:  # noqa: BLE001 - one broken judge does not spoil the other verdicts
        broken = traceback.format_exc()
        judgement = Judgement(
            verdict=Verdict.INCONCLUSIVE, finding=f"its judge crashed: {_last_line(broken)}"
        )
    return Result(
        claim=claim,
        repeat=repeat,
        expected=expected,
        judgement=judgement,
        played=played,
        broken=broken,
    )


def judge(claim: Claim, played: Sequence[Played], expected: Expected) -> Judgement:
    """Judge what a claim's scenes found; without all of their findings there is no verdict."""
    for state, verdict in (
        (State.NOT_HERE, Verdict.UNSUPPORTED),
        (State.FAILED, Verdict.INCONCLUSIVE),
    ):
        missing = [each for each in played if each.state is state]
        if missing:
            why = "; ".join(f"{each.take.scene.name}: {_last_line(each.why)}" for each in missing)
            return Judgement(verdict=verdict, finding=why)
    if len(played) < len(claim.scenes):
        return Judgement(verdict=Verdict.INCONCLUSIVE, finding="stopped before it was played")
    findings = {each.take.scene.name: each.finding or {} for each in played}
    return claim.judge(findings, expected)


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2]
