"""What a stage keeps: the steps of its ladder, and every packet for the capture."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from twbench.model.states import Side
from twbench.wire.ladder import Ladder, Segment, Step
from twbench.wire.packet import Flag, Packet, Tcp
from twbench.wire.pcapng import Record, encode

INTERFACES = ("client", "server", "wire")
"""The capture's interfaces: where a packet came onto the wire. What the wire made comes from it."""
_WIRE = INTERFACES.index("wire")
_MODULUS = 1 << 32
"""Sequence numbers count modulo this (RFC 9293 section 3.4)."""

_Flow = tuple[str, int, str, int]


@dataclass(slots=True)
class _Frame:
    t_ns: int
    interface: int
    packet: Packet
    comments: list[str] = field(default_factory=list)


class Film:
    """Steps and frames, in the order in which they came; frames are numbered from 1."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self._frames: list[_Frame] = []
        self._first_seq: dict[_Flow, int] = {}

    def expose(self, t_ns: int, packet: Packet, origin: Side | None) -> int:
        """Keep a packet that came at `t_ns` since the epoch, and return its frame number.

        `origin` is the side whose host sent it, None for one that the wire made.
        """
        interface = _WIRE if origin is None else INTERFACES.index(origin)
        self._frames.append(_Frame(t_ns=t_ns, interface=interface, packet=packet))
        return len(self._frames)

    def remark(self, frame: int, text: str) -> None:
        """Put a comment on a frame of the capture, beside those that it has."""
        comments = self._frames[frame - 1].comments
        if text not in comments:
            comments.append(text)

    def packet(self, frame: int) -> Packet:
        """Return the packet of a frame."""
        return self._frames[frame - 1].packet

    def segment(self, packet: Packet) -> Segment:
        """Return the packet as a ladder shows it."""
        tcp = packet.tcp
        if tcp is None:
            icmp = packet.icmp
            name = "ICMP" if packet.family == 4 else "ICMPv6"  # noqa: PLR2004 - IPv4
            return Segment(label=f"{name} {icmp.kind}/{icmp.code}" if icmp else "no TCP")
        ours = (packet.source, tcp.source_port, packet.destination, tcp.destination_port)
        theirs = (*ours[2:], *ours[:2])
        if tcp.flags & Flag.SYN or ours not in self._first_seq:
            self._first_seq[ours] = tcp.seq
        acked = tcp.ack - self._first_seq.get(theirs, 0)
        return Segment(
            label=tcp.label,
            seq=_signed(tcp.seq - self._first_seq[ours]),
            ack=_signed(acked) if tcp.flags & Flag.ACK else None,
            length=len(tcp.payload),
        )

    def ladder(self, title: str, sentence: str) -> Ladder:
        """Return the steps so far."""
        return Ladder(title=title, sentence=sentence, steps=tuple(self.steps))

    def capture(self, comment: str = "") -> bytes:
        """Return the frames as a pcapng file."""
        records = (
            Record(
                t_ns=frame.t_ns,
                interface=frame.interface,
                data=frame.packet.raw,
                comment="; ".join(frame.comments),
            )
            for frame in self._frames
        )
        return encode(records, interfaces=INTERFACES, comment=comment)

    def segments(self, origin: Side) -> Sequence[tuple[int, Tcp]]:
        """Return (frame number, segment) of every TCP packet that a side's host sent."""
        interface = INTERFACES.index(origin)
        return [
            (number, frame.packet.tcp)
            for number, frame in enumerate(self._frames, start=1)
            if frame.interface == interface and frame.packet.tcp is not None
        ]

    def time_ns(self, frame: int) -> int:
        """Return when a frame came onto the wire, in ns since the epoch."""
        return self._frames[frame - 1].t_ns


def _signed(difference: int) -> int:
    """Return a distance in sequence space as a number that may be negative."""
    return (difference + _MODULUS // 2) % _MODULUS - _MODULUS // 2
