"""Memory that operations point to: it stays where it is, so its addresses can go into a chain."""

import ctypes
import mmap

_ALIGNMENT = 8


class Memory:
    """A piece of memory handed out from its start; nothing is given back until it is closed.

    Close the ring first: what is still under way there may write here.
    """

    def __init__(self, size_bytes: int) -> None:
        """Map `size_bytes` of zeros. Raises OSError, ValueError for none."""
        self._map = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._start = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        self._view = memoryview(self._map)
        self._used = 0

    def reserve(self, size_bytes: int) -> int:
        """Return the address of fresh bytes, on a multiple of 8. Raises MemoryError when full."""
        at = -self._used % _ALIGNMENT + self._used
        if at + size_bytes > len(self._view):
            left = len(self._view) - self._used
            raise MemoryError(f"{size_bytes} bytes wanted, {left} of {len(self._view)} left")
        self._used = at + size_bytes
        return self._start + at

    def place(self, content: bytes) -> int:
        """Return the address of a copy of `content`. Raises MemoryError when full."""
        address = self.reserve(len(content))
        self.view(address, len(content))[:] = content
        return address

    def view(self, address: int, size_bytes: int) -> memoryview:
        """Return the live bytes at an address. Raises ValueError outside of this memory."""
        at = address - self._start
        if not 0 <= at <= at + size_bytes <= len(self._view):
            raise ValueError(f"{size_bytes} bytes at {address:#x} are not of this memory")
        return self._view[at : at + size_bytes]

    def copy(self, address: int, size_bytes: int) -> bytes:
        """Return the bytes at an address as they are now; of what lies behind the end, nothing."""
        at = address - self._start
        return self._map[at : at + size_bytes]

    def close(self) -> None:
        """Give the memory back; a second call does nothing. Raises BufferError while viewed."""
        self._view.release()
        self._map.close()
