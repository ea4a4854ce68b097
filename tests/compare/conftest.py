"""Made-up runs of made-up contestants, for what is pure in a comparison."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from twbench.compare.document import Played, build_document
from twbench.model.contest import Contest, parse_contest

Summary = dict[str, Any]
MakeSummary = Callable[..., Summary]
MakeDocument = Callable[..., dict[str, Any]]


def summary_of(  # noqa: PLR0913 - each figure that a test may want to be otherwise
    *,
    pages_per_s: float = 1000.0,
    cpu_us: float | None = 100.0,
    p50_ms: float = 1.0,
    p99_ms: float = 9.0,
    per_page: float | None = 1.0,
    time_wait: tuple[int, int] = (900, 0),
    ports: tuple[int, int] = (900, 28_232),
    errors: Mapping[str, int] | None = None,
    attempted: int = 1000,
    retried: int = 0,
    silent: int = 0,
    balanced: bool = True,
    ended_early: str = "",
    engine: str = "streams",
) -> Summary:
    """Return as much of a summary.json as a comparison reads."""
    used, capacity = ports
    client, server = time_wait
    return {
        "rates": {
            "requests_per_s": pages_per_s,
            "client_cpu_us_per_request": cpu_us,
            "connections_per_request": per_page,
        },
        "latency_ms": {"request_from_intended": {"p50": p50_ms, "p99": p99_ms}},
        "outcomes": {
            "attempted": attempted,
            "ok": attempted - sum((errors or {}).values()),
            "retried": retried,
            "silent_retries": silent,
            "errors": dict(errors or {}),
        },
        "hosts": {
            "client": {
                "time_wait": {"peak": client, "steady": client / 2},
                "ports": {"in_use_peak": used, "capacity": capacity},
            },
            "server": {"time_wait": {"peak": server, "steady": server / 2}},
        },
        "ended_early": ended_early,
        "audit": {"balanced": balanced},
        "thresholds": [],
        "environment": {
            "kernel": "6.18",
            "cpus": 2,
            "engines": {"fleet": {"engine": engine}},
        },
    }


def contest_of(tables: Mapping[str, str], *, repeats: int = 5, more: str = "") -> Contest:
    """Return a comparison of contestants, each a name and its TOML lines."""
    text = 'name = "made-up"\n[load]\nconcurrency = 64\nduration_s = 1\n'
    text += f"[compare]\nrepeats = {repeats}\n{more}\n"
    for name, lines in tables.items():
        text += f'[[contestant]]\nname = "{name}"\n{lines}\n'
    return parse_contest(text, source="made-up")


def played_of(contest: Contest, summaries: Mapping[str, Sequence[Summary]]) -> list[Played]:
    """Return the runs: of each contestant one a round, as long as there are some."""
    return [
        Played(
            round=number + 1,
            contestant=name,
            run_id=f"{name}-{number + 1}",
            time_wait_first={"client": 0, "server": 0},
            summary=each[number],
        )
        for number in range(contest.repeats)
        for name, each in summaries.items()
        if number < len(each)
    ]


@pytest.fixture
def summary() -> MakeSummary:
    return summary_of


@pytest.fixture
def contest() -> Callable[..., Contest]:
    return contest_of


@pytest.fixture
def played() -> Callable[..., list[Played]]:
    return played_of


@pytest.fixture
def document() -> MakeDocument:
    """Return what makes compare.json of contestants, each its TOML lines and its figures.

    The rounds differ a little, and all contestants in the same way.
    """

    def make(given: Mapping[str, tuple[str, Mapping[str, Any]]], **named: Any) -> dict[str, Any]:  # noqa: ANN401
        made = contest_of({name: lines for name, (lines, _) in given.items()}, **named)
        summaries = {
            name: [
                summary_of(**{**figures, "pages_per_s": figures.get("pages_per_s", 1000) * drift})
                for drift in (1.0, 1.02, 0.98, 1.01, 0.99)[: made.repeats]
            ]
            for name, (_, figures) in given.items()
        }
        return build_document(made, played_of(made, summaries))

    return make
