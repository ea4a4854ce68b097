"""Plays the script of an ending and returns what was seen."""

from collections.abc import Sequence
from dataclasses import dataclass

from twbench.lab.lab import Lab
from twbench.lab.plan import LabPlan, Link
from twbench.model.endings import Ending
from twbench.model.states import TIME_WAIT_S, TIME_WAIT_SLACK_S, TcpState
from twbench.trace.scripts import SCRIPTS, WITHIN_S
from twbench.wire.errors import StageError
from twbench.wire.ladder import Ladder
from twbench.wire.stage import Stage

_COUNT_FOR_S = 2


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
    to_the_end: bool = False,
) -> Trace:
    """Play an ending in stop-motion on two hosts made for it.

    TIME_WAIT is watched for two seconds, or `to_the_end`: until both ends are CLOSED, a minute.
    Where the rules leave no connection to end, the ladder so far says so. Raises LabError where no
    lab can be made, RuleError for a wrong rule.
    """
    broken_off = ""
    plan = LabPlan(link=Link.WIRE, family=family, expected_sockets=64)
    with Lab(plan) as lab, Stage(lab, plan.wire_ports, rules=rules) as stage:
        try:
            SCRIPTS[ending.name](stage)
            stage.play(for_s=WITHIN_S, until=lambda: _are_over(stage))
            stage.play()
            _watch_time_wait(stage, to_the_end=to_the_end)
        except StageError as error:
            broken_off = str(error)
            stage.note(broken_off)
    return Trace(
        ladder=stage.ladder(ending.name, ending.sentence),
        capture=stage.film.capture(f"{ending.name}: {ending.sentence}"),
        broken_off=broken_off,
    )


def _watch_time_wait(stage: Stage, *, to_the_end: bool) -> None:
    if not _waits(stage):
        return
    for _ in range(_COUNT_FOR_S):
        stage.pause("a second later", for_s=1)
    if to_the_end:
        stage.play(for_s=TIME_WAIT_S + TIME_WAIT_SLACK_S, until=lambda: not _waits(stage))
        stage.pause("until the 2MSL timer has run out")


def _are_over(stage: Stage) -> bool:
    """Return whether neither end waits for the other any more."""
    return all(end.state in {TcpState.CLOSE, TcpState.TIME_WAIT} for end in stage.look().values())


def _waits(stage: Stage) -> bool:
    return any(end.state is TcpState.TIME_WAIT for end in stage.look().values())
