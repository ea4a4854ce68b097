"""What asyncio's transports do not offer, asked of the socket beneath."""

import asyncio
import contextlib
import os
import socket
import struct
from enum import Enum, auto

from twbench.model.states import TcpState

_LINGER_ZERO = struct.pack("=ii", 1, 0)


def reset_on_close(transport: asyncio.BaseTransport) -> None:
    """Make the coming close send RST: SO_LINGER with a time of 0 (tcp_close, tcp_disconnect)."""
    sock = transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)


def half_close(transport: asyncio.WriteTransport) -> None:
    """Send FIN after what is still to be sent, and go on reading.

    A RST may have come first (shutdown(2): ENOTCONN); the reading side hears of it by itself.
    """
    with contextlib.suppress(OSError):
        transport.write_eof()


def tcp_state(sock: socket.socket) -> TcpState:
    """Return the state the kernel has the socket in (TCP_INFO)."""
    # the first byte of struct tcp_info is tcpi_state
    return TcpState(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0])


class Fin(Enum):
    """Whether a FIN left before the peer's had come."""

    FIRST = auto()
    SECOND = auto()
    CROSSED = auto()
    """Both went within the same microseconds; FIRST is likely, but nobody can tell."""


def send_fin(transport: asyncio.BaseTransport) -> Fin:
    """Send this side's FIN at once, and tell which one was the first.

    A transport's own close() closes the socket a turn of the loop later, and then nobody could say
    which of two FINs was first. Nothing must be left to send.
    """
    sock = transport.get_extra_info("socket")
    if sock is None or sock.fileno() < 0:
        return Fin.SECOND
    return send_fin_on(os.dup(sock.fileno()))


def send_fin_on(descriptor: int) -> Fin:
    """Do the same on a connected socket's descriptor, and close that."""
    with socket.socket(fileno=descriptor) as twin:
        if tcp_state(twin) is not TcpState.ESTABLISHED:
            return Fin.SECOND
        try:
            twin.shutdown(socket.SHUT_WR)
        except OSError:
            # ENOTCONN: a RST has come
            return Fin.SECOND
        return _AFTER_FIN.get(tcp_state(twin), Fin.FIRST)


# between the two looks at the state the peer's FIN may have come, before ours or in answer to it
_AFTER_FIN = {TcpState.LAST_ACK: Fin.SECOND, TcpState.CLOSE: Fin.CROSSED}
