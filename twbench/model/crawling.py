"""`[web]`, `[client.crawl]` and the libraries' tables: what crawlers meet, and how they are set."""

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from twbench.model.tables import Slug, Table, refuse, refuse_each

LIBRARIES = ("aiohttp", "httpx", "requests", "urllib3")
"""Engines of the client that are somebody else's HTTP client."""
_OWN = r".+\.py:[A-Za-z_]\w*"


_ENGINES = ("auto", "streams", "uring", *LIBRARIES)


def _client_engine(engine: str) -> str:
    if engine not in _ENGINES and not re.fullmatch(_OWN, engine):
        names = ", ".join(_ENGINES)
        raise refuse(f"allowed is one of: {names}; or a coroutine, as in './crawler.py:crawl'")
    return engine


ClientEngine = Annotated[
    str,
    AfterValidator(_client_engine),
    Field(json_schema_extra={"anyOf": [{"enum": [*_ENGINES]}, {"pattern": f"^{_OWN}$"}]}),
]
"""An engine of ours, an HTTP library, or a coroutine of the user's as `FILE.py:NAME`."""

_SESSION = "shared: one for the whole worker; per-request: a new one for each page"
Session = Literal["shared", "per-request"]


class SiteKind(Table):
    """`[[web.kinds]]`: what a share of the sites does otherwise than `[server]` says."""

    name: Slug = Field(description="as it appears in results")
    share: float = Field(gt=0, le=1, description="share of the sites that are of this kind")
    delay_ms: float | None = Field(None, ge=0, le=600_000, description="time to think")
    keepalive_timeout_s: float | None = Field(None, gt=0, le=86_400, description="idle time")
    keepalive_requests: int | None = Field(
        None, ge=1, description="closed after so many; 1: the site closes first, always"
    )


class Web(Table):
    """`[web]`: the sites that the server plays, by the name in a request's Host."""

    sites: int = Field(20, ge=1, le=1000, description="site-1.test, site-2.test, …")
    popularity: float = Field(
        1.0, ge=0, le=5, description="exponent of Zipf's law among the sites; 0: all alike"
    )
    pages: int = Field(1000, ge=1, le=1_000_000, description="pages of each site: /0, /1, …")
    links: int = Field(10, ge=0, le=100, description="links on each page, to other pages")
    body_sigma: float = Field(
        0, ge=0, le=3, description="of lognormal sizes around server.response_bytes; 0: all alike"
    )
    redirects: float = Field(
        0, ge=0, le=0.9, description="share of the pages that redirect (302) to another of the site"
    )
    kinds: tuple[SiteKind, ...] = Field((), max_length=20, description="sites that are different")

    @model_validator(mode="after")
    def _check(self) -> Self:
        wrong = []
        if sum(kind.share for kind in self.kinds) > 1 + 1e-9:
            wrong.append((("kinds",), "allowed are shares of 1 together, at the most"))
        if len({kind.name for kind in self.kinds}) < len(self.kinds):
            wrong.append((("kinds",), "allowed is each name once"))
        refuse_each("web", wrong)
        return self


class CrawlSpec(Table):
    """`[client.crawl]`: the manners of a crawler, whatever library it uses."""

    per_site: int | None = Field(
        None, ge=1, le=100_000, description="requests to one site at a time; unset: no limit"
    )
    site_delay_ms: float = Field(
        0, ge=0, le=600_000, description="from the start of a request to a site to the next"
    )
    think_ms: float = Field(0, ge=0, le=600_000, description="pause of a user after each page")


class AiohttpSpec(Table):
    """`[client.aiohttp]`: ClientSession and TCPConnector, with the library's defaults."""

    session: Session = Field("shared", description=_SESSION)
    limit: int = Field(100, ge=0, le=100_000, description="connections; 0: no limit")
    limit_per_host: int = Field(0, ge=0, le=100_000, description="to one site; 0: no limit")
    keepalive_timeout_s: float = Field(15, gt=0, le=86_400, description="idle ones are closed")
    force_close: bool = Field(default=False, description="a connection for each request")


class HttpxSpec(Table):
    """`[client.httpx]`: AsyncClient and Limits, with the library's defaults."""

    session: Session = Field("shared", description=_SESSION)
    max_connections: int = Field(100, ge=0, le=100_000, description="0: no limit")
    max_keepalive_connections: int = Field(20, ge=0, le=100_000, description="idle at the most")
    keepalive_expiry_s: float = Field(5, ge=0, le=86_400, description="idle ones are closed")


class RequestsSpec(Table):
    """`[client.requests]`: a Session with an HTTPAdapter, in threads, with its defaults."""

    session: Session = Field("shared", description="shared: one for each thread; per-request")
    pool_connections: int = Field(10, ge=1, le=100_000, description="sites that have a pool")
    pool_maxsize: int = Field(10, ge=1, le=100_000, description="idle connections of each pool")


class Urllib3Spec(Table):
    """`[client.urllib3]`: one PoolManager for all threads, with the library's defaults."""

    session: Session = Field("shared", description=_SESSION)
    num_pools: int = Field(10, ge=1, le=100_000, description="sites that have a pool")
    maxsize: int = Field(1, ge=1, le=100_000, description="idle connections of each pool")
    block: bool = Field(default=False, description="maxsize bounds those in use too")
