"""The verdicts on disk."""

import json
import platform
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from twbench.claims import folder
from twbench.claims.claim import Check, Claim, Scene, weigh
from twbench.claims.runner import run
from twbench.model.errors import UsageError

TRUE_AT_FIRST = Claim(
    id="at-first",
    sentence="it holds at first",
    sources=("RFC 0",),
    expected={"limit": 1},
    refuted_by="a number above the limit",
    scenes=(
        Scene(name="only", sentence="a count", play=lambda _at: {"n": 1}, needs_s=0, link=None),
    ),
    judge=lambda found, expected: weigh(
        "counted",
        claimed=[Check(text="small", holds=found["only"]["n"] <= expected["limit"])],
        caveats=[Check(text="odd", holds=True)],
        controls=[Check(text="without it, none", holds=True)],
    ),
)


def test_folder_is_named_after_the_running_kernel(tmp_path: Path) -> None:
    assert folder.folder_for(tmp_path) == tmp_path / f"claims-{platform.release()}"


def test_verdicts_and_their_reasoning_are_kept_and_told_with_the_agreement(tmp_path: Path) -> None:
    results = run([TRUE_AT_FIRST], results=tmp_path, repeats=3, stop=threading.Event())
    told = folder.write(tmp_path, results)
    assert platform.release() in told["kernel"]
    assert told["agreement"] == {"at-first": {"nuanced": 3}}
    (claim,) = told["claims"]
    assert (claim["id"], claim["verdict"], claim["finding"]) == ("at-first", "nuanced", "counted")
    assert [Path(path) for path in claim["evidence"]] == [tmp_path / "at-first" / "only"]
    (kept,) = json.loads((tmp_path / "claims.json").read_text())["claims"]
    assert kept == claim | {"evidence": ["at-first/only"]}
    reasoning = (tmp_path / "at-first" / "reasoning.txt").read_text()
    for line in (
        "NUANCED: counted",
        "What would refute it: a number above the limit",
        "Expected: limit = 1",
        "  [x] small",
        "  [x] odd",
        "  [x] without it, none",
        "  only: a count",
    ):
        assert line in reasoning.splitlines()


def test_later_run_keeps_what_is_known_of_other_claims(tmp_path: Path) -> None:
    other = replace(TRUE_AT_FIRST, id="other")
    for claims, expected in (([TRUE_AT_FIRST, other], {}), ([other], {"limit": 0.0})):
        played = run(claims, results=tmp_path, expected=expected, stop=threading.Event())
        told = folder.write(tmp_path, played)
    kept = json.loads((tmp_path / "claims.json").read_text())["claims"]
    assert [(claim["id"], claim["verdict"]) for claim in kept] == [
        ("at-first", "nuanced"),
        ("other", "refuted"),
    ]
    assert [claim["id"] for claim in told["claims"]] == ["other"]
    reasoning = (tmp_path / "other" / "reasoning.txt").read_text()
    assert "  by hand: limit = 0 instead of 1" in reasoning.splitlines()


def test_single_run_has_no_agreement(tmp_path: Path) -> None:
    document = folder.write(
        tmp_path, run([TRUE_AT_FIRST], results=tmp_path, stop=threading.Event())
    )
    assert "agreement" not in document


def test_folder_that_cannot_be_made_is_told_before_anything_is_played(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="--out"):
        folder.make(tmp_path / "file" / "claims")
