from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twbench.record import make_run_id
from twbench.record.schema import RUN_ID

NOON = datetime(2026, 3, 1, 12, 0, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("crawler", "crawler"),
        ("Crawler: closes first!", "crawler-closes-first"),
        ("../../etc/passwd", "etc-passwd"),
        ("", "run"),
        ("…", "run"),
        ("x" * 200, "x" * 48),
    ],
)
def test_run_id_is_time_and_name_and_suffix(name: str, slug: str) -> None:
    assert make_run_id(name, started=NOON, suffix="a1b2c3") == f"20260301T120005Z-{slug}-a1b2c3"


def test_run_id_is_in_utc() -> None:
    east = NOON.astimezone(timezone(timedelta(hours=9)))
    assert make_run_id("x", started=east, suffix="0") == "20260301T120005Z-x-0"


@given(st.text(max_size=80))
def test_every_name_makes_a_run_id(name: str) -> None:
    assert RUN_ID.fullmatch(make_run_id(name, started=NOON, suffix="00ff"))
