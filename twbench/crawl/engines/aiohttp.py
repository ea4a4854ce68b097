"""aiohttp's client, at its defaults but for `[client.aiohttp]` and the two time-outs.

So redirects are followed (ten at most), and what failed on a connection that had served before is
sent once more without a word (`_retry_connection`).
"""

import aiohttp

from twbench.crawl.pages import Crawl, Pages, Visit
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

    async def share_one(pages: Pages) -> None:
        async with session() as shared:

            async def user() -> None:
                async for visit in pages:
                    with visit:
                        await _fetch(shared, visit)

            await pages.share(user)

    async def one_each(pages: Pages) -> None:
        async def user() -> None:
            async for visit in pages:
                with visit:
                    async with session() as own:
                        await _fetch(own, visit)

        await pages.share(user)

    return share_one if spec.session == "shared" else one_each


async def _fetch(session: aiohttp.ClientSession, visit: Visit) -> None:
    async with session.get(visit.url) as answer:
        body = await answer.read()
        visit.got(answer.status, len(body))
