# ruff: noqa: INP001 - a script of its own
"""A crawler of one's own: aiohttp with a pool that fits the sites it visits.

twbench run configs/crawl.toml --engine docs/examples/my_crawler.py:crawl
"""

import aiohttp

from twbench.crawl import Pages


async def crawl(pages: Pages) -> None:
    """Visit the pages that are handed out, with as many users as the scenario says."""
    pool = aiohttp.TCPConnector(limit_per_host=4, keepalive_timeout=0.4)
    async with aiohttp.ClientSession(connector=pool) as session:

        async def user() -> None:
            async for visit in pages:
                # what fails in here is booked by its kind; the user goes on with the next page
                with visit:
                    async with session.get(visit.url) as answer:
                        visit.got(answer.status, len(await answer.read()))

        await pages.share(user)
