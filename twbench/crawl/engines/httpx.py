"""httpx's AsyncClient, at its defaults but for `[client.httpx]` and the two time-outs.

It is told to follow redirects, which by default it does not; then 20 at most. It sends nothing
twice. Its time-outs bound each wait, for a connection of the pool too, and no request as a whole.
"""

import httpx

from twbench.crawl.engines.sessions import in_tasks
from twbench.crawl.pages import Crawl, Visit
from twbench.model.scenario import ClientSpec


def version() -> str:
    """Return the library and its version."""
    return f"httpx {httpx.__version__}"


def crawler(client: ClientSpec) -> Crawl:
    """Return a crawler that has one client for all its users, or one for each page."""
    spec = client.httpx
    limits = httpx.Limits(
        max_connections=spec.max_connections or None,
        max_keepalive_connections=spec.max_keepalive_connections,
        keepalive_expiry=spec.keepalive_expiry_s,
    )
    timeout = httpx.Timeout(client.request_timeout_s, connect=client.connect_timeout_s)

    def session() -> httpx.AsyncClient:
        return httpx.AsyncClient(limits=limits, timeout=timeout, follow_redirects=True)

    return in_tasks(spec.session, session, _fetch)


async def _fetch(client: httpx.AsyncClient, visit: Visit) -> None:
    answer = await client.get(visit.url)
    visit.got(answer.status_code, len(answer.content))
