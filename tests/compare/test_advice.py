"""Each sentence comes where its figures are, with them, and nowhere else."""

import re
from collections.abc import Callable
from math import prod
from typing import Any

import pytest

from twbench.compare.advice import RULES
from twbench.compare.document import Played, build_document
from twbench.compare.rules.rows import percent
from twbench.model.contest import Contest

Make = Callable[..., dict[str, Any]]
RULE = "keepalive_race"
RACE = "read:EOF:keepalive_race"
FULL = "connect:EADDRNOTAVAIL:ports_exhausted"
UNBOUND = "bind:EADDRINUSE:ports_exhausted"
REUSE = '"net.ipv4.tcp_tw_reuse"'
IMPATIENT = 'web.kinds = [{ name = "impatient", share = 0.2, keepalive_timeout_s = 0.5 }]'
NONE_KEPT = """client.engine = "httpx"
client.httpx.max_keepalive_connections = 0
server.keepalive_timeout_s = 1"""
KEPT = {"per_page": 0.02, "engine": "aiohttp 3.14.5", "time_wait": (10, 0), "ports": (10, 28_232)}
RACED = KEPT | {"errors": {RACE: 37, FULL: 1}, "attempted": 10_000, "silent": 12}


def aiohttp(idle_s: float) -> str:
    return f'client.engine = "aiohttp"\nclient.aiohttp.keepalive_timeout_s = {idle_s}\n{IMPATIENT}'


def sentences(document: dict[str, Any], rule: str) -> list[str]:
    return [each["sentence"] for each in document["advice"] if each["rule"] == rule]


def test_every_rule_is_tested_here() -> None:
    tested = {name.partition("_is_told")[0] for name in globals() if "_is_told" in name}
    assert {f"test_{rule.__name__}" for rule in RULES} <= tested


def test_keepalive_race_is_told_with_both_times_and_who_has_none(document: Make) -> None:
    calm = KEPT | {"attempted": 10_000}
    made = document({"defaults": (aiohttp(15), RACED), "tuned": (aiohttp(0.4), calm)})
    [sentence] = sentences(made, "keepalive_race")
    assert sentence == (
        "'defaults': client.aiohttp.keepalive_timeout_s 15 s is longer than the 0.5 s of its"
        " 'impatient' sites: 185 of 50,000 attempts met the keep-alive race, and it repeated at"
        " least 60 in silence; 'tuned' with 0.4 s had none."
    )


@pytest.mark.parametrize(
    ("lines", "figures"),
    [
        (aiohttp(5), KEPT),
        (aiohttp(0.5), KEPT),
        (aiohttp(0.4), KEPT | {"silent": 1}),
        (aiohttp(0.4), KEPT | {"errors": {RACE: 1}}),
        (aiohttp(0.4) + "\nclient.aiohttp.force_close = true", KEPT),
        (aiohttp(0.4) + "\nweb.sites = 5", KEPT),
    ],
    ids=["longer than sites", "as long", "repeats in silence", "races", "keeps none", "other web"],
)
def test_keepalive_race_praises_only_who_is_shorter_than_the_sites_and_met_none(
    document: Make, lines: str, figures: dict[str, Any]
) -> None:
    made = document({"defaults": (aiohttp(15), RACED), "other": (lines, figures)})
    mine = [each for each in sentences(made, "keepalive_race") if each.startswith("'defaults'")]
    assert len(mine) == 1
    assert mine[0].endswith("in silence.")


def test_keepalive_race_counts_the_kinds_that_some_site_is_of(document: Make) -> None:
    kinds = (
        'web.kinds = [{ name = "usual", share = 0.9, keepalive_timeout_s = 4 },'
        ' { name = "rare", share = 0.1, keepalive_timeout_s = 0.5 }]\nweb.sites = '
    )
    lines = f'client.engine = "httpx"\n{kinds}'
    told = {
        sites: sentences(document({"a": (f"{lines}{sites}", RACED), "b": ("", {})}), RULE)
        for sites in (1, 50)
    }
    assert "longer than the 4 s of its 'usual' sites" in told[1][0]
    assert "longer than the 0.5 s of its 'rare' sites" in told[50][0]


def test_keepalive_race_is_nothing_of_sites_that_close_after_one_answer(document: Make) -> None:
    closing = aiohttp(15).replace("share", "keepalive_requests = 1, share")
    made = document({"one": (closing, RACED), "other": ("", {})})
    assert sentences(made, RULE) == []
    made = document({"one": (f"{closing}\nserver.keepalive_timeout_s = 9", RACED), "b": ("", {})})
    assert "this server's 9 s" in sentences(made, RULE)[0]


@pytest.mark.parametrize(
    ("lines", "figures"),
    [
        (aiohttp(15), KEPT),
        (aiohttp(0.4), KEPT | {"errors": {RACE: 3}}),
        (aiohttp(15) + "\nclient.aiohttp.force_close = true", KEPT | {"silent": 3}),
        (NONE_KEPT, RACED),
        ("client.pool.requests_per_connection = 1", RACED),
        ('client.engine = "streams"', KEPT | {"errors": {FULL: 3}}),
    ],
    ids=["no race", "shorter than the server's", "keeps none", "keeps 0", "one use", "no pool"],
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
    quiet = KEPT | {"silent": 20, "errors": {RACE: 4}}
    made = document({"loud": ("", {}), "quiet": ('client.engine = "urllib3"', quiet)})
    [sentence] = sentences(made, "silent_retries")
    assert sentence == (
        "'quiet': at least 100 requests came to the server's host beyond those that the client"
        " tells of (2%): its library repeats what fails. It told of 20 failures; at least 120"
        " happened."
    )


@pytest.mark.parametrize("engine", ["./spider.py:crawl", "httpx"])
def test_silent_retries_are_laid_to_libraries_that_repeat_alone(
    document: Make, engine: str
) -> None:
    made = document({"it": (f'client.engine = "{engine}"', {"silent": 20}), "other": ("", {})})
    [sentence] = sentences(made, "silent_retries")
    assert "at least 100 requests" in sentence
    assert sentence.endswith(": its crawler sends more requests than it tells of.")


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


@pytest.mark.parametrize(
    ("lab", "errors", "told"),
    [
        (f"lab.client.sysctl.{REUSE} = 1", {}, False),
        (f"lab.client.sysctl.{REUSE} = 1", {FULL: 1}, True),
        (f"lab.client.sysctl.{REUSE} = 0", {}, True),
        ('lab.link = "loopback"', {}, False),
        (f'lab.link = "loopback"\nlab.client.sysctl.{REUSE} = 0', {}, True),
    ],
)
def test_ports_that_are_reused_are_not_used_up_until_one_is_refused(
    document: Make,
    lab: str,
    errors: dict[str, int],
    told: bool,
) -> None:
    full = {"ports": (28_000, 28_232), "errors": errors}
    made = document({"one": (lab, full), "other": ("", {})})
    assert len(sentences(made, "ports_nearly_used_up")) == told


def test_ports_that_bind_does_not_find_have_a_sentence_of_their_own(document: Make) -> None:
    ports = {"ports": (28_232, 28_232)}
    made = document({"one": ("", ports | {"errors": {UNBOUND: 24}}), "other": ("", {})})
    [sentence] = sentences(made, "ports_nearly_used_up")
    assert sentence == (
        "'one': bind() found no port for 120 attempts: it takes one for all destinations at once."
        " With client.socket.IP_BIND_ADDRESS_NO_PORT connect() takes it, for one destination alone."
    )
    both = ports | {"errors": {UNBOUND: 24, FULL: 2}}
    made = document({"one": ("", both), "other": ("", {})})
    [_, sentence] = sentences(made, "ports_nearly_used_up")
    assert "and 10 attempts found none" in sentence


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


def pool(key: str, bound: int, more: str = "") -> str:
    return f"web.sites = 50\nclient.pool.{key} = {bound}\n{more}"


def test_churn_is_told_of_a_pool_below_its_users(document: Make) -> None:
    given = {
        "two": (pool("idle_per_site", 2), KEPT | {"per_page": 0.45}),
        "all": (pool("idle_per_site", 64), KEPT),
    }
    [sentence] = sentences(document(given), "churn")
    assert sentence == (
        "'two': client.pool.idle_per_site 2 is less than the 64 users, and it opened 0.45"
        " connections a page, although it keeps them; 'all' opened 0.02."
    )
    # a server that closes makes everybody open again
    given["all"] = (pool("idle_per_site", 64), KEPT | {"per_page": 0.4})
    assert sentences(document(given), "churn") == []


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (pool("size", 49), "client.pool.size 49 is less than the 50 sites, and"),
        (pool("size", 50), ""),
        (pool("idle", 63), "client.pool.idle 63 is less than the 64 users, and"),
        (
            pool("idle", 63, "client.workers = 2"),
            "idle 63, 31 for each worker, is less than the 32 users of each worker, and",
        ),
        (pool("idle", 64, "client.workers = 2"), ""),
        (
            pool("size", 100, "client.workers = 4"),
            "client.pool.size 100, 25 for each worker, is less than the 50 sites, and",
        ),
        (
            pool("idle_per_site", 31, "client.workers = 2"),
            "idle_per_site 31 is less than the 32 users of each worker, and",
        ),
        (pool("idle_per_site", 32, "client.workers = 2"), ""),
        (
            pool(
                "idle_per_site",
                8,
                "client.pool.size = 400\nclient.workers = 2\nlab.client.hosts = 4",
            ),
            "",
        ),
        (pool("requests_per_connection", 1, "client.pool.idle_per_site = 2"), ""),
        ("client.pool.size = 2", ""),
    ],
)
def test_churn_holds_the_bounds_against_those_who_share_them(
    document: Make, lines: str, told: str
) -> None:
    # the first has the same web as each of them
    least = pool("size", 100) if "web" in lines else ""
    made = document({"kept": (least, KEPT), "one": (lines, KEPT | {"per_page": 0.4})})
    found = sentences(made, "churn")
    assert len(found) == bool(told)
    assert told in "".join(found)


def test_churn_says_that_connections_are_kept_only_where_they_are(document: Make) -> None:
    none = 'client.engine = "httpx"\nclient.httpx.max_keepalive_connections = 0\nweb.sites = 50'
    made = document({"none": (none, {}), "kept": (pool("size", 100), KEPT)})
    [sentence] = sentences(made, "churn")
    assert sentence == (
        "'none': client.httpx.max_keepalive_connections 0 keeps none, and it opened 1.00"
        " connections a page; 'kept' opened 0.02."
    )


def test_churn_is_held_against_contestants_of_the_same_web_alone(document: Make) -> None:
    churning = (pool("size", 10), KEPT | {"per_page": 0.4})
    given = {"one": churning, "kept": ("web.sites = 5\nclient.pool.size = 10", KEPT)}
    assert sentences(document(given), "churn") == []
    given["same"] = (pool("size", 64), KEPT | {"per_page": 0.1})
    [sentence] = sentences(document(given), "churn")
    assert sentence.endswith("; 'same' opened 0.1.")


@pytest.mark.parametrize(
    ("lines", "web", "told"),
    [
        ('client.engine = "urllib3"', "web.sites = 5", ["client.urllib3.maxsize 1"]),
        (
            'client.engine = "urllib3"',
            "web.sites = 50",
            ["num_pools 10 is less than the 50 sites and client.urllib3.maxsize 1"],
        ),
        ('client.engine = "requests"', "web.sites = 50", ["client.requests.pool_connections 10"]),
        ('client.engine = "httpx"', "", ["client.httpx.max_keepalive_connections 20"]),
        ('client.engine = "httpx"\nclient.httpx.session = "per-request"', "", []),
        ('client.engine = "aiohttp"', "", []),
    ],
)
def test_churn_of_each_library_is_by_its_own_bounds(
    document: Make, lines: str, web: str, told: list[str]
) -> None:
    kept = ('client.engine = "aiohttp"\n' + web, KEPT)
    made = document({"one": (f"{lines}\n{web}", KEPT | {"per_page": 0.9}), "kept": kept})
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


def test_first_two_that_are_surely_alike_differ_by_less_than_what_matters(document: Make) -> None:
    [sentence] = sentences(document({"a": ("", {}), "b": ("", {})}), "undecided")
    assert "differ by less than 2%" in sentence


@pytest.mark.parametrize(
    ("part", "told"), [(100, "100%"), (54.4, "54%"), (9.6, "9.6%"), (0.0051, "0.0051%"), (0, "0%")]
)
def test_share_has_two_digits_or_all_before_the_point(part: float, told: str) -> None:
    assert percent(part, 100) == told


def test_undecided_is_told_of_the_first_two_where_the_rounds_do_not_tell_them_apart(
    contest: Callable[..., Contest], summary: Make, played: Callable[..., list[Played]]
) -> None:
    # the first in the ranking comes last in the file, so the pair is the other way round
    rates = {"c": [500] * 5, "b": [900, 1000, 1100, 950, 1000], "a": [1100, 1010, 1000, 1020, 990]}
    made = contest(dict.fromkeys(rates, ""))
    runs = {name: [summary(pages_per_s=each) for each in given] for name, given in rates.items()}
    content = build_document(made, played(made, runs))
    assert content["ranking"] == ["a", "b", "c"]
    [sentence] = sentences(content, "undecided")
    found = re.fullmatch(
        "5 rounds do not tell 'a' and 'b' apart: the pages/s of 'a' are between (.+) and (.+)"
        r" times those of 'b'; more rounds \(compare.repeats\) may.",
        sentence,
    )
    assert found
    low, high = (float(each) for each in found.groups())
    mean = prod(one / other for one, other in zip(rates["a"], rates["b"], strict=True)) ** 0.2
    assert low < 1 < high
    assert low * high == pytest.approx(mean**2, rel=1e-3)


def test_undecided_tells_a_small_difference_for_what_it_is(document: Make) -> None:
    near, far = {"pages_per_s": 1010.0}, {"pages_per_s": 500.0}
    small = "'a' and 'b' differ by less than 2%: the pages/s of 'a' are 1.01 times those of 'b'."
    for given in ({"a": near, "b": {}, "c": far}, {"c": far, "b": {}, "a": near}):
        made = document({name: ("", figures) for name, figures in given.items()})
        assert sentences(made, "undecided") == [small]
    assert sentences(document({"a": ("", {}), "c": ("", far)}), "undecided") == []


def test_rounds_too_few_to_compare_are_not_called_undecided(document: Make) -> None:
    assert sentences(document({"a": ("", {}), "b": ("", {})}, repeats=2), "undecided") == []
