"""Crawlers of every make on one frontier: manners, books and pages. Plays no server, makes no lab.

A crawler of one's own is `async def crawl(pages: Pages) -> None`, in a file of one's own:

    from twbench.crawl import Pages

    async def crawl(pages: Pages) -> None:
        async with aiohttp.ClientSession() as session:

            async def user() -> None:
                async for visit in pages:
                    with visit:
                        async with session.get(visit.url) as answer:
                            visit.got(answer.status, len(await answer.read()))

            await pages.share(user)
"""

from twbench.crawl.outcomes import PageError
from twbench.crawl.pages import Crawl, CrawlerError, Pages, Visit

__all__ = ["Crawl", "CrawlerError", "PageError", "Pages", "Visit"]
