"""The ring itself: queues that are full, wrap and overflow; waits; its files; its end."""

import errno
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from twbench.uring import operations as do
from twbench.uring.cqe import MORE, Completion
from twbench.uring.errors import RingClosedError, RingRefusedError
from twbench.uring.memory import Memory
from twbench.uring.operations import Into, Slot
from twbench.uring.params import Setup
from twbench.uring.ring import Ring
from twbench.uring.setup import SETUPS
from twbench.uring.sqe import Flag, Op
from twbench.uring.structs import timespec
from twbench.uring.template import chain

Until = Callable[[int], list[Completion]]
Need = Callable[..., None]

FDS = Path("/proc/self/fd")
SOON_NS = 50_000_000
LONG_NS = 600_000_000_000
WITHIN_S = 60


def nop(token: int) -> bytes:
    return do.nop(user_data=token).pack()


def test_completions_come_in_order_with_their_tokens(ring: Ring) -> None:
    for token in (7, 2**64 - 2, 9):
        ring.push(nop(token))
    assert ring.submit(wait=3) == 3
    assert ring.reap() == [(7, 0, 0), (2**64 - 2, 0, 0), (9, 0, 0)]
    assert ring.reap() == []


def test_chains_wrap_around_the_end_of_the_queue(ring: Ring) -> None:
    three = chain(*(do.nop(user_data=token) for token in (1, 2, 3))).fill()
    for _ in range(3 * ring.layout.sq_entries):
        ring.push(three)
        assert [token for token, _, _ in ring.turn(wait=3)] == [1, 2, 3]


def test_full_queue_is_submitted_by_the_next_push(ring: Ring) -> None:
    count = 3 * ring.layout.sq_entries + 1
    for token in range(count):
        ring.push(nop(token))
    assert ring.submit() == 1
    assert [token for token, _, _ in ring.reap()] == list(range(count))


def test_chain_longer_than_the_queue_is_refused(ring: Ring) -> None:
    with pytest.raises(ValueError, match="65 operations in a queue of 64"):
        ring.push(bytes(65 * 64))


def test_overflowed_completions_come_too_and_none_is_lost(ring: Ring) -> None:
    count = 10 * ring.layout.cq_entries
    for token in range(count):
        ring.push(nop(token))
    ring.submit()
    assert [token for token, _, _ in ring.reap()] == list(range(count))


@pytest.mark.parametrize("setup", SETUPS)
def test_every_setup_works(setup: Setup, need: Need, monkeypatch: pytest.MonkeyPatch) -> None:
    need(Op.SOCKET)
    monkeypatch.setattr("twbench.uring.setup.SETUPS", (setup,))
    try:
        ring = Ring(entries=8, completions=16)
    except RingRefusedError as error:
        pytest.skip(str(error))
    with ring:
        assert ring.layout.setup & setup == setup
        ring.push(nop(1))
        assert ring.turn(wait=1) == [(1, 0, 0)]


def test_kernel_that_refuses_the_best_setup_gets_the_next(
    need: Need, monkeypatch: pytest.MonkeyPatch
) -> None:
    need(Op.SOCKET)
    unknown = Setup(1 << 31)
    monkeypatch.setattr("twbench.uring.setup.SETUPS", (unknown | SETUPS[0], SETUPS[0]))
    with Ring(entries=8, completions=8) as ring:
        assert not ring.layout.setup & unknown
    monkeypatch.setattr("twbench.uring.setup.SETUPS", (unknown,))
    with pytest.raises(RingRefusedError, match="too old") as refused:
        Ring()
    assert refused.value.errno == errno.EOPNOTSUPP


def test_machine_without_ordered_loads_needs_deferred_work(
    need: Need, monkeypatch: pytest.MonkeyPatch
) -> None:
    need(Op.SOCKET)
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    monkeypatch.setattr("twbench.uring.setup.SETUPS", SETUPS[1:])
    with pytest.raises(RingRefusedError, match="too old"):
        Ring()


def test_wait_ends_when_its_time_is_over(ring: Ring) -> None:
    started = time.monotonic_ns()
    assert ring.turn(wait=1, timeout_ns=SOON_NS) == []
    assert time.monotonic_ns() - started >= SOON_NS


def test_signal_ends_a_wait_and_its_handler_runs(ring: Ring) -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: seen.append(number))
    over = threading.Event()

    def again_and_again() -> None:
        while not over.wait(0.05):
            signal.pthread_kill(main, signal.SIGUSR1)

    main = threading.get_ident()
    thread = threading.Thread(target=again_and_again)
    thread.start()
    try:
        assert ring.turn(wait=1, timeout_ns=LONG_NS) == []
    finally:
        over.set()
        thread.join()
        signal.signal(signal.SIGUSR1, before)
    assert seen


def test_timeout_ends_with_etime(ring: Ring, memory: Memory, until: Until) -> None:
    ring.push(do.timeout(addr=memory.place(timespec(SOON_NS)), user_data=1).pack())
    assert until(1) == [(1, -errno.ETIME, 0)]


def test_cancelled_operation_says_so(ring: Ring, memory: Memory, until: Until) -> None:
    ring.push(do.timeout(addr=memory.place(timespec(LONG_NS)), user_data=1).pack())
    ring.push(do.cancel(token=1, user_data=2).pack())
    assert sorted(until(1) + ring.turn()) == [(1, -errno.ECANCELED, 0), (2, 0, 0)]
    ring.push(do.cancel(token=1, user_data=3).pack())
    assert until(3) == [(3, -errno.ENOENT, 0)]


def test_one_wake_up_is_for_everything_that_became_ready(ring: Ring) -> None:
    reader, writer = os.pipe()
    try:
        for token in range(60):
            ring.push(do.poll(reader, events=select.POLLIN, user_data=token).pack())
        eventfd = ring.notify()
        assert ring.turn() == []
        os.write(writer, b".")
        assert select.select([eventfd], [], [], WITHIN_S)[0]
        os.eventfd_read(eventfd)
        assert {token for token, _, _ in ring.turn()} == set(range(60))
    finally:
        ring.close()
        os.close(reader)
        os.close(writer)


def test_broken_link_cancels_the_rest_and_a_hard_one_does_not(ring: Ring, until: Until) -> None:
    empty = Slot(0)
    ring.push(chain(do.close(empty, user_data=1), do.nop(user_data=2), do.nop(user_data=3)).fill())
    bad, cancelled = -errno.EBADF, -errno.ECANCELED
    assert until(3) == [(1, bad, 0), (2, cancelled, 0), (3, cancelled, 0)]
    hard = do.close(empty, user_data=1, flags=Flag.IO_HARDLINK)
    ring.push(chain(hard, do.nop(user_data=2)).fill())
    assert until(2) == [(1, bad, 0), (2, 0, 0)]


def test_silent_operation_that_fails_silences_its_chain(ring: Ring, until: Until) -> None:
    silent = Flag.CQE_SKIP_SUCCESS
    ring.push(chain(do.nop(user_data=1, flags=silent), do.nop(user_data=2)).fill())
    assert until(2) == [(2, 0, 0)]
    ring.push(chain(do.close(Slot(0), user_data=1, flags=silent), do.nop(user_data=2)).fill())
    ring.push(nop(9))
    assert sorted(until(9)) == [(1, -errno.EBADF, 0), (9, 0, 0)]


def test_descriptor_is_placed_in_a_slot_and_given_back(
    ring: Ring, memory: Memory, until: Until
) -> None:
    near, far = socket.socketpair()
    with near, far:
        ring.place(3, near.fileno())
        near.close()
        ring.push(do.send(Slot(3), addr=memory.place(b"hello"), length=5, user_data=1).pack())
        assert until(1) == [(1, 5, 0)]
        assert far.recv(9) == b"hello"
        ring.place(3, -1)
        ring.turn()
        far.settimeout(WITHIN_S)
        assert far.recv(1) == b""


def test_slot_can_be_given_a_descriptor(ring: Ring, until: Until, need: Need) -> None:
    need(Op.FIXED_FD_INSTALL)
    ring.push(
        chain(
            do.socket(Slot(2), family=socket.AF_INET, kind=socket.SOCK_STREAM, user_data=1),
            do.install(Slot(2), user_data=2),
        ).fill()
    )
    ((_, descriptor, _),) = [each for each in until(2) if each[0] == 2]
    with socket.socket(fileno=descriptor) as installed:
        assert installed.family == socket.AF_INET


def test_kernel_picks_slots_in_the_range_until_none_is_free(ring: Ring, until: Until) -> None:
    ring.pick_slots_from(4, 2)
    make = do.socket(
        Into.FREE_SLOT, family=socket.AF_INET, kind=socket.SOCK_STREAM, user_data=1
    ).pack()
    results = []
    for _ in range(3):
        ring.push(make)
        results += [result for _, result, _ in until(1)]
    assert results == [4, 5, -errno.ENFILE]


def test_file_table_is_limited_by_the_descriptor_limit(need: Need) -> None:
    need(Op.SOCKET)
    with Ring(entries=8, completions=8) as ring, pytest.raises(OSError, match="Too many open"):
        ring.register_files(2**30)


def test_pipe_is_polled_read_and_written(ring: Ring, memory: Memory, until: Until) -> None:
    reader, writer = os.pipe()
    try:
        ring.push(do.poll(reader, events=select.POLLIN, multishot=True, user_data=1).pack())
        ring.push(do.write(writer, addr=memory.place(b"abc"), length=3, user_data=2).pack())
        assert (1, 1, MORE) in until(1)
        buffer = memory.reserve(8)
        ring.push(do.read(reader, addr=buffer, length=8, user_data=3).pack())
        assert (3, 3, 0) in until(3)
        assert bytes(memory.view(buffer, 3)) == b"abc"
    finally:
        ring.close()
        os.close(reader)
        os.close(writer)


def test_other_thread_is_refused(ring: Ring) -> None:
    if not ring.layout.setup & Setup.SINGLE_ISSUER:
        pytest.skip("this kernel lets any thread submit")
    seen: list[int | None] = []

    def submit() -> None:
        try:
            ring.submit()
        except OSError as error:
            seen.append(error.errno)

    thread = threading.Thread(target=submit)
    thread.start()
    thread.join()
    assert seen == [errno.EEXIST]


def test_closing_ends_what_is_under_way_and_leaves_no_descriptor(need: Need) -> None:
    need(Op.SOCKET)
    before = set(FDS.iterdir())
    near, far = socket.socketpair()
    memory = Memory(4096)
    ring = Ring(entries=8, completions=8)
    ring.register_files(2)
    ring.place(0, near.fileno())
    near.close()
    ring.notify()
    buffer = memory.reserve(64)
    hard = Flag.IO_HARDLINK
    after_cancel = memory.place(timespec(LONG_NS))
    ring.push(
        chain(
            do.recv(Slot(0), addr=buffer, length=64, user_data=1, flags=hard),
            do.timeout(addr=after_cancel, user_data=2, flags=hard),
            do.recv(Slot(0), addr=buffer, length=64, user_data=3),
        ).fill()
    )
    ring.submit()
    ring.close()
    ring.close()
    far.settimeout(WITHIN_S)
    assert far.recv(1) == b""
    assert bytes(memory.view(buffer, 64)) == bytes(64)
    far.close()
    assert set(FDS.iterdir()) == before
    with pytest.raises(RingClosedError):
        ring.fileno()
    with pytest.raises(RingClosedError):
        ring.register_files(1)


def test_closing_with_completions_unread_and_operations_unsent_is_no_fault(need: Need) -> None:
    need(Op.SOCKET)
    before = set(FDS.iterdir())
    with Ring(entries=8, completions=8) as ring:
        for token in range(100):
            ring.push(nop(token))
    assert set(FDS.iterdir()) == before


# a loop that comes back at once


def test_glance_takes_what_is_there_and_waits_for_the_rest(ring: Ring, memory: Memory) -> None:
    ring.push(do.timeout(addr=memory.place(timespec(SOON_NS)), user_data=2).pack())
    ring.push(nop(1))
    assert ring.glance(wait=1, timeout_ns=LONG_NS) == [(1, 0, 0)]
    found = ring.glance(wait=1, timeout_ns=LONG_NS)
    assert found == [(2, -errno.ETIME, 0)]
    assert ring.glance() == []


def test_glance_waits_no_longer_than_told(ring: Ring) -> None:
    started = time.monotonic_ns()
    assert ring.glance(wait=1, timeout_ns=SOON_NS) == []
    assert time.monotonic_ns() - started >= SOON_NS


def test_glances_leave_nothing_behind(ring: Ring) -> None:
    near, far = socket.socketpair()
    with near, far:
        for token in range(60):
            ring.push(do.poll(near.fileno(), events=select.POLLIN, user_data=token).pack())
        assert ring.glance() == []
        far.send(b".")
        seen: list[int] = []
        end = time.monotonic() + WITHIN_S
        while len(seen) < 60:
            assert time.monotonic() < end
            seen += [token for token, _, _ in ring.glance(wait=1, timeout_ns=SOON_NS)]
        assert sorted(seen) == list(range(60))


def test_muted_ring_signals_no_eventfd_until_it_may_again(ring: Ring) -> None:
    eventfd = ring.notify()
    ring.mute(muted=True)
    ring.push(nop(1))
    assert ring.turn(wait=1) == [(1, 0, 0)]
    with pytest.raises(BlockingIOError):
        os.eventfd_read(eventfd)
    ring.mute(muted=False)
    with pytest.raises(BlockingIOError):
        os.eventfd_read(eventfd)
    ring.push(nop(2))
    assert ring.turn(wait=1) == [(2, 0, 0)]
    assert os.eventfd_read(eventfd) >= 1


def test_what_came_while_muted_is_found_by_a_turn(ring: Ring) -> None:
    reader, writer = os.pipe()
    try:
        ring.notify()
        ring.mute(muted=True)
        ring.push(do.poll(reader, events=select.POLLIN, user_data=1).pack())
        assert ring.turn() == []
        os.write(writer, b".")
        ring.mute(muted=False)
        assert ring.turn() == [(1, select.POLLIN, 0)]
    finally:
        ring.close()
        os.close(reader)
        os.close(writer)


KILLED = """
import os, socket, sys
from twbench.uring import operations as do
from twbench.uring.memory import Memory
from twbench.uring.operations import Slot
from twbench.uring.ring import Ring
from twbench.uring.structs import sockaddr
from twbench.uring.template import chain
memory = Memory(4096)
addr = memory.place(sockaddr("127.0.0.1", int(sys.argv[1])))
ring = Ring(entries=256, completions=256)
ring.register_files(50)
for n in range(50):
    ring.push(chain(
        do.socket(Slot(n), family=socket.AF_INET, kind=socket.SOCK_STREAM),
        do.connect(Slot(n), addr=addr, addr_bytes=16),
        do.recv(Slot(n), addr=memory.reserve(8), length=8),
    ).fill())
if os.fork() == 0:
    os.execlp("sleep", "sleep", "600")
while True:
    ring.turn(wait=1)
"""


def test_killed_program_leaves_no_connection_even_if_it_had_forked(
    listener: socket.socket, need: Need
) -> None:
    need(Op.SOCKET)
    program = [sys.executable, "-c", KILLED, str(listener.getsockname()[1])]
    with subprocess.Popen(program, start_new_session=True) as process:
        try:
            accepted = [listener.accept()[0] for _ in range(50)]
            process.kill()
            process.wait()
            for connection in accepted:
                connection.settimeout(WITHIN_S)
                assert connection.recv(1) == b""
                connection.close()
        finally:
            os.killpg(process.pid, signal.SIGKILL)
