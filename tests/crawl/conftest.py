"""A worker's plan of a crawl."""

from collections.abc import Callable
from typing import Any

import pytest

from twbench.model.plans import Endpoint, FleetPlan
from twbench.model.scenario import Scenario

ENDPOINTS: tuple[Endpoint, ...] = (("127.0.0.1", 8080), ("127.0.0.1", 8081))


@pytest.fixture(scope="session")
def plan() -> Callable[..., FleetPlan]:
    """Return a function that makes a worker's plan out of the tables of a scenario."""

    def make(
        *destinations: Endpoint,
        load: dict[str, Any] | None = None,
        client: dict[str, Any] | None = None,
        worker: int = 0,
        workers: int = 1,
        **tables: object,
    ) -> FleetPlan:
        scenario = {
            "name": "test",
            "load": {"concurrency": 4, "duration_s": 60} | (load or {}),
            "client": {"engine": "streams"} | (client or {}),
            **tables,
        }
        return FleetPlan(
            scenario=Scenario.model_validate(scenario),
            worker=worker,
            workers=workers,
            sources=("127.0.0.1",),
            destinations=destinations or ENDPOINTS,
        )

    return make


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what is under way at a load's end finish for a tenth of a second only."""
    monkeypatch.setattr("twbench.fleet.part.GRACE_NS", 100_000_000)
