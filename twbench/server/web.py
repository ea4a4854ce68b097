"""A server that plays sites: what it answers follows from a request's Host and path."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache, partial

from twbench.model.crawling import Web
from twbench.model.plans import Endpoint, ServerPlan
from twbench.model.sites import DOMAIN, Page, Sites
from twbench.server.behaviour import Behaviour, answer_head, filler, not_found
from twbench.server.http import HttpConnection, Listener
from twbench.server.ledger import Ledger

_HTML = "Content-Type: text/html"
_URL = re.compile(r"(?:http://([^/?]+)|(?=/))/?([^?]*)(?:\?.*)?", re.IGNORECASE)
_NUMBER = re.compile(r"0|[1-9][0-9]{0,6}")
_LIKE_A_SITE = re.compile(rf"site-[^:]*\.{DOMAIN}(:[0-9]+)?")
_FILLER = memoryview(filler(1 << 20))
_REMEMBERED = 1 << 15
"""Requests whose answers are kept ready, about 2 kB each: bodies are filled up as they leave."""


class WebAnswers:
    """What each request to a web is answered with."""

    def __init__(self, web: Web, plan: ServerPlan) -> None:
        """Take a web, and the plan that says the rest of the server."""
        self._sites = Sites(web, median_bytes=plan.server.response_bytes, seed=plan.seed)
        self.usual = Behaviour.of(plan)
        self._kinds = tuple(self._kind(site) for site in range(web.sites))
        index = _index(self._sites.names, plan.endpoints)
        whole = tuple(head + index for head in _heads(len(index)))
        self._index = replace(self.usual, answer=whole.__getitem__)
        self.at = lru_cache(_REMEMBERED)(self._at)

    def _at(self, host: bytes, url: bytes) -> Behaviour:
        """Return the behaviour towards a request; for what there is not, that is a 404.

        A name that is like no site's, an address as a rule, has one page: the index of all sites.
        """
        found = _URL.fullmatch(url.decode("latin-1"))
        if found is None:
            return not_found(self.usual)
        # RFC 9112 section 3.2.2: an absolute URL overrules Host
        name, path = (found[1] or host.decode("latin-1")).lower(), found[2]
        site = self._sites.number(name)
        if site is not None:
            return self._page(site, path)
        if path or _LIKE_A_SITE.fullmatch(name):
            return not_found(self.usual)
        return self._index

    def _kind(self, site: int) -> Behaviour:
        """Return the behaviour of a site, whatever page is asked for."""
        kind = self._sites.kind(site)
        if kind is None:
            return self.usual
        given = kind.model_dump(exclude={"name", "share"}, exclude_none=True)
        if (delay_ms := given.pop("delay_ms", None)) is not None:
            given["delay_s"] = delay_ms / 1000
        return replace(self.usual, **given)

    def _page(self, site: int, path: str) -> Behaviour:
        kind, path = self._kinds[site], path or "0"
        if not _NUMBER.fullmatch(path) or int(path) >= self._sites.web.pages:
            return not_found(kind)
        page = self._sites.page(site, int(path))
        if page.redirects_to is not None:
            heads = _heads(0, status="302 Found", about=f"Location: /{page.redirects_to}")
            return replace(kind, answer=heads.__getitem__, redirects=True)
        text = opening(f"{self._sites.names[site]}/{path}", page)
        return replace(kind, answer=partial(_filled, _heads(page.body_bytes), text, page))


def opening(title: str, page: Page) -> bytes:
    """Return how a page begins: with as many of its links as it has room for, each whole."""
    links: list[str] = []
    left_bytes = page.body_bytes - len(_document(title, links))
    for number in page.links:
        link = f'<a href="/{number}">{number}</a>\n'
        left_bytes -= len(link)
        if left_bytes < 0:
            break
        links.append(link)
    return _document(title, links)[: page.body_bytes]


def _index(names: Sequence[str], endpoints: Sequence[Endpoint]) -> bytes:
    """Return a page that links all sites, each at the port where it is played."""
    ports = (endpoints[site % len(endpoints)][1] for site in range(len(names)))
    urls = (f"http://{name}:{port}/" for name, port in zip(names, ports, strict=True))
    return _document("sites", (f'<a href="{url}">{url}</a>\n' for url in urls))


def _document(title: str, links: Iterable[str]) -> bytes:
    # these elements need no end tag, so any text may follow (HTML section 13.1.2.4)
    return f"<!DOCTYPE html>\n<title>{title}</title>\n<p>\n{''.join(links)}".encode()


def _heads(body_bytes: int, *, status: str = "200 OK", about: str = _HTML) -> tuple[bytes, ...]:
    """Return the heads of an answer that is not its connection's last, and of one that is."""
    return tuple(
        answer_head(body_bytes, last, status=status, about=about) for last in (False, True)
    )


def _filled(heads: tuple[bytes, ...], text: bytes, page: Page, last: bool) -> bytes:  # noqa: FBT001 - as `Behaviour.answer`
    blocks, rest_bytes = divmod(page.body_bytes - len(text), len(_FILLER))
    return b"".join((heads[last], text, *[_FILLER] * blocks, _FILLER[:rest_bytes]))


class SiteListener(Listener):
    """What the connections of one listening address share."""

    def __init__(self, web: WebAnswers, ledger: Ledger) -> None:
        """Begin with no connection; all addresses may share the answers."""
        super().__init__(web.usual, ledger)
        self.web = web

    def __call__(self) -> "SiteConnection":
        """Return the protocol of a new connection."""
        return SiteConnection(self)


class SiteConnection(HttpConnection):
    """One connection; it is kept as the site of its latest request keeps connections."""

    __slots__ = ("_at", "_host")

    def __init__(self, listener: SiteListener) -> None:
        """Know the listener and its web; the rest comes with the connection."""
        super().__init__(listener)
        self._at = listener.web.at
        self._host = b""

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note which site is asked."""
        if name.lower() == b"host":
            self._host = value
        else:
            super().on_header(name, value)

    def chosen(self, usual: Behaviour, url: bytes) -> Behaviour:  # noqa: ARG002 - a site has its own
        """Return how the site that is asked answers this request."""
        host, self._host = self._host, b""
        behaviour = self._at(host, url)
        self._listener.ledger.report.redirected += behaviour.redirects
        sooner = behaviour.keepalive_timeout_s < self._behaviour.keepalive_timeout_s
        if sooner and self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None  # the answer sets it again
        return behaviour
