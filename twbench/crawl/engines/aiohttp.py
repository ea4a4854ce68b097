"""aiohttp's client, at its defaults but for `[client.aiohttp]` and the two time-outs.

So redirects are followed (ten at most), and what failed on a connection that had served before is
sent once more without a word (`_retry_connection`).
"""

import aiohttp

from twbench.crawl.engines.sessions import in_tasks
from twbench.crawl.pages import Crawl, Visit
from twbench.model.scenario import ClientSpec


def version() -> str:
    """Return the library and its version."""
    return f"aiohttp {aiohttp.__version__}"


def crawler(client: ClientSpec) -> Crawl:
    """Return a crawler that has one session for all its users, or one for each page."""
    spec = client.aiohttp
    timeout = aiohttp.ClientTimeout(
        total=client.request_timeout_s, sock_connect=client.connect_timeout_s
    )

    def session() -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            limit=spec.limit,
            limit_per_host=spec.limit_per_host,
            force_close=spec.force_close,
            # it takes none where it keeps nothing
            keepalive_timeout=None if spec.force_close else spec.keepalive_timeout_s,
        )
        return aiohttp.ClientSession(connector=connector, timeout=timeout)

    return in_tasks(spec.session, session, _fetch)


async def _fetch(session: aiohttp.ClientSession, visit: Visit) -> None:
    async with session.get(visit.url) as answer:
        body = await answer.read()
        visit.got(answer.status, len(body))
