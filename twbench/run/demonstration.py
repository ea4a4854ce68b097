"""The demo's three acts: the same load, and only who closes first, or whether at all, changes."""

from twbench.model.parse import build_scenario
from twbench.model.scenario import Scenario

RATE_PER_S = 300
DURATION_S = 22
PORTS = (32768, 36863)
"""4,096 ports instead of the default 28,232, so that they run out in seconds and not in minutes."""

_ACTS = (
    ("client-closes-first", "a crawler that opens a connection per page", "client-fin", None),
    ("server-closes-first", "the same load, and the server closes first", "server-fin", None),
    ("keep-alive", "the same load over a pool of kept connections", "client-fin", {"size": 50}),
)


def acts() -> list[Scenario]:
    """Return the three scenarios, in the order in which they are told."""
    return [_act(name, description, kind, pool) for name, description, kind, pool in _ACTS]


def _act(name: str, description: str, kind: str, pool: dict[str, int] | None) -> Scenario:
    client = {"pool": pool} if pool else {}
    ports = f"{PORTS[0]} {PORTS[1]}"
    return build_scenario(
        {
            "name": name,
            "description": description,
            "ending": {"kind": kind},
            "lab": {"client": {"sysctl": {"net.ipv4.ip_local_port_range": ports}}},
            "load": {"mode": "open", "rate_per_s": RATE_PER_S, "duration_s": DURATION_S},
            "client": client,
        },
        source=f"demo, {name}",
    )
