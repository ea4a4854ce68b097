"""What a scenario may say: each figure's bounds, and what tables must agree on."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from twbench.lab.plan import LabPlan, Link
from twbench.model.endings import ENDINGS
from twbench.model.errors import ScenarioError
from twbench.model.parse import build_scenario
from twbench.model.scenario import LabSpec, LoadSpec, Scenario, SocketOptions, WireSpec

CLOSED = {"concurrency": 1, "duration_s": 1}
OPEN = {"mode": "open", "rate_per_s": 1, "duration_s": 1}


def scenario(**tables: Any) -> Scenario:  # noqa: ANN401 - whatever TOML holds
    """Build a scenario that is complete but for the tables given."""
    return build_scenario({"name": "x", "load": CLOSED, **tables}, source="test")


def problems(**tables: Any) -> list[tuple[str, str]]:  # noqa: ANN401 - whatever TOML holds
    """Return key and what is allowed there, for each problem of a scenario."""
    with pytest.raises(ScenarioError) as caught:
        scenario(**tables)
    return [(problem.key, problem.allowed) for problem in caught.value.problems]


def nested(key: str, value: object) -> dict[str, Any]:
    """Return the tables in which a dotted key has a value."""
    first, *rest = key.split(".")
    table: Any = value
    for part in reversed(rest):
        table = {part: table}
    if first == "load":
        table = (OPEN if "rate_per_s" in rest or "max_in_flight" in rest else CLOSED) | table
    return {first: table}


# key, the least and the most it may be
BOUNDS = [
    ("lab.client.hosts", 1, 16),
    ("lab.client.addresses", 1, 200),
    ("lab.server.addresses", 1, 200),
    ("server.processes", 1, 16),
    ("server.response_bytes", 0, 100_000_000),
    ("server.delay_ms", 0, 600_000),
    ("server.backlog", 1, 65_535),
    ("ending.hold_s", 0.001, 600),
    ("load.concurrency", 1, 100_000),
    ("load.rate_per_s", 0.001, 1_000_000),
    ("load.duration_s", 0.001, 86_400),
    ("load.max_in_flight", 1, 100_000),
    ("client.workers", 1, 16),
    ("client.connect_timeout_s", 0.001, 600),
    ("client.request_timeout_s", 0.001, 3_600),
    ("client.retries", 0, 100),
    ("client.retry_backoff_ms", 0, 600_000),
    ("client.pool.size", 1, 100_000),
    ("client.pool.idle_gap_ms", 0, 600_000),
    ("client.socket.SO_LINGER", 0, 3_600),
    ("client.socket.TCP_SYNCNT", 1, 255),
    ("client.socket.TCP_KEEPIDLE", 1, 32_767),
    ("client.socket.TCP_KEEPCNT", 1, 127),
    ("sampling.ticks_per_s", 0.001, 100),
    ("sampling.looks_per_s", 0, 20),
    ("sampling.after_s", 0, 3_600),
]


@pytest.mark.parametrize(("key", "least", "most"), BOUNDS)
def test_figure_has_a_least_and_a_most(key: str, least: float, most: float) -> None:
    for allowed in (least, most):
        scenario(**nested(key, allowed))
    below = 0 if least == 0.001 else least - 1
    for beyond in (below, most + 1):
        assert [where for where, _ in problems(**nested(key, beyond))] == [key]


def test_shortest_scenario_has_a_name_and_a_load() -> None:
    shortest = scenario()
    assert shortest.lab.link == "veth"
    assert shortest.ending.kind == "client-fin"
    assert shortest.client.pool is None


def test_scenario_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        scenario().lab.family = "ipv6"  # type: ignore[misc]


@pytest.mark.parametrize("name", ["a", "0-a", "a" * 64])
def test_name_is_a_slug(name: str) -> None:
    assert scenario(name=name).name == name


@pytest.mark.parametrize("name", ["", "-a", "A", "a b", "../a", "a\n", "ä", "a" * 65])
def test_name_that_could_be_no_folder_is_refused(name: str) -> None:
    assert [key for key, _ in problems(name=name)] == ["name"]


@pytest.mark.parametrize("kind", [name for name, e in ENDINGS.items() if not e.needs_wire])
def test_every_ending_that_a_link_can_bring_about_is_allowed(kind: str) -> None:
    pool: dict[str, Any] = {"client": {"pool": {}}} if kind == "server-idle" else {}
    assert scenario(ending={"kind": kind}, **pool).ending.kind == kind


def test_unknown_ending_is_refused_with_a_list_of_those_there_are() -> None:
    [(key, allowed)] = problems(ending={"kind": "fin"})
    assert key == "ending.kind"
    assert allowed.endswith(", ".join(ENDINGS))


@pytest.mark.parametrize("link", ["veth", "loopback", "host"])
@pytest.mark.parametrize("kind", [name for name, e in ENDINGS.items() if e.needs_wire])
def test_ending_that_takes_held_packets_is_refused_without_a_wire(kind: str, link: str) -> None:
    asked = {"ending": {"kind": kind}}
    [(key, allowed)] = problems(**asked, lab={"link": link})
    assert key == "ending.kind"
    assert "lab.link = 'wire' alone" in allowed
    assert f"over '{link}' it is one of: client-fin, server-fin" in allowed
    assert kind not in allowed
    scenario(**asked, lab={"link": "wire"})


@pytest.mark.parametrize("link", ["veth", "loopback", "host"])
def test_table_of_the_wire_is_refused_on_another_link(link: str) -> None:
    [(key, allowed)] = problems(lab={"link": link, "wire": {"loss": 0.1}})
    assert key == "lab.wire"
    assert allowed == f"link '{link}' carries packets as they are: take 'wire'"


def test_wire_does_nothing_to_packets_unless_it_is_told_to() -> None:
    assert scenario(lab={"link": "wire"}).lab.wire is None
    plain = WireSpec()
    assert (plain.delay_ms, plain.loss, plain.duplication) == (0, 0, 0)
    assert (plain.rate_mbit_per_s, plain.rules) == (None, ())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("loss", 1.1), ("loss", -0.1), ("duplication", 2), ("delay_ms", -1)),
        *(("rate_mbit_per_s", 0), ("queue_packets", 0), ("capture_packets", -1)),
        *(("rules", ["drop FIN"] * 101), ("rules", "drop FIN"), ("delay", 5)),
    ],
)
def test_figure_of_the_wire_has_bounds(field: str, value: object) -> None:
    [(key, _)] = problems(lab={"link": "wire", "wire": {field: value}})
    assert key == f"lab.wire.{field}"


def test_wire_has_several_client_hosts() -> None:
    assert scenario(lab={"link": "wire", "client": {"hosts": 3}}).lab.client.hosts == 3


@pytest.mark.parametrize("buckets", [64, 4096, 16_777_216])
def test_ehash_entries_is_a_power_of_two(buckets: int) -> None:
    assert scenario(lab={"ehash_entries": buckets}).lab.ehash_entries == buckets
    assert [key for key, _ in problems(lab={"ehash_entries": buckets - 1})] == ["lab.ehash_entries"]


@pytest.mark.parametrize("comparison", [">= 100", "<0.5", " == -3 ", "!=0", ">1", "<=2"])
def test_threshold_is_a_comparison_with_a_number(comparison: str) -> None:
    assert scenario(thresholds={"outcomes.ok": comparison}).thresholds == {
        "outcomes.ok": comparison
    }


@pytest.mark.parametrize("comparison", ["", "100", "=> 1", ">= nan", ">= 1 or 1", "> ٣", "> 1e3"])
def test_anything_else_is_no_threshold(comparison: str) -> None:
    [(key, allowed)] = problems(thresholds={"outcomes.ok": comparison})
    assert key == "thresholds.outcomes.ok"
    assert "'>= 100'" in allowed


def test_threshold_can_be_several_comparisons_that_must_all_hold() -> None:
    given = {"outcomes.ok": ">= 1", "forecast.measured.exhausted_after_s": [">= 9.7", "<= 10.75"]}
    assert list(scenario(thresholds=given).comparisons()) == [
        ("outcomes.ok", ">= 1"),
        ("forecast.measured.exhausted_after_s", ">= 9.7"),
        ("forecast.measured.exhausted_after_s", "<= 10.75"),
    ]


@pytest.mark.parametrize("given", [[], [">= 1", "x"], [[">= 1"]], 5, [5], {"a": ">= 1"}])
def test_wrong_comparisons_of_a_threshold_are_one_problem(given: object) -> None:
    [(key, allowed)] = problems(thresholds={"outcomes.ok": given})
    assert key == "thresholds.outcomes.ok"
    assert "a list of them" in allowed


def test_threshold_on_what_no_summary_has_is_refused_with_a_suggestion() -> None:
    [(key, allowed)] = problems(thresholds={"outcome.ok": ">= 1"})
    assert key == "thresholds.outcome.ok"
    assert allowed.startswith("did you mean 'outcomes'? ")


@pytest.mark.parametrize("value", [0, -1, "32768 60999", ""])
def test_sysctl_is_a_string_or_an_integer_by_its_kernel_name(value: str | int) -> None:
    given = scenario(lab={"server": {"sysctl": {"net.ipv4.tcp_tw_reuse": value}}})
    assert given.lab.server.sysctl == {"net.ipv4.tcp_tw_reuse": value}


@pytest.mark.parametrize("value", [True, 1.5, [1], {"a": 1}])
def test_wrong_sysctl_value_is_one_problem(value: object) -> None:
    found = problems(lab={"client": {"sysctl": {"net.ipv4.tcp_tw_reuse": value}}})
    assert found == [
        ("lab.client.sysctl.net.ipv4.tcp_tw_reuse", "allowed is a string or an integer")
    ]


@pytest.mark.parametrize("name", ["tcp_tw_reuse", "net/ipv4/tcp_tw_reuse", "net..x", "../../etc"])
def test_sysctl_that_is_no_kernel_name_is_refused(name: str) -> None:
    [(key, allowed)] = problems(lab={"client": {"sysctl": {name: 1}}})
    assert key == f"lab.client.sysctl.{name}"
    assert "net.ipv4.tcp_tw_reuse" in allowed


@pytest.mark.parametrize("name", ["kernel.hostname", "fs.file-max", "net.core"])
def test_sysctl_that_belongs_to_no_namespace_is_refused_as_the_lab_would(name: str) -> None:
    [(key, allowed)] = problems(lab={"client": {"sysctl": {name: 1}}})
    assert key == f"lab.client.sysctl.{name}"
    [planned] = LabPlan(client_sysctls={name: "1"}).problems()
    assert allowed == f"allowed is {planned.allowed}"


def test_one_stack_for_both_sides_takes_one_value_of_a_sysctl_as_the_lab_would() -> None:
    reuse, sack = "net.ipv4.tcp_tw_reuse", "net.ipv4.tcp_sack"
    sides = {
        "client": {"sysctl": {reuse: 1, sack: 0}},
        "server": {"sysctl": {reuse: "2", sack: "0"}},
    }
    [(key, allowed)] = problems(lab={"link": "loopback", **sides})
    assert key == f"lab.client.sysctl.{reuse}"
    assert allowed.startswith("the server's is '2'; allowed is one value")
    plan = LabPlan(link=Link.LOOPBACK, client_sysctls={reuse: "1"}, server_sysctls={reuse: "2"})
    [planned] = plan.problems()
    assert allowed.endswith(planned.allowed)
    scenario(lab=sides)


def test_loopback_link_has_one_client_host() -> None:
    [(key, allowed)] = problems(lab={"link": "loopback", "client": {"hosts": 2}})
    assert (key, allowed) == ("lab", "link 'loopback' has one client host: take 'veth' for more")


def test_bounds_of_the_fleet_leave_a_share_for_each_worker() -> None:
    six = {"lab": {"client": {"hosts": 3}}, "load": OPEN}
    found = problems(
        **six | {"load": OPEN | {"max_in_flight": 5}},
        client={"workers": 2, "pool": {"size": 5}},
    )
    assert [key for key, _ in found] == ["client.pool.size", "load.max_in_flight"]
    assert all("at least 6" in allowed for _, allowed in found)
    scenario(
        **six | {"load": OPEN | {"max_in_flight": 6}}, client={"workers": 2, "pool": {"size": 6}}
    )
    # a closed load has no bound of its own
    scenario(load=CLOSED | {"max_in_flight": 1}, client={"workers": 2})


# what the load lacks or has too much of, and the words of each problem
@pytest.mark.parametrize(
    ("load", "says"),
    [
        ({"duration_s": 1}, ["needs concurrency"]),
        ({"mode": "open", "duration_s": 1}, ["needs rate_per_s"]),
        ({**CLOSED, "rate_per_s": 5}, ["rate_per_s is the other mode's"]),
        ({**OPEN, "concurrency": 5}, ["concurrency is the other mode's"]),
        ({"concurrency": 1}, ["duration_s or stages"]),
        ({**CLOSED, "stages": [{"duration_s": 1, "concurrency": 1}]}, ["duration_s or stages"]),
        ({"stages": [{"duration_s": 1}]}, ["every stage"]),
        ({"stages": [{"duration_s": 1, "rate_per_s": 1}]}, ["every stage"]),
        ({"mode": "open", "concurrency": 1}, ["the other mode's", "duration_s or stages"]),
    ],
)
def test_load_must_fit_its_mode(load: dict[str, Any], says: list[str]) -> None:
    found = problems(load=load)
    assert [key for key, _ in found] == ["load"] * len(says)
    for (_, allowed), words in zip(found, says, strict=True):
        assert words in allowed


def test_load_lasts_as_long_as_its_stages_together() -> None:
    assert LoadSpec(concurrency=1, duration_s=3).total_s == 3
    stages = [{"duration_s": 1.5, "concurrency": 4}, {"duration_s": 2, "concurrency": 0}]
    assert scenario(load={"stages": stages}).load.total_s == 3.5


def test_machine_itself_as_link_reports_all_that_it_cannot_do() -> None:
    lab = {
        "link": "host",
        "family": "ipv6",
        "client": {"hosts": 2, "addresses": 2, "sysctl": {"net.ipv4.tcp_tw_reuse": 1}},
    }
    found = problems(lab=lab)
    assert [key for key, _ in found] == ["lab"] * 3
    for (_, allowed), words in zip(found, ["no sysctl", "one client", "::1"], strict=True):
        assert words in allowed
    scenario(lab={**lab, "link": "veth"})


def test_machine_itself_has_many_ipv4_addresses_and_one_ipv6() -> None:
    assert LabSpec(link="host", family="ipv6").client.addresses == 1
    scenario(lab={"link": "host", "client": {"addresses": 5}})


@pytest.mark.parametrize(
    ("tables", "key"),
    [
        ({"ending": {"kind": "server-idle"}}, "ending.hold_s (10)"),
        (
            {
                "ending": {"kind": "server-idle", "hold_s": 20},
                "server": {"keepalive_timeout_s": 6},
                "client": {"request_timeout_s": 5},
            },
            "client.request_timeout_s (5)",
        ),
    ],
)
def test_idle_ending_without_a_pool_must_come_before_anybody_gives_up(
    tables: dict[str, Any], key: str
) -> None:
    [(where, allowed)] = problems(**tables)
    assert where == "scenario"
    assert key in allowed
    scenario(**tables | {"client": {"pool": {}}})
    scenario(**tables | {"server": {"keepalive_timeout_s": 4.9}})


def test_schema_lists_the_endings_that_are_allowed_and_no_others() -> None:
    kind = Scenario.model_json_schema()["$defs"]["EndingSpec"]["properties"]["kind"]
    assert kind["enum"] == [*ENDINGS]


def test_only_the_socket_options_given_are_set() -> None:
    assert SocketOptions().given() == {}
    assert SocketOptions(SO_LINGER=0, TCP_NODELAY=False).given() == {
        "SO_LINGER": 0,
        "TCP_NODELAY": False,
    }


@pytest.mark.parametrize("window", [[5, 4], [5], [5, 6, 7], [0, 6], [5, 65_536], 5])
def test_port_window_is_low_and_high(window: object) -> None:
    found = problems(client={"socket": {"IP_LOCAL_PORT_RANGE": window}})
    assert all(key.startswith("client.socket") for key, _ in found)


def test_schema_documents_each_key_that_is_not_named_by_the_kernel() -> None:
    schema = Scenario.model_json_schema()
    json.dumps(schema)
    tables = {"Scenario": schema, **schema["$defs"]}
    silent = {
        f"{table}.{key}"
        for table, content in tables.items()
        for key, entry in content["properties"].items()
        if not entry.get("description") and "$ref" not in entry and not key.isupper()
    }
    assert silent == set()


def test_client_that_would_reset_what_the_server_closed_is_refused() -> None:
    lingering = {"name": "a", "load": {"concurrency": 1, "duration_s": 1}}
    lingering |= {"client": {"socket": {"SO_LINGER": 0}}}
    with pytest.raises(
        ScenarioError, match=r"client\.socket\.SO_LINGER: found 0; allowed is a time"
    ):
        build_scenario(lingering | {"ending": {"kind": "server-fin"}}, source="here")
    build_scenario(lingering | {"ending": {"kind": "client-fin"}}, source="here")
