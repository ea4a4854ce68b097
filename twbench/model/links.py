"""What the lab tells the wire of its ends; the lab and the wire do not know each other."""

from dataclasses import dataclass

from twbench.model.states import Side

MIDDLE_STACK = "wire"
"""The stack between the hosts of a wire lab, on which the packet sockets are made."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WirePort:
    """Where the wire meets a host: `interface` on the middle stack leads to that host alone.

    `mac` is the hardware address (6 bytes) of the host's own end: a frame to it is taken in.
    """

    host: str
    side: Side
    interface: str
    mac: bytes
    addresses: tuple[str, ...]
