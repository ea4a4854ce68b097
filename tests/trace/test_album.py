"""The ladders kept in docs/ladders are what this kernel does."""

from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from twbench.model.endings import ENDINGS, Ending
from twbench.trace import album
from twbench.trace.album import INDEX, pages, trace_all, write
from twbench.trace.trace import Trace
from twbench.wire.errors import StageError
from twbench.wire.ladder import Ladder

Traces = Mapping[tuple[str, int], Trace]

FOLDER = "docs/ladders"
KEPT = Path(__file__).resolve().parents[2] / FOLDER
EMPTY = Trace(ladder=Ladder(title="client-fin", sentence="nothing"), capture=b"")


def without_kernel(index: str) -> list[str]:
    return [line for line in index.splitlines() if "on Linux" not in line]


@pytest.mark.namespaces
def test_kept_ladders_are_what_is_drawn_now(traces: Traces) -> None:
    """The index names the kernel that they were made on, which may be another."""
    drawn = pages((traces[name, 4] for name in ENDINGS), folder=FOLDER, kernel="0.0")
    kept = {path.name: path.read_text(encoding="utf-8") for path in KEPT.iterdir()}
    assert without_kernel(kept.pop(INDEX)) == without_kernel(drawn.pop(INDEX))
    assert kept.keys() == drawn.keys()
    for name, text in drawn.items():
        assert text == kept[name], name


def test_kept_pictures_are_well_formed() -> None:
    for name in ENDINGS:
        assert ET.parse(KEPT / f"{name}.svg").getroot().tag.endswith("svg")  # noqa: S314 - our own


def test_index_shows_every_ladder_with_its_sentence() -> None:
    index = (KEPT / INDEX).read_text(encoding="utf-8")
    for ending in ENDINGS.values():
        assert f"## {ending.name}\n\n{ending.sentence} ([text]({ending.name}.txt))" in index
        assert f"]({ending.name}.svg)" in index


def test_pages_are_written_as_they_are(tmp_path: Path) -> None:
    files = pages([EMPTY], folder="here", kernel="6.18")
    assert files.keys() == {"client-fin.txt", "client-fin.svg", INDEX}
    assert "Made on Linux 6.18 by\n`twbench trace --all --out here`" in files[INDEX]
    write(tmp_path / "new" / "album", files)
    written = (tmp_path / "new" / "album").iterdir()
    assert {path.name: path.read_text(encoding="utf-8") for path in written} == files


@pytest.mark.namespaces
def test_endings_are_traced_in_the_given_order_and_each_is_told_of() -> None:
    wanted = [ENDINGS["client-fin"], ENDINGS["client-rst"], ENDINGS["server-unread"]]
    done: list[Ending] = []
    traced = trace_all(wanted, observe=done.append)
    assert [trace.ladder.title for trace in traced] == [ending.name for ending in wanted]
    assert sorted(ending.name for ending in done) == sorted(ending.name for ending in wanted)
    assert trace_all([]) == []


def test_ending_that_was_broken_off_makes_no_album(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Trace(ladder=EMPTY.ladder, capture=b"", broken_off="nothing to accept")
    monkeypatch.setattr(album, "trace_ending", lambda _ending: broken)
    with pytest.raises(StageError, match="client-fin: nothing to accept"):
        trace_all([ENDINGS["client-fin"]])
