"""Whole runs on the real kernel: what they leave, and whether their books balance."""

import json
import math
import os
import signal
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from twbench.lab.sysctls import RECORDED_SYSCTLS, read_sysctls
from twbench.model.endings import ENDINGS
from twbench.model.errors import LabError
from twbench.model.outcomes import KINDS
from twbench.model.parse import build_scenario
from twbench.model.scenario import Scenario
from twbench.record.reader import Run, read_run
from twbench.run.course import Result, run_scenario
from twbench.run.progress import Progress

RANGE = "net.ipv4.ip_local_port_range"
EXHAUSTED = "connect:EADDRNOTAVAIL:ports_exhausted"
OPEN = {"mode": "open", "rate_per_s": 200, "duration_s": 0.5}
"""A hundred connections."""
FIGURES = ("p50", "p90", "p99", "p99_9", "max")


def scenario(**tables: object) -> Scenario:
    return build_scenario({"name": "course", "load": OPEN, **tables}, source="test")


def figure(summary: Mapping[str, Any], key: str) -> Any:  # noqa: ANN401 - whatever JSON holds
    value: Any = summary
    for part in key.split("."):
        value = value[part]
    return value


def residuals(result: Result) -> list[Any]:
    """Return what does not balance; nothing, where the audit is as it should be."""
    return [each for each in result.summary["audit"]["identities"] if each["residual"]]


# one run alone, looked at from every side


@pytest.fixture(scope="module")
def watched() -> list[Progress]:
    return []


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory, watched: list[Progress]) -> Result:
    """Return a run into the end of a range of 512 ports."""
    asked = scenario(
        lab={"client": {"sysctl": {RANGE: "40000 40511"}}},
        load={"mode": "open", "rate_per_s": 300, "duration_s": 2.2},
        thresholds={"outcomes.ok": "== 512", "rates.requests_per_s": ">= 100000"},
    )
    return run_scenario(asked, results_dir=tmp_path_factory.mktemp("r"), observe=watched.append)


@pytest.fixture(scope="module")
def run(result: Result) -> Run:
    return read_run(result.path)


@pytest.mark.namespaces
def test_summary_has_every_figure_under_its_documented_name(result: Result) -> None:
    keys = [
        *("schema", "run_id", "environment", "scenario"),
        *("outcomes.attempted", "outcomes.ok", f"outcomes.errors.{EXHAUSTED}"),
        *("rates.connections_per_s", "rates.requests_per_s"),
        *(
            f"latency_ms.{latency}.{name}"
            for latency in ("connect", "request", "request_from_intended")
            for name in FIGURES
        ),
        *(
            f"hosts.{host}.{name}"
            for host in ("client", "server")
            for name in ("counters", "states_peak", *map("time_wait.{}".format, WAITING))
        ),
        *("hosts.client.ports.range", "hosts.client.ports.capacity"),
        "hosts.client.ports.in_use_peak",
        *(
            f"forecast.{which}.{name}"
            for which in ("predicted", "measured")
            for name in ("time_wait_steady", "exhausted_after_s", "sustainable_rate_per_s")
        ),
        *("audit.balanced", "audit.identities", "thresholds"),
    ]
    for key in keys:
        figure(result.summary, key)
    for identity in result.summary["audit"]["identities"]:
        assert identity.keys() == {"name", "left", "right", "residual", "explained"}
    for threshold in result.summary["thresholds"]:
        assert threshold.keys() == {"expression", "value", "ok"}


WAITING = ("peak", "end", "held_s")


@pytest.mark.namespaces
def test_client_that_closes_first_holds_every_time_wait_and_every_port(result: Result) -> None:
    hosts = result.summary["hosts"]
    assert hosts["client"]["time_wait"]["peak"] == 512
    assert hosts["client"]["time_wait"]["end"] == 512
    assert hosts["server"]["time_wait"] == {"peak": 0, "end": 0, "held_s": 0.0, "steady": None}
    ports = {"range": [40000, 40511], "capacity": 512, "in_use_peak": 512}
    assert hosts["client"]["ports"] == ports
    assert hosts["client"]["counters"]["TcpExtTW"] == 512
    assert "TcpExtTW" not in hosts["server"]["counters"]


@pytest.mark.namespaces
def test_ports_run_out_within_five_per_cent_of_the_forecast(result: Result) -> None:
    forecast = result.summary["forecast"]
    assert forecast["predicted"]["exhausted_after_s"] == pytest.approx(512 / 300, abs=1e-4)
    assert forecast["measured"]["exhausted_after_s"] == pytest.approx(512 / 300, rel=0.05)


@pytest.mark.namespaces
def test_every_connect_after_the_last_port_fails_by_name(result: Result) -> None:
    outcomes = result.summary["outcomes"]
    assert (outcomes["attempted"], outcomes["ok"]) == (660, 512)
    assert outcomes["errors"] == {EXHAUSTED: 148}
    assert outcomes["departures"] == {
        "client": {"active_close": 512},
        "server": {"passive_close": 512},
    }


@pytest.mark.namespaces
def test_audit_balances_line_by_line(result: Result) -> None:
    assert residuals(result) == []
    assert result.summary["audit"]["promised"]
    assert result.summary["audit"]["balanced"]
    assert len(result.summary["audit"]["identities"]) > 10


@pytest.mark.namespaces
def test_thresholds_are_told_apart(result: Result) -> None:
    met, missed = result.summary["thresholds"]
    assert met == {"expression": "outcomes.ok == 512", "value": 512, "ok": True}
    assert not missed["ok"]
    assert missed["value"] == result.summary["rates"]["requests_per_s"]


@pytest.mark.namespaces
def test_folder_reads_back_whole(result: Result, run: Run) -> None:
    assert (run.missing, run.truncated) == ((), ())
    assert run.complete
    assert run.summary == json.loads(json.dumps(result.summary))
    assert run.run_id == result.summary["run_id"] == result.path.name
    assert run.events == ()


@pytest.mark.namespaces
def test_scenario_in_the_folder_gives_the_same_run_again(result: Result, run: Run) -> None:
    assert run.scenario is not None
    again = build_scenario(run.scenario, source="results folder")
    assert again.model_dump(mode="json", exclude_none=True) == result.summary["scenario"]


@pytest.mark.namespaces
def test_ticks_come_ten_times_a_second_each_with_its_doubt(run: Run) -> None:
    for stack in ("client", "server"):
        ticks = [line for line in run.samples if line["stack"] == stack]
        times = [line["t_s"] for line in ticks]
        assert times == sorted(times)
        assert (len(times) - 1) / (times[-1] - times[0]) == pytest.approx(10, rel=0.25)
        assert all(line["lateness_ms"] >= 0 and line["cost_ms"] > 0 for line in ticks)
        assert {line["source"] for line in ticks} == {"proc"}
        assert sum(line["missed"] for line in ticks) <= 2


@pytest.mark.namespaces
def test_looks_come_once_a_second_at_the_peak_and_at_the_end(run: Run) -> None:
    looks = [line for line in run.looks if line["stack"] == "client"]
    scheduled = [line["t_s"] for line in looks if line["label"] == "scheduled"]
    assert 2 <= len(scheduled) <= 4
    assert all(later - t_s == pytest.approx(1, abs=0.3) for t_s, later in pairwise(scheduled))
    assert looks[-1]["label"] == "end"
    assert looks[-1]["states_by_side"]["client"] == {"TIME_WAIT": 512}
    assert all(line["cost_ms"] > 0 and not line["interrupted"] for line in looks)


@pytest.mark.namespaces
def test_lines_of_outcomes_add_up_to_the_summary(result: Result, run: Run) -> None:
    fleet = [line for line in run.outcomes if line["host"] == "client"]
    server = [line for line in run.outcomes if line["host"] == "server"]
    errors: Counter[str] = Counter()
    for line in fleet:
        errors.update(line.get("errors", {}))
    assert sum(line.get("attempted", 0) for line in fleet) == 660
    assert sum(line.get("ok", 0) for line in fleet) == 512
    assert dict(errors) == result.summary["outcomes"]["errors"]
    assert sum(line.get("accepted", 0) for line in server) == 512
    assert {line["from"] for line in run.outcomes} == {"fleet worker 1", "server process 1"}


@pytest.mark.namespaces
def test_time_runs_from_the_first_intended_request(run: Run) -> None:
    busy = [line["t_s"] for line in run.outcomes if line.get("attempted")]
    assert 0 < busy[0] < 0.3
    assert 2.1 < busy[-1] < 2.6


@pytest.mark.namespaces
def test_environment_tells_engines_sources_and_sysctls(run: Run) -> None:
    environment = run.environment
    assert environment is not None
    assert environment["engines"].keys() == {"server", "fleet"}
    for stack in ("client", "server"):
        assert environment["sources"][stack]["ticks"] == "proc"
        sysctls = environment["sysctls"][stack]
        assert sysctls["before"] == sysctls["after"]
    assert environment["sysctls"]["client"]["before"][RANGE].split() == ["40000", "40511"]
    assert environment["sysctls"]["server"]["before"][RANGE].split() != ["40000", "40511"]


@pytest.mark.namespaces
def test_whoever_watches_is_told_the_stages_and_the_figures_in_between(
    result: Result, watched: list[Progress]
) -> None:
    stages = list(dict.fromkeys(progress.stage for progress in watched))
    assert stages == ["load", "settling"]
    assert [p.attempted for p in watched] == sorted(p.attempted for p in watched)
    during = [p for p in watched if 1 < p.t_s < 2]
    assert all(p.connections_per_s == pytest.approx(300, rel=0.35) for p in during[:2])
    assert watched[-1].attempted == result.summary["outcomes"]["attempted"]
    assert watched[-1].hosts[0].ports_capacity == 512


# many small runs at the same time, each in a thread that is not the main one


def answered(kind: str) -> dict[str, object]:
    """Return a scenario with an ending; idle connections of the server wait for 0.2 s."""
    return {"ending": {"kind": kind}, "server": {"keepalive_timeout_s": 0.2}}


KEPT = {"load": {**OPEN, "rate_per_s": 400}, "client": {"pool": {"size": 10}}}
ENDED = [name for name, ending in ENDINGS.items() if not ending.needs_wire]
MANY: dict[str, dict[str, object]] = {
    **{kind: answered(kind) for kind in ENDED},
    "kept client-fin": {"ending": {"kind": "client-fin"}} | KEPT,
    "kept server-fin": {"ending": {"kind": "server-fin"}} | KEPT,
    "kept server-idle": answered("server-idle") | KEPT,
    "two hosts": {"lab": {"client": {"hosts": 2}}, "client": {"workers": 2}},
    "ipv6": {"lab": {"family": "ipv6"}},
    "loopback": {"lab": {"link": "loopback"}},
    "loopback ipv6": {"lab": {"link": "loopback", "family": "ipv6"}},
    "addresses": {
        "lab": {
            "client": {"addresses": 3, "sysctl": {RANGE: "40000 40019"}},
            "server": {"addresses": 2, "ports": [80, 81]},
        }
    },
    "bound early": {
        "lab": {"client": {"sysctl": {RANGE: "40000 40049", "net.ipv4.tcp_tw_reuse": 1}}},
        "client": {"bind_before_connect": True},
    },
    "window": {
        "lab": {"client": {"sysctl": {RANGE: "40000 40059"}}},
        "client": {"socket": {"IP_LOCAL_PORT_RANGE": [40010, 50000]}},
    },
    "closed": {"load": {"concurrency": 4, "duration_s": 2, "requests": 77}},
    "servers": {"server": {"processes": 2}, "load": {"concurrency": 4, "duration_s": 0.5}},
    "ramp": {
        "load": {
            "mode": "open",
            "stages": [
                {"duration_s": 0.5, "rate_per_s": 200},
                {"duration_s": 0.5, "rate_per_s": 0},
            ],
        }
    },
}
AT_ONCE = 8


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Result]]:
    """Return what waits for one of MANY."""
    folder = tmp_path_factory.mktemp("many")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        begin = partial(run_scenario, results_dir=folder)
        runs: dict[str, Future[Result]] = {
            name: pool.submit(begin, scenario(**tables)) for name, tables in MANY.items()
        }
        yield lambda name: runs[name].result()


@pytest.mark.namespaces
@pytest.mark.parametrize("name", MANY)
def test_audit_balances(many: Callable[[str], Result], name: str) -> None:
    result = many(name)
    assert residuals(result) == []
    assert result.summary["audit"]["balanced"]
    assert (result.summary["ended_early"], result.interrupted) == ("", False)
    assert read_run(result.path).complete


@pytest.mark.namespaces
@pytest.mark.parametrize("kind", ENDED)
def test_each_ending_leaves_time_wait_and_resets_on_the_sides_it_says(
    many: Callable[[str], Result], kind: str
) -> None:
    summary = many(kind).summary
    for side in ("client", "server"):
        host = summary["hosts"][side]
        waits = 100 if side in ENDINGS[kind].time_wait else 0
        resets = 100 if side in ENDINGS[kind].resets else 0
        assert host["time_wait"]["peak"] == waits
        assert host["counters"].get("TcpOutRsts", 0) == resets
    assert summary["outcomes"]["ok"] == (100 if ENDINGS[kind].answered else 0)
    assert summary["outcomes"]["attempted"] == 100


@pytest.mark.namespaces
def test_errors_are_counted_under_keys_of_the_table(many: Callable[[str], Result]) -> None:
    known = {f"{phase}:{error}:{kind.name}" for (phase, error, _), kind in KINDS.items()}
    for name in MANY:
        outcomes = many(name).summary["outcomes"]
        assert {*outcomes["errors"], *outcomes["connection_errors"]} <= known


@pytest.mark.namespaces
def test_pool_keeps_its_connections(many: Callable[[str], Result]) -> None:
    summary = many("kept client-fin").summary
    assert summary["outcomes"]["ok"] == 200
    assert summary["rates"]["connections_per_request"] <= 10 / 200
    assert summary["hosts"]["client"]["time_wait"]["peak"] <= 10


@pytest.mark.namespaces
def test_several_client_hosts_are_numbered_and_share_the_load(
    many: Callable[[str], Result],
) -> None:
    result = many("two hosts")
    hosts = result.summary["hosts"]
    assert list(hosts) == ["client-1", "client-2", "server"]
    opened = [hosts[f"client-{n}"]["counters"]["TcpActiveOpens"] for n in (1, 2)]
    assert opened == [50, 50]
    lines = read_run(result.path).outcomes
    assert {line["from"] for line in lines if line["host"] == "client-2"} == {
        "fleet worker 2",
        "fleet worker 4",
    }


@pytest.mark.namespaces
def test_ipv6_has_addresses_of_its_own(many: Callable[[str], Result]) -> None:
    for name in ("ipv6", "loopback ipv6"):
        summary = many(name).summary
        assert summary["outcomes"]["ok"] == 100
        assert all(":" in a for host in summary["hosts"].values() for a in host["addresses"])


@pytest.mark.namespaces
def test_loopback_says_that_both_sides_share_a_kernel(many: Callable[[str], Result]) -> None:
    summary = many("loopback").summary
    assert any("one kernel stack" in warning for warning in summary["warnings"])
    assert summary["hosts"]["client"]["stack"] == summary["hosts"]["server"]["stack"]
    assert summary["hosts"]["client"]["time_wait"]["peak"] == 100
    assert summary["hosts"]["server"]["time_wait"]["peak"] == 0
    assert many("client-fin").summary["warnings"] == []


@pytest.mark.namespaces
def test_every_address_has_the_whole_range_towards_every_destination(
    many: Callable[[str], Result],
) -> None:
    summary = many("addresses").summary
    assert summary["outcomes"]["ok"] == 100
    assert summary["forecast"]["predicted"]["capacity"] == 20 * 3 * 4
    # 100 connections over 3 by 4 pairs: no more than 9 of a pair's 20 ports
    assert summary["hosts"]["client"]["ports"]["in_use_peak"] <= 9 * 3


@pytest.mark.namespaces
@pytest.mark.parametrize("name", ["bound early", "window"])
def test_forecast_of_ports_holds_for_every_way_to_choose_them(
    many: Callable[[str], Result], name: str
) -> None:
    summary = many(name).summary
    forecast = summary["forecast"]
    assert summary["outcomes"]["ok"] == forecast["predicted"]["capacity"] == 50
    assert forecast["predicted"]["exhausted_after_s"] == pytest.approx(0.25)
    assert forecast["measured"]["exhausted_after_s"] == pytest.approx(0.25, abs=0.1)


@pytest.mark.namespaces
def test_closed_load_ends_after_as_many_requests_as_were_asked_for(
    many: Callable[[str], Result],
) -> None:
    summary = many("closed").summary
    assert summary["outcomes"]["attempted"] == summary["outcomes"]["ok"] == 77
    assert summary["forecast"]["from_measured_rate"]
    assert not math.isnan(summary["forecast"]["predicted"]["time_wait_steady"])
    assert summary["latency_ms"]["request_from_intended"] == summary["latency_ms"]["request"]


@pytest.mark.namespaces
def test_several_server_processes_share_the_connections(many: Callable[[str], Result]) -> None:
    result = many("servers")
    accepted: Counter[str] = Counter()
    for line in read_run(result.path).outcomes:
        if line["host"] == "server":
            accepted[line["from"]] += line.get("accepted", 0)
    assert accepted.keys() == {"server process 1", "server process 2"}
    assert min(accepted.values()) > 0
    assert accepted.total() == result.summary["hosts"]["server"]["counters"]["TcpPassiveOpens"]


@pytest.mark.namespaces
def test_ramp_offers_the_area_below_it(many: Callable[[str], Result]) -> None:
    # up to 200/s in half a second and down again
    assert many("ramp").summary["outcomes"]["attempted"] == pytest.approx(100, abs=1)


# the machine itself, interrupts and refusals


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as finder:
        port: int = finder.getsockname()[1]
        return port


def test_host_link_runs_on_the_machine_says_what_it_cannot_promise_and_changes_nothing(
    tmp_path: Path,
) -> None:
    before = read_sysctls(RECORDED_SYSCTLS)
    asked = scenario(
        lab={"link": "host", "server": {"ports": [free_port()]}},
        ending={"kind": "client-rst"},
    )
    summary = run_scenario(asked, results_dir=tmp_path).summary
    assert summary["outcomes"]["ok"] == summary["outcomes"]["attempted"] == 100
    assert (summary["audit"]["promised"], summary["audit"]["balanced"]) == (False, True)
    said = " ".join(summary["warnings"])
    assert "other programs' sockets are in the counters" in said
    assert "no sysctl is set" in said
    sysctls = summary["environment"]["sysctls"]["machine"]
    assert sysctls["before"] == sysctls["after"] == before == read_sysctls(RECORDED_SYSCTLS)


@pytest.mark.namespaces
def test_interrupt_ends_the_sampling_after_the_load_and_keeps_everything(tmp_path: Path) -> None:
    seen: set[str] = set()

    def observe(progress: Progress) -> None:
        if progress.stage == "sampling on" and "sampling on" not in seen:
            os.kill(os.getpid(), signal.SIGINT)
        seen.add(progress.stage)

    asked = scenario(sampling={"after_s": 600})
    result = run_scenario(asked, results_dir=tmp_path, observe=observe)
    assert result.interrupted
    assert result.summary["ended_early"] == "interrupted"
    assert result.summary["outcomes"]["ok"] == 100
    assert residuals(result) == []
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.namespaces
def test_interrupt_before_the_load_leaves_an_empty_run_that_balances(tmp_path: Path) -> None:
    told: list[Progress] = []

    def observe(progress: Progress) -> None:
        if not told:
            os.kill(os.getpid(), signal.SIGINT)
        told.append(progress)

    result = run_scenario(scenario(), results_dir=tmp_path, observe=observe)
    assert result.interrupted
    assert residuals(result) == []
    assert 0 <= result.summary["load_s"] < 0.5
    assert read_run(result.path).complete


def test_taken_port_is_refused_and_leaves_no_folder(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        asked = scenario(lab={"link": "host", "server": {"ports": [port]}})
        with pytest.raises(LabError, match=f"port {port}: EADDRINUSE"):
            run_scenario(asked, results_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_port_that_others_would_share_is_taken_too(tmp_path: Path) -> None:
    with socket.socket() as sharing:
        sharing.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sharing.bind(("127.0.0.1", 0))
        sharing.listen()
        port = sharing.getsockname()[1]
        asked = scenario(lab={"link": "host", "server": {"ports": [port]}})
        with pytest.raises(LabError, match=f"port {port}: EADDRINUSE"):
            run_scenario(asked, results_dir=tmp_path)
