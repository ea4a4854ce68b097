"""When a count has risen and stopped."""

import pytest

from twbench.sampler.peak import Peak


def said_at(counts: list[int], patience: int = 3) -> list[int]:
    peak, said = Peak(patience=patience), []
    for index, count in enumerate(counts):
        peak, now = peak.step(count)
        if now:
            said.append(index)
    return said


@pytest.mark.parametrize(
    ("counts", "indexes"),
    [
        ([0, 0, 0, 0, 0, 0], []),
        ([0, 49, 49, 49, 49, 49], []),  # too small a rise
        ([0, 50, 50, 50, 50, 50, 50], [4]),  # said once
        ([100, 200, 300, 400, 500, 600], []),  # still rising
        ([100, 1000, 1010, 1005, 1015], [4]),  # a plateau trembles
        ([100, 1000, 1010, 1100, 1100, 1100, 1100], [6]),  # a new height begins anew
        ([100, 1000, 900, 500, 100, 0, 0], [4]),
        ([1000] * 5 + [0] * 5 + [1000] * 5, [3]),  # the same height again is no news
        ([1000] * 5 + [2000] * 5, [3, 8]),
    ],
)
def test_peak_is_said_once_after_each_rise(counts: list[int], indexes: list[int]) -> None:
    assert said_at(counts) == indexes
