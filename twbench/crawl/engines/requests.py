"""requests in threads, at its defaults but for `[client.requests]` and the two time-outs.

So redirects are followed (30 at most), and nothing is sent twice. Its time-outs bound the connect
and each wait for bytes, and no request as a whole.
"""

import requests
from requests.adapters import HTTPAdapter

from twbench.crawl.engines.surroundings import quiet_urllib3
from twbench.crawl.pages import Crawl, Pages
from twbench.model.scenario import ClientSpec


def version() -> str:
    """Return the library and its version."""
    return f"requests {requests.__version__}"


def crawler(client: ClientSpec) -> Crawl:
    """Return a crawler that has a session for each thread, which is a user, or for each page."""
    spec = client.requests
    timeout_s = (client.connect_timeout_s, client.request_timeout_s)

    def keep_one(pages: Pages) -> None:
        with requests.Session() as session:
            session.mount(
                "http://",
                HTTPAdapter(pool_connections=spec.pool_connections, pool_maxsize=spec.pool_maxsize),
            )
            for visit in pages:
                with visit:
                    answer = session.get(visit.url, timeout=timeout_s)
                    visit.got(answer.status_code, len(answer.content))

    def one_each(pages: Pages) -> None:
        for visit in pages:
            with visit:
                answer = requests.get(visit.url, timeout=timeout_s)
                visit.got(answer.status_code, len(answer.content))

    user = keep_one if spec.session == "shared" else one_each

    async def crawl(pages: Pages) -> None:
        quiet_urllib3()
        await pages.share_threads(lambda: user(pages))

    return crawl
