"""Chooses the readers: the kernel's own interfaces first, then whatever works here."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar

from twbench.kernel.errors import CodecError
from twbench.kernel.openers import OpenFile, OpenSocket, open_file_here, open_socket_here
from twbench.kernel.process import open_file_of, open_socket_of
from twbench.kernel.psutil_reader import PsutilReader
from twbench.kernel.readers import LookReader, Looks, Reader, TableLookReader, TickReader, Ticks
from twbench.model.errors import LabError
from twbench.model.states import TcpState

R = TypeVar("R", bound=Reader)

_REFUSALS = (OSError, AttributeError, CodecError, LabError)
"""What a missing interface raises; AttributeError where Python has no AF_NETLINK at all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Readers:
    """Two readers of one namespace; `warnings` say what had to be done without, and why."""

    ticks: Ticks
    looks: Looks
    warnings: tuple[str, ...]

    def close(self) -> None:
        """Close both; a second call does nothing."""
        with ExitStack() as both:
            both.callback(self.ticks.close)
            both.callback(self.looks.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def open_readers(
    *,
    pid: int | None = None,
    open_file: OpenFile = open_file_here,
    open_socket: OpenSocket = open_socket_here,
) -> Readers:
    """Open readers for this namespace, for that of process `pid`, or for what the openers open.

    Looks come from "sock_diag", else "proc" (/proc/net/tcp), else "psutil"; ticks from "proc", else
    "psutil". psutil only sees this process's own namespace. Raises LabError when nothing works,
    UsageError when there is no process `pid`.
    """
    if pid is not None:
        open_file, open_socket = open_file_of(pid), open_socket_of(pid)
    ways_to_tick: list[Callable[[], Ticks]] = [lambda: _tried_ticks(open_file)]
    ways_to_look: list[Callable[[], Looks]] = [
        lambda: _tried_looks(open_socket),
        lambda: TableLookReader(open_file),
    ]
    if open_file is open_file_here and open_socket is open_socket_here:
        ways_to_tick.append(PsutilReader)
        ways_to_look.append(PsutilReader)
    warnings: list[str] = []
    ticks = _first("ticks", ways_to_tick, warnings)
    try:
        looks = _first("looks", ways_to_look, warnings)
    except BaseException:
        ticks.close()
        raise
    return Readers(ticks=ticks, looks=looks, warnings=tuple(warnings))


def _first(what: str, makers: Sequence[Callable[[], R]], warnings: list[str]) -> R:
    """Return the first reader that can be made; every refusal before it becomes a warning."""
    refusals: list[str] = []
    for make in makers:
        try:
            reader = make()
        except _REFUSALS as error:
            refusals.append(str(error).splitlines()[0])
        else:
            warnings.extend(f"{what} fell back to {reader.source}: {why}" for why in refusals)
            return reader
    raise LabError(f"there is no way to read the kernel's TCP {what}: {'; '.join(refusals)}")


def _tried_ticks(open_file: OpenFile) -> TickReader:
    """Return a tick reader that has read once."""
    reader = TickReader(open_file)
    try:
        reader.tick()
    except _REFUSALS:
        reader.close()
        raise
    return reader


def _tried_looks(open_socket: OpenSocket) -> LookReader:
    """Return a look reader that has looked once, at the few listening sockets."""
    reader = LookReader(open_socket)
    try:
        reader.look(states=1 << TcpState.LISTEN)
    except _REFUSALS:
        reader.close()
        raise
    return reader
