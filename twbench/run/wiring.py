"""The wire of a run: its rules looked through beforehand, and what it did told. Pure."""

from typing import Any

from twbench.model.endings import ENDINGS
from twbench.model.errors import Problem, ScenarioError
from twbench.model.reports import PacketFate, WireReport
from twbench.model.scenario import LabSpec, Scenario
from twbench.model.states import Side
from twbench.wire.rules import FINS_CROSS, Action, Rule, RuleError, check_icmp

_CROSSING = ("pass DATA", FINS_CROSS)
"""Each FIN leaves before the other's has arrived; a FIN that an answer ends with is not held."""
_FAMILIES = {"ipv4": 4, "ipv6": 6}


def check_rules(lab: LabSpec) -> None:
    """Look through the rules of `[lab.wire]`. Raises ScenarioError with every mistake found."""
    problems = []
    for number, line in enumerate(lab.wire.rules if lab.wire else ()):
        try:
            _check(Rule.parse(line), family=_FAMILIES[lab.family])
        except RuleError as error:
            key, found = f"lab.wire.rules.{number}", f"{error.found} in {line!r}"
            problems.append(Problem(key=key, found=found, allowed=error.allowed))
    if problems:
        raise ScenarioError("scenario", problems)


def _check(rule: Rule, *, family: int) -> None:
    """Raise RuleError for what a run cannot do."""
    if rule.action is Action.HOLD and rule.until is None:
        # nobody is there who could let it go
        raise RuleError(rule, "hold alone", ["'hold … until …' in a run"])
    check_icmp(rule, family=family)


def own_rules(scenario: Scenario) -> tuple[str, ...]:
    """Return the rules of the wire that bring the scenario's ending about."""
    return _CROSSING if ENDINGS[scenario.ending.kind].needs_wire else ()


def meddling_of(wire: WireReport, scenario: Scenario) -> str:
    """Return in words what a wire did besides carrying; empty for nothing, or without a wire.

    Holding the FINs that cross is what the ending `simultaneous` asks for, and no meddling.
    """
    done = {words: n for fate, words in _MEDDLING.items() if (n := wire.of(fate))}
    own = own_rules(scenario)
    done |= {
        f"'{line}'": n
        for line, n in wire.rules.items()
        if line not in own and Rule.parse(line).action is not Action.PASS
    }
    if not done:
        return ""
    told = ", ".join(f"{what}: {count:,}" for what, count in done.items())
    return f"the wire meddled with packets, so the audit is not held to balance ({told})"


_MEDDLING = {
    PacketFate.LOST: "lost",
    PacketFate.DUPLICATED: "duplicated",
    PacketFate.DROPPED_BY_QUEUE: "dropped by the queue",
    PacketFate.OVERRUN: "too fast for the carrier",
    PacketFate.REFUSED: "refused by a host",
}


def carried(wire: WireReport) -> dict[str, Any]:
    """Return what summary.json says of a wire: packets by the side they came from, and by fate."""
    return {
        **{
            side.value: {fate.value: counts[fate] for fate in PacketFate}
            for side, counts in ((Side.CLIENT, wire.client), (Side.SERVER, wire.server))
        },
        "rules": dict(wire.rules),
        "captured": wire.captured,
        "cpu_s": round(wire.cpu_ns / 1e9, 3),
    }
