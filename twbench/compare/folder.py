"""The folder of a comparison: `compare.json`, `compare.txt`, and its runs in `runs/`."""

import contextlib
import json
import secrets
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from twbench.compare.document import SCHEMA
from twbench.model.errors import RecordError, UsageError
from twbench.record.schema import make_run_id

COMPARISON = "compare.json"
TEXT = "compare.txt"
RUNS = "runs"
_REMEDY = "remedy: choose a folder that can be written: --out DIR"


def make(results_dir: Path, name: str, *, started: datetime) -> Path:
    """Make the folder of a new comparison, and return it. UsageError where that is refused."""
    folder = results_dir / make_run_id(name, started=started, suffix=secrets.token_hex(2))
    try:
        (folder / RUNS).mkdir(parents=True)
    except OSError as error:
        raise UsageError(f"cannot make {folder}: {error.strerror}\n  {_REMEDY}") from None
    return folder


def remove_empty(folder: Path) -> None:
    """Leave nothing of a comparison whose first run did not come about."""
    with contextlib.suppress(OSError):
        (folder / RUNS).rmdir()
        folder.rmdir()


def write_document(folder: Path, document: Mapping[str, Any]) -> None:
    """Write `compare.json`. RecordError where that is refused."""
    _put(folder / COMPARISON, json.dumps(document, indent=2, allow_nan=False) + "\n")


def write_text(folder: Path, text: str) -> None:
    """Write `compare.txt`. RecordError where that is refused."""
    _put(folder / TEXT, text)


def is_comparison(folder: Path) -> bool:
    """Return whether there is a comparison in a folder."""
    return (folder / COMPARISON).is_file()


def read_document(folder: Path) -> dict[str, Any]:
    """Return what `compare.json` says.

    Raises:
        UsageError: it cannot be read, is no comparison, or a newer twbench wrote it.
    """
    path = folder / COMPARISON
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {path}: {error}") from None
    version = document.get("schema") if isinstance(document, dict) else None
    if not isinstance(version, int) or not 1 <= version <= SCHEMA:
        raise UsageError(f"{path} has schema {version!r}, and this twbench reads up to {SCHEMA}")
    return dict(document)


def _put(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.part")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        raise RecordError(f"cannot write {path}: {error.strerror}\n  {_REMEDY}") from None
