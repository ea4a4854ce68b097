"""The figures of a run, as its summary has them."""

from collections.abc import Callable
from typing import Any

from twbench.compare.figures import FIGURES, JUDGED, RANKED_BY, figures_of, totals_of

Make = Callable[..., dict[str, Any]]


def test_every_figure_is_read_and_each_host_has_its_time_wait(summary: Make) -> None:
    figures = figures_of(summary(silent=3, retried=2, time_wait=(8, 6)))
    hosts = {f"time_wait_{what}.{h}" for what in ("peak", "steady") for h in ("client", "server")}
    assert set(figures) == set(FIGURES) | hosts
    assert None not in figures.values()
    assert (figures["time_wait_peak.client"], figures["time_wait_steady.server"]) == (8, 3)
    assert (figures["silent_retries"], figures["retried"]) == (3, 2)
    assert RANKED_BY in JUDGED


def test_what_the_end_of_the_load_cut_off_is_no_failure(summary: Make) -> None:
    made = summary(errors={"read:CANCELLED:run_ended": 7, "read:EOF:keepalive_race": 2})
    assert figures_of(made)["failed"] == 2
    assert totals_of(made)["errors"] == made["outcomes"]["errors"]


def test_summary_without_the_newer_figures_can_still_be_read(summary: Make) -> None:
    made = summary()
    del made["rates"]["client_cpu_us_per_request"]
    del made["outcomes"]["silent_retries"]
    del made["hosts"]["server"]["time_wait"]["steady"]
    figures = figures_of(made)
    assert figures["client_cpu_us_per_page"] is None
    assert figures["silent_retries"] is None
    assert figures["time_wait_steady.server"] is None
    assert totals_of(made)["silent_retries"] == 0
