"""An application's end of a connection on the stage: a socket whose every call is recorded.

Sockets never block: what a call cannot do at once it says (EAGAIN, EINPROGRESS), and the world's
faults are results, not exceptions.
"""

import errno
import os
import select
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from twbench.model.states import Side

_LINGER_ZERO = struct.pack("@ii", 1, 0)
_TCP_INFO_BYTES = 104
_TCP_INFO = struct.Struct("=8B24I")
"""The part of struct tcp_info that every kernel since 2.6 has (include/uapi/linux/tcp.h)."""
_TCP_INFO_FIELDS = {
    "state": 0,
    "retransmits": 2,
    "probes": 3,
    "backoff": 4,
    "rto_us": 8,
    "unacked": 12,
    "lost": 14,
    "rtt_us": 23,
    "total_retrans": 31,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a call returned, or the name of the errno it failed with."""

    value: Any = None
    error: str = ""

    @property
    def data(self) -> bytes:
        """Return the bytes received; none where the call failed."""
        return self.value if isinstance(self.value, bytes) else b""

    def __str__(self) -> str:
        """Return the outcome as a ladder shows it."""
        if self.error:
            return self.error
        match self.value:
            case None:
                return ""
            case b"":
                return "0 bytes: end of file"
            case bytes() as data:
                return f"{len(data)} bytes"
            case other:
                return str(other)


class Recorder(Protocol):
    """What an endpoint tells of itself, after each call."""

    def called(self, side: Side, text: str, outcome: Outcome) -> None:
        """Record a call and what came of it."""

    def closed(self, side: Side, inode: int) -> None:
        """Wait until the kernel has seen the last of a socket's descriptors go."""

    def follow(self, client_port: int, server_port: int) -> None:
        """Show this connection from here on."""


class Endpoint:
    """One socket, and the side it stands on."""

    def __init__(self, made: socket.socket, side: Side, recorder: Recorder) -> None:
        """Take over the socket, which becomes non-blocking."""
        made.settimeout(0)
        self.socket = made
        self.side = side
        self._recorder = recorder

    @property
    def port(self) -> int:
        """Return the local port."""
        return int(self.socket.getsockname()[1])

    @property
    def is_readable(self) -> bool:
        """Return whether `receive` has something to tell: data, the end of file, or an error."""
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        return bool(poll.poll(0))

    def set(self, level: int, option: int, value: int | bytes) -> None:
        """Set a socket option, unrecorded. Raises OSError."""
        self.socket.setsockopt(level, option, value)

    def bind(self, address: str, port: int) -> Outcome:
        """Bind to an own address."""
        return self._call(f"bind({port})", lambda: self.socket.bind((address, port)))

    def connect(self, address: str, port: int) -> Outcome:
        """Start to connect: the answer is EINPROGRESS, and `error` tells the end of it."""
        outcome = self._perform(lambda: self.socket.connect((address, port)))
        if outcome.error in {"", "EINPROGRESS"}:
            self._recorder.follow(self.port, port)
        self._recorder.called(self.side, "connect()", outcome)
        return outcome

    def error(self) -> str:
        """Return and clear the socket's pending error by name, empty where there is none."""
        code = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return errno.errorcode.get(code, str(code)) if code else ""

    def send(self, data: bytes) -> Outcome:
        """Send once; the value is the number of bytes that the kernel took."""
        return self._call(f"send({len(data)} bytes)", lambda: self.socket.send(data))

    def receive(self, most: int = 65536) -> Outcome:
        """Receive once; no bytes are the end of file."""
        return self._call("recv()", lambda: self.socket.recv(most))

    def shutdown(self) -> Outcome:
        """Shut the sending half down: a FIN leaves, receiving goes on."""
        return self._call("shutdown(SHUT_WR)", lambda: self.socket.shutdown(socket.SHUT_WR))

    def close(self) -> Outcome:
        """Close the socket, for the kernel too."""
        return self._call("close()", self._close)

    def discard(self) -> None:
        """Close the socket, for the kernel too, unrecorded."""
        self._close()

    def reset(self) -> Outcome:
        """Close with SO_LINGER 0: a RST leaves, and whatever was unsent is thrown away."""
        self.set(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
        return self._call("close(), SO_LINGER 0", self._close)

    def listen(self, backlog: int = 128) -> Outcome:
        """Listen."""
        return self._call("listen()", lambda: self.socket.listen(backlog))

    def accept(self) -> "Endpoint":
        """Take a connection from the accept queue. Raises BlockingIOError where there is none."""
        taken, _ = self.socket.accept()
        self._recorder.called(self.side, "accept()", Outcome())
        return Endpoint(taken, self.side, self._recorder)

    def info(self) -> dict[str, int]:
        """Return a few fields of TCP_INFO: tcpi_rto and tcpi_rtt in us, the others as numbers."""
        raw = self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        fields = _TCP_INFO.unpack(raw)
        return {name: fields[index] for name, index in _TCP_INFO_FIELDS.items()}

    def _call(self, text: str, function: Callable[[], Any]) -> Outcome:
        outcome = self._perform(function)
        self._recorder.called(self.side, text, outcome)
        return outcome

    def _close(self) -> None:
        inode = os.fstat(self.socket.fileno()).st_ino
        self.socket.close()
        self._recorder.closed(self.side, inode)

    @staticmethod
    def _perform(function: Callable[[], Any]) -> Outcome:
        try:
            return Outcome(value=function())
        except OSError as error:
            return Outcome(error=errno.errorcode.get(error.errno or 0, str(error)))
