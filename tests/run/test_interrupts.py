"""The first SIGINT or SIGTERM is answered, and the handlers from before are given back."""

import asyncio
import os
import signal

import pytest

from twbench.run.interrupts import on_interrupt


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_signal_is_answered_while_it_is_asked_for(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    answered = asyncio.Event()
    with on_interrupt(answered.set):
        os.kill(os.getpid(), number)
        await asyncio.wait_for(answered.wait(), 5)
    assert signal.getsignal(number) is before


async def test_other_threads_leave_the_signals_alone() -> None:
    before = signal.getsignal(signal.SIGINT)

    async def elsewhere() -> bool:
        with on_interrupt(lambda: None):
            return signal.getsignal(signal.SIGINT) is before

    assert await asyncio.to_thread(asyncio.run, elsewhere())
