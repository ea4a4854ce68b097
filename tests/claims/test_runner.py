"""Takes side by side, and what becomes of a claim whose scenes fail."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from twbench.claims.claim import (
    Check,
    Claim,
    Expected,
    Finding,
    Findings,
    Judgement,
    NotHereError,
    Scene,
    SetUpError,
    Verdict,
    weigh,
)
from twbench.claims.runner import Result, State, Take, run
from twbench.claims.scenery import Scenery
from twbench.lab.plan import Link
from twbench.model.errors import LabError
from twbench.model.states import Side
from twbench.trace.scripts import exchange

Play = Callable[[Scenery], Finding]


def claim(
    *plays: Play, named: str = "sizes", alone: tuple[int, ...] = (), link: Link | None = None
) -> Claim:
    """Return a claim that the findings' `size`, added up, is what is expected."""
    return Claim(
        id=named,
        sentence="sizes add up",
        sources=("this test",),
        expected={"total_bytes": 3},
        refuted_by="another sum",
        scenes=tuple(
            Scene(
                name=f"scene-{number}",
                sentence="a size is told",
                play=play,
                needs_s=0.1,
                link=link,
                alone=number in alone,
            )
            for number, play in enumerate(plays)
        ),
        judge=add_up,
    )


def add_up(findings: Findings, expected: Expected) -> Judgement:
    total = sum(finding["size"] for finding in findings.values())
    holds = total == expected["total_bytes"]
    return weigh(f"{total} bytes", claimed=[Check(text="the sum", holds=holds)], controls=[])


def size(number: int) -> Play:
    return lambda _at: {"size": number}


def failing(error: Exception) -> Play:
    def play(_at: Scenery) -> Finding:
        raise error

    return play


def played(one: Claim, folder: Path, **options: object) -> list[Result]:
    return run([one], results=folder, stop=threading.Event(), **options)  # type: ignore[arg-type]


def test_findings_of_all_scenes_are_judged_together_and_kept(tmp_path: Path) -> None:
    (result,) = played(claim(size(1), size(2)), tmp_path)
    assert result.judgement.verdict is Verdict.CONFIRMED
    told = result.as_json()
    assert (told["id"], told["verdict"], told["finding"]) == ("sizes", "confirmed", "3 bytes")
    for folder, number in zip(told["evidence"], (1, 2), strict=True):
        assert json.loads((tmp_path / folder / "finding.json").read_text()) == {"size": number}


def test_broken_expectation_changes_the_verdict(tmp_path: Path) -> None:
    (result,) = played(claim(size(1), size(2)), tmp_path, expected={"total_bytes": 4})
    assert result.judgement.verdict is Verdict.REFUTED
    assert result.as_json()["expected"] == {"total_bytes": 4}


@pytest.mark.parametrize(
    ("error", "verdict", "crashed"),
    [
        (SetUpError("the packet never came"), Verdict.INCONCLUSIVE, False),
        (NotHereError("this kernel has no such thing"), Verdict.UNSUPPORTED, False),
        (ZeroDivisionError("a bug"), Verdict.INCONCLUSIVE, True),
    ],
)
def test_scene_without_a_finding_leaves_no_verdict_and_says_why(
    tmp_path: Path, error: Exception, verdict: Verdict, *, crashed: bool
) -> None:
    (result,) = played(claim(size(3), failing(error)), tmp_path)
    assert result.judgement.verdict is verdict
    assert f"scene-1: {error}" in result.judgement.finding.replace("ZeroDivisionError: ", "")
    assert bool(result.crashed) is crashed


def test_judge_that_crashes_leaves_no_verdict_and_spoils_no_other(tmp_path: Path) -> None:
    good, bad = claim(size(3)), claim(lambda _at: {"other": 3}, named="crashes")
    results = run([bad, good], results=tmp_path, stop=threading.Event())
    assert [result.judgement.verdict for result in results] == [
        Verdict.INCONCLUSIVE,
        Verdict.CONFIRMED,
    ]
    assert "KeyError: 'size'" in results[0].judgement.finding
    assert "Traceback" in results[0].crashed[0]


def test_lab_that_cannot_be_made_spoils_one_scene_only_if_others_have_one(tmp_path: Path) -> None:
    refused = LabError("refused")
    (result,) = played(claim(size(3), failing(refused)), tmp_path)
    assert result.judgement.verdict is Verdict.INCONCLUSIVE
    assert "refused" in result.judgement.finding
    with pytest.raises(LabError, match="refused"):
        played(claim(failing(refused), failing(refused)), tmp_path)


def test_earlier_evidence_does_not_pass_for_this_runs(tmp_path: Path) -> None:
    played(claim(size(3)), tmp_path)
    played(claim(failing(SetUpError("not this time"))), tmp_path)
    assert not list(tmp_path.rglob("finding.json"))


def test_scene_whose_set_up_did_not_take_is_played_again(tmp_path: Path) -> None:
    failures = iter((SetUpError("too busy"), SetUpError("still")))

    def play(_at: Scenery) -> Finding:
        for failure in failures:
            raise failure
        return {"size": 3}

    (result,) = played(claim(play), tmp_path)
    assert result.judgement.verdict is Verdict.CONFIRMED
    assert result.as_json()["tries"] == {"scene-0": 3}


def test_scenes_are_played_side_by_side(tmp_path: Path) -> None:
    meeting = threading.Barrier(3)

    def meet(_at: Scenery) -> Finding:
        meeting.wait(timeout=60)
        return {"size": 1}

    (result,) = played(claim(meet, meet, meet), tmp_path)
    assert result.judgement.verdict is Verdict.CONFIRMED


def test_scene_that_wants_to_be_alone_is_played_before_the_others(tmp_path: Path) -> None:
    order = []

    def slow(_at: Scenery) -> Finding:
        time.sleep(0.2)
        return {"size": 3}

    def tell(take: Take, state: State, _why: str) -> None:
        order.append((take.scene.name, state))

    played(claim(size(0), slow, alone=(1,)), tmp_path, observe=tell)
    assert order == [
        ("scene-1", State.PLAYING),
        ("scene-1", State.PLAYED),
        ("scene-0", State.PLAYING),
        ("scene-0", State.PLAYED),
    ]


def test_each_repeat_is_judged_by_itself_and_has_a_folder_of_its_own(tmp_path: Path) -> None:
    counted = iter((3, 4, 3))
    results = played(claim(lambda _at: {"size": next(counted)}), tmp_path, repeats=3, at_once=1)
    assert [result.judgement.verdict for result in results] == [
        Verdict.CONFIRMED,
        Verdict.REFUTED,
        Verdict.CONFIRMED,
    ]
    kept = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("finding.json"))
    assert [str(path.parent) for path in kept] == [
        "repeats/2/sizes/scene-0",
        "repeats/3/sizes/scene-0",
        "sizes/scene-0",
    ]


def test_stop_ends_what_waits_and_keeps_what_was_judged(tmp_path: Path) -> None:
    stop = threading.Event()

    def wait(at: Scenery) -> Finding:
        stop.set()
        at.wait(600)
        return {"size": 3}

    (result,) = run([claim(wait)], results=tmp_path, stop=stop)
    assert result.judgement.verdict is Verdict.INCONCLUSIVE
    assert "stopped" in result.judgement.finding
    assert not result.crashed


def test_scene_whose_sysctl_this_kernel_lacks_is_not_played(tmp_path: Path) -> None:
    scene = Scene(
        name="unknown",
        sentence="",
        play=failing(AssertionError("played")),
        needs_s=0,
        client_sysctls={"net.ipv4.tcp_no_such_thing": "1"},
    )
    one = claim()
    lacking = Claim(
        **{name: getattr(one, name) for name in one.__slots__ if name != "scenes"}, scenes=(scene,)
    )
    (result,) = played(lacking, tmp_path)
    assert result.judgement.verdict is Verdict.UNSUPPORTED
    assert "net.ipv4.tcp_no_such_thing" in result.judgement.finding


@pytest.mark.namespaces
def test_scene_on_the_wire_leaves_ladder_and_capture_even_when_it_fails(tmp_path: Path) -> None:
    def play(at: Scenery) -> Finding:
        exchange(at.stage)
        assert {host.side for host in at.lab.plan.hosts} == set(Side)
        raise SetUpError("just so")

    (result,) = played(claim(play, link=Link.WIRE), tmp_path)
    assert "just so" in result.judgement.finding
    left = {path.name: path for path in (tmp_path / "sizes" / "scene-0").iterdir()}
    assert left.keys() == {"ladder.txt", "ladder.svg", "ladder.json", "capture.pcapng"}
    ladder = json.loads(left["ladder.json"].read_text())
    packets = [step for step in ladder["steps"] if step["step"] == "packet"]
    assert "ESTABLISHED" in ladder["states"]["client"]
    assert len(packets) > 5
    assert left["capture.pcapng"].stat().st_size > 40 * len(packets)
