"""Each sentence comes where its figures are, with them, and nowhere else."""

from collections.abc import Callable
from typing import Any

import pytest

from twbench.compare.advice import RULES

Make = Callable[..., dict[str, Any]]
RACE = "read:EOF:keepalive_race"
FULL = "connect:EADDRNOTAVAIL:ports_exhausted"
IMPATIENT = 'web.kinds = [{ name = "impatient", share = 0.2, keepalive_timeout_s = 0.5 }]'
KEPT = {"per_page": 0.02, "engine": "aiohttp 3.14.5", "time_wait": (10, 0), "ports": (10, 28_232)}


def aiohttp(idle_s: float) -> str:
    return f'client.engine = "aiohttp"\nclient.aiohttp.keepalive_timeout_s = {idle_s}\n{IMPATIENT}'


def sentences(document: dict[str, Any], rule: str) -> list[str]:
    return [each["sentence"] for each in document["advice"] if each["rule"] == rule]


def test_every_rule_is_tested_here() -> None:
    tested = {name.partition("_is_told")[0] for name in globals() if "_is_told" in name}
    assert {f"test_{rule.__name__}" for rule in RULES} <= tested


def test_keepalive_race_is_told_with_both_times_and_who_has_none(document: Make) -> None:
    raced = KEPT | {"errors": {RACE: 37, FULL: 1}, "attempted": 10_000, "silent": 12}
    calm = KEPT | {"attempted": 10_000}
    made = document({"defaults": (aiohttp(15), raced), "tuned": (aiohttp(0.4), calm)})
    [sentence] = sentences(made, "keepalive_race")
    assert sentence == (
        "'defaults': client.aiohttp.keepalive_timeout_s 15 s is longer than this server's 0.5 s:"
        " 185 of 50,000 attempts met the keep-alive race, and its library repeated 60 in silence;"
        " 'tuned' with 0.4 s had none."
    )


@pytest.mark.parametrize(
    ("lines", "figures"),
    [
        (aiohttp(15), KEPT),
        (aiohttp(0.4), KEPT | {"errors": {RACE: 3}}),
        (aiohttp(15) + "\nclient.aiohttp.force_close = true", KEPT | {"silent": 3}),
        ('client.engine = "streams"', KEPT | {"errors": {FULL: 3}}),
    ],
    ids=["no race", "shorter than the server's", "keeps none", "no pool"],
)
def test_keepalive_race_is_not_told_where_there_is_none(
    document: Make, lines: str, figures: dict[str, Any]
) -> None:
    made = document({"one": (lines, figures), "other": ("", {})})
    assert sentences(made, "keepalive_race") == []


def test_pool_of_ours_without_an_expiry_keeps_longer_than_any_server(document: Make) -> None:
    pool = "client.pool.size = 9\nserver.keepalive_timeout_s = 2"
    made = document({"pooled": (pool, {"errors": {RACE: 1}}), "other": ("", {})})
    [sentence] = sentences(made, "keepalive_race")
    assert "client.pool.idle_expiry_s unset is longer than this server's 2 s" in sentence


def test_silent_retries_is_told_with_what_the_errors_hide(document: Make) -> None:
    made = document({"loud": ("", {}), "quiet": ("", {"silent": 20, "errors": {RACE: 4}})})
    [sentence] = sentences(made, "silent_retries")
    assert "'quiet'" in sentence
    assert "at least 100 requests" in sentence
    assert "(2%)" in sentence
    assert "told of 20 failures; 120 happened" in sentence


def test_connection_per_page_is_told_beside_one_of_its_engine_that_keeps(document: Make) -> None:
    given = {
        "short": ("", {"cpu_us": 310.0, "time_wait": (9000, 0)}),
        "kept": ("client.pool.size = 9", {"per_page": 0.02, "cpu_us": 120, "time_wait": (200, 0)}),
        "library": (aiohttp(1), KEPT | {"per_page": 0.001}),
    }
    [sentence] = sentences(document(given), "connection_per_page")
    assert sentence == (
        "With streams, a connection for each page: 'short' opens 1 a page: 310 µs of CPU a page,"
        " 9,000 in TIME_WAIT at the peak. Kept connections: 'kept' opens 0.02 a page: 120 µs of"
        " CPU a page, 200 in TIME_WAIT at the peak."
    )
    del given["kept"]
    assert sentences(document(given), "connection_per_page") == []


@pytest.mark.parametrize(
    ("ports", "errors", "told"),
    [
        ((27_000, 28_232), {}, "27,000 of 28,232 ports towards one destination were in use (96%)."),
        ((500, 512), {FULL: 24}, "(98%), and 120 attempts found none."),
        ((20_000, 28_232), {}, ""),
    ],
)
def test_ports_nearly_used_up_is_told_near_the_end_of_the_range(
    document: Make, ports: tuple[int, int], errors: dict[str, int], told: str
) -> None:
    made = document({"one": ("", {"ports": ports, "errors": errors}), "other": ("", {})})
    found = sentences(made, "ports_nearly_used_up")
    assert len(found) == bool(told)
    assert told in "".join(found)


def test_time_wait_side_is_told_of_those_who_leave_it_all_on_one_side(document: Make) -> None:
    made = document(
        {
            "we": ("", {"time_wait": (900, 3)}),
            "they": ("", {"time_wait": (0, 5000)}),
            "both": ("", {"time_wait": (500, 500)}),
            "few": ("", {"time_wait": (9, 0)}),
        }
    )
    [sentence] = sentences(made, "time_wait_side")
    assert sentence.endswith("At the peak, on client: 'we' 900; on server: 'they' 5,000.")
    made = document({"few": ("", {"time_wait": (9, 0)}), "none": ("", {"time_wait": (0, 0)})})
    assert sentences(made, "time_wait_side") == []


def test_churn_is_told_of_a_pool_below_its_users(document: Make) -> None:
    ours = "client.pool.size = 100\nclient.pool.idle_per_site = "
    given = {
        "two": (f"{ours}2", KEPT | {"per_page": 0.45}),
        "all": (f"{ours}64", KEPT),
    }
    [sentence] = sentences(document(given), "churn")
    assert sentence == (
        "'two': client.pool.idle_per_site 2 is less than its 64 users: 0.45 connections a page,"
        " although it keeps them; 'all' opened 0.02."
    )
    # a server that closes makes everybody open again
    given["all"] = (f"{ours}64", KEPT | {"per_page": 0.4})
    assert sentences(document(given), "churn") == []


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ('client.engine = "urllib3"\nweb.sites = 5', ["client.urllib3.maxsize 1"]),
        (
            'client.engine = "urllib3"\nweb.sites = 50',
            ["num_pools 10 is less than its 50 sites and client.urllib3.maxsize 1"],
        ),
        ('client.engine = "requests"\nweb.sites = 50', ["client.requests.pool_connections 10"]),
        ('client.engine = "httpx"', ["client.httpx.max_keepalive_connections 20"]),
        ('client.engine = "httpx"\nclient.httpx.session = "per-request"', []),
        ('client.engine = "aiohttp"', []),
    ],
)
def test_churn_of_each_library_is_by_its_own_bounds(
    document: Make, lines: str, told: list[str]
) -> None:
    made = document({"one": (lines, KEPT | {"per_page": 0.9}), "kept": ("", KEPT)})
    found = sentences(made, "churn")
    assert len(found) == len(told)
    assert all(said in sentence for said, sentence in zip(told, found, strict=True))


def test_failed_attempts_is_told_with_the_most_frequent_cause(document: Make) -> None:
    failing = {"errors": {RACE: 30, FULL: 5, "read:CANCELLED:run_ended": 64}}
    made = document({"bad": ("", failing), "good": ("", {"errors": {RACE: 1}})})
    [sentence] = sentences(made, "failed_attempts")
    assert sentence == (
        "'bad': 175 of 5,000 attempts failed (3.5%), 150 of them with read:EOF:keepalive_race:"
        " the server closed a kept connection as it was used."
    )
    ended = {"errors": {"read:CANCELLED:run_ended": 64}}
    assert sentences(document({"a": ("", ended), "b": ("", {})}), "failed_attempts") == []


def test_undecided_is_told_of_the_first_two_alone(document: Make) -> None:
    near, far = {"pages_per_s": 1010.0}, {"pages_per_s": 500.0}
    made = document({"a": ("", near), "b": ("", {}), "c": ("", far)})
    [sentence] = sentences(made, "undecided")
    assert sentence.startswith("'a' and 'b' are first, and 5 rounds show no difference in pages/s")
    assert "between 1.01 and 1.01 times the second" in sentence
    assert sentences(document({"a": ("", {}), "c": ("", far)}), "undecided") == []


def test_rounds_too_few_to_compare_are_not_called_undecided(document: Make) -> None:
    assert sentences(document({"a": ("", {}), "b": ("", {})}, repeats=2), "undecided") == []
