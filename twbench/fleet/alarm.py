"""A timer finer than an event loop's: uvloop rounds to whole milliseconds, a timerfd does not."""

import asyncio
import ctypes
import os
import struct
import time
from types import TracebackType
from typing import Self

_CLOCK_MONOTONIC, _ABSOLUTE = 1, 1
_libc = ctypes.CDLL(None, use_errno=True)


class Alarm:
    """Wakes one coroutine at moments of CLOCK_MONOTONIC (timerfd_create(2))."""

    def __init__(self) -> None:
        """Make the timer and hang it into the running loop."""
        self._fd = _libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        self._rang = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._fd, self._expired)

    def _expired(self) -> None:
        os.read(self._fd, 8)
        self._rang.set()

    def ring(self) -> None:
        """Wake the sleeper now."""
        self._rang.set()

    async def until(self, at_ns: int) -> None:
        """Return at `at_ns` of CLOCK_MONOTONIC, at once if that has passed, or when rung."""
        if at_ns <= time.monotonic_ns():
            return
        self._rang.clear()
        once = struct.pack("=qqqq", 0, 0, *divmod(at_ns, 1_000_000_000))
        if _libc.timerfd_settime(self._fd, _ABSOLUTE, once, None) < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        await self._rang.wait()

    def __enter__(self) -> Self:
        """Return the timer."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take the timer out of the loop and close it."""
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)
