"""A slot's socket as asyncio's Transport: whatever is not answered at once goes through here."""

import asyncio
import ctypes
import errno
import os
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from twbench.server.chains import Step, cancel, write

_HIGH_BYTES = 65_536
_LOW_BYTES = 16_384


def address_of(data: bytes) -> int:
    """Return where the bytes lie: true as long as they are referred to."""
    return ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0


class Carrier(Protocol):
    """What a transport needs of its slot."""

    index: int

    def push(self, chain: bytes) -> None:
        """Put operations onto the ring."""

    def read(self) -> None:
        """Receive once."""

    def take(self, length: int) -> bytes:
        """Return what was received."""

    def descriptor(self) -> int:
        """Return an ordinary descriptor of the socket; the caller closes it. Raises OSError."""

    def has_sent(self, length: int) -> bool:
        """Return, once, whether `descriptor` heard on the way that so many bytes were sent."""

    def later(self, call: Callable[[], None]) -> None:
        """Call after a pause."""

    def shut(self, then: Callable[[], None]) -> None:
        """Close the socket, and call; nothing may be under way."""


class RingTransport(asyncio.Transport):
    """Sends what is written, in order, one piece at a time, and receives all the while."""

    def __init__(
        self, carrier: Carrier, protocol: asyncio.Protocol, *, reading: bool, unsent_bytes: int = 0
    ) -> None:
        """Take over a slot.

        Args:
            carrier: the slot.
            protocol: whose transport this is.
            reading: whether a receive is under way.
            unsent_bytes: the answer that this receive is linked to, while its send is under way.
        """
        super().__init__()
        self._carrier = carrier
        self._protocol = protocol
        self._reading = reading
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._unsent_bytes = unsent_bytes
        self._sending = b""
        self._cancelling: Step | None = None
        self._full = self._paused = self._eof = self._shut = self._closing = self._over = False
        self._unread = b""
        self._error: OSError | None = None
        self._socket: socket.socket | None = None

    # what the ring tells

    def received(self, result: int) -> None:
        """Hear of a receive's end: the length of what came, or minus the errno."""
        self._reading = False
        self._unsent_bytes = 0
        if self._closing:
            self._go_on()
        elif result > 0:
            self.hand_over(self._carrier.take(result))
        elif result == 0:
            self._eof = True
            if not self._protocol.eof_received():
                self.close()
        else:
            self._fail(-result)

    def hand_over(self, data: bytes) -> None:
        """Give the protocol what came, and receive more; a paused one gets it later."""
        if self._paused:
            self._unread = data
            return
        self._protocol.data_received(data)
        self._read()

    def unanswered(self, number: int) -> None:
        """Hear that the answer from before failed: the receive linked to it never began."""
        self._reading = False
        self._unsent_bytes = 0
        self._fail(number)

    def sent(self, result: int) -> None:
        """Hear of a send's end: how much left, or minus the errno."""
        self._sending = b""
        if not self._queue:
            self._go_on()
        elif result == len(self._queue[0]):
            self._queued_bytes -= len(self._queue.popleft())
            if self._full and self._queued_bytes <= _LOW_BYTES:
                self._full = False
                self._protocol.resume_writing()
            self._go_on()
        else:
            self._fail(-result if result < 0 else errno.ECONNRESET)

    def cancelled(self, result: int) -> None:
        """Hear of a cancellation; one that missed is tried again after a pause.

        It misses a receive for as long as the answer before it is not sent.
        """
        step, self._cancelling = self._cancelling, None
        if step is None or not self._closing:
            return
        if not (self._sending if step is Step.WRITE else self._reading):
            self._go_on()
        elif result:
            self._carrier.later(self._go_on)

    # asyncio.Transport

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send these bytes after those before."""
        if self._closing or not data:
            return
        self._queue.append(bytes(data))
        self._queued_bytes += len(data)
        self._go_on()
        if self._queued_bytes > _HIGH_BYTES and not self._full:
            self._full = True
            self._protocol.pause_writing()

    def write_eof(self) -> None:
        """Send FIN after all that was written, and go on receiving."""
        self._shut = True
        self._go_on()

    def can_write_eof(self) -> bool:
        """Return True."""
        return True

    def get_write_buffer_size(self) -> int:
        """Return how many bytes the kernel may not have taken yet."""
        return self._unsent_bytes + self._queued_bytes

    def pause_reading(self) -> None:
        """Hand nothing more over."""
        self._paused = True

    def resume_reading(self) -> None:
        """Hand over what came meanwhile, and receive again."""
        self._paused = False
        data, self._unread = self._unread, b""
        if data:
            self.hand_over(data)
        else:
            self._read()

    def is_closing(self) -> bool:
        """Return whether the end was asked for, or came."""
        return self._closing

    def close(self) -> None:
        """Close after all that was written has been sent."""
        self._closing = True
        self._go_on()

    def abort(self) -> None:
        """Close at once."""
        self._queue.clear()
        self._queued_bytes = 0
        self.close()

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: ANN401 - asyncio's
        """Return the socket, with a descriptor of its own, as long as there is one."""
        if name != "socket" or self._over:
            return default
        if self._socket is None:
            self._socket = socket.socket(fileno=self._carrier.descriptor())
            if self._sending and self._carrier.has_sent(len(self._sending)):
                self.sent(len(self._sending))
        return self._socket

    # steps

    def _read(self) -> None:
        if not (self._reading or self._paused or self._eof or self._closing):
            self._reading = True
            self._carrier.read()

    def _fail(self, number: int) -> None:
        self._error = OSError(number, os.strerror(number))
        self.abort()

    def _go_on(self) -> None:
        """Take the next step: send, shut down, stop receiving, close."""
        index = self._carrier.index
        if self._sending:
            if not self._queue:
                self._cancel(Step.WRITE)
        elif self._queue:
            # the kernel reads it until the send is over, whatever becomes of the queue
            self._sending = data = self._queue[0]
            self._carrier.push(write(index, address_of(data), len(data)))
        elif self._shut and not self._closing:
            self._shut = False
            # an operation would do the same in another thread (io_shutdown_prep)
            with suppress(OSError):
                self.get_extra_info("socket").shutdown(socket.SHUT_WR)
        elif self._closing and not self._over:
            if self._reading:
                self._cancel(Step.RECV)
            else:
                self._finish()

    def _cancel(self, step: Step) -> None:
        if self._cancelling is None:
            self._cancelling = step
            self._carrier.push(cancel(self._carrier.index, step))

    def _finish(self) -> None:
        self._over = True
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._carrier.shut(lambda: self._protocol.connection_lost(self._error))

    def drop(self) -> None:
        """Forget the connection: the ring is gone."""
        self._closing = self._over = True
        if self._socket is not None:
            self._socket.close()
