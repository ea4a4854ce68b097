"""The wire of a run: its rules looked through beforehand, and what it did told. Pure."""

from collections.abc import Iterator
from typing import Any

from twbench.model.endings import ENDINGS
from twbench.model.errors import Problem, ScenarioError
from twbench.model.reports import Fate, WireReport
from twbench.model.scenario import LabSpec, Scenario
from twbench.model.states import Side
from twbench.wire.packet import Flag, tcp_packet, unreachable_for
from twbench.wire.rules import Action, Rule, RuleError

_CROSSING = ("pass DATA", "hold FIN until FIN from the other side")
"""Each FIN leaves before the other's has arrived; a FIN that an answer ends with is not held."""
_EXAMPLES = {"ipv4": ("198.18.1.1", "198.19.0.1"), "ipv6": ("2001:2::1", "2001:2::2")}


def check_rules(lab: LabSpec) -> None:
    """Look through the rules of `[lab.wire]`. Raises ScenarioError with every mistake found."""
    lines = lab.wire.rules if lab.wire else ()
    problems = [
        Problem(key=f"lab.wire.rules.{number}", found=repr(line), allowed=mistake)
        for number, line in enumerate(lines)
        for mistake in _mistakes(line, lab)
    ]
    if problems:
        raise ScenarioError("scenario", problems)


def _mistakes(line: str, lab: LabSpec) -> Iterator[str]:
    try:
        rule = Rule.parse(line)
    except RuleError as error:
        yield str(error)
        return
    if rule.action is Action.HOLD and rule.until is None:
        yield "allowed is 'hold … until …': nobody is there who could let it go"
    if rule.icmp is not None:
        source, destination = _EXAMPLES[lab.family]
        syn = tcp_packet(
            source=source,
            destination=destination,
            source_port=1,
            destination_port=1,
            seq=0,
            flags=Flag.SYN,
        )
        try:
            unreachable_for(syn, kind=rule.icmp[0], code=rule.icmp[1])
        except ValueError as error:
            yield f"allowed is the type of an error: {error}"


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
    Fate.LOST: "lost",
    Fate.DUPLICATED: "duplicated",
    Fate.DROPPED_BY_QUEUE: "dropped by the queue",
    Fate.OVERRUN: "too fast for the carrier",
    Fate.REFUSED: "refused by a host",
}


def carried(wire: WireReport) -> dict[str, Any]:
    """Return what summary.json says of a wire: packets by the side they came from, and by fate."""
    return {
        **{
            side.value: {fate.value: counts[fate] for fate in Fate}
            for side, counts in ((Side.CLIENT, wire.client), (Side.SERVER, wire.server))
        },
        "rules": dict(wire.rules),
        "captured": wire.captured,
        "cpu_s": round(wire.cpu_ns / 1e9, 3),
    }
