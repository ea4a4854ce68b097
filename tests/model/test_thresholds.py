"""Which keys a threshold may name, and how a mistake in one is told."""

import pytest

from twbench.model.outcomes import KINDS
from twbench.model.thresholds import FIGURES, mistake_in

ERROR = "connect:EADDRNOTAVAIL:ports_exhausted"
COUNTS = ("outcomes.errors", "outcomes.connection_errors", "outcomes.first_error_s")


@pytest.mark.parametrize("key", [*FIGURES, "hosts.client-2.time_wait.peak", "outcomes.errorless"])
def test_key_begins_with_a_key_of_the_summary(key: str) -> None:
    assert mistake_in(key) == ""


@pytest.mark.parametrize(
    ("key", "nearest"), [("outcome.ok", "outcomes"), ("host.a", "hosts"), ("rate", "rates")]
)
def test_key_that_begins_with_no_other_is_told_the_nearest(key: str, nearest: str) -> None:
    assert mistake_in(key).startswith(f"did you mean '{nearest}'? allowed is a key in one of: ")


@pytest.mark.parametrize("key", ["", ".", "zzz.ok", "thresholds.a", "Outcomes"])
def test_every_other_beginning_is_told_the_list(key: str) -> None:
    assert ", ".join(FIGURES) in mistake_in(key)


@pytest.mark.parametrize("table", COUNTS)
def test_every_failure_that_has_a_name_can_be_counted(table: str) -> None:
    for (phase, error, _), kind in KINDS.items():
        assert mistake_in(f"{table}.{phase}:{error}:{kind.name}") == ""
    assert mistake_in(f"{table}.read:EBADMSG:unknown") == ""


@pytest.mark.parametrize(
    "typo",
    [
        "connect:EADDRNOTAVAIL:port_exhausted",
        "connect:EADRNOTAVAIL:ports_exhausted",
        "conect:EADDRNOTAVAIL:ports_exhausted",
        "EADDRNOTAVAIL:ports_exhausted",
    ],
)
@pytest.mark.parametrize("table", COUNTS)
def test_misspelt_failure_is_told_the_nearest_one(table: str, typo: str) -> None:
    assert mistake_in(f"{table}.{typo}").startswith(f"did you mean '{ERROR}'? ")


@pytest.mark.parametrize("key", ["", "read:EOF:unknown:x", "reading:EOF:unknown", "read::unknown"])
def test_what_has_not_the_form_of_a_failure_is_told_the_form(key: str) -> None:
    assert "phase:errno:kind, as in" in mistake_in(f"outcomes.errors.{key}")
