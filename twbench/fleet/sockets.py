"""Sockets made by hand, for what an event loop's own connect cannot do: options and bind first."""

import asyncio
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from twbench.model.outcomes import Phase, errno_name
from twbench.model.plans import Endpoint

_IP_LOCAL_PORT_RANGE = 51  # linux/in.h, since 6.3; the socket module has no name for it
_IP_BIND_ADDRESS_NO_PORT = 24  # linux/in.h; Python has it from 3.12


def _integer(value: int) -> bytes:
    return struct.pack("=i", value)


@dataclass(frozen=True, slots=True)
class _Option:
    level: int
    number: int
    pack: Callable[[Any], bytes] = _integer


def _table() -> Mapping[str, _Option]:
    tcp, any_, ip = socket.IPPROTO_TCP, socket.SOL_SOCKET, socket.IPPROTO_IP
    return {
        "SO_LINGER": _Option(any_, socket.SO_LINGER, lambda s: struct.pack("=ii", 1, s)),
        "SO_REUSEADDR": _Option(any_, socket.SO_REUSEADDR),
        "SO_KEEPALIVE": _Option(any_, socket.SO_KEEPALIVE),
        "SO_SNDBUF": _Option(any_, socket.SO_SNDBUF),
        "SO_RCVBUF": _Option(any_, socket.SO_RCVBUF),
        "TCP_NODELAY": _Option(tcp, socket.TCP_NODELAY),
        "TCP_USER_TIMEOUT": _Option(tcp, socket.TCP_USER_TIMEOUT),
        "TCP_SYNCNT": _Option(tcp, socket.TCP_SYNCNT),
        "TCP_KEEPIDLE": _Option(tcp, socket.TCP_KEEPIDLE),
        "TCP_KEEPINTVL": _Option(tcp, socket.TCP_KEEPINTVL),
        "TCP_KEEPCNT": _Option(tcp, socket.TCP_KEEPCNT),
        # ipv6_setsockopt hands SOL_IP options on, so these two serve both families
        "IP_BIND_ADDRESS_NO_PORT": _Option(ip, _IP_BIND_ADDRESS_NO_PORT),
        "IP_LOCAL_PORT_RANGE": _Option(
            ip, _IP_LOCAL_PORT_RANGE, lambda r: struct.pack("=I", r[1] << 16 | r[0])
        ),
    }


SOCKET_OPTIONS = _table()
"""Options by kernel name: level, number, and how a scenario's value becomes bytes."""


class ConnectFailedError(Exception):
    """A connection that could not be made: in which phase, and the errno's name."""

    def __init__(self, phase: Phase, error: OSError) -> None:
        """Keep what the kernel said."""
        self.phase = phase
        self.error = errno_name(error.errno)
        super().__init__(f"{phase}: {self.error}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Dialer:
    """Makes connected sockets with the given options, bound first where asked."""

    family: int
    options: Mapping[str, Any]
    bind: bool
    """Whether the source address is bound before connect(2)."""

    async def dial(self, source: str, destination: Endpoint) -> socket.socket:
        """Return a connected non-blocking socket.

        Raises:
            ConnectFailedError: a system call on the way failed.
        """
        try:
            sock = socket.socket(self.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError as error:
            raise ConnectFailedError(Phase.CONNECT, error) from None
        phase = Phase.CONNECT
        try:
            for name, value in self.options.items():
                option = SOCKET_OPTIONS[name]
                sock.setsockopt(option.level, option.number, option.pack(value))
            if self.bind:
                phase = Phase.BIND
                sock.bind((source, 0))
                phase = Phase.CONNECT
            await asyncio.get_running_loop().sock_connect(sock, destination)
        except OSError as error:
            sock.close()
            raise ConnectFailedError(phase, error) from None
        except BaseException:
            sock.close()
            raise
        return sock
