"""Memory with addresses that stay."""

import ctypes

import pytest

from twbench.uring.memory import Memory


def test_what_is_placed_lies_at_its_address() -> None:
    memory = Memory(4096)
    address = memory.place(b"request")
    assert ctypes.string_at(address, 7) == b"request"
    ctypes.memset(address, ord("x"), 3)
    assert bytes(memory.view(address, 7)) == b"xxxuest"


def test_pieces_are_aligned_and_apart() -> None:
    memory = Memory(4096)
    first, second = memory.reserve(3), memory.reserve(5)
    assert first % 8 == second % 8 == 0
    assert second - first == 8


def test_full_memory_says_so_and_stays_usable() -> None:
    memory = Memory(16)
    memory.reserve(9)
    with pytest.raises(MemoryError, match="1 bytes wanted, 7 of 16 left"):
        memory.reserve(1)


@pytest.mark.parametrize(("by", "length"), [(-1, 1), (0, 4097), (4096, 1)])
def test_view_outside_is_refused(by: int, length: int) -> None:
    memory = Memory(4096)
    start = memory.reserve(1)
    with pytest.raises(ValueError, match="not of this memory"):
        memory.view(start + by, length)


def test_closing_twice_does_nothing() -> None:
    memory = Memory(4096)
    memory.close()
    memory.close()


def test_copy_is_of_the_bytes_as_they_were() -> None:
    memory = Memory(4096)
    address = memory.place(b"answer")
    copy = memory.copy(address + 1, 3)
    memory.view(address, 6)[:] = b"......"
    assert copy == b"nsw"
    assert memory.copy(address, 6) == b"......"


def test_copy_of_what_lies_behind_the_end_is_nothing() -> None:
    memory = Memory(4096)
    start = memory.reserve(1)
    assert memory.copy(start + 4096, 5) == b""
    assert memory.copy(start + 4094, 5) == bytes(2)
