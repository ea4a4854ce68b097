"""The alarm wakes on time, at once, or when rung."""

import asyncio
import time
from pathlib import Path

import pytest

from twbench.fleet.alarm import Alarm


async def test_alarm_wakes_at_its_moment_and_never_before() -> None:
    with Alarm() as alarm:
        late_ns = []
        for _ in range(5):
            at_ns = time.monotonic_ns() + 3_300_000
            await alarm.until(at_ns)
            late_ns.append(time.monotonic_ns() - at_ns)
    assert min(late_ns) >= 0
    # a loop timer of whole milliseconds could not be this near every moment of 3.3 ms
    assert min(late_ns) < 600_000


async def test_alarm_in_the_past_does_not_wait() -> None:
    with Alarm() as alarm:
        before_ns = time.monotonic_ns()
        for back_ns in (0, 1, 10**9):
            await alarm.until(before_ns - back_ns)
        assert time.monotonic_ns() - before_ns < 50_000_000


async def test_ring_wakes_the_sleeper() -> None:
    with Alarm() as alarm:
        sleeper = asyncio.create_task(alarm.until(time.monotonic_ns() + 60 * 10**9))
        await asyncio.sleep(0.01)
        assert not sleeper.done()
        alarm.ring()
        await asyncio.wait_for(sleeper, 1)


async def test_alarm_can_be_set_again_after_it_was_rung() -> None:
    with Alarm() as alarm:
        alarm.ring()
        at_ns = time.monotonic_ns() + 5_000_000
        await alarm.until(at_ns)
        assert time.monotonic_ns() >= at_ns


async def test_alarm_takes_its_descriptor_with_it() -> None:
    def timers() -> int:
        links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
        return sum("timerfd" in str(link.readlink()) for link in links)

    before = timers()
    with Alarm():
        assert timers() == before + 1
    assert timers() == before


async def test_alarm_outside_of_a_loop_is_refused() -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        await asyncio.to_thread(Alarm)
