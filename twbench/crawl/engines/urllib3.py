"""urllib3 in threads, at its defaults but for `[client.urllib3]` and the two time-outs.

So `Retry.DEFAULT` holds: three further attempts at once after any failure of a GET, redirects among
them. Its time-outs bound the connect and each wait for bytes, and no request as a whole.
"""

from importlib import metadata

import urllib3

from twbench.crawl.engines.surroundings import quiet_urllib3
from twbench.crawl.pages import Crawl, Pages, Visit
from twbench.model.scenario import ClientSpec


def version() -> str:
    """Return the library and its version."""
    return f"urllib3 {metadata.version('urllib3')}"


def crawler(client: ClientSpec) -> Crawl:
    """Return a crawler that has one PoolManager for all threads, which are users, or one a page."""
    spec = client.urllib3
    timeout = urllib3.Timeout(connect=client.connect_timeout_s, read=client.request_timeout_s)

    def manager() -> urllib3.PoolManager:
        return urllib3.PoolManager(
            num_pools=spec.num_pools, maxsize=spec.maxsize, block=spec.block, timeout=timeout
        )

    def share_one(pages: Pages, shared: urllib3.PoolManager) -> None:
        for visit in pages:
            with visit:
                _fetch(shared, visit)

    def one_each(pages: Pages) -> None:
        for visit in pages:
            with visit, manager() as own:
                _fetch(own, visit)

    async def crawl(pages: Pages) -> None:
        quiet_urllib3()
        if spec.session == "per-request":
            await pages.share_threads(lambda: one_each(pages))
            return
        with manager() as shared:
            await pages.share_threads(lambda: share_one(pages, shared))

    return crawl


def _fetch(manager: urllib3.PoolManager, visit: Visit) -> None:
    answer = manager.request("GET", visit.url)
    visit.got(answer.status, len(answer.data))
