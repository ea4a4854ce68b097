"""Crawler designs that people use, each as the part of a scenario that makes it."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from twbench.model.crawling import LIBRARIES

_REPLACED = frozenset({"pool", *LIBRARIES})
_UNBOUNDED = 100_000
"""Connections in use, of designs that bound the idle ones alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Preset:
    """A design."""

    sentence: str
    tables: Mapping[str, Any]
    """What it lays over a scenario, as the TOML file would have it."""

    def over(self, base: Mapping[str, Any]) -> dict[str, Any]:
        """Return what is left of a scenario below this design: all but how its client keeps alive.

        The pool and the libraries' tables are the design: it has its own, or the defaults.
        """
        client = base.get("client")
        if not isinstance(client, Mapping):
            return dict(base)
        left = {key: value for key, value in client.items() if key not in _REPLACED}
        return {**base, "client": left}


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "per-page-connection": Preset(
            sentence="a new connection for each page, as simple scripts do",
            tables={"client": {"engine": "streams"}},
        ),
        "session-per-request": Preset(
            sentence="aiohttp with a ClientSession for each page, the classic mistake",
            tables={"client": {"engine": "aiohttp", "aiohttp": {"session": "per-request"}}},
        ),
        "shared-session-defaults": Preset(
            sentence="aiohttp with one ClientSession and its defaults",
            tables={"client": {"engine": "aiohttp"}},
        ),
        "tuned-pool": Preset(
            sentence="aiohttp with one ClientSession that drops idle connections before servers do",
            tables={
                "client": {
                    "engine": "aiohttp",
                    "retries": 2,
                    "aiohttp": {"limit": 0, "limit_per_host": 8, "keepalive_timeout_s": 4},
                }
            },
        ),
        "scrapy-like": Preset(
            sentence="16 requests at a time, 8 to a site, kept connections, 2 retries (Scrapy)",
            tables={
                "load": {"concurrency": 16},
                "client": {
                    "engine": "streams",
                    "retries": 2,
                    "crawl": {"per_site": 8},
                    "pool": {"size": _UNBOUNDED, "idle_per_site": 8, "idle_expiry_s": 240},
                },
            },
        ),
        "go-like": Preset(
            sentence="2 idle connections a site, 100 in all, for 90 s (Go's http.Transport)",
            tables={
                "client": {
                    "engine": "streams",
                    "pool": {
                        "size": _UNBOUNDED,
                        "idle": 100,
                        "idle_per_site": 2,
                        "idle_expiry_s": 90,
                    },
                }
            },
        ),
        "requests-threads": Preset(
            sentence="threads with a requests.Session each",
            tables={"client": {"engine": "requests"}},
        ),
    }
)
"""By name."""
