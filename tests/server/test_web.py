"""The sites that the server plays: pages by Host and path, redirects, and how each site keeps."""

import asyncio
import html.parser
import http.client
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twbench.model.crawling import Web
from twbench.model.plans import Endpoint, ServerPlan
from twbench.model.scenario import EndingSpec, ServerSpec
from twbench.model.sites import LARGEST_BODY_BYTES, Page, Sites
from twbench.server.behaviour import Behaviour
from twbench.server.engines import EngineRefusedError, choose
from twbench.server.ledger import Ledger
from twbench.server.web import SiteListener, WebAnswers, opening

PATIENCE_S = 20
DELAY_S = 0.08
LOOP_TICK_S = 0.001
"""uvloop keeps time in whole milliseconds, and may be early by one."""
GOES_ON, LAST = False, True


def plan_of(
    *ports: int, ending: str = "server-fin", web: dict[str, Any] | None = None, **server: object
) -> ServerPlan:
    return ServerPlan(
        server=ServerSpec.model_validate(server),
        ending=EndingSpec(kind=ending),
        family="ipv4",
        endpoints=tuple(("127.0.0.1", port) for port in ports or (8080,)),
        web=Web.model_validate(web or {}),
        seed=3,
    )


def answers_of(**plan: Any) -> tuple[WebAnswers, Sites]:  # noqa: ANN401 - what `plan_of` takes
    """Return what a plan's server answers, and what the crawler's side knows of its sites."""
    made = plan_of(**plan)
    assert made.web is not None
    sites = Sites(made.web, median_bytes=made.server.response_bytes, seed=made.seed)
    return WebAnswers(made.web, made), sites


def parts_of(behaviour: Behaviour) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body of an answer, all of which must agree on the length."""
    status, headers, body = split(behaviour.answer(GOES_ON))
    again, last, same = split(behaviour.answer(LAST))
    assert (again, same) == (status, body)
    assert last == headers | {"connection": "close"}
    assert headers["connection"] == "keep-alive"
    assert headers["content-length"] == str(len(body))
    return status, headers, body


def split(whole: bytes) -> tuple[int, dict[str, str], bytes]:
    head, _, body = whole.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = (line.split(": ", 1) for line in lines)
    return int(first.split()[1]), {name.lower(): value for name, value in headers}, body


def links_in(body: bytes) -> list[str]:
    """Return what a page links, as a parser of HTML reads it."""
    found: list[str] = []

    class Reader(html.parser.HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.extend(value or "" for name, value in attrs if (tag, name) == ("a", "href"))

    reader = Reader()
    reader.feed(body.decode())
    reader.close()
    return found


@dataclass(frozen=True, kw_only=True)
class Played:
    """Sites that are played in the running loop."""

    endpoints: tuple[Endpoint, ...]
    listeners: list[SiteListener]
    ledger: Ledger

    async def over(self) -> None:
        """Wait until a connection has ended, and none is left."""
        async with asyncio.timeout(PATIENCE_S):
            while not self._is_over():  # noqa: ASYNC110 - nothing tells when the last is gone
                await asyncio.sleep(0.002)

    def _is_over(self) -> bool:
        return bool(self.ledger.report.departures) and not any(x.live for x in self.listeners)


Playing = Callable[..., Awaitable[Played]]
Dial = Callable[[Endpoint], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


@pytest.fixture
async def playing() -> AsyncIterator[Playing]:
    """Return a function that plays a web; its arguments are those of `plan_of`."""
    servers: list[asyncio.Server] = []
    listeners: list[SiteListener] = []

    async def play(*, addresses: int = 1, **given: Any) -> Played:  # noqa: ANN401 - as `plan_of`
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(addresses)]
        plan = plan_of(*(sock.getsockname()[1] for sock in sockets), **given)
        assert plan.web is not None
        ledger, web = Ledger(), WebAnswers(plan.web, plan)
        made = [SiteListener(web, ledger) for _ in sockets]
        listeners.extend(made)
        loop = asyncio.get_running_loop()
        for listener, sock in zip(made, sockets, strict=True):
            servers.append(await loop.create_server(listener, sock=sock))
        return Played(endpoints=plan.endpoints, listeners=made, ledger=ledger)

    yield play
    for server in servers:
        server.close()
    for listener in listeners:
        for connection in tuple(listener.live):
            connection.leave()
    async with asyncio.timeout(PATIENCE_S):
        while any(listener.live for listener in listeners):  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.002)


def get(host: str, path: str = "/", *, method: str = "GET", last: bool = False) -> bytes:
    connection = "Connection: close\r\n" if last else ""
    return f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{connection}\r\n".encode()


async def head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    whole = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_S)
    status, headers, _ = split(whole)
    return status, headers


async def answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    status, headers = await head(reader)
    length = int(headers["content-length"])
    return status, headers, await asyncio.wait_for(reader.readexactly(length), PATIENCE_S)


async def rest(reader: asyncio.StreamReader) -> bytes:
    """Read on to the server's FIN."""
    return await asyncio.wait_for(reader.read(), PATIENCE_S)


# what is at which URL


def test_page_is_html_of_its_size_and_links_other_pages_of_its_site() -> None:
    answers, sites = answers_of(response_bytes=2000, web={"body_sigma": 1, "links": 10})
    sizes = set()
    for number in range(50):
        status, headers, body = parts_of(answers.at(b"site-2.test:8080", b"/%d" % number))
        page = sites.page(1, number)
        assert (status, headers["content-type"]) == (200, "text/html")
        assert len(body) == page.body_bytes
        hrefs = [f"/{link}" for link in page.links]
        assert links_in(body) == hrefs[: len(links_in(body))]
        if len(body) > 400:
            assert links_in(body) == hrefs
        sizes.add(len(body))
    assert len(sizes) > 30


@given(body_bytes=st.integers(0, 400), links=st.lists(st.integers(0, 999_999), max_size=12))
def test_page_begins_with_the_links_that_fit_and_with_no_half_of_one(
    body_bytes: int, links: list[int]
) -> None:
    page = Page(redirects_to=None, body_bytes=body_bytes, links=tuple(links))
    text = opening("site-1.test/0", page)
    assert len(text) <= body_bytes
    found = links_in(text)
    assert found == [f"/{link}" for link in links[: len(found)]]
    assert text.count(b"<a") == text.count(b"</a>\n") == len(found)
    if len(found) < len(links):
        assert body_bytes - len(text) < len('<a href="/999999">999999</a>\n')


@pytest.mark.parametrize("size", [0, 1, 60, 512, 100_000, LARGEST_BODY_BYTES])
def test_page_has_exactly_the_size_of_the_scenario(size: int) -> None:
    answers, _ = answers_of(response_bytes=size)
    assert len(parts_of(answers.at(b"site-1.test", b"/5"))[2]) == size


def test_root_of_a_site_is_its_first_page() -> None:
    answers, _ = answers_of(response_bytes=900)
    assert parts_of(answers.at(b"site-7.test", b"/")) == parts_of(answers.at(b"site-7.test", b"/0"))


def test_sites_and_pages_differ() -> None:
    answers, _ = answers_of(response_bytes=900)
    bodies = {
        parts_of(answers.at(b"site-%d.test" % site, b"/%d" % number))[2]
        for site in (1, 2, 3)
        for number in (0, 1, 2)
    }
    assert len(bodies) == 9


@pytest.mark.parametrize(
    ("host", "url"),
    [
        (b"SITE-3.test:8080", b"/17"),
        (b"site-3.test", b"/17?utm_source=x&y"),
        (b"site-4.test", b"http://site-3.test:8080/17"),
        (b"", b"HTTP://Site-3.TEST/17?x"),
    ],
)
def test_the_same_page_has_several_urls(host: bytes, url: bytes) -> None:
    answers, _ = answers_of(response_bytes=900)
    assert parts_of(answers.at(host, url)) == parts_of(answers.at(b"site-3.test", b"/17"))


@pytest.mark.parametrize(
    ("host", "url"),
    [
        *((b"site-1.test", path) for path in (b"/1000", b"/-1", b"/01", b"/x", b"/1/", b"/ 1")),
        *((b"site-1.test", path) for path in (b"//1", b"/1#x", b"*", b"17", b"/\xb2", b"/9999999")),
        *((b"site-1.test", path) for path in (b"/robots.txt", b"/99999999999999999999", b"/%31")),
        *((name, b"/") for name in (b"site-21.test", b"site-0.test", b"site-x.test:8080")),
        *((name, b"/1") for name in (b"127.0.0.1", b"server.test:8080", b"", b"[::1]")),
        (b"127.0.0.1", b"http://site-21.test/"),
    ],
)
def test_what_there_is_not_gets_a_404(host: bytes, url: bytes) -> None:
    answers, _ = answers_of(web={"sites": 20, "pages": 1000})
    status, _, body = parts_of(answers.at(host, url))
    assert (status, body) == (404, b"")


@given(host=st.binary(max_size=30), url=st.binary(max_size=30))
def test_any_host_and_url_is_answered(host: bytes, url: bytes) -> None:
    answers, _ = answers_of(web={"sites": 2, "pages": 10})
    assert parts_of(answers.at(host, b"/" + url))[0] in (200, 404)
    assert parts_of(answers.at(host, url))[0] in (200, 404)


def test_redirect_leads_to_a_page_with_a_body_in_one_step() -> None:
    answers, sites = answers_of(web={"redirects": 0.5, "pages": 100})
    statuses = set()
    for number in range(100):
        behaviour = answers.at(b"site-1.test", b"/%d" % number)
        status, headers, body = parts_of(behaviour)
        goal = sites.page(0, number).redirects_to
        assert behaviour.redirects == (goal is not None)
        statuses.add(status)
        if goal is None:
            assert status == 200
            continue
        assert (status, headers["location"], body) == (302, f"/{goal}", b"")
        assert parts_of(answers.at(b"site-1.test", headers["location"].encode()))[0] == 200
    assert statuses == {200, 302}


@pytest.mark.parametrize("host", [b"127.0.0.1:8080", b"server.test", b"[2001:2::1]:8080", b""])
def test_host_that_is_no_site_links_every_site_at_its_port(host: bytes) -> None:
    plan = plan_of(8080, 8081, 8082, web={"sites": 5})
    assert plan.web is not None
    status, headers, body = parts_of(WebAnswers(plan.web, plan).at(host, b"/"))
    assert (status, headers["content-type"]) == (200, "text/html")
    assert links_in(body) == [
        "http://site-1.test:8080/",
        "http://site-2.test:8081/",
        "http://site-3.test:8082/",
        "http://site-4.test:8080/",
        "http://site-5.test:8081/",
    ]


def test_kind_of_a_site_overrides_what_it_names_and_leaves_the_rest() -> None:
    kinds = [
        {"name": "slow", "share": 0.3, "delay_ms": 250},
        {"name": "short", "share": 0.3, "keepalive_timeout_s": 2, "keepalive_requests": 7},
        {"name": "quick", "share": 0.2, "delay_ms": 0},
    ]
    answers, sites = answers_of(
        delay_ms=10, keepalive_requests=50, web={"kinds": kinds, "sites": 20}
    )
    wanted = {
        None: (0.01, 75, 50),
        "slow": (0.25, 75, 50),
        "short": (0.01, 2, 7),
        "quick": (0, 75, 50),
    }
    seen = set()
    for site, name in enumerate(sites.names):
        kind = sites.kind(site)
        label = kind.name if kind else None
        seen.add(label)
        for url in (b"/1", b"/no-page"):
            got = answers.at(name.encode(), url)
            figures = (got.delay_s, got.keepalive_timeout_s, got.keepalive_requests)
            assert figures == wanted[label]
    assert seen == wanted.keys()


def test_answer_is_found_again_and_not_made_again() -> None:
    answers, _ = answers_of(response_bytes=1_000_000)
    assert answers.at(b"site-1.test", b"/1") is answers.at(b"site-1.test", b"/1")
    assert answers.at.cache_info().maxsize is not None


# over sockets


async def test_one_connection_serves_pages_of_several_sites(playing: Playing, dial: Dial) -> None:
    played = await playing(response_bytes=700)
    reader, writer = await dial(played.endpoints[0])
    answers, _ = answers_of(response_bytes=700)
    for host, path in (("site-1.test", "/1"), ("site-2.test:80", "/1"), ("site-1.test", "/2")):
        writer.write(get(host, path))
        assert await answer(reader) == parts_of(answers.at(host.encode(), path.encode()))
    writer.write(get("site-1.test", last=True))
    status, headers, _ = await answer(reader)
    assert (status, headers["connection"]) == (200, "close")
    assert await rest(reader) == b""
    assert (played.ledger.report.accepted, played.ledger.report.requests) == (1, 4)


async def test_host_may_come_in_any_case_and_a_byte_at_a_time(playing: Playing, dial: Dial) -> None:
    played = await playing(response_bytes=700)
    reader, writer = await dial(played.endpoints[0])
    writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in b"GET /7 HTTP/1.1\r\nAccept: */*\r\nhOST: site-2.test\r\n\r\n":
        writer.write(bytes([byte]))
        await asyncio.sleep(0)
    answers, _ = answers_of(response_bytes=700)
    assert await answer(reader) == parts_of(answers.at(b"site-2.test", b"/7"))


async def test_request_without_a_host_does_not_ask_the_site_before_it(
    playing: Playing, dial: Dial
) -> None:
    played = await playing()
    reader, writer = await dial(played.endpoints[0])
    writer.write(get("site-1.test", "/1"))
    assert (await answer(reader))[0] == 200
    writer.write(b"GET /1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert (await answer(reader))[0] == 404


async def test_head_has_the_head_of_get(playing: Playing, dial: Dial) -> None:
    played = await playing(response_bytes=700, web={"redirects": 0.5})
    answers, sites = answers_of(response_bytes=700, web={"redirects": 0.5})
    reader, writer = await dial(played.endpoints[0])
    redirects = 0
    for number in range(20):
        writer.write(get("site-1.test", f"/{number}", method="HEAD"))
        status, headers, _ = parts_of(answers.at(b"site-1.test", b"/%d" % number))
        assert await head(reader) == (status, headers)
        redirects += sites.page(0, number).redirects_to is not None
    assert played.ledger.report.redirected == redirects > 0
    writer.write(get("site-1.test", method="HEAD", last=True))
    assert (await head(reader))[0] == 200
    assert await rest(reader) == b""


async def test_pipelined_requests_are_answered_in_order(playing: Playing, dial: Dial) -> None:
    web = {"redirects": 0.3, "kinds": [{"name": "slow", "share": 0.5, "delay_ms": 30}]}
    played = await playing(response_bytes=900, web=web)
    answers, sites = answers_of(response_bytes=900, web=web)
    asked = [(f"site-{1 + number % 4}.test", f"/{number}") for number in range(12)]
    reader, writer = await dial(played.endpoints[0])
    writer.write(b"".join(get(host, path) for host, path in asked) + get("site-1.test", last=True))
    for host, path in asked:
        assert await answer(reader) == parts_of(answers.at(host.encode(), path.encode()))
    assert (await answer(reader))[0] == 200
    assert await rest(reader) == b""
    redirects = [sites.page(number % 4, number).redirects_to for number in range(12)]
    assert played.ledger.report.redirected == sum(goal is not None for goal in redirects)
    assert played.ledger.report.requests == 13


async def test_site_that_closes_first_announces_it_and_closes(playing: Playing, dial: Dial) -> None:
    kinds = [{"name": "closes", "share": 1, "keepalive_requests": 1}]
    played = await playing(web={"kinds": kinds})
    reader, writer = await dial(played.endpoints[0])
    writer.write(get("site-1.test", "/1"))
    status, headers, _ = await answer(reader)
    assert (status, headers["connection"]) == (200, "close")
    assert await rest(reader) == b""
    writer.close()
    await played.over()
    assert played.ledger.report.departures == {"active_close": 1}
    assert played.ledger.report.closed_early == 0


async def test_slow_site_thinks(playing: Playing, dial: Dial) -> None:
    kinds = [{"name": "slow", "share": 1, "delay_ms": DELAY_S * 1000}]
    played = await playing(web={"kinds": kinds})
    reader, writer = await dial(played.endpoints[0])
    sent_s = time.monotonic()
    writer.write(get("site-1.test"))
    await answer(reader)
    assert time.monotonic() - sent_s >= DELAY_S - LOOP_TICK_S


async def test_connection_is_kept_as_long_as_the_site_of_its_latest_request_keeps(
    playing: Playing, dial: Dial
) -> None:
    kinds = [{"name": "short", "share": 0.5, "keepalive_timeout_s": 0.1}]
    _, sites = answers_of(web={"kinds": kinds})
    short = next(sites.names[n] for n in range(20) if sites.kind(n))
    usual = next(sites.names[n] for n in range(20) if not sites.kind(n))
    played = await playing(web={"kinds": kinds})

    async def after(*asked: str) -> asyncio.StreamReader:
        reader, writer = await dial(played.endpoints[0])
        # all at once: on a busy machine the short time could be over in between
        writer.write(b"".join(map(get, asked)))
        for _ in asked:
            assert (await answer(reader))[0] == 200
        return reader

    # the time of the first site must not hold for the second, whichever is the longer
    kept, closed = await after(short, usual), await after(usual, short)
    assert await rest(closed) == b""
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(kept.read(1), 0.5)
    assert played.ledger.report.closed_early == 1


async def test_answer_that_takes_longer_than_the_keep_alive_time_still_comes(
    playing: Playing, dial: Dial
) -> None:
    kinds = [{"name": "both", "share": 1, "delay_ms": 150, "keepalive_timeout_s": 0.05}]
    played = await playing(web={"kinds": kinds})
    reader, writer = await dial(played.endpoints[0])
    writer.write(get("site-1.test") + get("site-1.test"))
    for _ in range(2):
        assert (await answer(reader))[0] == 200
    assert await rest(reader) == b""
    assert played.ledger.report.closed_early == 1


@pytest.mark.parametrize("ending", ["server-fin", "server-rst", "server-half-close", "server-idle"])
async def test_last_answer_of_a_site_is_followed_by_the_ending(
    ending: str, playing: Playing, dial: Dial
) -> None:
    played = await playing(ending=ending)
    reader, writer = await dial(played.endpoints[0])
    writer.write(get("site-1.test", "/1", last=True))
    try:
        assert (await answer(reader))[1]["connection"] == "close"
        assert await rest(reader) == b""
        reset = False
    except ConnectionResetError:
        reset = True
    assert reset == (ending == "server-rst")
    writer.close()
    await played.over()
    how = "active_reset" if ending == "server-rst" else "active_close"
    assert played.ledger.report.departures == {how: 1}


async def test_addresses_share_the_sites(playing: Playing, dial: Dial) -> None:
    played = await playing(addresses=2, web={"sites": 3})
    bodies = []
    for endpoint in played.endpoints:
        reader, writer = await dial(endpoint)
        writer.write(get("site-1.test", "/3") + get("x"))
        bodies.append([(await answer(reader))[2] for _ in range(2)])
    assert bodies[0] == bodies[1]
    ports = [port for _, port in played.endpoints]
    assert links_in(bodies[0][1]) == [
        f"http://site-{1 + site}.test:{ports[site % 2]}/" for site in range(3)
    ]


async def test_client_of_the_standard_library_follows_links_and_redirects(
    playing: Playing,
) -> None:
    played = await playing(response_bytes=700, web={"redirects": 0.5, "pages": 50})

    def crawl() -> tuple[int, int]:
        connection = http.client.HTTPConnection(*played.endpoints[0], timeout=PATIENCE_S)
        path, pages, redirects = "/", 0, 0
        for turn in range(40):
            connection.request("GET", path, headers={"Host": "site-1.test"})
            response = connection.getresponse()
            body = response.read()
            if response.status == 302:
                path, redirects = response.headers["Location"], redirects + 1
                continue
            assert (response.status, len(body)) == (200, 700)
            links = links_in(body)
            path, pages = links[turn % len(links)], pages + 1
        connection.close()
        return pages, redirects

    pages, redirects = await asyncio.to_thread(crawl)
    assert pages > 5
    report = played.ledger.report
    assert (report.accepted, report.requests, report.redirected) == (1, 40, redirects)
    assert redirects > 5


# which engine


async def test_sites_are_played_by_streams() -> None:
    engine = choose(plan_of())
    assert (engine.name, engine.why) == ("streams", "sites are played one by one")
    with pytest.raises(EngineRefusedError, match="sites are played one by one"):
        choose(plan_of(engine="uring"))
