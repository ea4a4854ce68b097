"""The web that both sides know without telling each other: names, kinds, pages, popularity."""

from collections import Counter
from statistics import median
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twbench.model.crawling import Web
from twbench.model.sites import LARGEST_BODY_BYTES, Sites


def sites_of(*, median_bytes: int = 1000, seed: int = 1, **web: Any) -> Sites:  # noqa: ANN401 - as TOML
    return Sites(Web.model_validate(web), median_bytes=median_bytes, seed=seed)


def test_names_are_numbered_from_one_and_found_again() -> None:
    sites = sites_of(sites=1000)
    assert sites.names[0] == "site-1.test"
    assert sites.names[-1] == "site-1000.test"
    assert [sites.number(name) for name in sites.names] == [*range(1000)]


@pytest.mark.parametrize("host", ["site-3.test", "SITE-3.Test", "site-3.test:8080"])
def test_host_names_a_site_in_any_case_and_with_a_port(host: str) -> None:
    assert sites_of(sites=3).number(host) == 2


@pytest.mark.parametrize(
    "host",
    [
        *("", "127.0.0.1", "[::1]:80", "server.test", "site-4.test", "site-0.test", "site-03.test"),
        *("site-3.test.", "site-3xtest", "www.site-3.test", "site-3.test:x", "site-3.test:", "3"),
        *("site-99999999999.test", "site-\u0663.test", "site-3.test\n"),
    ],
)
def test_any_other_host_names_none(host: str) -> None:
    assert sites_of(sites=3).number(host) is None


@given(st.text(max_size=20))
def test_any_text_may_be_asked_for_as_a_host(host: str) -> None:
    number = sites_of(sites=3).number(host)
    assert number is None or host.lower().startswith(f"site-{number + 1}.test")


@given(
    site=st.integers(0, 999),
    number=st.integers(0, 5000),
    redirects=st.sampled_from([0, 0.3, 0.9]),
    sigma=st.sampled_from([0, 1, 3]),
)
def test_page_is_one_that_a_site_can_have(
    site: int, number: int, redirects: float, sigma: float
) -> None:
    sites = sites_of(pages=5001, links=7, redirects=redirects, body_sigma=sigma)
    page = sites.page(site, number)
    assert 0 <= page.body_bytes <= LARGEST_BODY_BYTES
    assert len(page.links) == 7
    assert all(0 <= link < 5001 for link in page.links)
    if page.redirects_to is not None:
        assert redirects
        assert 0 <= page.redirects_to < number
        assert sites.page(site, page.redirects_to).redirects_to is None


def test_two_sides_with_one_seed_see_the_same_web_and_with_another_a_different_one() -> None:
    web: dict[str, Any] = {"body_sigma": 1, "redirects": 0.2}
    server, crawler, other = (sites_of(seed=seed, **web) for seed in (5, 5, 6))
    # one side may ask in another order
    asked = [(site, number) for site in range(3) for number in range(40)]
    seen = {at: crawler.page(*at) for at in reversed(asked)}
    assert [server.page(*at) for at in asked] == [seen[at] for at in asked]
    assert [server.page(*at) for at in asked] != [other.page(*at) for at in asked]


def test_first_page_of_a_site_never_redirects() -> None:
    sites = sites_of(redirects=0.9)
    assert all(sites.page(site, 0).redirects_to is None for site in range(1000))


def test_as_many_pages_redirect_as_asked_for() -> None:
    sites = sites_of(redirects=0.25)
    redirects = sum(sites.page(1, number).redirects_to is not None for number in range(4000))
    # 4 standard deviations, sqrt(4000 * 0.25 * 0.75) = 27
    assert abs(redirects - 1000) < 110


def test_bodies_are_all_alike_without_a_sigma() -> None:
    sites = sites_of(median_bytes=777)
    assert {sites.page(site, number).body_bytes for site in (0, 1) for number in range(50)} == {777}


def test_sizes_are_lognormal_around_the_median() -> None:
    sites = sites_of(median_bytes=10_000, body_sigma=0.5)
    sizes = sorted(sites.page(0, number).body_bytes for number in range(4000))
    assert median(sizes) == pytest.approx(10_000, rel=0.06)
    # one sigma to either side: 10,000 * exp(-0.5) and 10,000 * exp(0.5)
    assert sizes[round(4000 * 0.1587)] == pytest.approx(6065, rel=0.08)
    assert sizes[round(4000 * 0.8413)] == pytest.approx(16_487, rel=0.08)


def test_no_body_is_beyond_all_bounds() -> None:
    sites = sites_of(median_bytes=100_000_000, body_sigma=3)
    assert max(sites.page(0, number).body_bytes for number in range(100)) == LARGEST_BODY_BYTES


def test_popularity_follows_zipf() -> None:
    assert sites_of(sites=4, popularity=1).weights() == (1, 1 / 2, 1 / 3, 1 / 4)
    assert sites_of(sites=3, popularity=2).weights() == (1, 1 / 4, 1 / 9)
    assert sites_of(sites=3, popularity=0).weights() == (1, 1, 1)


@pytest.mark.parametrize("count", [20, 100, 1000])
def test_kinds_get_their_shares_among_the_popular_and_among_all(count: int) -> None:
    kinds = [{"name": "slow", "share": 0.25}, {"name": "short", "share": 0.4}]
    sites = sites_of(sites=count, kinds=kinds)
    for first in (10, count):
        met = Counter(kind.name if (kind := sites.kind(n)) else "" for n in range(first))
        for name, share in (("slow", 0.25), ("short", 0.4), ("", 0.35)):
            assert abs(met[name] - share * first) <= 2


def test_kinds_that_share_all_sites_leave_none_over() -> None:
    sites = sites_of(sites=1000, kinds=[{"name": n, "share": 1 / 3} for n in ("a", "b", "c")])
    met = Counter(kind.name if (kind := sites.kind(n)) else "" for n in range(1000))
    assert met.keys() == {"a", "b", "c"}


def test_web_without_kinds_has_sites_that_differ_in_nothing() -> None:
    assert {sites_of().kind(n) for n in range(20)} == {None}
