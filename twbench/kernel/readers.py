"""The readers that bring the kernel's bytes: ticks from /proc/net, looks from sock_diag.

A reader belongs to one kernel view, a network namespace: that of the files and sockets its opener
opens. Readers are context managers and close what they own.
"""

import os
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

import numpy as np

from twbench.kernel import procnet, proctcp, sockdiag
from twbench.kernel.netlink import DiagSocket
from twbench.kernel.openers import OpenFile, OpenSocket, open_file_here, open_socket_here
from twbench.kernel.portfilter import Halves, halve
from twbench.kernel.sidebyside import SideBySide, side_by_side_pays
from twbench.kernel.sockdiag import Sockets
from twbench.model.errors import TwbenchError

_FILE_BYTES = 64 * 1024
_TABLE_READ_BYTES = 1024 * 1024
SPLIT_ABOVE = 20_000
"""Rows of the look before, above which the next is worth a second walk of the table."""

_NEVER = sys.maxsize


@dataclass(frozen=True, kw_only=True, slots=True)
class Tick:
    """The cheap counters of one namespace at one moment; `source` says where they were read."""

    sockstat: dict[str, int]
    counters: dict[str, int]
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """Every TCP socket of one namespace.

    A dump walks the table without stopping the kernel, so it is no snapshot: sockets that change
    meanwhile may be seen in either state, and one whose bucket changes between two datagrams can be
    missed or seen twice: inet_diag counts no changes, so NLM_F_DUMP_INTR never tells of it.
    `interrupted` says that rows were lost on the way too, each time that the dump was asked for.
    `cost_ns` is the CPU time it took, the kernel's work included. `parts` are the rows as they
    came, most of them views of the dump; `sockets` copies them together, unless there is one part.
    """

    parts: tuple[Sockets, ...]
    source: str
    interrupted: bool
    cost_ns: int

    @property
    def sockets(self) -> Sockets:
        """All rows as one array."""
        return sockdiag.join(self.parts)

    @property
    def count(self) -> int:
        """The number of rows."""
        return sum(map(len, self.parts))


class Reader(Protocol):
    """What every reader can do besides reading."""

    source: str

    def close(self) -> None:
        """Close what the reader owns; a second call does nothing."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


class Ticks(Reader, Protocol):
    """A source of ticks."""

    def tick(self) -> Tick:
        """Read the counters now. Raises OSError and CodecError."""


class Looks(Reader, Protocol):
    """A source of looks."""

    def look(self) -> Look:
        """Read every socket now. Raises OSError and CodecError."""


class Owner:
    """A reader's context manager: closes, in reverse, what was pushed on `owned`."""

    source = ""

    def __init__(self) -> None:
        self.owned = ExitStack()

    def close(self) -> None:
        """Close what the reader owns; a second call does nothing."""
        self.owned.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class TickReader(Owner):
    """Reads sockstat, sockstat6, snmp and netstat again and again from kept-open descriptors."""

    source = "proc"

    def __init__(self, open_file: OpenFile = open_file_here) -> None:
        """Open the files, once. Raises what `open_file` raises; sockstat6 may be missing."""
        super().__init__()
        try:
            self._sockstat = self._open(open_file, "sockstat")
            self._sockstat6 = self._open_if_there(open_file, "sockstat6")
            self._snmp = self._open(open_file, "snmp")
            self._netstat = self._open(open_file, "netstat")
        except BaseException:
            self.close()
            raise

    def tick(self) -> Tick:
        """Read the counters now. Raises OSError and CodecError."""
        text6 = b"" if self._sockstat6 is None else os.pread(self._sockstat6, _FILE_BYTES, 0)
        return Tick(
            sockstat=procnet.parse_sockstat(os.pread(self._sockstat, _FILE_BYTES, 0), text6),
            counters=procnet.parse_counters(
                os.pread(self._snmp, _FILE_BYTES, 0), os.pread(self._netstat, _FILE_BYTES, 0)
            ),
            source=self.source,
        )

    def _open(self, open_file: OpenFile, name: str) -> int:
        fd = open_file(f"/proc/net/{name}")
        self.owned.callback(os.close, fd)
        return fd

    def _open_if_there(self, open_file: OpenFile, name: str) -> int | None:
        try:
            return self._open(open_file, name)
        except FileNotFoundError:
            return None


class LookReader(Owner):
    """Dumps every TCP socket, both families in one walk of the table.

    Where a processor is idle, a large table is dumped in two halves side by side, each by a thread
    and a netlink socket of its own: that costs a second walk, but takes a third less time, so it is
    nearer to a snapshot.
    """

    source = "sock_diag"

    def __init__(
        self,
        open_socket: OpenSocket = open_socket_here,
        *,
        split_above: int = SPLIT_ABOVE,
        may_split: Callable[[], bool] = side_by_side_pays,
        cpu_ns: Callable[[], int] = time.thread_time_ns,
    ) -> None:
        """Open the netlink socket. Raises what `open_socket` raises.

        A look after one of more than `split_above` rows is split, if `may_split` says so then; the
        first of them calls `open_socket` once more.
        """
        super().__init__()
        self._open_socket = open_socket
        self._cpu_ns = cpu_ns
        self._may_split = may_split
        self._split_above = split_above
        self._halves: Halves | None = None
        self._first = self._open()
        self._pair: SideBySide | None = None

    def look(self, *, states: int = sockdiag.ALL_STATES) -> Look:
        """Read every socket whose state is in the mask, as undisturbed as can be had.

        Raises OSError with the kernel's errno when it refuses, CodecError for bytes it never sends.
        """
        started_ns = self._cpu_ns()
        elsewhere_ns = 0
        if self._halves and self._may_split() and (pair := self._pair or self._open_pair()):
            dumps = pair.dump(states=states, halves=self._halves)
            elsewhere_ns = sum(dump.cost_ns for dump in dumps)
        else:
            dumps = [self._first.dump(states=states)]
        parts = tuple(part for dump in dumps for part in dump.parts)
        self._halves = halve(*parts) if sum(map(len, parts)) > self._split_above else None
        return Look(
            parts=parts,
            source=self.source,
            interrupted=any(dump.interrupted for dump in dumps),
            cost_ns=self._cpu_ns() - started_ns + elsewhere_ns,
        )

    def destroy(self, row: np.void) -> None:
        """Destroy the one socket of this row. Raises OSError: EPERM, ENOENT when it is gone."""
        self._first.destroy(row)

    def close(self) -> None:
        """Close what the reader owns; a second call does nothing."""
        self._halves = None
        super().close()

    def _open(self) -> DiagSocket:
        opened = DiagSocket(self._open_socket, cpu_ns=self._cpu_ns)
        self.owned.callback(opened.close)
        return opened

    def _open_pair(self) -> SideBySide | None:
        """Open what two halves need; None, now and ever after, where that cannot be had."""
        second = self._second()
        if second is None:
            self._split_above, self._halves = _NEVER, None
            return None
        self._pair = SideBySide(self._first, second)
        self.owned.callback(self._pair.close)
        return self._pair

    def _second(self) -> DiagSocket | None:
        """Open another socket in the namespace of the first."""
        try:
            second = self._open()
        except (OSError, TwbenchError):
            return None
        # By now another process may have the number of the one whose namespace it was.
        if second.namespace() == self._first.namespace() != b"":
            return second
        second.close()
        return None


class TableLookReader(Owner):
    """Reads /proc/net/tcp and tcp6: slow, but where sock_diag is refused it still works."""

    source = "proc"

    def __init__(
        self,
        open_file: OpenFile = open_file_here,
        *,
        cpu_ns: Callable[[], int] = time.thread_time_ns,
    ) -> None:
        """Open the tables, once. Raises what `open_file` raises; tcp6 may be missing."""
        super().__init__()
        self._cpu_ns = cpu_ns
        self._tables: list[int] = []
        for name in ("tcp", "tcp6"):
            try:
                self._tables.append(open_file(f"/proc/net/{name}"))
            except FileNotFoundError:
                if name == "tcp":
                    raise
                continue
            self.owned.callback(os.close, self._tables[-1])

    def look(self) -> Look:
        """Read every socket now. Raises OSError and CodecError."""
        started_ns = self._cpu_ns()
        return Look(
            parts=tuple(proctcp.parse_table(_read_all(fd)) for fd in self._tables),
            source=self.source,
            interrupted=False,
            cost_ns=self._cpu_ns() - started_ns,
        )


def _read_all(fd: int) -> bytes:
    """Return the whole of a seq_file from its start; one read brings a page or so."""
    parts: list[bytes] = []
    at = 0
    while part := os.pread(fd, _TABLE_READ_BYTES, at):
        parts.append(part)
        at += len(part)
    return b"".join(parts)
