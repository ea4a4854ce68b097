"""A pump inside an event loop: its agenda, its rest, and what goes on beside it."""

import asyncio
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from twbench.uring import operations as do
from twbench.uring.cqe import Completion
from twbench.uring.memory import Memory
from twbench.uring.pump import Pump
from twbench.uring.ring import Ring
from twbench.uring.structs import timespec

MS_NS = 1_000_000
WITHIN_S = 60


def nop(token: int) -> bytes:
    return do.nop(user_data=token).pack()


def soon(after_ms: float) -> int:
    return time.monotonic_ns() + round(after_ms * MS_NS)


class Heard:
    """A pump, and what it handed over."""

    def __init__(self, ring: Ring) -> None:
        self.ring = ring
        self.tokens: list[int] = []
        self.react: Callable[[int], None] = lambda _: None
        self.pump = Pump(ring, self.take)

    def take(self, found: list[Completion]) -> None:
        for token, _, _ in found:
            self.tokens.append(token)
            self.react(token)

    async def run(self) -> None:
        await asyncio.wait_for(self.pump.run(), WITHIN_S)


@pytest.fixture
def heard(ring: Ring) -> Iterator[Heard]:
    yield Heard(ring)
    ring.close()


# the agenda


async def test_calls_are_made_in_the_order_in_which_they_are_due(heard: Heard) -> None:
    made: list[str] = []
    pump, now = heard.pump, soon(0)
    pump.at(now + 30 * MS_NS, pump.stop)
    pump.at(now + 20 * MS_NS, lambda: made.append("third"))
    pump.at(now + 20 * MS_NS, lambda: made.append("fourth"))
    pump.at(now + 10 * MS_NS, lambda: made.append("second"))
    pump.at(0, lambda: made.append("first"))
    await heard.run()
    assert made == ["first", "second", "third", "fourth"]


async def test_call_in_the_past_is_made_at_once_even_if_a_call_asks_for_it(heard: Heard) -> None:
    made: list[str] = []
    pump = heard.pump

    def first() -> None:
        pump.at(-5, lambda: made.append("asked for by the first"))
        pump.at(1, pump.stop)
        made.append("first")

    pump.at(0, first)
    pump.at(soon(10_000), lambda: made.append("late"))
    await heard.run()
    assert made == ["first", "asked for by the first"]


@pytest.mark.parametrize("after_ms", [0.1, 1.5, 40])
async def test_no_call_is_early_and_now_is_when_it_is_made(heard: Heard, after_ms: float) -> None:
    pump, due_ns = heard.pump, soon(after_ms)
    made_ns: list[int] = []

    def call() -> None:
        made_ns.extend((pump.now_ns, time.monotonic_ns()))
        pump.stop()

    pump.at(due_ns, call)
    await heard.run()
    assert due_ns <= made_ns[0] <= made_ns[1]


async def test_timers_at_rest_are_made_about_when_they_are_due(heard: Heard) -> None:
    pump, start_ns = heard.pump, soon(10)
    late_ns: list[int] = []
    for number in range(10):
        due_ns = start_ns + number * 10 * MS_NS
        pump.at(due_ns, lambda due_ns=due_ns: late_ns.append(pump.now_ns - due_ns))  # type: ignore[misc]
    pump.at(start_ns + 100 * MS_NS, pump.stop)
    await heard.run()
    assert len(late_ns) == 10
    # a busy machine may be late with some, but hardly with all of them
    assert 0 <= min(late_ns) < 20 * MS_NS


async def test_earlier_call_overtakes_the_one_that_is_waited_for(heard: Heard) -> None:
    pump, loop = heard.pump, asyncio.get_running_loop()
    pump.at(soon(600_000), lambda: pytest.fail("ten minutes have gone by"))

    def interrupt() -> None:
        pump.at(soon(5), pump.stop)
        pump.wake()

    loop.call_later(0.05, interrupt)
    await heard.run()


async def test_call_after_a_turn_finds_what_was_pushed_begun(heard: Heard) -> None:
    made: list[str] = []
    near, far = socket.socketpair()
    with near, far:
        heard.ring.place(0, near.fileno())
        near.close()
        far.setblocking(False)  # noqa: FBT003 - the socket module's own

        def closed() -> None:
            made.append("fin" if far.recv(1) == b"" else "data")
            heard.pump.stop()

        def close() -> None:
            heard.ring.push(do.close(do.Slot(0), user_data=1).pack())
            heard.pump.after_turn(closed)

        heard.pump.at(0, close)
        await heard.run()
    assert made == ["fin"]


# rest, and its end


async def test_rest_uses_no_processor(heard: Heard) -> None:
    pump = heard.pump
    pump.at(soon(350), pump.stop)
    await asyncio.sleep(0)
    used_s = time.process_time()
    await heard.run()
    assert time.process_time() - used_s < 0.1


async def test_completions_end_a_rest(heard: Heard, memory: Memory) -> None:
    for token in (20, 40, 60):
        at = memory.place(timespec(token * MS_NS))
        heard.ring.push(do.timeout(addr=at, user_data=token).pack())
    heard.react = lambda token: heard.pump.stop() if token == 60 else None
    await heard.run()
    assert heard.tokens == [20, 40, 60]


async def test_what_the_loop_pushes_into_a_rest_goes_out_when_it_wakes_the_pump(
    heard: Heard,
) -> None:
    def push() -> None:
        heard.ring.push(nop(7))
        heard.pump.wake()

    heard.react = lambda _: heard.pump.stop()
    asyncio.get_running_loop().call_later(0.05, push)
    await heard.run()
    assert heard.tokens == [7]


async def test_every_rest_ends_however_often_it_comes(heard: Heard, memory: Memory) -> None:
    at = memory.place(timespec(300_000))

    def again(token: int) -> None:
        if token == 200:
            heard.pump.stop()
        else:
            heard.ring.push(do.timeout(addr=at, user_data=token + 1).pack())

    heard.react = again
    again(0)
    await heard.run()
    assert heard.tokens == list(range(1, 201))


# its end


@pytest.mark.parametrize("before", ["rest", "flood"])
async def test_loop_stops_it(heard: Heard, before: str) -> None:
    if before == "flood":
        heard.react = lambda token: heard.ring.push(nop(token))
        heard.ring.push(nop(1))
    asyncio.get_running_loop().call_later(0.05, heard.pump.stop)
    await heard.run()


async def test_stop_before_the_run_ends_it_at_once(heard: Heard) -> None:
    heard.pump.stop()
    await heard.run()


async def test_what_was_pushed_before_the_stop_is_submitted(heard: Heard) -> None:
    def last() -> None:
        heard.ring.push(nop(5))
        heard.pump.stop()

    heard.pump.at(0, last)
    await heard.run()
    assert heard.tokens == []
    assert heard.ring.reap() == [(5, 0, 0)]


async def test_fault_of_a_callback_ends_the_run_and_the_loop_hears_no_more(heard: Heard) -> None:
    def fail(token: int) -> None:
        raise LookupError(token)

    heard.react = fail
    heard.ring.push(nop(3))
    with pytest.raises(LookupError, match="3"):
        await heard.run()
    assert not asyncio.get_running_loop().remove_reader(heard.ring.notify())


async def test_cancelled_run_leaves_no_reader(heard: Heard) -> None:
    run = asyncio.create_task(heard.pump.run())
    await asyncio.sleep(0.05)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert not asyncio.get_running_loop().remove_reader(heard.ring.notify())


# beside it


async def test_loop_goes_on_while_completions_flood(heard: Heard) -> None:
    loop = asyncio.get_running_loop()
    heard.react = lambda token: heard.ring.push(nop(token))
    for token in range(8):
        heard.ring.push(nop(token))
    timers: list[float] = []

    def tick() -> None:
        timers.append(loop.time())
        if len(timers) < 10:
            loop.call_later(0.002, tick)

    async def ask() -> None:
        """Speak to a server of this loop: readers and writers have their turn as well."""

        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(await reader.readexactly(3))
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        for letter in (b"a", b"b", b"c"):
            writer.write(letter)
            await asyncio.sleep(0.005)
        assert await reader.read() == b"abc"
        writer.close()
        server.close()
        tick()
        while len(timers) < 10:  # noqa: ASYNC110 - timers are what is tested
            await asyncio.sleep(0.001)
        heard.pump.stop()

    async with asyncio.timeout(WITHIN_S), asyncio.TaskGroup() as both:
        both.create_task(ask())
        both.create_task(heard.pump.run())
    assert len(heard.tokens) > 100


async def test_completions_and_agenda_share_a_flood(heard: Heard) -> None:
    pump = heard.pump
    heard.react = lambda token: heard.ring.push(nop(token))
    heard.ring.push(nop(1))
    counts: list[int] = []
    start_ns = soon(0)
    for number in range(5):
        pump.at(start_ns + number * 5 * MS_NS, lambda: counts.append(len(heard.tokens)))
    pump.at(start_ns + 25 * MS_NS, pump.stop)
    await heard.run()
    assert len(counts) == 5
    assert counts == sorted(counts)
    assert heard.tokens
