"""The scenario: everything a run is told, as one frozen tree that mirrors the TOML file.

Field descriptions are the documentation: `twbench schema` prints them as JSON Schema.
"""

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from twbench.model.checks import mistakes_of
from twbench.model.crawling import (
    LIBRARIES,
    AiohttpSpec,
    ClientEngine,
    CrawlSpec,
    HttpxSpec,
    RequestsSpec,
    Urllib3Spec,
    Web,
)
from twbench.model.endings import ENDINGS
from twbench.model.tables import Mistake, Slug, Table, refuse, refuse_each
from twbench.model.thresholds import is_comparison, mistake_in

Family = Literal["ipv4", "ipv6"]
Port = Annotated[int, Field(ge=1, le=65535)]


def _power_of_two(buckets: int) -> int:
    if buckets.bit_count() != 1:
        raise refuse("allowed is a power of two")
    return buckets


def _known_ending(kind: str) -> str:
    if kind not in ENDINGS:
        raise refuse(f"allowed is one of: {', '.join(ENDINGS)}")
    return kind


def _figure(key: str) -> str:
    if mistake := mistake_in(key):
        raise refuse(mistake)
    return key


def _comparisons(given: object) -> object:
    # the union of both would report each mistake twice
    texts = given if isinstance(given, list | tuple) else [given]
    if not texts or not all(is_comparison(text) for text in texts):
        raise refuse("allowed is a comparison with a number, as in '>= 100', or a list of them")
    return tuple(given) if isinstance(given, list) else given


def _sysctl_name(name: str) -> str:
    if not re.fullmatch(r"[a-z0-9_]+(\.[A-Za-z0-9_-]+)+", name):
        raise refuse('allowed is a sysctl by its kernel name, as in "net.ipv4.tcp_tw_reuse" = 1')
    if not re.fullmatch(r"net(\.[A-Za-z0-9_-]+){2,}", name):
        raise refuse(
            "allowed is a name that starts with 'net.': only those belong to a network namespace"
        )
    return name


def _sysctl_value(value: object) -> object:
    # the union of both would report each mistake twice
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise refuse("allowed is a string or an integer")
    return value


Sysctls = dict[
    Annotated[str, AfterValidator(_sysctl_name)],
    Annotated[str | int, BeforeValidator(_sysctl_value)],
]
Thresholds = dict[
    Annotated[str, AfterValidator(_figure)],
    Annotated[str | Annotated[tuple[str, ...], Field(min_length=1)], BeforeValidator(_comparisons)],
]


class ClientHosts(Table):
    """`[lab.client]`: the hosts of the fleet."""

    hosts: int = Field(1, ge=1, le=16, description="client hosts, each with a kernel of its own")
    addresses: int = Field(1, ge=1, le=200, description="source addresses of each client host")
    sysctl: Sysctls = Field(default_factory=dict, description="sysctls by their kernel names")


class ServerHost(Table):
    """`[lab.server]`: the host of the server."""

    addresses: int = Field(1, ge=1, le=200, description="addresses the server listens on")
    ports: tuple[Port, ...] = Field((8080,), min_length=1, max_length=64, description="its ports")
    sysctl: Sysctls = Field(default_factory=dict, description="sysctls by their kernel names")


_OWN_STACKS = frozenset({"veth", "wire"})
"""Links over which every host has a kernel stack of its own."""

_Buckets = Annotated[int, Field(ge=64, le=16_777_216), AfterValidator(_power_of_two)]


class WireSpec(Table):
    """`[lab.wire]`: what the wire does to the packets it carries; as it stands, nothing.

    First the rules decide about a packet as it comes onto the wire. What crosses is then lost or
    doubled by chance, waits in a queue for its turn, and arrives after the delay.
    """

    delay_ms: float = Field(0, ge=0, le=10_000, description="of every packet, one way")
    loss: float = Field(0, ge=0, le=1, description="share of packets that are lost, by chance")
    duplication: float = Field(0, ge=0, le=1, description="share that arrives twice, by chance")
    rate_mbit_per_s: float | None = Field(
        None, ge=0.001, le=100_000, description="of IP packets, in each direction; unset: no limit"
    )
    queue_packets: int = Field(
        1000, ge=1, le=1_000_000, description="wait for the rate at most; the next is dropped"
    )
    seed: int = Field(1, description="of loss, duplication and the rules' chances")
    rules: tuple[str, ...] = Field(
        (), max_length=100, description="for single packets, as in 'drop client→server FIN, once'"
    )
    capture_packets: int = Field(
        2000, ge=0, le=1_000_000, description="so many are kept in capture.pcapng, the first ones"
    )


class LabSpec(Table):
    """`[lab]`: the hosts and the link between them."""

    link: Literal["veth", "wire", "loopback", "host"] = Field(
        "veth",
        description=(
            "veth: a kernel each; wire: likewise, and a program carries each packet;"
            " loopback: one private kernel; host: this machine itself"
        ),
    )
    family: Family = Field("ipv4", description="the address family of all traffic")
    ehash_entries: _Buckets | None = Field(
        None,
        description="buckets of each host's socket table, a power of two; sized by itself if unset",
    )
    client: ClientHosts = ClientHosts()
    server: ServerHost = ServerHost()
    wire: WireSpec | None = Field(None, description="what link 'wire' does to packets")

    @model_validator(mode="after")
    def _check(self) -> Self:
        wrong: list[str | Mistake] = []
        if self.link == "host" and (self.client.sysctl or self.server.sysctl):
            wrong.append("link 'host' sets no sysctl: take 'veth' or 'loopback'")
        if self.link != "wire" and self.wire is not None:
            wrong.append(
                (("wire",), f"link '{self.link}' carries packets as they are: take 'wire'")
            )
        if self.link not in _OWN_STACKS and self.client.hosts > 1:
            wrong.append(f"link '{self.link}' has one client host: take 'veth' for more")
        addresses = (self.client.addresses, self.server.addresses)
        if self.link == "host" and self.family == "ipv6" and addresses != (1, 1):
            wrong.append("link 'host' has one IPv6 loopback address, ::1")
        if self.link == "loopback":
            wrong += self._torn_sysctls()
        refuse_each("lab", wrong)
        return self

    def _torn_sysctls(self) -> Iterator[Mistake]:
        """Give each sysctl that client and server want to have different values."""
        for name, value in self.client.sysctl.items():
            other = self.server.sysctl.get(name, value)
            if str(other) != str(value):
                allowed = (
                    "allowed is one value: link = 'loopback' has one kernel stack for both sides"
                )
                yield ("client", "sysctl", name), f"the server's is {other!r}; {allowed}"


Engine = Literal["auto", "streams", "uring"]
_ENGINE = "streams: asyncio; uring: io_uring; auto: io_uring where it can be had"


class ServerSpec(Table):
    """`[server]`: the bundled HTTP/1.1 server."""

    engine: Engine = Field("auto", description=_ENGINE)
    processes: int = Field(1, ge=1, le=16, description="processes sharing the port (SO_REUSEPORT)")
    response_bytes: int = Field(512, ge=0, le=100_000_000, description="body of every answer")
    delay_ms: float = Field(0, ge=0, le=600_000, description="time to think before each answer")
    keepalive_timeout_s: float = Field(
        75, gt=0, le=86_400, description="an idle connection is closed after this (nginx: 75)"
    )
    keepalive_requests: int = Field(
        1000, ge=1, description="a connection is closed after so many requests (nginx: 1000)"
    )
    backlog: int = Field(4096, ge=1, le=65535, description="length of the accept queue, listen(2)")


class EndingSpec(Table):
    """`[ending]`: who closes first, and how."""

    kind: Annotated[str, AfterValidator(_known_ending)] = Field(
        "client-fin",
        description="who closes first, and how",
        json_schema_extra={"enum": [*ENDINGS]},
    )
    hold_s: float = Field(
        10, gt=0, le=600, description="how long the other side waits for the first closer"
    )


class Stage(Table):
    """One leg of a ramp: from where the load stands, linearly, to the target given here."""

    duration_s: float = Field(gt=0, le=86_400, description="how long the leg takes")
    rate_per_s: float | None = Field(None, ge=0, le=1_000_000, description="target, open load")
    concurrency: int | None = Field(None, ge=0, le=100_000, description="target, closed load")


class LoadSpec(Table):
    """`[load]`: how much, how long, and whether it waits for answers."""

    mode: Literal["closed", "open"] = Field(
        "closed", description="closed: users who wait for answers; open: arrivals that do not"
    )
    concurrency: int | None = Field(None, ge=1, le=100_000, description="closed: users at a time")
    rate_per_s: float | None = Field(None, gt=0, le=1_000_000, description="open: arrivals/s")
    arrivals: Literal["constant", "poisson"] = Field("constant", description="open: spacing")
    duration_s: float | None = Field(None, gt=0, le=86_400, description="how long load is offered")
    requests: int | None = Field(None, ge=1, description="stop after so many requests")
    stages: tuple[Stage, ...] = Field((), description="a ramp, instead of duration_s")
    max_in_flight: int = Field(10_000, ge=1, le=100_000, description="open: bound on attempts")
    seed: int = Field(1, description="of everything random")

    @model_validator(mode="after")
    def _check(self) -> Self:
        wanted, other = ("concurrency", "rate_per_s")
        if self.mode == "open":
            wanted, other = other, wanted
        wrong = []
        if getattr(self, other) is not None:
            wrong.append(f"a load of mode '{self.mode}' has {wanted}; {other} is the other mode's")
        elif getattr(self, wanted) is None and not self.stages:
            wrong.append(f"a load of mode '{self.mode}' needs {wanted}, or stages")
        if (self.duration_s is None) == (not self.stages):
            wrong.append("give duration_s or stages: one of the two, not both")
        for stage in self.stages:
            if getattr(stage, wanted) is None or getattr(stage, other) is not None:
                wrong.append(f"every stage of a load of mode '{self.mode}' has {wanted} alone")
                break
        refuse_each("load", wrong)
        return self

    @property
    def total_s(self) -> float:
        """Return how long load is offered, in seconds."""
        return self.duration_s or sum(stage.duration_s for stage in self.stages)


class PoolSpec(Table):
    """`[client.pool]`: keep-alive. Without this table every request opens a connection."""

    size: int = Field(100, ge=1, le=100_000, description="connections of the whole fleet at most")
    requests_per_connection: int | None = Field(
        None, ge=1, description="after so many the connection is ended; unset: no limit"
    )
    idle_gap_ms: float = Field(
        0, ge=0, le=600_000, description="pause of a user between two requests"
    )
    idle_expiry_s: float | None = Field(
        None, gt=0, le=86_400, description="the client closes what lay idle for so long"
    )
    idle_per_site: int | None = Field(
        None, ge=1, le=100_000, description="of a crawl: idle connections to one site at the most"
    )
    idle: int | None = Field(
        None, ge=1, le=100_000, description="of a crawl: idle connections to all sites at the most"
    )


class SocketOptions(Table):
    """`[client.socket]`: options set before connect, by their kernel names."""

    SO_LINGER: int | None = Field(None, ge=0, le=3600, description="linger time in seconds")
    SO_REUSEADDR: bool | None = None
    SO_KEEPALIVE: bool | None = None
    SO_SNDBUF: int | None = Field(None, ge=1)
    SO_RCVBUF: int | None = Field(None, ge=1)
    TCP_NODELAY: bool | None = None
    TCP_USER_TIMEOUT: int | None = Field(None, ge=0, description="milliseconds")
    TCP_SYNCNT: int | None = Field(None, ge=1, le=255)
    TCP_KEEPIDLE: int | None = Field(None, ge=1, le=32767, description="seconds")
    TCP_KEEPINTVL: int | None = Field(None, ge=1, le=32767, description="seconds")
    TCP_KEEPCNT: int | None = Field(None, ge=1, le=127)
    IP_BIND_ADDRESS_NO_PORT: bool | None = None
    IP_LOCAL_PORT_RANGE: tuple[Port, Port] | None = Field(
        None, description="[low, high]: ports of this socket alone (Linux 6.3 or newer)"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        window = self.IP_LOCAL_PORT_RANGE
        if window and window[0] > window[1]:
            raise refuse("IP_LOCAL_PORT_RANGE must be [low, high] with low <= high")
        return self

    def given(self) -> dict[str, Any]:
        """Return the options that are set, by kernel name."""
        return self.model_dump(exclude_none=True)


class ClientSpec(Table):
    """`[client]`: the fleet."""

    engine: ClientEngine = Field(
        "auto", description=f"{_ENGINE}; an HTTP library; or a coroutine, ./crawler.py:crawl"
    )
    workers: int = Field(1, ge=1, le=16, description="processes on each client host")
    connect_timeout_s: float = Field(10, gt=0, le=600, description="own limit on connect")
    request_timeout_s: float = Field(30, gt=0, le=3600, description="own limit on an answer")
    retries: int = Field(0, ge=0, le=100, description="further attempts after a failed one")
    retry_backoff_ms: float = Field(100, ge=0, le=600_000, description="first pause; it doubles")
    bind_before_connect: bool = Field(
        default=False,
        description="bind the source address first (done anyway with several addresses)",
    )
    pool: PoolSpec | None = Field(None, description="keep-alive; unset: a connection per request")
    socket: SocketOptions = SocketOptions()
    crawl: CrawlSpec = CrawlSpec()
    aiohttp: AiohttpSpec = AiohttpSpec()
    httpx: HttpxSpec = HttpxSpec()
    requests: RequestsSpec = RequestsSpec()
    urllib3: Urllib3Spec = Urllib3Spec()

    @property
    def is_own(self) -> bool:
        """Return whether the engine is a coroutine of the user's, `FILE.py:NAME`."""
        return ":" in self.engine


class SamplingSpec(Table):
    """`[sampling]`: how often the kernels are read."""

    ticks_per_s: float = Field(10, gt=0, le=100, description="reads of sockstat, snmp, netstat")
    looks_per_s: float = Field(1, ge=0, le=20, description="dumps of every socket; 0: at the end")
    after_s: float = Field(0, ge=0, le=3600, description="go on sampling after the load has ended")


class Scenario(Table):
    """One run, whole."""

    name: Slug = Field(description="lower-case letters, digits and hyphens; names the results")
    description: str = Field("", description="what the run is to show, for the reader")
    lab: LabSpec = LabSpec()
    server: ServerSpec = ServerSpec()
    ending: EndingSpec = EndingSpec()
    web: Web | None = Field(None, description="sites to crawl; unset: one plain server")
    load: LoadSpec
    client: ClientSpec = ClientSpec()
    sampling: SamplingSpec = SamplingSpec()
    thresholds: Thresholds = Field(
        default_factory=dict,
        description="dotted key of summary.json to a comparison, as in '>= 100', or a list of them",
    )

    def comparisons(self) -> Iterator[tuple[str, str]]:
        """Give each threshold as a key of summary.json and one comparison."""
        for key, given in self.thresholds.items():
            for comparison in (given,) if isinstance(given, str) else given:
                yield key, comparison

    @property
    def crawls(self) -> bool:
        """Return whether the client is a crawler, whose library closes as it likes."""
        engine = self.client.engine
        return self.web is not None or engine in LIBRARIES or self.client.is_own

    def for_foreign_client(self) -> Self:
        """Return the same for a client whose closes nobody here chooses.

        Unless the file says otherwise, the server then closes after its last answer, as servers do.
        """
        if "kind" in self.ending.model_fields_set:
            return self
        ending = self.ending.model_copy(update={"kind": "server-fin"})
        return self.model_copy(update={"ending": ending})

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.crawls:
            # the model is frozen for everybody else
            object.__setattr__(self, "ending", self.for_foreign_client().ending)
        refuse_each("scenario", mistakes_of(self))
        return self
