"""Plays the script of an ending and returns what was seen."""

from collections.abc import Sequence
from dataclasses import dataclass

from twbench.lab.lab import Lab
from twbench.lab.plan import LabPlan, Link
from twbench.model.endings import Ending
from twbench.model.states import TcpState
from twbench.trace.scripts import SCRIPTS, WITHIN_S
from twbench.wire.errors import StageError
from twbench.wire.ladder import Ladder
from twbench.wire.stage import Stage

_TO_THE_END_S = 180.0
"""Enough for a TIME_WAIT that FINs sent again have begun anew a few times."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trace:
    """The ladder of an ending, and all its packets as a pcapng file."""

    ladder: Ladder
    capture: bytes
    broken_off: str = ""
    """Why the ending could not be played to its end, as rules may bring about; else empty."""


def trace_ending(
    ending: Ending,
    *,
    family: int = 4,
    rules: Sequence[str] = (),
    watch_s: int = 2,
    to_the_end: bool = False,
) -> Trace:
    """Play an ending in stop-motion on two hosts made for it.

    TIME_WAIT is watched for `watch_s` seconds, or `to_the_end`: until both ends are CLOSED, a
    minute, or three at the most. Where the rules let no ending come about, the ladder so far says
    so. Raises LabError where no lab can be made, RuleError for a wrong rule.
    """
    broken_off = ""
    plan = LabPlan(link=Link.WIRE, family=family, expected_sockets=64)
    with Lab(plan) as lab, Stage(lab, plan.wire_ports, rules=rules) as stage:
        try:
            SCRIPTS[ending.name](stage)
            _play_until(stage, _OVER, for_s=_TO_THE_END_S if to_the_end else WITHIN_S)
            stage.play()
            _watch_time_wait(stage, watch_s=watch_s, to_the_end=to_the_end)
        except StageError as error:
            broken_off = str(error)
            stage.note(broken_off)
    return Trace(
        ladder=stage.ladder(ending.name, ending.sentence),
        capture=stage.film.capture(f"{ending.name}: {ending.sentence}"),
        broken_off=broken_off,
    )


_OVER = frozenset({TcpState.CLOSE, TcpState.TIME_WAIT})
"""Of an end that waits for the other no more."""
_CLOSED = frozenset({TcpState.CLOSE})


def _watch_time_wait(stage: Stage, *, watch_s: int, to_the_end: bool) -> None:
    if _are_in(stage, _CLOSED):
        return
    for _ in range(watch_s):
        stage.pause("a second later", for_s=1)
    if to_the_end:
        _play_until(stage, _CLOSED, for_s=_TO_THE_END_S)
        stage.note("until the 2MSL timer has run out")


def _play_until(stage: Stage, states: frozenset[TcpState], *, for_s: float) -> None:
    """Play until both ends are in one of these states; StageError where they do not get there."""
    if not stage.play(for_s=for_s, until=lambda: _are_in(stage, states)):
        told = ", ".join(f"{side} {end.name}" for side, end in stage.look().items())
        raise StageError(f"not over after {for_s:g} s more: {told}")


def _are_in(stage: Stage, states: frozenset[TcpState]) -> bool:
    return all(end.state in states for end in stage.look().values())
