"""The designs that ship: each is part of a scenario that can be run."""

from collections.abc import Mapping
from typing import Any

import pytest

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
