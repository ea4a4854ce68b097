"""What a scenario may say of crawls: sites, libraries, manners, and what it cannot be told."""

import inspect
from typing import Any

import pytest
from pydantic import ValidationError

from twbench.model.crawling import (
    LIBRARIES,
    AiohttpSpec,
    HttpxSpec,
    RequestsSpec,
    Urllib3Spec,
    Web,
)
from twbench.model.endings import ENDINGS
from twbench.model.errors import ScenarioError
from twbench.model.parse import build_scenario
from twbench.model.scenario import Scenario

CLOSED = {"concurrency": 4, "duration_s": 1}
OWN = "./my_crawler.py:crawl"
CRAWLS = [
    {"web": {}},
    {"web": {}, "client": {"engine": "streams"}},
    *({"client": {"engine": name}} for name in (*LIBRARIES, OWN)),
]
"""The least that makes a scenario a crawl."""


def scenario(**tables: Any) -> Scenario:  # noqa: ANN401 - whatever TOML holds
    return build_scenario({"name": "x", "load": CLOSED, **tables}, source="test")


def problems(**tables: Any) -> list[tuple[str, str]]:  # noqa: ANN401 - whatever TOML holds
    """Return key and what is allowed there, for each problem of a scenario."""
    with pytest.raises(ScenarioError) as caught:
        scenario(**tables)
    return [(problem.key, problem.allowed) for problem in caught.value.problems]


# the web


def test_web_has_twenty_sites_unless_it_says_otherwise() -> None:
    web = scenario(web={}).web
    assert web == Web()
    assert (web.sites, web.kinds) == (20, ())


# key of [web], the least and the most it may be
@pytest.mark.parametrize(
    ("key", "least", "most", "step"),
    [
        ("sites", 1, 1000, 1),
        ("popularity", 0, 5, 0.1),
        ("pages", 1, 1_000_000, 1),
        ("links", 0, 100, 1),
        ("body_sigma", 0, 3, 0.1),
        ("redirects", 0, 0.9, 0.01),
    ],
)
def test_figure_of_the_web_has_a_least_and_a_most(
    key: str, least: float, most: float, step: float
) -> None:
    for allowed in (least, most):
        scenario(web={key: allowed})
    for beyond in (least - step, most + step):
        assert [where for where, _ in problems(web={key: beyond})] == [f"web.{key}"]


def test_kind_is_a_share_of_the_sites_and_what_is_different_there() -> None:
    kind = {"name": "short", "share": 0.5, "keepalive_timeout_s": 2, "keepalive_requests": 1}
    web = scenario(web={"kinds": [kind]}).web
    assert web is not None
    [made] = web.kinds
    assert made.model_dump(exclude_none=True) == kind
    for key, wrong in (("share", 0), ("share", 1.1), ("name", "A b"), ("keepalive_requests", 0)):
        found = problems(web={"kinds": [kind | {key: wrong}]})
        assert [where for where, _ in found] == [f"web.kinds.0.{key}"]


def test_kinds_share_all_sites_at_the_most_and_have_a_name_each() -> None:
    both = [{"name": "a", "share": 0.6}, {"name": "a", "share": 0.6}]
    assert problems(web={"kinds": both}) == [
        ("web.kinds", "allowed are shares of 1 together, at the most"),
        ("web.kinds", "allowed is each name once"),
    ]
    # ten times a tenth is a little more than 1 in floating point
    scenario(web={"kinds": [{"name": f"k{n}", "share": 0.1} for n in range(10)]})


# engines


@pytest.mark.parametrize(
    "engine",
    ["auto", "streams", "uring", *LIBRARIES, OWN, "/a b/c.py:_d1", "../x.py:X", "c:/y.py:z"],
)
def test_engine_is_ours_or_a_library_or_a_coroutine(engine: str) -> None:
    client = scenario(client={"engine": engine}).client
    assert client.engine == engine
    assert client.is_own == (":" in engine)


@pytest.mark.parametrize(
    "engine", ["", "scrapy", "x.py", "x.py:", ".py:crawl", "x.py:1a", "x.py:a.b", "x.sh:a", "x:a"]
)
def test_any_other_engine_is_refused_with_a_list_of_those_there_are(engine: str) -> None:
    [(key, allowed)] = problems(client={"engine": engine})
    assert key == "client.engine"
    for name in ("auto", "streams", "uring", *LIBRARIES, "'./crawler.py:crawl'"):
        assert name in allowed


def default(function: Any, parameter: str) -> Any:  # noqa: ANN401 - of whatever library
    return inspect.signature(function).parameters[parameter].default


async def test_aiohttp_has_the_defaults_of_the_library() -> None:
    import aiohttp

    spec = AiohttpSpec()
    for name in ("limit", "limit_per_host", "force_close"):
        assert getattr(spec, name) == default(aiohttp.TCPConnector, name)
    async with aiohttp.TCPConnector() as connector:
        # the signature has a sentinel, which stands for this
        assert vars(connector)["_keepalive_timeout"] == spec.keepalive_timeout_s


def test_httpx_has_the_defaults_of_the_library() -> None:
    import httpx

    limits = default(httpx.AsyncClient, "limits")
    spec = HttpxSpec()
    assert spec.max_connections == limits.max_connections
    assert spec.max_keepalive_connections == limits.max_keepalive_connections
    assert spec.keepalive_expiry_s == limits.keepalive_expiry


def test_requests_and_urllib3_have_the_defaults_of_the_libraries() -> None:
    import requests.adapters
    import urllib3

    adapter = RequestsSpec()
    for name in ("pool_connections", "pool_maxsize"):
        assert getattr(adapter, name) == default(requests.adapters.HTTPAdapter, name)
    spec = Urllib3Spec()
    assert spec.num_pools == default(urllib3.PoolManager, "num_pools")
    for name in ("maxsize", "block"):
        assert getattr(spec, name) == default(urllib3.HTTPConnectionPool, name)


@pytest.mark.parametrize("library", LIBRARIES)
def test_session_is_shared_or_made_for_each_request(library: str) -> None:
    for session in ("shared", "per-request"):
        scenario(client={"engine": library, library: {"session": session}})
    [(key, _)] = problems(client={library: {"session": "none"}})
    assert key == f"client.{library}.session"


# what makes a crawl, and what it is then


@pytest.mark.parametrize("tables", CRAWLS, ids=str)
def test_crawl_ends_with_the_server_unless_the_file_says_otherwise(tables: dict[str, Any]) -> None:
    made = scenario(**tables)
    assert made.crawls
    assert made.ending.kind == "server-fin"
    assert scenario(**tables, ending={"hold_s": 3}).ending.hold_s == 3
    assert scenario(**tables, ending={"hold_s": 3}).ending.kind == "server-fin"
    assert scenario(**tables, ending={"kind": "server-rst"}).ending.kind == "server-rst"


@pytest.mark.parametrize("engine", ["auto", "streams", "uring"])
def test_engine_of_ours_without_a_web_is_no_crawl(engine: str) -> None:
    made = scenario(client={"engine": engine})
    assert not made.crawls
    assert made.ending.kind == "client-fin"


def test_scenario_for_a_foreign_client_is_another_and_leaves_the_first() -> None:
    made = scenario()
    foreign = made.for_foreign_client()
    assert (made.ending.kind, foreign.ending.kind) == ("client-fin", "server-fin")
    assert foreign.model_copy(update={"ending": made.ending}) == made
    chosen = scenario(ending={"kind": "client-fin"})
    assert chosen.for_foreign_client().ending.kind == "client-fin"


def test_crawl_survives_the_way_to_a_worker() -> None:
    made = scenario(web={"sites": 3}, client={"engine": "aiohttp"})
    assert Scenario.model_validate_json(made.model_dump_json()) == made


SERVERS = [n for n, e in ENDINGS.items() if n.startswith("server-") and e.answered]


@pytest.mark.parametrize("kind", SERVERS)
def test_ending_of_a_crawl_is_a_part_of_the_server(kind: str) -> None:
    scenario(web={}, server={"keepalive_timeout_s": 2}, ending={"kind": kind}, client={"pool": {}})


@pytest.mark.parametrize("kind", [name for name in ENDINGS if name not in SERVERS])
def test_ending_that_is_not_the_servers_part_is_refused_for_a_crawl(kind: str) -> None:
    allowed = "allowed is the server's part: server-fin, server-rst, server-half-close, server-idle"
    sentence = f"how a crawler closes is its library's choice; {allowed}"
    crawls: list[dict[str, Any]] = [{"web": {}}, {"client": {"engine": "aiohttp"}}]
    for tables in crawls:
        found = problems(**tables, lab={"link": "wire"}, ending={"kind": kind})
        assert ("ending.kind", sentence) in found


COROUTINE = "or a coroutine, as in './crawler.py:crawl'"
REFUSED: list[tuple[dict[str, Any], str, str]] = [
    (
        {"web": {}, "client": {"engine": "uring"}},
        "client.engine",
        f"with [web] allowed is one of: auto, streams, {', '.join(LIBRARIES)}; {COROUTINE}",
    ),
    (
        {"web": {}, "server": {"engine": "uring"}},
        "server.engine",
        "sites are played by 'streams': allowed is auto or streams",
    ),
    (
        {"load": {"mode": "open", "rate_per_s": 5, "duration_s": 1}},
        "load.mode",
        "a crawl has users who wait for answers: allowed is 'closed'",
    ),
    (
        {"load": {"stages": [{"duration_s": 1, "concurrency": 5}]}},
        "load.stages",
        "a crawl has one number of users: allowed is duration_s",
    ),
    (
        {"lab": {"link": "host"}},
        "lab.link",
        "sites have names of their own: allowed is a link of own hosts",
    ),
    (
        {"lab": {"client": {"addresses": 2}}},
        "lab.client.addresses",
        "a crawler's library chooses its source: allowed is 1",
    ),
    (
        {"client": {"engine": "aiohttp", "socket": {"TCP_NODELAY": True}}},
        "client.socket",
        "a crawler's library makes its sockets: allowed is nothing here",
    ),
    (
        {"client": {"engine": "aiohttp", "bind_before_connect": True}},
        "client.socket",
        "a crawler's library makes its sockets: allowed is nothing here",
    ),
    (
        {"web": {}, "client": {"pool": {"idle_gap_ms": 5}}},
        "client.pool.idle_gap_ms",
        "users of a crawl pause by client.crawl.think_ms: allowed is 0",
    ),
]


@pytest.mark.parametrize(("tables", "key", "allowed"), REFUSED, ids=[row[1] for row in REFUSED])
def test_what_no_crawl_can_be_told_is_refused(
    tables: dict[str, Any], key: str, allowed: str
) -> None:
    crawl = tables if "web" in tables else {"client": {"engine": "aiohttp"}} | tables
    assert problems(**crawl) == [(key, allowed)]


@pytest.mark.parametrize(
    "tables", [tables for tables, key, _ in REFUSED if not key.startswith("client.")], ids=str
)
def test_the_same_is_allowed_without_a_crawl(tables: dict[str, Any]) -> None:
    scenario(**{name: table for name, table in tables.items() if name != "web"})


@pytest.mark.parametrize("engine", [*LIBRARIES, OWN])
def test_pool_of_our_own_is_refused_beside_one_that_is_not(engine: str) -> None:
    allowed = f"'{engine}' has a pool of its own: allowed with 'streams' alone"
    assert problems(client={"engine": engine, "pool": {}}) == [("client.pool", allowed)]
    scenario(web={}, client={"pool": {}})


@pytest.mark.parametrize("engine", ["auto", "streams", "uring", "httpx", OWN])
def test_librarys_table_beside_another_engine_is_its_defaults(engine: str) -> None:
    allowed = f"the engine is '{engine}': allowed with 'aiohttp' alone"
    found = problems(client={"engine": engine, "aiohttp": {"limit": 3}})
    assert found == [("client.aiohttp", allowed)]
    scenario(client={"engine": engine, "aiohttp": {"limit": 100}})
    scenario(client={"engine": "aiohttp", "aiohttp": {"limit": 3}})


# what manners, sites, workers and hosts make one worker too many
@pytest.mark.parametrize(
    ("crawl", "sites", "workers", "hosts", "most"),
    [
        ({"site_delay_ms": 1}, 1, 2, 1, 1),
        ({"site_delay_ms": 1, "per_site": 9}, 5, 3, 2, 5),
        ({"per_site": 1}, 1, 2, 1, 1),
        ({"per_site": 2}, 3, 5, 1, 4),
    ],
)
def test_workers_without_a_site_are_refused(
    crawl: dict[str, int], sites: int, workers: int, hosts: int, most: int
) -> None:
    tables = {"lab": {"client": {"hosts": hosts}}, "load": CLOSED | {"concurrency": 99}}
    client = {"workers": workers, "crawl": crawl}
    together = (
        f"allowed is at most {most} on all client hosts together (lab.client.hosts is {hosts})"
    )
    allowed = f"{together}: more would have no site of their own, by client.crawl"
    assert problems(web={"sites": sites}, client=client, **tables) == [("client.workers", allowed)]
    scenario(web={"sites": sites + 1}, client=client, **tables)
    scenario(web={"sites": sites}, client=client | {"crawl": {}}, **tables)


def test_worker_without_a_user_is_refused_in_a_crawl() -> None:
    one = {"load": CLOSED | {"concurrency": 1}, "client": {"workers": 2}}
    each = "one for each worker (client.workers x lab.client.hosts)"
    assert problems(web={}, **one) == [("load.concurrency", f"allowed is at least 2, {each}")]
    scenario(**one)


def test_plain_server_on_a_ring_may_be_crawled_by_a_library() -> None:
    scenario(server={"engine": "uring"}, client={"engine": "aiohttp"})


def test_all_that_a_crawl_cannot_be_told_is_reported_at_once() -> None:
    found = problems(
        web={},
        server={"engine": "uring"},
        client={"engine": "uring", "socket": {"SO_KEEPALIVE": True}},
        lab={"link": "host", "client": {"addresses": 2}},
        load={"mode": "open", "stages": [{"duration_s": 1, "rate_per_s": 5}]},
        ending={"kind": "client-rst"},
    )
    assert [key for key, _ in found] == [
        "ending.kind",
        "client.engine",
        "server.engine",
        "load.mode",
        "load.stages",
        "lab.link",
        "lab.client.addresses",
        "client.socket",
    ]


def test_tables_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Web().sites = 3  # type: ignore[misc]
