"""`twbench doctor`: what this machine can do."""

import json
import subprocess
from collections.abc import Callable

import pytest

from twbench.lab.doctor import Status

Twbench = Callable[..., subprocess.CompletedProcess[str]]
NO_MORE = "echo 0 >/proc/sys/user/max_user_namespaces; echo 0 >/proc/sys/user/max_net_namespaces"


@pytest.mark.namespaces
def test_machine_with_namespaces_is_fit_for_a_lab(twbench: Twbench) -> None:
    done = twbench("doctor", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    findings = json.loads(done.stdout)["findings"]
    for finding in findings:
        assert finding.keys() >= {"status", "name", "found", "means", "remedy"}
        assert finding["status"] in set(Status)
        assert finding["status"] != Status.FAIL


@pytest.mark.namespaces
def test_machine_without_namespaces_is_not_and_is_told_the_remedy(twbench: Twbench) -> None:
    limit = ("unshare", "--user", "--map-root-user", "sh", "-c", f'{NO_MORE}; exec "$@"', "sh")
    done = twbench("doctor", "--json", before=limit)
    assert done.returncode == 3
    findings = json.loads(done.stdout)["findings"]
    failed = [finding for finding in findings if finding["status"] == Status.FAIL]
    assert failed
    assert all(finding["remedy"] for finding in failed)


def test_table_has_a_row_for_each_finding(twbench: Twbench) -> None:
    table, listed = twbench("doctor"), twbench("doctor", "--json")
    assert table.returncode == listed.returncode
    cells = [line.split("│")[1].strip() for line in table.stdout.splitlines() if "│" in line]
    statuses = [finding["status"] for finding in json.loads(listed.stdout)["findings"]]
    assert [cell for cell in cells if cell] == statuses
