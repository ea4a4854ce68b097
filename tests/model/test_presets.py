"""The designs that ship: each is part of a scenario that can be run."""

from collections.abc import Mapping
from typing import Any

import pytest
import tomli_w

from twbench.model.contest import parse_contest
from twbench.model.parse import build_scenario
from twbench.model.presets import PRESETS
from twbench.model.tables import Slug, Table

BASE: dict[str, Any] = {
    "name": "small-crawl",
    "web": {"sites": 3, "kinds": [{"name": "short", "share": 0.5, "keepalive_timeout_s": 2}]},
    "load": {"concurrency": 4, "duration_s": 1},
    "client": {"workers": 2},
}


def laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tables of `below` with those of `above` over them, key by key."""
    whole = dict(below)
    for key, value in above.items():
        table = isinstance(value, Mapping) and isinstance(whole.get(key), Mapping)
        whole[key] = laid_over(whole[key], value) if table else value
    return whole


class _Named(Table):
    name: Slug


@pytest.mark.parametrize("name", PRESETS)
def test_preset_laid_over_a_crawl_is_a_crawl(name: str) -> None:
    made = build_scenario(laid_over(BASE, PRESETS[name].tables), source=name)
    assert made.crawls
    assert made.ending.kind == "server-fin"
    # what a preset sets is there, and so is what it does not name
    dumped = made.model_dump(mode="json")
    assert laid_over(dumped, PRESETS[name].tables) == dumped
    assert (made.web and made.web.sites, made.client.workers) == (3, 2)


FULL: dict[str, Any] = {
    "pool": {"size": 7, "requests_per_connection": 3, "idle": 5},
    "aiohttp": {"force_close": True, "limit": 1},
    "httpx": {"session": "per-request"},
    "requests": {"pool_maxsize": 1},
    "urllib3": {"block": True},
}
OWN = {
    "streams": ("pool", "size"),
    "aiohttp": ("aiohttp", "limit"),
    "requests": ("requests", "pool_maxsize"),
}


@pytest.mark.parametrize("name", PRESETS)
def test_preset_is_the_same_design_over_whatever_pool_and_libraries_the_base_has(name: str) -> None:
    base = BASE | {"compare": {"repeats": 1}}
    full = base | {"client": FULL | {"workers": 2, "connect_timeout_s": 3}}
    bare = base | {"client": {"workers": 2, "connect_timeout_s": 3}}
    mine = {"name": "mine", "preset": name}
    table, key = OWN[PRESETS[name].tables["client"]["engine"]]
    own = mine | {"name": "own", "client": {table: {key: 9}}}
    made = [
        parse_contest(tomli_w.dumps(tables | {"contestant": [mine, own]}), source=name).contestants
        for tables in (full, bare)
    ]
    (over_full, own_full), (over_bare, own_bare) = made
    assert over_full.scenario == over_bare.scenario
    assert over_full.scenario.client.connect_timeout_s == 3
    # what a contestant says itself still goes over its preset
    assert own_full.scenario == own_bare.scenario
    assert getattr(getattr(own_full.scenario.client, table), key) == 9


@pytest.mark.parametrize("client", [None, 3, {}])
def test_base_without_a_client_stays_as_it_is(client: object) -> None:
    base = {"load": {}} if client is None else {"load": {}, "client": client}
    assert PRESETS["go-like"].over(base) == base


def test_designs_that_bound_idle_connections_alone_bound_none_in_use() -> None:
    for name, idle in (("go-like", 100), ("scrapy-like", None)):
        client = build_scenario(laid_over(BASE, PRESETS[name].tables), source=name).client
        assert client.pool
        assert (client.pool.size, client.pool.idle) == (100_000, idle)


def test_designs_that_people_use_ship() -> None:
    assert [*PRESETS] == [
        "per-page-connection",
        "session-per-request",
        "shared-session-defaults",
        "tuned-pool",
        "scrapy-like",
        "go-like",
        "requests-threads",
    ]
    for name, preset in PRESETS.items():
        assert _Named(name=name).name == name
        assert preset.sentence[0].islower() or preset.sentence[0].isdigit()
        assert not preset.sentence.endswith(".")


def test_no_two_presets_are_the_same_design() -> None:
    made = [
        build_scenario(laid_over(BASE, preset.tables), source=name).model_dump_json()
        for name, preset in PRESETS.items()
    ]
    assert len(set(made)) == len(PRESETS)
