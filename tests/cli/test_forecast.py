"""`twbench forecast`: the arithmetic alone."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Done = subprocess.CompletedProcess[str]
Twbench = Callable[..., Done]
Write = Callable[..., str]

THOUSAND_PORTS = '[lab.client.sysctl]\n"net.ipv4.ip_local_port_range" = "40000 40999"\n'


def test_json_has_the_range_and_every_figure_and_nothing_is_run(
    twbench: Twbench, scenario: Write, tmp_path: Path
) -> None:
    done = twbench("forecast", scenario(THOUSAND_PORTS, duration_s=10), "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert (found["scenario"], found["port_range"]) == ("short", [40000, 40999])
    assert found["exhausted_after_s"] == pytest.approx(1000 / 200)
    assert found["sustainable_rate_per_s"] == pytest.approx(1000 / 60)
    assert [path.name for path in tmp_path.iterdir()] == ["short.toml"]


def test_table_says_what_is_never_reached(twbench: Twbench, scenario: Write) -> None:
    done = twbench("forecast", scenario(THOUSAND_PORTS), "--set", "ending.kind=client-rst")
    assert "40000-40999" in done.stdout
    assert "never within this load" in done.stdout
    assert "no limit by ports" in done.stdout


def test_closed_load_is_told_to_have_no_rate_unless_it_is_given_one(
    twbench: Twbench, tmp_path: Path
) -> None:
    text = 'name = "closed"\n[load]\nconcurrency = 4\nduration_s = 100\n'
    (tmp_path / "closed.toml").write_text(text)
    cells = twbench("forecast", "closed.toml").stdout.replace("│", " ").split()
    assert "assume one with --rate" in " ".join(cells)
    found = json.loads(twbench("forecast", "closed.toml", "--rate", "50", "--json").stdout)
    assert found["time_wait_steady"] == pytest.approx(50 * 60)


def test_open_load_takes_no_other_rate(twbench: Twbench, scenario: Write) -> None:
    done = twbench("forecast", scenario(), "--rate", "50")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("twbench: --rate is for a closed load")


def test_crawl_has_its_ports_foretold_and_nothing_else(twbench: Twbench, tmp_path: Path) -> None:
    text = 'name = "crawl"\n[web]\n[load]\nconcurrency = 4\nduration_s = 100\n'
    (tmp_path / "crawl.toml").write_text(text)
    cells = twbench("forecast", "crawl.toml").stdout.replace("│", " ").split()
    told = " ".join(cells)
    assert "ports in all 28,232" in told
    assert told.count("unknown: a crawler closes when it likes") == 5
    assert json.loads(twbench("forecast", "crawl.toml", "--json").stdout)["cliff_after_s"] is None
    refused = twbench("forecast", "crawl.toml", "--rate", "50")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("twbench: --rate says nothing of a crawl")


def test_rules_that_a_run_would_refuse_are_refused_here_too(
    twbench: Twbench, scenario: Write
) -> None:
    wire = '[lab]\nlink = "wire"\n[lab.wire]\nrules = ["hold FIN"]\n'
    done = twbench("forecast", scenario(wire))
    assert (done.returncode, done.stdout) == (2, "")
    assert "lab.wire.rules.0: found hold alone in 'hold FIN'; allowed is" in done.stderr


@pytest.mark.namespaces
def test_link_that_is_the_machine_itself_is_forecast_with_its_own_settings(
    twbench: Twbench, scenario: Write
) -> None:
    path = scenario('[lab]\nlink = "host"\n', duration_s=100)
    known = ("--json", "--set", "lab.client.addresses=2")
    ports = "echo 40000 40999 >/proc/sys/net/ipv4/ip_local_port_range"
    for reuse, held_s in ((0, 60), (1, 1)):
        settings = f"{ports}; echo {reuse} >/proc/sys/net/ipv4/tcp_tw_reuse"
        inside = ("unshare", "-Urn", "sh", "-c", f'{settings}; exec "$@"', "sh")
        found = json.loads(twbench("forecast", path, *known, before=inside).stdout)
        assert found["port_range"] == [40000, 40999]
        assert found["sustainable_rate_per_s"] == pytest.approx(2 * 1000 / held_s)


def test_mistake_in_the_scenario_is_told(twbench: Twbench, scenario: Write) -> None:
    done = twbench("forecast", scenario("[lab.clients]\n"))
    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean 'client'?" in done.stderr
