"""Switches an interface's offloads off, so that what leaves it is what a wire would carry.

A veth else hands over segments of up to 64 KiB whose checksum nobody has filled in
(CHECKSUM_PARTIAL, include/linux/skbuff.h).
"""

import array
import fcntl
import os
import socket
import struct

_SIOCETHTOOL = 0x8946
_IFREQ = struct.Struct("16sP16x")
"""`ifreq` with a pointer (netdevice(7))."""

OFFLOADS = {
    "tso": (0x1E, 0x1F),
    "gso": (0x23, 0x24),
    "gro": (0x2B, 0x2C),
    "scatter-gather": (0x18, 0x19),
    "tx checksum": (0x16, 0x17),
    "rx checksum": (0x14, 0x15),
}
"""Each offload: the ethtool commands that read and write it (include/uapi/linux/ethtool.h)."""


def switch_off(interface: str) -> None:
    """Switch every offload of `interface`, on this process's stack, off; OSError if refused."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for read, write in OFFLOADS.values():
            # What is fixed to off may not be written either (EOPNOTSUPP).
            if _ethtool(any_socket, interface, read):
                _ethtool(any_socket, interface, write)
        if left := _still_on(any_socket, interface):
            raise OSError(0, f"{', '.join(left)} stayed on", interface)


def still_on(interface: str) -> tuple[str, ...]:
    """Return the names of those `OFFLOADS` of `interface` that are on; OSError if refused."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        return _still_on(any_socket, interface)


def _still_on(any_socket: socket.socket, interface: str) -> tuple[str, ...]:
    return tuple(
        name for name, (read, _) in OFFLOADS.items() if _ethtool(any_socket, interface, read)
    )


def _ethtool(any_socket: socket.socket, interface: str, command: int) -> int:
    """Do one `ethtool_value` command with the value 0; return the value it leaves."""
    value = array.array("I", (command, 0))
    request = _IFREQ.pack(os.fsencode(interface), value.buffer_info()[0])
    fcntl.ioctl(any_socket, _SIOCETHTOOL, request)
    return value[1]
