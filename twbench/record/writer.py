"""Writes a results folder so that whatever happens, what was written stays readable.

Lines are appended whole: where a write is refused half-way (disk full, quota, file size limit), the
file is cut back to its last whole line and the rest is kept for another try. Documents are written
beside their place and renamed into it.
"""

import contextlib
import errno
import json
import os
import secrets
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import tomli_w

from twbench.model.errors import RecordError, UsageError
from twbench.record.schema import FLUSH_EVERY_S, SCENARIO, SCHEMA_VERSION, STREAMS, make_run_id

# Also bounds what a stall of the caller's clock can keep in memory.
FLUSH_AT_BYTES = 65_536

REMEDIES = {
    errno.EACCES: "choose a folder you may write to: --out DIR",
    errno.EPERM: "choose a folder you may write to: --out DIR",
    errno.EROFS: "it is on a read-only file system: --out DIR",
    errno.ENOTDIR: "a part of this path is a file: --out DIR",
    errno.EEXIST: "a file of that name is in the way: --out DIR",
    errno.ENAMETOOLONG: "choose a shorter path: --out DIR",
    errno.ENOSPC: "free some space, or record to another disk: --out DIR",
    errno.EDQUOT: "your quota is used up: free some space, or record elsewhere: --out DIR",
    errno.EFBIG: "raise the limit (ulimit -f), or record elsewhere: --out DIR",
    errno.EMFILE: "raise the number of open files (ulimit -n)",
}


def _explain(doing: str, path: Path, error: OSError) -> str:
    number = error.errno or 0
    name = errno.errorcode.get(number, str(number))
    remedy = REMEDIES.get(number, "record elsewhere: --out DIR")
    return f"cannot {doing} {path}: {name}, {os.strerror(number)}\n  remedy: {remedy}"


class _Stream:
    """One JSON-lines file, open for appending, with the lines that wait for it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        self._waiting = bytearray()
        self._size = 0

    @property
    def waiting_bytes(self) -> int:
        return len(self._waiting)

    def add(self, line: bytes) -> None:
        self._waiting += line

    def flush(self) -> None:
        written = 0
        try:
            while written < len(self._waiting):
                written += os.write(self._fd, self._waiting[written:])
        except OSError as error:
            # A device cannot be cut; what it refused is kept all the same.
            whole = self._waiting.rfind(b"\n", 0, written) + 1
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._size + whole)
                os.lseek(self._fd, self._size + whole, os.SEEK_SET)
            written = whole
            raise RecordError(_explain("append to", self.path, error)) from error
        finally:
            del self._waiting[:written]
            self._size += written

    def close(self) -> None:
        try:
            os.close(self._fd)
        except OSError as error:  # where the server of a network disk reports a full one
            raise RecordError(_explain("finish", self.path, error)) from error


class RunWriter:
    """Context manager of one results folder; on entry everything that can be refused is tried.

    The descriptors of all streams are opened on entry, because a run may use up every other one.

    Args:
        results_dir: where run folders live; made if it is missing.
        name: of the scenario, for the folder's name.
        started: when the run starts, with its time zone.

    Raises:
        UsageError: on entry, where the folder cannot be made or written to.
        RecordError: later, where the disk or a limit refuses more; lines before that are safe.
    """

    def __init__(self, results_dir: Path, name: str, *, started: datetime) -> None:
        self.run_id = make_run_id(name, started=started, suffix=secrets.token_hex(3))
        self.path = results_dir / self.run_id
        self._streams: dict[str, _Stream] = {}
        self._flushed_s: float | None = None
        self._discarded = False

    def __enter__(self) -> Self:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.mkdir()
            for name in STREAMS:
                self._streams[name] = _Stream(self.path / name)
        except OSError as error:
            path = Path(error.filename or self.path)
            self._undo()
            raise UsageError(_explain("make", path, error)) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        refusals = []
        for stream in self._streams.values():
            for finish in (stream.flush, stream.close):
                try:
                    finish()
                except RecordError as refusal:
                    refusals.append(refusal)
        if self._discarded:
            for left in self.path.iterdir():
                left.unlink()
            self.path.rmdir()
        # What already ends the run is the better explanation.
        if refusals and error is None:
            raise refusals[0]

    def write_toml(self, scenario: Mapping[str, object]) -> None:
        """Write the scenario as it is run, to `scenario.toml`."""
        self._replace(SCENARIO, tomli_w.dumps(scenario).encode())

    def write_json(self, name: str, document: Mapping[str, object]) -> dict[str, object]:
        """Write a document headed by `schema` and `run_id`, and return it as written."""
        whole = {"schema": SCHEMA_VERSION, "run_id": self.run_id, **document}
        self._replace(name, json.dumps(whole, indent=2, allow_nan=False).encode() + b"\n")
        return whole

    def write_text(self, name: str, text: str) -> None:
        """Write any other file of the folder, such as a report."""
        self._replace(name, text.encode())

    def discard(self) -> None:
        """Leave no folder behind: the run has not even begun."""
        self._discarded = True

    def append(self, stream: str, line: Mapping[str, object], *, now_s: float) -> None:
        """Add a line to one of STREAMS; `now_s` is any monotonic time in seconds."""
        self._streams[stream].add(
            json.dumps(line, separators=(",", ":"), allow_nan=False).encode() + b"\n"
        )
        if self._streams[stream].waiting_bytes >= FLUSH_AT_BYTES:
            self._streams[stream].flush()
        self.flush_if_due(now_s=now_s)

    def flush_if_due(self, *, now_s: float) -> None:
        """Hand waiting lines to the kernel if the last time was FLUSH_EVERY_S or longer ago."""
        if self._flushed_s is None:
            self._flushed_s = now_s
        if now_s - self._flushed_s >= FLUSH_EVERY_S:
            self._flushed_s = now_s
            self.flush()

    def flush(self) -> None:
        """Hand all waiting lines to the kernel: from then on they outlive the process."""
        refusals = []
        for stream in self._streams.values():
            try:
                stream.flush()
            except RecordError as refusal:
                refusals.append(refusal)
        if refusals:
            raise refusals[0]

    def _undo(self) -> None:
        for stream in self._streams.values():
            stream.close()
            stream.path.unlink()
        with contextlib.suppress(OSError):
            self.path.rmdir()

    def _replace(self, name: str, content: bytes) -> None:
        path = self.path / name
        beside = path.with_name(f".{name}.part")
        try:
            beside.write_bytes(content)
            beside.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                beside.unlink()
            raise RecordError(_explain("write", path, error)) from error
