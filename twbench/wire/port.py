"""The wire's ends: a packet socket on the middle's end of each host's veth.

The hosts' interfaces know no ARP (IFF_NOARP), so a frame's addresses say nothing: the wire writes
the receiver's own. Packets are IP packets here, without their Ethernet header.
"""

import os
import select
import socket
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from twbench.model.links import WirePort
from twbench.model.states import Side

OpenPacketSocket = Callable[[int, int, int], socket.socket]
"""From (family, type, protocol) to a socket made on the middle stack."""

_ETH_P_ALL = 0x0003
_ETHERTYPES = {4: 0x0800, 6: 0x86DD}
_HEADER_BYTES = 14
_IPV6_DESTINATION = _HEADER_BYTES + 24
_WIRE_MAC = bytes.fromhex("0200000000ff")

_SOL_PACKET = 263
_PACKET_IGNORE_OUTGOING = 23
_SO_TIMESTAMPNS = 35
_SO_RCVBUFFORCE = 33
_TIMESPEC = struct.Struct("=qq")
_RECEIVE_BUFFER_BYTES = 8 * 1024 * 1024
_FRAME_BYTES = 65_600
_ANCILLARY_BYTES = socket.CMSG_SPACE(_TIMESPEC.size)


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrival:
    """An IP packet that came from a host: when, by the kernel's clock, in ns since the epoch."""

    t_ns: int
    port: "Port"
    raw: bytes


class Port:
    """One end of the wire; reads never block."""

    def __init__(self, port: WirePort, open_socket: OpenPacketSocket) -> None:
        """Open and bind the packet socket. Raises OSError.

        SO_RCVBUFFORCE wants CAP_NET_ADMIN in the initial user namespace (sk_setsockopt), so
        others get what `net.core.rmem_max` allows.
        """
        self.host = port.host
        self.side: Side = port.side
        self.addresses = port.addresses
        self._headers = {
            version: port.mac + _WIRE_MAC + kind.to_bytes(2)
            for version, kind in _ETHERTYPES.items()
        }
        # Bound to nothing until the options stand, lest frames of other interfaces come first.
        self._socket = open_socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        try:
            self._socket.settimeout(0)
            self._socket.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            self._enlarge()
            self._socket.bind((port.interface, _ETH_P_ALL))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the socket; a second call does nothing."""
        self._socket.close()

    def _enlarge(self) -> None:
        """Ask for a large receive buffer, by right or by favour."""
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER_BYTES)
        except PermissionError:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)

    def fileno(self) -> int:
        """Return the descriptor, for select."""
        return self._socket.fileno()

    def read(self) -> list[Arrival]:
        """Return every IP packet that waits, in order, without the kernels' own multicast."""
        found: list[Arrival] = []
        while True:
            try:
                frame, ancillary, _, _ = self._socket.recvmsg(_FRAME_BYTES, _ANCILLARY_BYTES)
            except BlockingIOError:
                return found
            if _is_of_the_load(frame):
                seconds, rest_ns = _TIMESPEC.unpack(ancillary[0][2])
                t_ns = seconds * 1_000_000_000 + rest_ns
                found.append(Arrival(t_ns=t_ns, port=self, raw=frame[_HEADER_BYTES:]))

    def send(self, raw: bytes) -> None:
        """Give an IP packet to the host. Raises OSError, as ENETDOWN while it reboots."""
        self._socket.send(self._headers[raw[0] >> 4] + raw)


def wait_for(ports: Iterable[Port], timeout_s: float) -> None:
    """Return when a packet waits on some port, or after the time-out."""
    poll = select.poll()
    for port in ports:
        poll.register(port, select.POLLIN)
    poll.poll(max(0.0, timeout_s) * 1000)


def read_all(ports: Iterable[Port]) -> list[Arrival]:
    """Return every packet that waits on any port, in the order in which they came."""
    arrivals = [arrival for port in ports for arrival in port.read()]
    return sorted(arrivals, key=lambda arrival: arrival.t_ns)


def _is_of_the_load(frame: bytes) -> bool:
    """Leave out what is no IP, and IPv6's multicast (MLD, RFC 3810), which no rule is about."""
    kind = int.from_bytes(frame[12:14])
    ipv6_multicast = kind == _ETHERTYPES[6] and frame[_IPV6_DESTINATION:][:1] == b"\xff"
    return kind in _ETHERTYPES.values() and not ipv6_multicast


def pin_to_one_processor() -> set[int]:
    """Keep this thread on the processor it runs on; return what to give os.sched_setaffinity back.

    What the thread sends then waits in one backlog (softnet_data), so packets to a host are worked
    off in order: an echo answered means that all before it were.
    """
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {_current(before)})
    return before


def _current(allowed: set[int]) -> int:
    """Return the processor that this thread runs on: field 39 of proc_pid_stat(5)."""
    with open("/proc/thread-self/stat", "rb") as file:  # noqa: PTH123 - a path would be resolved
        processor = int(file.read().rpartition(b")")[2].split()[36])
    return processor if processor in allowed else min(allowed)
