"""A ring: chains go in, completions come out, and nothing is left behind.

Sources: io_uring(7), io_uring_enter(2), io_uring_register(2), io_uring/io_uring.c.
"""

import errno
import mmap
import os
import struct
from contextlib import suppress
from types import TracebackType
from typing import Self

from twbench.uring import cqe, syscalls
from twbench.uring.cqe import Completion
from twbench.uring.errors import RingClosedError, RingFullError
from twbench.uring.operations import CancelFlag, cancel
from twbench.uring.params import Layout
from twbench.uring.setup import open_ring
from twbench.uring.sqe import SQE_BYTES
from twbench.uring.structs import timespec

_SQES_AT = 0x1000_0000
"""IORING_OFF_SQES."""
_ENTER_GETEVENTS, _ENTER_EXT_ARG = 1, 8
_SQ_CQ_OVERFLOW, _SQ_TASKRUN = 2, 4
_CQ_EVENTFD_DISABLED = 1
_HELD_BACK = _SQ_CQ_OVERFLOW | _SQ_TASKRUN
_REGISTER_EVENTFD = 4
_UNREGISTER_FILES = 3
_REGISTER_FILES_UPDATE = 6
_REGISTER_FILES2 = 13
_REGISTER_FILE_ALLOC_RANGE = 25
_RSRC_SPARSE = 1
_U32 = 0xFFFF_FFFF

_NOT_NOW = {errno.EINTR, errno.ETIME, errno.EAGAIN, errno.EBUSY}
"""What io_uring_enter says when nothing was lost and it can be repeated."""

_RSRC_REGISTER = struct.Struct("=IIQQQ")
_FILES_UPDATE = struct.Struct("=IIQ")
_FILE_RANGE = struct.Struct("=IIQ")
_GETEVENTS_ARG = struct.Struct("=QIIQ")
_CANCEL_ROUNDS = 100
_QUIET_ROUNDS = 8
_CANCEL_TOKEN = 0xFFFF_FFFF_FFFF_FFFF
_CANCEL_WITHIN_NS = 1_000_000_000


class Ring:
    """One io_uring and, if asked for, its file table; for the thread that made it alone.

    With DEFER_TASKRUN completions appear only inside `submit`, `reap` and `turn`. A program that
    waits elsewhere, in an event loop on `notify`, then calls `turn` until it returns nothing.
    """

    def __init__(self, *, entries: int = 4096, completions: int = 16384) -> None:
        """Make a ring for so many operations a batch and completions unread (powers of two).

        Raises RingRefusedError where the kernel gives none that can be used.
        """
        self._fd, self.layout = open_ring(entries, completions)
        self._eventfd = -1
        self._has_files = False
        self._refusal = errno.EAGAIN
        try:
            self._map(self.layout)
        except BaseException:
            os.close(self._fd)
            raise

    def _map(self, layout: Layout) -> None:
        flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
        self._ring = mmap.mmap(self._fd, layout.ring_bytes, flags=flags)
        size_bytes = layout.sq_entries * SQE_BYTES
        self._operations = mmap.mmap(self._fd, size_bytes, flags=flags, offset=_SQES_AT)
        for mapping in (self._ring, self._operations):
            mapping.madvise(mmap.MADV_DONTFORK)
        self._words = memoryview(self._ring).cast("I")
        self._sqes = memoryview(self._operations)
        end = layout.cq_cqes + layout.cq_entries * cqe.CQE_BYTES
        self._cqes = memoryview(self._ring)[layout.cq_cqes : end]
        array = layout.sq_array // 4
        for number in range(layout.sq_entries):
            self._words[array + number] = number
        self._sq_head, self._sq_tail = layout.sq_head // 4, layout.sq_tail // 4
        self._cq_head, self._cq_tail = layout.cq_head // 4, layout.cq_tail // 4
        self._sq_flags, self._cq_flags = layout.sq_flags // 4, layout.cq_flags // 4
        self._tail = self._words[self._sq_tail]
        self._head = self._words[self._cq_head]
        self._room = layout.sq_entries
        self._wait_arg = bytearray(_GETEVENTS_ARG.size + 16)
        self._wait_arg_at = syscalls.address_of(self._wait_arg)
        at = self._wait_arg_at + _GETEVENTS_ARG.size
        _GETEVENTS_ARG.pack_into(self._wait_arg, 0, 0, 0, 0, at)
        self._waits_ns = 0

    def fileno(self) -> int:
        """Return the ring's descriptor, which is not for polling. Raises RingClosedError.

        With DEFER_TASKRUN nobody who polls it is woken (measured on Linux 6.18): see `notify`.
        """
        if self._fd < 0:
            raise RingClosedError(errno.EBADF, "the ring is closed")
        return self._fd

    def push(self, chain: bytes | bytearray) -> None:
        """Put a whole chain into the queue; if there is no room, submit what is there first.

        Raises RingFullError if that makes none, ValueError for a chain longer than the queue.
        """
        count = len(chain) // SQE_BYTES
        if count > self._room:
            self._make_room(count)
        at = (self._tail % self.layout.sq_entries) * SQE_BYTES
        end = at + len(chain)
        sqes = self._sqes
        if end <= len(sqes):
            sqes[at:end] = chain
        else:
            fits = len(sqes) - at
            sqes[at:] = chain[:fits]
            sqes[: end - len(sqes)] = chain[fits:]
        self._tail = (self._tail + count) & _U32
        self._room -= count

    def submit(self, *, wait: int = 0, timeout_ns: int | None = None) -> int:
        """Hand over what was pushed, let completions in, and wait for `wait` of them.

        Returns how many operations the kernel took: fewer than pushed, even 0, when it lacks
        memory or has completions it could not deliver; the rest goes with the next call. The wait
        ends early after `timeout_ns` or at a signal. Raises OSError for anything else; EBADR means
        that completions were lost for want of memory.
        """
        words = self._words
        words[self._sq_tail] = self._tail
        pending = (self._tail - words[self._sq_head]) & _U32
        taken = self._enter(pending, wait, timeout_ns)
        self._room = self.layout.sq_entries - ((self._tail - words[self._sq_head]) & _U32)
        return taken

    def _enter(self, pending: int, wait: int, timeout_ns: int | None) -> int:
        flags, arg, arg_bytes = _ENTER_GETEVENTS, None, 0
        if timeout_ns is not None:
            flags |= _ENTER_EXT_ARG
            arg, arg_bytes = self._wait_arg_at, _GETEVENTS_ARG.size
            if timeout_ns != self._waits_ns:
                self._waits_ns = timeout_ns
                self._wait_arg[arg_bytes:] = timespec(timeout_ns)
        taken = syscalls.enter(self._fd, pending, wait, flags, arg, arg_bytes)
        if taken >= 0:
            return taken
        if -taken in _NOT_NOW:
            self._refusal = -taken
            return 0
        raise OSError(-taken, f"io_uring_enter: {os.strerror(-taken)}")

    def reap(self) -> list[Completion]:
        """Return the completions that are there, oldest first, and those the kernel held back.

        It holds back what overflowed, and since Linux 6.13 all but 20 pieces of deferred work a
        call (IO_LOCAL_TW_DEFAULT_MAX): neither wakes anybody again, so both are fetched here.
        """
        found = self._take()
        words, flags = self._words, self._sq_flags
        while words[flags] & _HELD_BACK:
            # Whoever adds work sets TASKRUN after it, perhaps when the work is done already
            # (io_req_local_work_add). Entering sets it again if there is more.
            if words[flags] & _SQ_TASKRUN:
                words[flags] &= ~_SQ_TASKRUN & _U32
            self._enter(0, 0, None)
            found += self._take()
        return found

    def turn(self, *, wait: int = 0, timeout_ns: int | None = None) -> list[Completion]:
        """Submit, wait and reap in one."""
        self.submit(wait=wait, timeout_ns=timeout_ns)
        return self.reap()

    def glance(self, *, wait: int = 0, timeout_ns: int | None = None) -> list[Completion]:
        """Submit, wait and take what this one call brought; the kernel may hold back more.

        For a loop that comes back at once: there the work of one side of a connection goes on
        while the other side's is done, where `turn` would gather until nothing more comes.
        """
        self.submit(wait=wait, timeout_ns=timeout_ns)
        return self._take()

    def _take(self) -> list[Completion]:
        tail = self._words[self._cq_tail]
        found = cqe.decode_ring(self._cqes, self._head, tail)
        self._words[self._cq_head] = self._head = tail
        return found

    def _make_room(self, count: int) -> None:
        if count > self.layout.sq_entries:
            raise ValueError(f"{count} operations in a queue of {self.layout.sq_entries}")
        self.submit()
        if count > self._room:
            raise RingFullError(self._refusal, f"no room for {count} operations")

    def register_files(self, count: int) -> None:
        """Make a file table of `count` empty slots, at most RLIMIT_NOFILE (EMFILE). OSError."""
        raw = bytearray(_RSRC_REGISTER.pack(count, _RSRC_SPARSE, 0, 0, 0))
        self.register(_REGISTER_FILES2, raw, len(raw))
        self._has_files = True

    def place(self, slot: int, descriptor: int) -> None:
        """Put an open file into a slot too; -1 empties the slot. Raises OSError."""
        files = bytearray(struct.pack("=i", descriptor))
        update = _FILES_UPDATE.pack(slot, 0, syscalls.address_of(files))
        self.register(_REGISTER_FILES_UPDATE, bytearray(update), 1)

    def pick_slots_from(self, first: int, count: int) -> None:
        """Let Into.FREE_SLOT take these slots alone (Linux 6.0). Raises OSError."""
        raw = bytearray(_FILE_RANGE.pack(first, count, 0))
        self.register(_REGISTER_FILE_ALLOC_RANGE, raw, 0)

    def notify(self) -> int:
        """Return an eventfd that becomes readable when there is something to submit() for.

        It belongs to the ring. Raises OSError.
        """
        if self._eventfd < 0:
            eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            try:
                self.register(_REGISTER_EVENTFD, bytearray(struct.pack("=i", eventfd)), 1)
            except BaseException:
                os.close(eventfd)
                raise
            self._eventfd = eventfd
        return self._eventfd

    def mute(self, *, muted: bool) -> None:
        """Signal no eventfd, which costs less while nobody waits for it; or do it again.

        What came meanwhile is not signalled afterwards: turn() once before waiting.
        """
        self._words[self._cq_flags] = _CQ_EVENTFD_DISABLED if muted else 0

    def register(self, what: int, arg: bytearray | None, count: int) -> int:
        """Call io_uring_register(2) on this ring. Raises OSError, RingClosedError."""
        return syscalls.register(self.fileno(), what, arg, count)

    def close(self) -> None:
        """Cancel what is under way, and close the files in the table and the ring.

        From then on no address that an operation was given is used. A second call does nothing.
        """
        if self._fd < 0:
            return
        with suppress(OSError):
            self._cancel_all()
        if self._has_files:
            with suppress(OSError):
                self.register(_UNREGISTER_FILES, None, 0)
        for view in (self._words, self._cqes, self._sqes):
            view.release()
        for mapping in (self._ring, self._operations):
            mapping.close()
        for descriptor in (self._eventfd, self._fd):
            if descriptor >= 0:
                os.close(descriptor)
        self._eventfd = self._fd = -1

    def _cancel_all(self) -> None:
        """Cancel until nothing was found several times in a row.

        An operation between two steps of its chain is not found, and what was linked to the
        cancelled may start.
        """
        self._tail = self._words[self._sq_head]
        request = cancel(how=CancelFlag.ANY, user_data=_CANCEL_TOKEN).pack()
        quiet = 0
        for _ in range(_CANCEL_ROUNDS):
            self.push(request)
            found = self.turn(wait=1, timeout_ns=_CANCEL_WITHIN_NS)
            none = any(token == _CANCEL_TOKEN and result <= 0 for token, result, _ in found)
            quiet = quiet + 1 if none else 0
            if quiet == _QUIET_ROUNDS:
                return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
