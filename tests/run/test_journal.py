"""What is told goes into the books and onto the disk, counted from the start of the load."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from twbench.model.errors import RecordError
from twbench.record.schema import EVENTS, OUTCOMES
from twbench.record.writer import RunWriter
from twbench.run.books import Books
from twbench.run.children import Child
from twbench.run.journal import Journal

SECOND_NS = 1_000_000_000


def lines(folder: Path, name: str) -> list[dict[str, object]]:
    file = folder / name
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def test_reports_are_added_up_and_kept_with_their_time(tmp_path: Path) -> None:
    books = Books(("client", "server"), ("client",))
    with RunWriter(tmp_path, "trial", started=datetime.now(UTC)) as writer:
        journal = Journal(writer, books, lambda: None)
        journal.start_ns = 5 * SECOND_NS
        child = Child("fleet worker 1", "client", journal.hear_fleet)
        for t_s in (6, 7):
            journal.hear_fleet(child, {"t_ns": t_s * SECOND_NS, "attempted": 3, "ok": 2})
        journal.hear_server(child, {"t_ns": 6 * SECOND_NS, "accepted": 4})
        journal.hear_server(child, {"t_ns": 7 * SECOND_NS})
        journal.flush()
    assert (books.fleet.attempted, books.fleet.ok, books.server.accepted) == (6, 4, 4)
    kept = lines(writer.path, OUTCOMES)
    assert [line["t_s"] for line in kept] == [1, 2, 1], "an empty report is worth no line"
    assert {line["from"] for line in kept} == {"fleet worker 1"}


def test_event_is_kept_with_its_detail(tmp_path: Path) -> None:
    with RunWriter(tmp_path, "trial", started=datetime.now(UTC)) as writer:
        journal = Journal(writer, Books((), ()), lambda: None)
        journal.event("it broke", "Traceback …\nValueError\n")
        journal.flush()
    assert journal.events == lines(writer.path, EVENTS)
    assert journal.events[0]["detail"] == "Traceback …\nValueError"


def test_disk_that_takes_no_more_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    def refuse(*_given: object, **_named: object) -> None:
        raise RecordError("no space left on device")

    with RunWriter(tmp_path, "trial", started=datetime.now(UTC)) as writer:
        journal = Journal(writer, Books((), ()), lambda: told.append("refused"))
        with monkeypatch.context() as full:
            full.setattr(writer, "append", refuse)
            journal.event("one")
            journal.event("another")
    assert told == ["refused"]
    assert "no space" in str(journal.refusal)
    assert [event["event"] for event in journal.events] == ["one", "another"]
