"""Sites by their names: a run whose crawler asks a server that plays a web."""

from pathlib import Path

import pytest

from twbench.model.scenario import Scenario
from twbench.run.course import run_scenario


@pytest.mark.namespaces
@pytest.mark.parametrize("engine", ["streams", "aiohttp", "requests"])
def test_every_page_of_every_site_is_found_behind_its_redirects(
    engine: str, tmp_path: Path
) -> None:
    scenario = {
        "name": "sites",
        "web": {
            "sites": 6,
            "pages": 50,
            "redirects": 0.3,
            "body_sigma": 1.0,
            "kinds": [{"name": "closes", "share": 0.3, "keepalive_requests": 1}],
        },
        "lab": {"server": {"ports": [8080, 8081]}},
        "load": {"concurrency": 8, "duration_s": 60, "requests": 400},
        "client": {
            "engine": engine,
            "workers": 2,
            **({"pool": {"size": 20, "idle_per_site": 2}} if engine == "streams" else {}),
            "crawl": {"per_site": 3},
        },
    }
    result = run_scenario(Scenario.model_validate(scenario), results_dir=tmp_path)
    outcomes = result.summary["outcomes"]
    assert (outcomes["attempted"], outcomes["ok"], outcomes["errors"]) == (400, 400, {})
    assert result.summary["audit"]["balanced"]
