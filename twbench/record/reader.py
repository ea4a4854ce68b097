"""Reads a results folder, also one whose run was killed half-way."""

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twbench.model.errors import UsageError
from twbench.record.schema import (
    ENVIRONMENT,
    EVENTS,
    LOOKS,
    OUTCOMES,
    RUN_ID,
    SAMPLES,
    SCENARIO,
    SCHEMA_VERSION,
    STREAMS,
    SUMMARY,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """A results folder in memory: documents as dictionaries, streams as tuples of them.

    Attributes:
        path: the folder.
        run_id: its name.
        scenario: of `scenario.toml`; None where it is missing, as for the next two.
        environment: of `environment.json`.
        summary: of `summary.json`, which is written last.
        samples: lines of `samples.jsonl`, in the order written; likewise the next three.
        looks: of `looks.jsonl`.
        outcomes: of `outcomes.jsonl`.
        events: of `events.jsonl`.
        missing: names of the files that are not there.
        truncated: names of the streams whose last line was cut off, and left out here.
    """

    path: Path
    run_id: str
    scenario: dict[str, Any] | None
    environment: dict[str, Any] | None
    summary: dict[str, Any] | None
    samples: tuple[dict[str, Any], ...]
    looks: tuple[dict[str, Any], ...]
    outcomes: tuple[dict[str, Any], ...]
    events: tuple[dict[str, Any], ...]
    missing: tuple[str, ...]
    truncated: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether the run came to its end."""
        return self.summary is not None


def read_run(path: Path) -> Run:
    """Return what is in the results folder at `path`.

    Raises:
        UsageError: there is no such folder, none of a run's files is in it, one of them is not
            what its name says, or a newer twbench wrote it.
    """
    try:
        there = {entry.name for entry in path.iterdir()}
    except OSError as error:
        raise UsageError(f"{path} is no results folder: {error.strerror}") from error
    found = {
        name: _content(path / name)
        for name in (SCENARIO, ENVIRONMENT, SUMMARY, *STREAMS)
        if name in there
    }
    if not found:
        raise UsageError(f"{path} is no results folder: it has no {SCENARIO} and no {SUMMARY}")
    documents = {name: _document(path / name, found.get(name)) for name in (ENVIRONMENT, SUMMARY)}
    streams = {name: _lines(path / name, found.get(name, b"")) for name in STREAMS}
    return Run(
        path=path,
        run_id=path.resolve().name,
        scenario=_toml(path / SCENARIO, found.get(SCENARIO)),
        environment=documents[ENVIRONMENT],
        summary=documents[SUMMARY],
        samples=streams[SAMPLES][0],
        looks=streams[LOOKS][0],
        outcomes=streams[OUTCOMES][0],
        events=streams[EVENTS][0],
        missing=tuple(
            name for name in (SCENARIO, ENVIRONMENT, SUMMARY, *STREAMS) if name not in found
        ),
        truncated=tuple(name for name, (_, cut) in streams.items() if cut),
    )


def latest(results_dir: Path) -> Path:
    """Return the folder of the run that was started last.

    Raises:
        UsageError: there is none.
    """
    try:
        runs = [
            (match["started"], path.stat().st_mtime_ns, path)
            for path in results_dir.iterdir()
            if (match := RUN_ID.fullmatch(path.name)) and path.is_dir()
        ]
    except FileNotFoundError:
        runs = []
    except OSError as error:
        raise UsageError(f"cannot list {results_dir}: {error.strerror}") from error
    if not runs:
        raise UsageError(f"no run in {results_dir} yet: make one with `twbench run SCENARIO`")
    return max(runs)[2]


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error


def _toml(path: Path, content: bytes | None) -> dict[str, Any] | None:
    try:
        return None if content is None else tomllib.loads(content.decode())
    except ValueError as error:
        raise UsageError(f"{path} is no TOML: {error}") from error


def _document(path: Path, content: bytes | None) -> dict[str, Any] | None:
    if content is None:
        return None
    try:
        document = json.loads(content)
    except ValueError as error:
        raise UsageError(f"{path} is no JSON: {error}") from error
    if not isinstance(document, dict):
        raise UsageError(f"{path} holds no JSON object")
    version = document.get("schema")
    if not isinstance(version, int) or not 1 <= version <= SCHEMA_VERSION:
        raise UsageError(
            f"{path} has schema {version!r}, and this twbench reads up to {SCHEMA_VERSION}"
        )
    return document


def _lines(path: Path, content: bytes) -> tuple[tuple[dict[str, Any], ...], bool]:
    """Return the lines of a stream, and whether its last one was cut off and left out."""
    *whole, rest = content.split(b"\n")
    lines = []
    for number, line in enumerate(whole, start=1):
        try:
            lines.append(_object(line))
        except ValueError as error:
            raise UsageError(f"{path}, line {number}: {error}") from error
    if rest:
        try:
            lines.append(_object(rest))
        except ValueError:
            return tuple(lines), True
    return tuple(lines), False


def _object(line: bytes) -> dict[str, Any]:
    value = json.loads(line)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - one kind of refusal for the caller
    return value
