"""A load on real hosts: both sides agree, and what cannot be had says so."""

import shutil
from dataclasses import replace

import pytest

from bench.parts.clients import CLIENTS, Account
from bench.parts.errors import BrokenError, UnavailableError
from bench.parts.loads import carry, closed, scenario
from bench.parts.servers import nginx_config
from bench.parts.tools import Told
from twbench.lab.lab import Lab
from twbench.model.plans import FleetPlan

SBIN = "/usr/sbin:/usr/local/sbin:/usr/bin"
pytestmark = pytest.mark.namespaces


@pytest.mark.parametrize("client", ["streams", "bare uvloop", "C epoll"])
def test_clients_count_is_the_servers_and_its_kernels(client: str) -> None:
    engine = "streams" if client == "streams" else ""
    task = scenario(closed(0.2), client=engine, server="streams")
    carried = carry(client, task, server="streams")
    assert carried.failed == 0
    assert carried.exchanges > 0
    assert carried.client_cpu_us > 0
    assert carried.server_first >= 0.9 * carried.exchanges


@pytest.mark.skipif(not shutil.which("nginx", path=SBIN), reason="nginx is not installed")
def test_nginx_tells_how_many_requests_it_had() -> None:
    carried = carry("bare uvloop", scenario(closed(0.2)), server="nginx")
    assert carried.exchanges > 0


@pytest.mark.parametrize("count", [99, 101])
def test_client_that_counts_otherwise_than_the_server_is_broken(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def boast(lab: Lab, plan: FleetPlan, core: int) -> Account:
        account = CLIENTS["bare uvloop"](lab, plan, core)
        made = round(account.told.exchanges * count / 100) + count - 100
        return replace(account, told=replace(account.told, exchanges=made))

    monkeypatch.setattr("bench.parts.loads.CLIENTS", {"boast": boast})
    with pytest.raises(BrokenError, match="by the server"):
        carry("boast", scenario(closed(0.2), server="streams"), server="streams")


@pytest.mark.parametrize(("done", "failed"), [(0, 0), (100, 1)])
def test_client_of_ours_with_a_failure_or_nothing_done_is_broken(
    done: int, failed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def idle(lab: Lab, plan: FleetPlan, core: int) -> Account:  # noqa: ARG001 - does nothing
        return Account(told=Told(exchanges=done, failed=failed, elapsed_s=1), cpu_s=1)

    monkeypatch.setattr("bench.parts.loads.CLIENTS", {"idle": idle})
    with pytest.raises(BrokenError, match="1 attempts failed" if failed else "not one exchange"):
        carry("idle", scenario(closed(0.2), server="streams"), server="streams")


def test_client_that_does_not_keep_its_connections_alive_is_broken() -> None:
    task = scenario(closed(0.2), server="streams", pool=True)
    with pytest.raises(BrokenError, match="instead of keeping 64"):
        carry("bare uvloop", task, server="streams")


def test_nginx_that_is_not_installed_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with pytest.raises(UnavailableError, match="nginx-light"):
        carry("bare uvloop", scenario(closed(0.2)), server="nginx")


def test_nginx_closes_each_connection_unless_there_is_a_pool() -> None:
    where = [("198.19.0.1", 8080), ("198.19.0.1", 8081)]
    text = nginx_config(scenario(closed(1)), where, "/tmp/x")  # noqa: S108 - only a name
    assert "keepalive_timeout 0s;" in text
    assert "listen 198.19.0.1:8081 backlog=4096;" in text
    assert f'"{"x" * 512}"' in text
    kept = nginx_config(scenario(closed(1), pool=True), where, "/tmp/x")  # noqa: S108
    assert "keepalive_timeout 75s;" in kept
