"""The small structs that operations point to, as bytes. Pure.

Sources: include/uapi/linux/{in,in6,time_types}.h.
"""

import ipaddress
import socket
import struct

_SOCKADDR_IN = struct.Struct("=H2s4s8x")
_SOCKADDR_IN6 = struct.Struct("=H2sI16sI")
_TIMESPEC = struct.Struct("=qq")
_PORT = struct.Struct(">H")
_NS_PER_S = 1_000_000_000

SOCKADDR_BYTES = _SOCKADDR_IN6.size
"""Room for either family."""


def sockaddr(address: str, port: int, *, scope: int = 0) -> bytes:
    """Return struct sockaddr_in (16 bytes) or sockaddr_in6 (28) of a numeric address and a port.

    Raises ValueError for anything but a numeric address, struct.error for a port out of range.
    """
    ip = ipaddress.ip_address(address)
    if ip.version == 4:  # noqa: PLR2004 - the name of the family
        return _SOCKADDR_IN.pack(socket.AF_INET, _PORT.pack(port), ip.packed)
    return _SOCKADDR_IN6.pack(socket.AF_INET6, _PORT.pack(port), 0, ip.packed, scope)


def read_sockaddr(raw: bytes | memoryview) -> tuple[str, int]:
    """Return (address, port) of a sockaddr_in or sockaddr_in6; trailing bytes are ignored.

    Raises ValueError for another family or too few bytes.
    """
    try:
        (family,) = struct.unpack_from("=H", raw)
        if family == socket.AF_INET:
            _, port, packed = _SOCKADDR_IN.unpack_from(raw)
        elif family == socket.AF_INET6:
            _, port, _, packed, _ = _SOCKADDR_IN6.unpack_from(raw)
        else:
            raise ValueError(f"address family {family} is neither IPv4 nor IPv6")
    except struct.error as error:
        raise ValueError(f"{len(raw)} bytes are too few for a socket address") from error
    return str(ipaddress.ip_address(packed)), _PORT.unpack(port)[0]


def timespec(ns: int) -> bytes:
    """Return struct __kernel_timespec (16 bytes) of a span or moment of `ns` >= 0 nanoseconds."""
    return _TIMESPEC.pack(*divmod(ns, _NS_PER_S))
