"""A library's session in tasks: one for all users, or one for each page."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TypeVar

from twbench.crawl.pages import Crawl, Pages, Visit
from twbench.model.crawling import Session

S = TypeVar("S")


def in_tasks(
    lifetime: Session,
    session: Callable[[], AbstractAsyncContextManager[S]],
    fetch: Callable[[S, Visit], Awaitable[None]],
) -> Crawl:
    """Return a crawler that makes its sessions by `session`, and visits by `fetch`."""

    async def share_one(pages: Pages) -> None:
        async with session() as shared:

            async def user() -> None:
                async for visit in pages:
                    with visit:
                        await fetch(shared, visit)

            await pages.share(user)

    async def one_each(pages: Pages) -> None:
        async def user() -> None:
            async for visit in pages:
                with visit:
                    async with session() as own:
                        await fetch(own, visit)

        await pages.share(user)

    return share_one if lifetime == "shared" else one_each
