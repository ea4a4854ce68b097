"""Whole comparisons on the real kernel: short loads, interleaved, each on hosts of its own."""

import importlib.util
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise, permutations, product
from pathlib import Path

import pytest

from twbench.compare import runner
from twbench.compare.document import Played
from twbench.compare.folder import COMPARISON, TEXT, read_document
from twbench.compare.runner import Comparison, Standing, compare_scenarios, schedule
from twbench.model.contest import Contest, parse_contest
from twbench.model.errors import LabError, RecordError, UsageError
from twbench.record.reader import read_run
from twbench.run.course import Result, run_scenario

MakeContest = Callable[..., Contest]
TWO = {"short": "", "kept": "client.pool.size = 4"}


def short(tables: dict[str, str], *, repeats: int = 2, seed: int = 1) -> Contest:
    """Return a comparison of a hundred requests a run."""
    text = 'name = "trial"\n[load]\nconcurrency = 4\nduration_s = 5\nrequests = 100\n'
    text += f'[client]\nengine = "streams"\n[compare]\nrepeats = {repeats}\nseed = {seed}\n'
    for name, lines in tables.items():
        text += f'[[contestant]]\nname = "{name}"\n{lines}\n'
    return parse_contest(text, source="test")


# the order


def test_every_round_has_every_contestant_once() -> None:
    runs = list(schedule(short(dict.fromkeys("abcde", ""), repeats=6)))
    assert [number for number, _ in runs] == [n for n in range(1, 7) for _ in range(5)]
    for number in range(1, 7):
        assert sorted(c.name for n, c in runs if n == number) == [*"abcde"]


def order(names: str, *, repeats: int, seed: int = 1) -> list[str]:
    """Return the rounds, each as the names in their order."""
    contest = short(dict.fromkeys(names, ""), repeats=repeats, seed=seed)
    runs = [contestant.name for _, contestant in schedule(contest)]
    return ["".join(runs[n : n + len(names)]) for n in range(0, len(runs), len(names))]


def test_order_is_the_same_for_the_same_seed_alone() -> None:
    assert order("abcde", repeats=8) == order("abcde", repeats=8)
    assert len({tuple(order("abcde", repeats=8, seed=seed)) for seed in range(10)}) > 5


@pytest.mark.parametrize("names", ["ab", "abc", "abcd", "abcde", "abcdefghijkl"])
@pytest.mark.parametrize("seed", [1, 11])
def test_each_is_as_often_in_each_place_and_right_after_each_other(names: str, seed: int) -> None:
    size = len(names)
    # of an odd number no square is balanced in the second way, but two are
    rounds = order(names, repeats=size if size % 2 == 0 else 2 * size, seed=seed)
    times = len(rounds) // size
    places = Counter((place, name) for each in rounds for place, name in enumerate(each))
    assert places == Counter(dict.fromkeys(product(range(size), names), times))
    follows = Counter(pair for each in rounds for pair in pairwise(each))
    assert follows == Counter(dict.fromkeys(permutations(names, 2), times))


@pytest.mark.parametrize("seed", range(1, 21))
def test_of_two_neither_is_first_more_than_once_more_often(seed: int) -> None:
    firsts = Counter(each[0] for each in order("ab", repeats=5, seed=seed))
    assert sorted(firsts.values()) == [2, 3]


# what is missing


def test_missing_library_is_told_before_anything_is_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    contest = short({"plain": "", "library": 'client.engine = "httpx"'})
    with pytest.raises(LabError, match=r"(?s)'library': httpx.*pip install 'twbench\[peers\]'"):
        compare_scenarios(contest, results_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_crawler_that_is_not_there_is_told_before_anything_is_run(tmp_path: Path) -> None:
    contest = short({"plain": "", "mine": 'client.engine = "./none.py:crawl"'})
    with pytest.raises(UsageError, match=r"there is no \./none\.py:crawl"):
        compare_scenarios(contest, results_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


# on the kernel


@pytest.fixture(scope="module")
def watched() -> list[Standing]:
    return []


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory, watched: list[Standing]) -> Comparison:
    folder = tmp_path_factory.mktemp("r")
    return compare_scenarios(short(TWO), results_dir=folder, observe=watched.append)


@pytest.mark.namespaces
def test_each_run_is_recorded_and_began_on_clean_hosts(comparison: Comparison) -> None:
    document = comparison.document
    assert not comparison.interrupted
    assert document == read_document(comparison.path)
    runs = {path.name for path in (comparison.path / "runs").iterdir()}
    assert runs == {name for row in document["contestants"] for name in row["runs"]}
    assert len(runs) == 4
    for name in runs:
        assert read_run(comparison.path / "runs" / name).complete
        assert document["gate"]["time_wait_first"][name] == {"client": 0, "server": 0}
    assert document["gate"]["clean"]
    assert (document["rounds"], document["left_out"]) == (2, [])


@pytest.mark.namespaces
def test_figures_are_those_of_the_runs(comparison: Comparison) -> None:
    for row in comparison.document["contestants"]:
        for number, name in enumerate(row["runs"]):
            summary = read_run(comparison.path / "runs" / name).summary
            assert summary is not None
            for key, value in (
                ("pages_per_s", summary["rates"]["requests_per_s"]),
                ("time_wait_peak.client", summary["hosts"]["client"]["time_wait"]["peak"]),
                ("connections_per_page", summary["rates"]["connections_per_request"]),
            ):
                assert row["figures"][key]["values"][number] == value
    short_, kept = comparison.document["contestants"]
    assert short_["figures"]["connections_per_page"]["median"] == 1
    assert kept["figures"]["connections_per_page"]["median"] <= 0.04


@pytest.mark.namespaces
def test_observer_is_told_of_each_run_before_within_and_after_it(
    comparison: Comparison, watched: list[Standing]
) -> None:
    begun = [s.number for s in watched if s.progress is None and s.played is None]
    ended = [s.played.run_id for s in watched if s.played]
    assert begun == [1, 2, 3, 4]
    assert Counter(ended) == Counter(
        name for row in comparison.document["contestants"] for name in row["runs"]
    )
    assert any(s.progress for s in watched)
    assert watched[0].runs == 4
    assert watched[0].left_s > 0


@pytest.mark.namespaces
def test_comparison_that_is_interrupted_keeps_its_whole_rounds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    done: list[Result] = []

    def interrupted(*given: object, **named: object) -> Result:
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(run_scenario(*given, **named))  # type: ignore[arg-type]
        return done[-1]

    monkeypatch.setattr(runner, "run_scenario", interrupted)
    found = compare_scenarios(short(TWO), results_dir=tmp_path)
    assert found.interrupted
    document = read_document(found.path)
    assert document["ended_early"] == "interrupted after 3 of 4 runs"
    assert document["rounds"] == 1
    assert document["left_out"] == [done[-1].path.name]


@pytest.mark.namespaces
def test_comparison_that_cannot_go_on_keeps_what_there_is_and_raises(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse_after(count: int) -> None:
        done: list[Result] = []

        def refused(*given: object, **named: object) -> Result:
            if len(done) == count:
                raise RecordError("the disk is full")
            done.append(run_scenario(*given, **named))  # type: ignore[arg-type]
            return done[-1]

        monkeypatch.setattr(runner, "run_scenario", refused)
        with pytest.raises(RecordError, match="the disk is full"):
            compare_scenarios(
                short(TWO), results_dir=tmp_path, tell=lambda made: made["ended_early"]
            )

    refuse_after(0)
    assert list(tmp_path.iterdir()) == []
    refuse_after(2)
    [path] = tmp_path.iterdir()
    document = json.loads((path / COMPARISON).read_text())
    assert (document["rounds"], document["ended_early"]) == (1, "the disk is full")
    assert (path / TEXT).read_text() == "the disk is full"


@pytest.mark.namespaces
def test_each_whole_round_is_kept_before_the_next_begins(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[tuple[int, str, str]] = []
    done: list[Result] = []

    def watched_run(*given: object, **named: object) -> Result:
        for path in tmp_path.glob(f"*/{COMPARISON}"):
            document = read_document(path.parent)
            told = (path.parent / TEXT).read_text()
            seen.append((document["rounds"], document["ended_early"], told))
        if len(done) == 5:
            raise ZeroDivisionError
        done.append(run_scenario(*given, **named))  # type: ignore[arg-type]
        return done[-1]

    monkeypatch.setattr(runner, "run_scenario", watched_run)
    with pytest.raises(ZeroDivisionError):
        compare_scenarios(
            short(TWO, repeats=3), results_dir=tmp_path, tell=lambda made: str(made["rounds"])
        )
    first, second = (f"under way, or killed, after {n} of 6 runs" for n in (2, 4))
    assert seen == [(1, first, "1")] * 2 + [(2, second, "2")] * 2


@pytest.mark.namespaces
def test_round_that_began_on_a_host_with_time_wait_does_not_count(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clean = runner._played  # noqa: SLF001 - no fresh host has TIME_WAIT

    def unclean(round_: int, name: str, result: Result) -> Played:
        played = clean(round_, name, result)
        return replace(played, time_wait_first={"client": 3}) if round_ == 1 else played

    monkeypatch.setattr(runner, "_played", unclean)
    document = compare_scenarios(short(TWO), results_dir=tmp_path).document
    assert (document["rounds"], document["ended_early"]) == (1, "")
    assert len(document["left_out"]) == 2
    assert not document["gate"]["clean"]


@pytest.mark.slow
@pytest.mark.namespaces
def test_two_alike_are_not_told_apart(tmp_path: Path) -> None:
    shown: list[str] = []
    # one comparison in a hundred may show one; two in turn do not
    for seed in (1, 2):
        contest = short({"one": "", "same": ""}, repeats=5, seed=seed)
        document = compare_scenarios(contest, results_dir=tmp_path / str(seed)).document
        assert (document["rounds"], document["gate"]["clean"]) == (5, True)
        assert all(row["sound"] == 5 for row in document["contestants"])
        pairs = {key: pair for key, [pair] in document["differences"].items()}
        assert pairs["pages_per_s"]["rounds"] == 5
        assert all(pair["low"] <= pair["change"] <= pair["high"] for pair in pairs.values())
        shown = [key for key, pair in pairs.items() if pair["shown"]]
        if not shown:
            return
    pytest.fail(f"twice; this time by {', '.join(shown)}")
