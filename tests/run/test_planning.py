"""What becomes of a scenario: a lab, a plan for each process, and a forecast."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twbench.lab.plan import Link
from twbench.model.endings import ENDINGS
from twbench.model.errors import ScenarioError
from twbench.model.parse import build_scenario
from twbench.model.plans import share
from twbench.model.scenario import Scenario
from twbench.run.planning import (
    endpoints,
    fleet_plans,
    lab_plan,
    port_capacity,
    port_range,
    predict_scenario,
    server_plan,
    site_addresses,
    worker_module,
)

RANGE = "net.ipv4.ip_local_port_range"
REUSE = "net.ipv4.tcp_tw_reuse"
STAMPS = "net.ipv4.tcp_timestamps"
THOUSAND_PORTS = "40000 40999"
OPEN = {"mode": "open", "rate_per_s": 100, "duration_s": 20}
CLOSED = {"concurrency": 8, "duration_s": 20}
LEGS = [{"duration_s": 1, "concurrency": 300}, {"duration_s": 1, "concurrency": 0}]


def scenario(**tables: object) -> Scenario:
    given = {"name": "planned", "load": OPEN, **tables}
    return build_scenario(given, source="test")


def on_client(
    link: str = "veth", sysctl: dict[str, str | int] | None = None, **client: int
) -> dict[str, object]:
    """Return the `[lab]` of a client with a thousand ports, unless `sysctl` says otherwise."""
    sysctls = {RANGE: THOUSAND_PORTS, **(sysctl or {})}
    return {"link": link, "client": {"sysctl": sysctls, **client}}


# the lab


def test_lab_has_the_hosts_addresses_ports_and_sysctls_of_the_scenario() -> None:
    plan = lab_plan(
        scenario(
            lab={
                "link": "veth",
                "family": "ipv6",
                "ehash_entries": 4096,
                "client": {"hosts": 2, "addresses": 3, "sysctl": {REUSE: 0}},
                "server": {"addresses": 2, "ports": [80, 81], "sysctl": {STAMPS: "1"}},
            }
        )
    )
    assert (plan.link, plan.family, plan.ehash_entries) == (Link.VETH, 6, 4096)
    assert [(host.name, len(host.addresses)) for host in plan.hosts] == [
        ("client-1", 3),
        ("client-2", 3),
        ("server", 2),
    ]
    assert plan.client_sysctls == {REUSE: "0"}
    assert plan.server_sysctls == {STAMPS: "1"}
    assert plan.server_ports == (80, 81)


@pytest.mark.parametrize(
    ("load", "lab", "expected"),
    [
        (OPEN, {}, 2_000),
        ({**OPEN, "rate_per_s": 400}, on_client(), 1_000),
        (CLOSED, {}, 28_232),
        (CLOSED, {"client": {"addresses": 200}}, 600_000),
    ],
    ids=[
        "an open load's forecast peak",
        "never more than there are ports",
        "a closed load may fill the range",
        "but opens no more than a fleet can",
    ],
)
def test_socket_tables_are_sized_for(
    load: dict[str, object], lab: dict[str, object], expected: int
) -> None:
    assert lab_plan(scenario(load=load, lab=lab)).expected_sockets == expected


# the processes


def test_server_listens_on_every_address_and_port() -> None:
    asked = scenario(lab={"server": {"addresses": 2, "ports": [80, 81]}}, ending={"hold_s": 3})
    plan = server_plan(asked, lab_plan(asked))
    one, other = lab_plan(asked).server.addresses
    assert plan.endpoints == ((one, 80), (one, 81), (other, 80), (other, 81))
    assert (plan.ending.hold_s, plan.family, plan.by_url) == (3, "ipv4", False)


@pytest.mark.parametrize(
    ("load", "pool", "most"),
    [
        (CLOSED, None, 8),
        ({"mode": "closed", "stages": LEGS}, None, 300),
        (OPEN, None, 10_000),
        ({**OPEN, "max_in_flight": 50}, None, 50),
        ({**OPEN, "max_in_flight": 50}, {"size": 7}, 7),
        ({"mode": "closed", "stages": LEGS}, {"size": 200}, 200),
    ],
)
def test_server_knows_how_many_connections_there_may_be_at_once(
    load: dict[str, object], pool: dict[str, object] | None, most: int
) -> None:
    asked = scenario(load=load, client={"pool": pool} if pool else {})
    assert server_plan(asked, lab_plan(asked)).connections == most


def crawl(**tables: object) -> Scenario:
    return scenario(
        **{"load": {"concurrency": 8, "duration_s": 5, "seed": 7}, "web": {"sites": 3}} | tables
    )


def test_server_is_told_of_its_sites_and_nobody_knows_how_often_a_crawler_connects() -> None:
    asked = crawl()
    plan = server_plan(asked, lab_plan(asked))
    assert (plan.web, plan.seed, plan.connections) == (asked.web, 7, 0)
    usual = scenario(load=CLOSED)
    assert server_plan(usual, lab_plan(usual), foreign=True).connections == 0


def test_sites_lie_round_robin_at_the_servers_endpoints() -> None:
    asked = crawl(web={"sites": 5}, lab={"server": {"addresses": 2, "ports": [80, 81]}})
    one, other = lab_plan(asked).server.addresses
    assert site_addresses(asked, lab_plan(asked)) == {
        "server.test": one,
        "site-1.test": one,
        "site-2.test": one,
        "site-3.test": other,
        "site-4.test": other,
        "site-5.test": one,
    }
    assert site_addresses(scenario(), lab_plan(scenario())).keys() == {"server.test"}


def test_crawlers_have_workers_of_their_own() -> None:
    library = {"client": {"engine": "httpx"}}
    assert worker_module(crawl()) == worker_module(crawl(**library)) == "twbench.crawl.worker"
    assert worker_module(scenario()) == "twbench.fleet.worker"


@pytest.mark.parametrize("foreign", [True, False])
def test_of_a_foreign_client_only_the_ports_are_foretold(*, foreign: bool) -> None:
    asked = scenario(load=CLOSED) if foreign else crawl()
    found = predict_scenario(asked, {}, rate_per_s=50, foreign=foreign)
    assert (found.capacity, found.capacity_per_destination) == (28_232, 28_232)
    assert found.time_wait_peak is found.exhausted_after_s is found.sustainable_rate_per_s is None


@given(
    hosts=st.integers(1, 4),
    workers=st.integers(1, 4),
    addresses=st.integers(1, 3),
    requests=st.integers(1, 1000),
)
def test_every_client_host_gets_its_workers_and_their_shares_add_up(
    hosts: int, workers: int, addresses: int, requests: int
) -> None:
    asked = scenario(
        lab={"client": {"hosts": hosts, "addresses": addresses}},
        client={"workers": workers},
        load={**OPEN, "requests": requests},
    )
    lab = lab_plan(asked)
    plans = fleet_plans(asked, lab)
    names = [name for name, _ in plans]
    assert {name: names.count(name) for name in names} == {h.name: workers for h in lab.clients}
    assert [plan.worker for _, plan in plans] == list(range(hosts * workers))
    assert {plan.workers for _, plan in plans} == {hosts * workers}
    assert all(plan.destinations == endpoints(lab) for _, plan in plans)
    sources = {host.name: host.addresses for host in lab.clients}
    assert all(plan.sources == sources[name] for name, plan in plans)
    assert sum(share(requests, plan.worker, plan.workers) for _, plan in plans) == requests


def test_neighbouring_workers_sit_on_different_hosts() -> None:
    asked = scenario(lab={"client": {"hosts": 2}}, client={"workers": 2})
    names = [name for name, _ in fleet_plans(asked, lab_plan(asked))]
    assert names == ["client-1", "client-2", "client-1", "client-2"]


# the ports


def test_port_range_is_the_kernels_default_until_something_says_otherwise() -> None:
    assert port_range(scenario(), {}) == (32768, 60999)
    assert port_range(scenario(), {RANGE: "1024\t2047"}) == (1024, 2047)


def test_port_range_asked_for_counts_before_the_one_that_was_read() -> None:
    assert port_range(scenario(lab=on_client()), {RANGE: "1024 2047"}) == (40000, 40999)


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        ((40100, 40199), (40100, 40199)),
        ((40100, 50000), (40100, 40999)),
        ((30000, 40199), (40000, 40199)),
        ((20000, 20100), (40000, 40999)),
    ],
    ids=["inside", "above", "below", "elsewhere"],
)
def test_socket_option_narrows_the_range_where_it_lies_inside(
    window: tuple[int, int], expected: tuple[int, int]
) -> None:
    asked = scenario(lab=on_client(), client={"socket": {"IP_LOCAL_PORT_RANGE": window}})
    assert port_range(asked, {}) == expected


@given(st.tuples(st.integers(1, 65535), st.integers(1, 65535)).map(sorted))
def test_socket_option_never_widens_the_range(window: list[int]) -> None:
    asked = scenario(lab=on_client(), client={"socket": {"IP_LOCAL_PORT_RANGE": window}})
    low, high = port_range(asked, {})
    assert 40000 <= low <= high <= 40999


@pytest.mark.parametrize("value", ["", "32768", "a b", "60999 32768", "0 100", "1 65536", 5])
def test_sysctl_that_is_no_port_range_is_a_mistake_with_its_key(value: str | int) -> None:
    with pytest.raises(ScenarioError, match=rf"lab\.client\.sysctl\.{RANGE}: found") as caught:
        lab_plan(scenario(lab=on_client(sysctl={RANGE: value})))
    assert repr(str(value)) in str(caught.value)


RESERVED = "net.ipv4.ip_local_reserved_ports"


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("", 0),
        (40000, 1),
        ("8080,9148-9160", 0),
        ("40000,40998-41003", 3),
        ("40000-40009,40005-40014", 15),
    ],
)
def test_reserved_ports_are_none_of_the_clients(value: str | int, kept: int) -> None:
    asked = scenario(lab=on_client(sysctl={RESERVED: value}))
    assert predict_scenario(asked, {}).capacity == 1000 - kept
    assert port_capacity(lab_plan(asked), "client", (40000, 40999)) == 1000 - kept


def test_reserved_ports_that_were_read_count_where_none_were_asked_for() -> None:
    asked, read = scenario(lab=on_client()), {RESERVED: "40000-40099"}
    assert predict_scenario(asked, read).capacity == 900
    assert port_capacity(lab_plan(asked), "client", (40000, 40999), read) == 900


@pytest.mark.parametrize("value", ["a", "1-", "-1", "65536", "9-8", "40000-40999", "1-65535"])
def test_reserved_ports_that_are_no_list_or_leave_none_are_a_mistake(value: str) -> None:
    with pytest.raises(ScenarioError, match=rf"lab\.client\.sysctl\.{RESERVED}: found '{value}'"):
        lab_plan(scenario(lab=on_client(sysctl={RESERVED: value})))


# the forecast


def held_s(asked: Scenario, **sysctls: str) -> float:
    """Return for how long the forecast takes a port to be held after its connection."""
    found = predict_scenario(asked, sysctls)
    rate = found.sustainable_rate_per_s
    return 0.0 if rate is None else round(found.capacity / rate, 6)


HOLDS = {
    name: 60.0 if "client" in ending.time_wait else 0.0
    for name, ending in ENDINGS.items()
    if not ending.needs_wire
} | {"server-idle": 1.0}  # for which it is open, waiting for server.keepalive_timeout_s


@pytest.mark.parametrize(("kind", "seconds"), HOLDS.items(), ids=list(HOLDS))
def test_port_is_held_for_a_minute_exactly_where_the_client_closes_first(
    kind: str, seconds: float
) -> None:
    asked = scenario(
        ending={"kind": kind}, lab=on_client(), server={"keepalive_timeout_s": 1}, client={}
    )
    assert held_s(asked) == seconds


def test_time_wait_is_forecast_on_either_side_and_nowhere_after_a_reset() -> None:
    steady = {
        kind: predict_scenario(
            scenario(ending={"kind": kind}, load={**OPEN, "rate_per_s": 10}), {}
        ).time_wait_steady
        for kind in ("client-fin", "server-fin", "client-rst", "server-rst")
    }
    assert steady == {"client-fin": 600, "server-fin": 600, "client-rst": 0, "server-rst": 0}


@pytest.mark.parametrize("form", [int, str])
@pytest.mark.parametrize(
    ("link", "reuse", "seconds"),
    [
        ("veth", 0, 60),
        ("veth", 1, 1),
        ("veth", 2, 60),
        ("wire", 1, 1),
        ("wire", 2, 60),
        ("loopback", 0, 60),
        ("loopback", 1, 1),
        ("loopback", 2, 1),
    ],
)
def test_reuse_frees_a_port_after_a_second_where_the_kernel_would(
    link: str, reuse: int, seconds: float, form: type
) -> None:
    assert held_s(scenario(lab=on_client(link, sysctl={REUSE: form(reuse)}))) == seconds


LINGER_ZERO = {"socket": {"SO_LINGER": 0}}


@pytest.mark.parametrize(
    ("kind", "steady"),
    [("client-fin", 0), ("client-half-close", 600)],
)
def test_linger_zero_leaves_time_wait_only_after_a_shutdown(kind: str, steady: float) -> None:
    load = {**OPEN, "rate_per_s": 10}
    asked = scenario(ending={"kind": kind}, load=load, client=LINGER_ZERO)
    assert predict_scenario(asked, {}).time_wait_steady == steady
    longer = {"socket": {"SO_LINGER": 1}}
    usual = scenario(ending={"kind": kind}, load=load, client=longer)
    assert predict_scenario(usual, {}).time_wait_steady == 600


@pytest.mark.parametrize(
    ("kind", "client", "seconds"),
    [
        ("client-fin", {}, 60.5),
        ("client-rst", {}, 0.5),
        ("server-unread", {}, 0.0),
        ("server-idle", {}, 2.5),
        ("server-idle", {"pool": {"requests_per_connection": 4}}, 2.0),
        ("server-fin", {"pool": {}}, 3.0),
    ],
    ids=[
        "the server thinks before the end",
        "and before a reset",
        "but not where it never answers",
        "it also waits",
        "unless a pool uses its connections",
        "for each request",
    ],
)
def test_port_is_held_for_as_long_as_the_connection_is_used(
    kind: str, client: dict[str, object], seconds: float
) -> None:
    server = {"delay_ms": 500, "keepalive_timeout_s": 2, "keepalive_requests": 6}
    asked = scenario(ending={"kind": kind}, lab=on_client(), server=server, client=client)
    assert held_s(asked) == seconds


def test_reuse_needs_timestamps() -> None:
    assert held_s(scenario(lab=on_client(sysctl={REUSE: 1, STAMPS: 0}))) == 60


def test_reuse_that_was_read_counts_where_none_was_asked_for() -> None:
    machine = scenario(lab={"link": "host"})
    assert held_s(machine) == 1
    assert held_s(machine, **{REUSE: "0"}) == 60
    assert held_s(scenario(lab=on_client(sysctl={REUSE: 0})), **{REUSE: "1"}) == 60


def test_loopback_link_has_the_servers_sysctls_for_its_clients_too() -> None:
    asked = scenario(lab={**on_client("loopback"), "server": {"sysctl": {REUSE: 0}}})
    assert held_s(asked) == 60


def test_port_bound_before_connect_is_never_reused() -> None:
    asked = scenario(lab=on_client(sysctl={REUSE: 1}), client={"bind_before_connect": True})
    assert held_s(asked) == 60


@pytest.mark.parametrize(
    ("addresses", "client", "capacity"),
    [
        (1, {}, 4_000),
        (1, {"bind_before_connect": True}, 1_000),
        (1, {"bind_before_connect": True, "socket": {"IP_BIND_ADDRESS_NO_PORT": True}}, 4_000),
        (2, {}, 8_000),
        (2, {"bind_before_connect": True}, 8_000),
        (2, {"socket": {"IP_BIND_ADDRESS_NO_PORT": False}}, 2_000),
    ],
)
def test_port_bound_before_connect_serves_one_destination_instead_of_all(
    addresses: int, client: dict[str, object], capacity: int
) -> None:
    lab = {**on_client(addresses=addresses), "server": {"addresses": 2, "ports": [80, 81]}}
    assert predict_scenario(scenario(lab=lab, client=client), {}).capacity == capacity


def test_client_hosts_and_addresses_each_bring_a_range_of_their_own() -> None:
    asked = scenario(lab=on_client(hosts=3, addresses=2))
    assert predict_scenario(asked, {}).capacity == 6_000


def test_ports_are_exhausted_after_capacity_by_rate() -> None:
    found = predict_scenario(scenario(lab=on_client()), {})
    assert found.exhausted_after_s == pytest.approx(10)
    assert found.cliff_after_s == pytest.approx(5)


def test_socket_option_has_no_dear_half() -> None:
    window = {"socket": {"IP_LOCAL_PORT_RANGE": [40000, 40499]}}
    found = predict_scenario(scenario(lab=on_client(), client=window), {})
    assert found.exhausted_after_s == pytest.approx(5)
    assert found.cliff_after_s is None


def test_kept_connections_are_fewer_than_the_requests_over_them() -> None:
    pool = {"pool": {"size": 10, "requests_per_connection": 4}}
    found = predict_scenario(scenario(client=pool), {})
    assert found.time_wait_steady == pytest.approx(100 / 4 * 60)


@pytest.mark.parametrize(
    ("own", "servers", "real"), [(None, 50, 50), (200, 50, 50), (20, 50, 20), (None, 1000, 1000)]
)
def test_the_smaller_of_both_limits_ends_a_kept_connection(
    own: int | None, servers: int, real: int
) -> None:
    pool = {"size": 10} if own is None else {"size": 10, "requests_per_connection": own}
    asked = scenario(client={"pool": pool}, server={"keepalive_requests": servers})
    assert predict_scenario(asked, {}).time_wait_steady == pytest.approx(100 / real * 60)


def test_closed_load_has_no_more_connections_than_its_pool() -> None:
    asked = scenario(lab=on_client(), load={**CLOSED, "concurrency": 600}, client={"pool": {}})
    assert predict_scenario(asked, {}).sustainable_rate_per_s == pytest.approx((1000 - 100) / 60)


def test_closed_load_has_no_rate_before_it_is_run() -> None:
    asked = scenario(load=CLOSED)
    assert predict_scenario(asked, {}).time_wait_steady is None
    assert predict_scenario(asked, {}, rate_per_s=50).time_wait_steady == pytest.approx(3_000)


def test_closed_ramp_keeps_room_for_as_many_users_as_it_ever_has() -> None:
    stages = [{"duration_s": 5, "concurrency": 600}, {"duration_s": 5, "concurrency": 1}]
    found = predict_scenario(scenario(lab=on_client(), load={"stages": stages}), {})
    assert found.sustainable_rate_per_s == pytest.approx((1_000 - 600) / 60)


@pytest.mark.parametrize(
    "load",
    [
        {"stages": [{"duration_s": 1, "concurrency": 0}]},
        {"mode": "open", "stages": [{"duration_s": 1, "rate_per_s": 0}]},
    ],
)
def test_load_of_nobody_needs_no_port(load: dict[str, object]) -> None:
    found = predict_scenario(scenario(load=load), {})
    assert (found.ports_in_use_peak, found.exhausted_after_s) == (0, None)


def test_ramp_reaches_the_end_of_the_range_when_its_integral_does() -> None:
    stages = [{"duration_s": 10, "rate_per_s": 400}, {"duration_s": 10, "rate_per_s": 400}]
    found = predict_scenario(scenario(lab=on_client(), load={"mode": "open", "stages": stages}), {})
    # 400 t² / 20 = 1,000
    assert found.exhausted_after_s == pytest.approx(50**0.5)
