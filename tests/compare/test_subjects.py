"""What is read of a run's folder, a comparison's and a scenario's file."""

import json
from pathlib import Path
from typing import Any

import pytest

from twbench.compare.diff import Figure, Kind, diff
from twbench.compare.folder import write_document
from twbench.compare.subjects import numbers, read_subject
from twbench.model.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "results" / "reference"

SUMMARY: dict[str, Any] = {
    "schema": 1,
    "run_id": "20261121T050824Z-small-58d8f5",
    "environment": {
        "kernel": "6.18",
        "packages": {"numpy": "2.4.6"},
        "sysctls": {"client": {"before": {"net.ipv4.tcp_tw_reuse": "2"}, "after": {}}},
    },
    "scenario": {
        "name": "small",
        "description": "told nowhere",
        "load": {"concurrency": 4, "duration_s": 1},
    },
    "ended_early": "",
    "load_s": 1.0,
    "outcomes": {"ok": 12, "errors": {}, "departures": {"client": {"active_close": 12}}},
    "latency_ms": {"connect": None, "request": {"p50": 0.5}},
    "hosts": {"client": {"stack": "client", "ports": {"range": [1, 2], "capacity": 2}}},
    "audit": {"balanced": True, "identities": [{"name": "left = right", "residual": 0}]},
}


def write(folder: Path, summary: dict[str, Any]) -> Path:
    folder.mkdir()
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def test_run_has_every_number_of_its_summary_by_dotted_key(tmp_path: Path) -> None:
    found = read_subject(write(tmp_path / "run", SUMMARY))
    assert (found.kind, found.name) == (Kind.RUN, "run")
    assert {key: figure.value for key, figure in found.figures.items()} == {
        "load_s": 1.0,
        "outcomes.ok": 12,
        "outcomes.departures.client.active_close": 12,
        "latency_ms.connect": None,
        "latency_ms.request.p50": 0.5,
        "hosts.client.ports.capacity": 2,
        "audit.balanced": True,
        "audit.identities.left = right.residual": 0,
    }


def test_run_is_known_by_what_its_figures_depend_on(tmp_path: Path) -> None:
    changed = json.loads(json.dumps(SUMMARY))
    changed["environment"]["kernel"] = "6.19"
    changed["environment"]["sysctls"]["client"]["before"]["net.ipv4.tcp_tw_reuse"] = "1"
    changed["scenario"]["load"]["concurrency"] = 8
    changed["scenario"]["description"] = "other words"
    changed["ended_early"] = "a worker died"
    a = read_subject(write(tmp_path / "a", SUMMARY))
    b = read_subject(write(tmp_path / "b", changed))
    assert set(diff(a, b).context) == {
        ("scenario.load.concurrency", 4, 8),
        ("kernel", "6.18", "6.19"),
        ("sysctls.client.net.ipv4.tcp_tw_reuse", "2", "1"),
        ("ended_early", None, "a worker died"),
    }
    assert not diff(a, b).changes


def test_key_that_an_older_run_does_not_know_had_its_default(tmp_path: Path) -> None:
    newer = json.loads(json.dumps(SUMMARY))
    newer["scenario"]["client"] = {"retry_backoff_ms": 100, "retries": 2}
    a = read_subject(write(tmp_path / "a", SUMMARY))
    b = read_subject(write(tmp_path / "b", newer))
    assert diff(a, b).context == (("scenario.client.retries", 0, 2),)


def test_scenario_that_today_s_twbench_refuses_is_taken_as_it_was(tmp_path: Path) -> None:
    older = json.loads(json.dumps(SUMMARY))
    older["scenario"]["gone"] = {"key": 1}
    found = read_subject(write(tmp_path / "a", older))
    assert found.context["scenario.gone.key"] == 1


@pytest.mark.parametrize("folder", ["keep-alive", "keepalive-race", "port-exhaustion"])
def test_reference_run_differs_in_nothing_from_itself(folder: str) -> None:
    found = read_subject(REFERENCE / folder)
    assert found.figures["outcomes.ok"].value
    assert found.context["kernel"]
    told = diff(found, found, every=True)
    assert (told.context, told.changes) == ((), ())


def test_scenario_is_read_with_its_defaults() -> None:
    a = read_subject(ROOT / "configs" / "port-exhaustion.toml")
    b = read_subject(ROOT / "configs" / "tw-reuse-compared.toml")
    assert a.kind is Kind.SCENARIO
    told = {key: (one, other) for key, one, other in diff(a, b).context}
    assert told["lab.client.sysctl.net.ipv4.tcp_tw_reuse"] == (None, 1)
    assert told["load.duration_s"] == (15, 20)
    assert "description" not in told


def comparison(folder: Path, *, pages_per_s: float, errors: dict[str, int], think_ms: int) -> Path:
    """Write what a comparison of one contestant leaves."""
    folder.mkdir()
    figure = {"median": pages_per_s, "low": pages_per_s - 5, "high": pages_per_s + 5}
    client = {"engine": "httpx", "crawl": {"think_ms": think_ms}}
    contestant = {
        "name": "pool",
        "engine": "httpx 0.28.1",
        "scenario": SUMMARY["scenario"] | {"client": client},
        "figures": {"pages_per_s": {**figure, "values": [pages_per_s]}},
        "totals": {"ok": 500, "errors": errors},
    }
    document = {
        "schema": 1,
        "repeats": 5,
        "rounds": 5,
        "seed": 1,
        "ended_early": "",
        "environment": {"kernel": "6.18"},
        "contestants": [contestant],
    }
    write_document(folder, document)
    return folder


def test_comparison_has_each_contestant_s_figures_with_their_intervals(tmp_path: Path) -> None:
    race = "read:EOF:keepalive_race"
    a = read_subject(comparison(tmp_path / "a", pages_per_s=100, errors={}, think_ms=0))
    b = read_subject(comparison(tmp_path / "b", pages_per_s=108, errors={race: 3}, think_ms=5))
    assert (a.kind, a.name) == (Kind.COMPARISON, "a")
    assert a.figures["contestants.pool.pages_per_s"] == Figure(value=100, low=95, high=105)
    assert a.figures["contestants.pool.totals.ok"] == Figure(value=500)
    assert a.context["contestants.pool.engine"] == "httpx 0.28.1"
    found = diff(a, b)
    assert found.context == (("contestants.pool.client.crawl.think_ms", 0, 5),)
    assert [
        (change.key, float(change.absolute or 0), change.shown) for change in found.changes
    ] == [
        ("contestants.pool.pages_per_s", 8, False),
        (f"contestants.pool.totals.errors.{race}", 3, True),
    ]


def test_comparisons_under_other_sysctls_are_not_alike(tmp_path: Path) -> None:
    def under(reuse: str) -> Path:
        path = comparison(tmp_path / f"reuse-{reuse}", pages_per_s=100, errors={}, think_ms=0)
        document = json.loads((path / "compare.json").read_text())
        [pool] = document["contestants"]
        pool["sysctls"] = {"client": {"net.ipv4.tcp_tw_reuse": reuse}}
        write_document(path, document)
        return path

    found = diff(read_subject(under("2")), read_subject(under("1")))
    key = "contestants.pool.sysctls.client.net.ipv4.tcp_tw_reuse"
    assert found.context == ((key, "2", "1"),)


def test_file_of_a_comparison_is_read_contestant_by_contestant(tmp_path: Path) -> None:
    shipped = ROOT / "configs" / "compare-knobs.toml"
    changed = tmp_path / "changed.toml"
    changed.write_text(shipped.read_text().replace("addresses = 4", "addresses = 3", 1))
    found = diff(read_subject(shipped), read_subject(changed))
    assert found.context == (("contestants.four-addresses.lab.client.addresses", 4, 3),)


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    killed = tmp_path / "killed"
    killed.mkdir()
    (killed / "scenario.toml").write_text('name = "killed"\n')
    (tmp_path / "empty").mkdir()
    for path, said in (
        (killed, "has no summary.json"),
        (tmp_path / "empty", "is no results folder"),
        (tmp_path / "missing", "is no results folder: No such file"),
    ):
        with pytest.raises(UsageError, match=said):
            read_subject(path)


def test_numbers_are_found_at_any_depth_and_texts_are_none() -> None:
    document = {"a": {"b": [1, {"name": "c", "d": 2, "e": "text"}]}, "f": False, "g": None}
    assert dict(numbers(document, "top")) == {"top.a.b.c.d": 2, "top.f": False, "top.g": None}
