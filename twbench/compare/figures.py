"""The figures that contestants are compared by, and where a run's summary has them. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from twbench.compare.statistics import Better
from twbench.model.outcomes import kind_of_key

Summary = Mapping[str, Any]
Figures = dict[str, float | None]
"""By key; None: this run could not measure it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """What a figure is called, and whether contestants are judged by it."""

    label: str
    better: Better | None = None
    """Which is better, where a best is looked for; each judged figure makes the test stricter."""
    step: float = 0.0
    """What it is read in, in its unit, where that is coarser than its digits."""


RANKED_BY = "pages_per_s"
FIGURES: Mapping[str, Figure] = {
    RANKED_BY: Figure(label="pages/s", better="high"),
    "client_cpu_us_per_page": Figure(label="client CPU, µs/page", better="low"),
    "latency_p50_ms": Figure(label="latency p50, ms", better="low", step=0.001),
    "latency_p99_ms": Figure(label="latency p99, ms", better="low", step=0.001),
    "connections_per_page": Figure(label="connections/page"),
    "ports_in_use_peak": Figure(label="ports in use, peak"),
    "failed": Figure(label="failed attempts"),
    "retried": Figure(label="retried"),
    "silent_retries": Figure(label="silent retries"),
}
"""By key. Beside them each host has `time_wait_peak.HOST` and `time_wait_steady.HOST`."""
JUDGED: Mapping[str, Better] = {key: f.better for key, f in FIGURES.items() if f.better}
STEPS: Mapping[str, float] = {key: f.step for key, f in FIGURES.items() if f.step}


def figures_of(summary: Summary) -> Figures:
    """Return the figures of one run."""
    rates, outcomes = summary["rates"], summary["outcomes"]
    # users who wait for answers start when they mean to, so for them both are the same
    latency = summary["latency_ms"].get("request_from_intended") or {}
    hosts: Mapping[str, Any] = summary["hosts"]
    ports = [host["ports"]["in_use_peak"] for host in hosts.values() if "ports" in host]
    return {
        RANKED_BY: rates["requests_per_s"],
        "client_cpu_us_per_page": rates.get("client_cpu_us_per_request"),
        "latency_p50_ms": latency.get("p50"),
        "latency_p99_ms": latency.get("p99"),
        "connections_per_page": rates["connections_per_request"],
        "ports_in_use_peak": max(ports, default=None),
        "failed": failures(outcomes["errors"]),
        "retried": outcomes["retried"],
        "silent_retries": outcomes.get("silent_retries"),
        **{f"time_wait_peak.{name}": host["time_wait"]["peak"] for name, host in hosts.items()},
        **{
            f"time_wait_steady.{name}": host["time_wait"].get("steady")
            for name, host in hosts.items()
        },
    }


def totals_of(summary: Summary) -> dict[str, Any]:
    """Return the counts of one run that are added up over the rounds."""
    outcomes = summary["outcomes"]
    return {
        "attempted": outcomes["attempted"],
        "ok": outcomes["ok"],
        "failed": failures(outcomes["errors"]),
        "retried": outcomes["retried"],
        "silent_retries": outcomes.get("silent_retries") or 0,
        "errors": dict(outcomes["errors"]),
    }


def failures(errors: Mapping[str, int]) -> int:
    """Return how many attempts failed, but for those that the end of the load cut off."""
    return sum(count for key, count in errors.items() if kind_of_key(key).name != "run_ended")
