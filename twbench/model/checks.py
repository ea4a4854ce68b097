"""What the tables of a scenario must agree on with each other. Pure."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from twbench.model.crawling import LIBRARIES
from twbench.model.endings import ENDINGS, Departure
from twbench.model.states import Side
from twbench.model.tables import Mistake

if TYPE_CHECKING:
    # which asks this module, so only types know of it
    from twbench.model.scenario import Scenario


def mistakes_of(scenario: "Scenario") -> Iterator[str | Mistake]:
    """Give all of them."""
    yield from _unending(scenario)
    yield from _lingering(scenario)
    yield from _unheld(scenario)
    yield from _too_small_to_share(scenario)
    yield from _of_another_engine(scenario)
    if scenario.crawls:
        yield from _uncrawlable(scenario)


def _unending(scenario: "Scenario") -> Iterator[str]:
    if (
        scenario.ending.kind == "server-idle"
        and scenario.client.pool is None
        and not scenario.crawls
    ):
        limits = {
            "ending.hold_s": scenario.ending.hold_s,
            "client.request_timeout_s": scenario.client.request_timeout_s,
        }
        key = min(limits, key=limits.__getitem__)
        if scenario.server.keepalive_timeout_s >= limits[key]:
            yield (
                "ending 'server-idle' without a pool holds each connection until"
                f" server.keepalive_timeout_s, which must be below {key} ({limits[key]:g})"
            )


def _lingering(scenario: "Scenario") -> Iterator[Mistake]:
    """Refuse a client that would answer the server's FIN with RST: no ending is so."""
    passive = ENDINGS[scenario.ending.kind].client is Departure.PASSIVE_CLOSE
    if passive and scenario.client.socket.SO_LINGER == 0:
        what = "allowed is a time above 0: with 0 the client would reset what the server closed"
        yield ("client", "socket", "SO_LINGER"), f"{what}; 'client-rst' is a reset of its own"


def _unheld(scenario: "Scenario") -> Iterator[Mistake]:
    """Refuse an ending that takes a link which can hold packets, on another link."""
    if ENDINGS[scenario.ending.kind].needs_wire and scenario.lab.link != "wire":
        others = ", ".join(name for name, ending in ENDINGS.items() if not ending.needs_wire)
        link = "allowed with lab.link = 'wire' alone, which can hold packets back"
        yield ("ending", "kind"), f"{link}; over '{scenario.lab.link}' it is one of: {others}"


def _uncrawlable(scenario: "Scenario") -> Iterator[Mistake]:
    """Give what no crawl can be told: its library decides it, or nothing would do it."""
    side = ENDINGS[scenario.ending.kind].first
    if side != {Side.SERVER} or not ENDINGS[scenario.ending.kind].answered:
        names = (n for n, e in ENDINGS.items() if e.first == {Side.SERVER} and e.answered)
        allowed = f"allowed is the server's part: {', '.join(names)}"
        yield ("ending", "kind"), f"how a crawler closes is its library's choice; {allowed}"
    if scenario.client.engine == "uring":
        engines = ", ".join(("auto", "streams", *LIBRARIES))
        allowed = f"allowed is one of: {engines}; or a coroutine, as in './crawler.py:crawl'"
        yield ("client", "engine"), f"with [web] {allowed}"
    if scenario.server.engine == "uring" and scenario.web:
        yield ("server", "engine"), "sites are played by 'streams': allowed is auto or streams"
    if scenario.load.mode != "closed":
        yield ("load", "mode"), "a crawl has users who wait for answers: allowed is 'closed'"
    if scenario.load.stages:
        yield ("load", "stages"), "a crawl has one number of users: allowed is duration_s"
    if scenario.lab.link == "host":
        yield ("lab", "link"), "sites have names of their own: allowed is a link of own hosts"
    if scenario.lab.client.addresses > 1:
        yield (
            ("lab", "client", "addresses"),
            "a crawler's library chooses its source: allowed is 1",
        )
    if scenario.client.socket.given() or scenario.client.bind_before_connect:
        what = "a crawler's library makes its sockets: allowed is nothing here"
        yield ("client", "socket"), what
    if (pool := scenario.client.pool) and pool.idle_gap_ms:
        what = "users of a crawl pause by client.crawl.think_ms: allowed is 0"
        yield ("client", "pool", "idle_gap_ms"), what


def _of_another_engine(scenario: "Scenario") -> Iterator[Mistake]:
    """Give what is set for an engine that is not this client's, and would be ignored."""
    engine = scenario.client.engine
    if scenario.client.pool and (engine in LIBRARIES or scenario.client.is_own):
        what = f"'{engine}' has a pool of its own: allowed with 'streams' alone"
        yield ("client", "pool"), what
    for library in LIBRARIES:
        table = getattr(scenario.client, library)
        if library != engine and table != type(table)():
            what = f"the engine is '{engine}': allowed with '{library}' alone"
            yield ("client", library), what


def _too_small_to_share(scenario: "Scenario") -> Iterator[Mistake]:
    """Give each bound of the whole fleet that leaves a worker without a share."""
    hosts, workers = scenario.lab.client.hosts, scenario.client.workers
    bounds: dict[tuple[str, ...], int] = {}
    if scenario.client.pool:
        bounds["client", "pool", "size"] = scenario.client.pool.size
    if scenario.load.mode == "open":
        bounds["load", "max_in_flight"] = scenario.load.max_in_flight
    if scenario.crawls and scenario.load.concurrency:
        bounds["load", "concurrency"] = scenario.load.concurrency
    for place, bound in bounds.items():
        if bound < hosts * workers:
            each = "one for each worker (client.workers x lab.client.hosts)"
            yield place, f"allowed is at least {hosts * workers}, {each}"
    if scenario.crawls and (most := _most_workers(scenario)) and hosts * workers > most:
        together = f"on all client hosts together (lab.client.hosts is {hosts})"
        why = "more would have no site of their own, by client.crawl"
        yield ("client", "workers"), f"allowed is at most {most} {together}: {why}"


def _most_workers(scenario: "Scenario") -> int | None:
    """Return among how many workers the manners of a crawl let its sites be shared."""
    addresses, ports = scenario.lab.server.addresses, scenario.lab.server.ports
    sites = scenario.web.sites if scenario.web else addresses * len(ports)
    crawl = scenario.client.crawl
    if crawl.site_delay_ms:
        return sites
    # the workers that share a site are the last one's, moved on by one
    return None if crawl.per_site is None else crawl.per_site + sites - 1
