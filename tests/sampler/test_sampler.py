"""The sampler on a real kernel: a network namespace of the test's own."""

import asyncio
import json
import socket
import time
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest

from twbench.kernel.choose import Readers, open_readers
from twbench.kernel.process import open_socket_of
from twbench.sampler.sampler import Sampler, Stack
from twbench.sampler.samples import LookSample, Sample, TickSample

pytestmark = pytest.mark.namespaces

LEFT_OF_60_S = {50, 55, 60}


@pytest.fixture
def readers(pid: int) -> Iterator[Readers]:
    with open_readers(pid=pid) as readers:
        yield readers


@pytest.fixture
def listener(pid: int) -> Iterator[socket.socket]:
    with open_socket_of(pid)(socket.AF_INET, socket.SOCK_STREAM, 0) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        yield listener


@pytest.fixture
def stack(readers: Readers, listener: socket.socket) -> Stack:
    return Stack(
        name="lab",
        ticks=readers.ticks,
        looks=readers.looks,
        servers=frozenset({listener.getsockname()}),
        port_range=(32768, 60999),
    )


def churn(pid: int, listener: socket.socket, connections: int) -> None:
    """Open and close connections, client first."""
    for _ in range(connections):
        with open_socket_of(pid)(socket.AF_INET, socket.SOCK_STREAM, 0) as client:
            client.connect(listener.getsockname())
            server, _ = listener.accept()
        server.close()


def ticks_of(samples: list[Sample]) -> list[TickSample]:
    return [sample for sample in samples if isinstance(sample, TickSample)]


def looks_of(samples: list[Sample]) -> list[LookSample]:
    return [sample for sample in samples if isinstance(sample, LookSample)]


async def run_until(sampler: Sampler, done: Callable[[], bool]) -> None:
    running = asyncio.create_task(sampler.run())
    deadline_s = time.monotonic() + 20
    while not done():
        assert time.monotonic() < deadline_s
        assert not running.done() or running.result()
        await asyncio.sleep(0.02)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_tick_tells_the_rises_since_the_first(
    pid: int, stack: Stack, listener: socket.socket
) -> None:
    churn(pid, listener, 2)
    samples: list[Sample] = []
    with Sampler([stack], samples.append) as sampler:
        sampler.tick_now()
        churn(pid, listener, 3)
        sampler.tick_now()
    before, after = ticks_of(samples)
    assert before.counters == {}
    assert before.sockstat["tw"] == 2
    assert after.sockstat["tw"] == 5
    opened = {"TcpActiveOpens": 3, "TcpPassiveOpens": 3, "TcpExtTW": 3}
    assert {name: after.counters[name] for name in opened} == opened
    assert all(after.counters.values())
    assert (after.stack, after.source, after.lateness_ns, after.missed) == ("lab", "proc", 0, 0)
    assert after.cost_ns > 0


async def test_look_counts_the_sockets_of_both_sides(
    pid: int, stack: Stack, listener: socket.socket
) -> None:
    churn(pid, listener, 4)
    samples: list[Sample] = []
    with (
        Sampler([stack], samples.append) as sampler,
        open_socket_of(pid)(socket.AF_INET, socket.SOCK_STREAM, 0) as client,
    ):
        client.connect(listener.getsockname())
        await sampler.look_now("now")
    (look,) = looks_of(samples)
    address, port = listener.getsockname()
    assert (look.label, look.source, look.interrupted) == ("now", "sock_diag", False)
    assert look.states_by_side == {
        "client": {"ESTABLISHED": 1, "TIME_WAIT": 4},
        "server": {"ESTABLISHED": 1},
    }
    assert (look.sockets, look.listening) == (7, 1)
    assert look.ports_in_use == {f"{address}:{port}": 5}
    assert look.accept_queue == {f"{address}:{port}": 1}
    assert sum(look.time_wait_left_s.values()) == 4
    assert set(look.time_wait_left_s) <= LEFT_OF_60_S


async def test_schedule_is_kept_and_lateness_told(stack: Stack) -> None:
    samples: list[Sample] = []
    with Sampler([stack], samples.append, ticks_per_s=50, looks_per_s=10) as sampler:
        await run_until(sampler, lambda: len(looks_of(samples)) >= 6)
    ticks, looks = ticks_of(samples), looks_of(samples)
    assert {look.label for look in looks} == {"scheduled"}
    for readings, period_ns in ((ticks, 20_000_000), (looks, 100_000_000)):
        due_ns = [reading.t_ns - reading.lateness_ns for reading in readings]
        steps = [b - a for a, b in pairwise(due_ns)]
        assert steps == [period_ns * (reading.missed + 1) for reading in readings[1:]]
    assert all(tick.lateness_ns >= 0 for tick in ticks)


async def test_time_wait_that_stopped_rising_is_looked_at_once(
    pid: int, stack: Stack, listener: socket.socket
) -> None:
    samples: list[Sample] = []
    with Sampler([stack], samples.append, ticks_per_s=20, looks_per_s=0) as sampler:
        await asyncio.to_thread(churn, pid, listener, 60)
        await run_until(
            sampler,
            lambda: len(looks_of(samples)) > 0 and len(ticks_of(samples)) > 60,
        )
    (look,) = looks_of(samples)
    assert look.label == "peak"
    assert look.states_by_side["client"] == {"TIME_WAIT": 60}


async def test_reader_that_fails_ends_the_run(stack: Stack, readers: Readers) -> None:
    with Sampler([stack], lambda _: None, looks_per_s=20) as sampler:
        readers.looks.close()
        with pytest.raises(ExceptionGroup) as raised:
            await sampler.run()
    assert raised.group_contains(OSError)


async def test_cancelled_run_leaves_the_sampler_usable(stack: Stack) -> None:
    samples: list[Sample] = []
    with Sampler([stack], samples.append, looks_per_s=50) as sampler:
        await run_until(sampler, lambda: len(looks_of(samples)) > 2)
        await sampler.look_now("end")
    assert looks_of(samples)[-1].label == "end"


async def test_records_are_plain_json_with_times_since_the_start(
    pid: int, stack: Stack, listener: socket.socket
) -> None:
    churn(pid, listener, 1)
    samples: list[Sample] = []
    with Sampler([stack], samples.append, now_ns=lambda: 7_250_000_000) as sampler:
        sampler.tick_now()
        await sampler.look_now("end")
    for sample in samples:
        record = sample.as_json(5_000_000_000)
        assert json.loads(json.dumps(record)) == record
        assert record["t_s"] == 2.25
        assert record["stack"] == "lab"
        assert record["cost_ms"] > 0
    assert ticks_of(samples)[0].as_json(0)["sockstat"]["tw"] == 1
    assert sum(looks_of(samples)[0].as_json(0)["time_wait_left_s"].values()) == 1
