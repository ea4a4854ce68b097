"""The ladder: what was called, what crossed the wire, and what state both ends were in then.

Steps stand in the order in which they happened. Each carries both ends' states as the kernels
told them *after* the step, when both had become quiet.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from twbench.model.states import Side, TcpState


class Fate(StrEnum):
    """What became of a packet that came onto the wire."""

    DELIVERED = "delivered"
    DROPPED = "dropped"
    HELD = "held"
    """Kept back; a later step with the same frame number tells of its release."""
    RELEASED = "released"
    """Delivered after it was held, delayed or let another pass."""
    DUPLICATED = "duplicated"
    """Delivered, and a copy of it goes on."""
    ANSWERED = "answered"
    """Dropped, and answered as a firewall does."""
    INJECTED = "injected"
    """Made by the wire, or an earlier packet sent again by it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EndState:
    """One end of the connection, as sock_diag shows it."""

    state: TcpState = TcpState.CLOSE
    """CLOSE where the kernel knows no such connection (any more)."""
    expires_s: float = 0.0
    """Time left of the running timer, in seconds; in TIME_WAIT, of that state."""
    timer: int = 0
    """idiag_timer: 0 none, 1 retransmission, 2 keep-alive, 3 TIME_WAIT, 4 zero-window probe."""
    retransmits: int = 0
    """Retransmissions, or probes, of the running timer."""

    @property
    def name(self) -> str:
        """Return the state by its usual name."""
        return STATE_NAMES.get(self.state, self.state.name)

    def as_json(self) -> dict[str, Any]:
        """Return the state's name, and the timer where one runs."""
        shown: dict[str, Any] = {"state": self.name}
        if self.timer:
            shown |= {"timer": self.timer, "expires_s": round(self.expires_s, 3)}
        if self.retransmits:
            shown["retransmits"] = self.retransmits
        return shown


STATE_NAMES = {
    TcpState.CLOSE: "CLOSED",
    TcpState.FIN_WAIT1: "FIN_WAIT_1",
    TcpState.FIN_WAIT2: "FIN_WAIT_2",
    TcpState.SYN_RECV: "SYN_RECEIVED",
    TcpState.NEW_SYN_RECV: "SYN_RECEIVED",
}
"""Where RFC 9293 section 3.3.2 spells a state otherwise than the kernel does."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """A packet as a ladder shows it: numbers count from each side's first sequence number."""

    label: str
    """The flags, as in "FIN+ACK"; of an ICMP error, its type and code."""
    seq: int | None = None
    """None where there is no TCP."""
    ack: int | None = None
    length: int = 0
    """Bytes of payload."""

    def __str__(self) -> str:
        """Return the segment as one piece of text."""
        numbers = {"seq": self.seq, "ack": self.ack, "len": self.length or None}
        told = (f"{name}={number}" for name, number in numbers.items() if number is not None)
        return " ".join((self.label, *told))


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One rung. `t_s` counts from the start of the stage."""

    t_s: float
    states: dict[Side, EndState]

    def as_json(self) -> dict[str, Any]:
        """Return what every step has."""
        states = {str(side): state.as_json() for side, state in self.states.items()}
        return {"t_s": round(self.t_s, 6), "states": states}


@dataclass(frozen=True, kw_only=True, slots=True)
class Call(Step):
    """An application's call on one side, and what it returned or failed with."""

    side: Side
    text: str
    """As in "close()" or "send(100 bytes)"."""
    result: str = ""
    """As in "0 bytes: end of file" or "ECONNRESET"; empty where there is nothing to tell."""

    def as_json(self) -> dict[str, Any]:
        """Return the call as a JSON object."""
        told = {"step": "call", "side": str(self.side), "call": self.text, "result": self.result}
        return told | Step.as_json(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class Crossing(Step):
    """A packet that came onto the wire from one side, and its fate."""

    origin: Side
    """The side whose packet it is, or seems to be."""
    segment: Segment
    fate: Fate
    frame: int
    """Its number in the capture, from 1; a released packet has that of its first appearance."""
    note: str = ""
    """The rule or the words of whoever injected it."""

    def as_json(self) -> dict[str, Any]:
        """Return the packet as a JSON object."""
        segment = self.segment
        return {
            "step": "packet",
            "from": str(self.origin),
            "segment": segment.label,
            "seq": segment.seq,
            "ack": segment.ack,
            "length": segment.length,
            "fate": str(self.fate),
            "frame": self.frame,
            "note": self.note,
        } | Step.as_json(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class Pause(Step):
    """A look at both ends after some time, or words about what comes."""

    text: str

    def as_json(self) -> dict[str, Any]:
        """Return the pause as a JSON object."""
        return {"step": "pause", "text": self.text} | Step.as_json(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class Ladder:
    """A whole exchange; `sentence` says what it shows."""

    title: str
    sentence: str
    steps: tuple[Step, ...] = field(default_factory=tuple)

    def states(self, side: Side) -> tuple[str, ...]:
        """Return the states that one end went through, each once for every time it came."""
        return tuple(_without_repeats(step.states[side].name for step in self.steps))

    @property
    def crossings(self) -> tuple[Crossing, ...]:
        """Return the packets alone."""
        return tuple(step for step in self.steps if isinstance(step, Crossing))

    @property
    def calls(self) -> tuple[Call, ...]:
        """Return the applications' calls alone."""
        return tuple(step for step in self.steps if isinstance(step, Call))

    def as_json(self) -> dict[str, Any]:
        """Return the ladder as a JSON object, its states of both sides in short first."""
        return {
            "title": self.title,
            "sentence": self.sentence,
            "states": {str(side): list(self.states(side)) for side in Side},
            "steps": [step.as_json() for step in self.steps],
        }


def _without_repeats(names: Iterator[str]) -> Iterator[str]:
    last = None
    for name in names:
        if name != last:
            yield name
        last = name
