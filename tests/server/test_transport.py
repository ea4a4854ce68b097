"""A slot's transport, by hand: what it pushes, and what it does with what it hears."""

import asyncio
import errno
from collections.abc import Callable

import pytest

from twbench.server.chains import Step, cancel
from twbench.server.transport import RingTransport


class Slot:
    """A carrier that only notes what is asked of it."""

    index = 5

    def __init__(self) -> None:
        self.pushed: list[bytes] = []
        self.calls: list[Callable[[], None]] = []
        self.shuts = 0

    def push(self, chain: bytes) -> None:
        self.pushed.append(chain)

    def read(self) -> None:
        raise AssertionError

    def take(self, length: int) -> bytes:
        raise AssertionError(length)

    def descriptor(self) -> int:
        raise AssertionError

    def has_sent(self, length: int) -> bool:
        raise AssertionError(length)

    def later(self, call: Callable[[], None]) -> None:
        self.calls.append(call)

    def shut(self, then: Callable[[], None]) -> None:
        self.shuts += 1
        then()


CANCEL = cancel(Slot.index, Step.RECV)


def leaving(unsent_bytes: int = 0) -> tuple[Slot, RingTransport]:
    slot = Slot()
    transport = RingTransport(slot, asyncio.Protocol(), reading=True, unsent_bytes=unsent_bytes)
    transport.close()
    return slot, transport


def test_receive_is_cancelled_once_at_a_time() -> None:
    slot, transport = leaving()
    transport.close()
    assert slot.pushed == [CANCEL]


@pytest.mark.parametrize("result", [-errno.ENOENT, -errno.EALREADY])
def test_cancellation_that_missed_is_tried_again_after_a_pause_alone(result: int) -> None:
    slot, transport = leaving()
    for tries in range(1, 4):
        assert slot.pushed == [CANCEL] * tries
        transport.cancelled(result)
        assert slot.pushed == [CANCEL] * tries
        slot.calls.pop()()
    assert (slot.calls, slot.shuts) == ([], 0)


def test_pause_that_outlives_the_connection_does_nothing() -> None:
    slot, transport = leaving()
    transport.cancelled(-errno.ENOENT)
    transport.received(0)
    assert slot.shuts == 1
    slot.calls.pop()()
    assert (slot.pushed, slot.shuts) == ([CANCEL], 1)


@pytest.mark.parametrize("result", [0, -errno.ENOENT])
def test_receive_ends_before_or_after_its_cancellation_is_heard_of(result: int) -> None:
    slot, transport = leaving()
    if result:
        transport.received(-errno.ECANCELED)
        transport.cancelled(result)
    else:
        transport.cancelled(result)
        transport.received(-errno.ECANCELED)
    assert (slot.pushed, slot.calls, slot.shuts) == ([CANCEL], [], 1)


def test_write_and_receive_are_cancelled_one_after_the_other() -> None:
    slot = Slot()
    transport = RingTransport(slot, asyncio.Protocol(), reading=True)
    transport.write(b"answer")
    transport.abort()
    assert slot.pushed[1:] == [cancel(slot.index, Step.WRITE)]
    # the send's end comes first, then the cancellation's: neither is forgotten
    transport.sent(-errno.ECANCELED)
    assert slot.pushed[2:] == []
    transport.cancelled(0)
    assert slot.pushed[2:] == [CANCEL]
    transport.cancelled(0)
    transport.received(-errno.ECANCELED)
    assert slot.shuts == 1


def test_answer_from_before_counts_as_unsent_until_its_receive_begins_or_it_fails() -> None:
    slot, transport = leaving(unsent_bytes=90)
    assert transport.get_write_buffer_size() == 90
    transport.received(-errno.ECANCELED)
    assert (transport.get_write_buffer_size(), slot.shuts) == (0, 1)
    slot, transport = leaving(unsent_bytes=90)
    transport.unanswered(errno.ECONNRESET)
    assert (transport.get_write_buffer_size(), slot.shuts) == (0, 1)
