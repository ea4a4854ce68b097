"""The tree of what is raised on purpose: what the user reads, and what the program leaves with."""

import pytest

from twbench.model.errors import (
    LabError,
    Problem,
    RecordError,
    ScenarioError,
    TwbenchError,
    UsageError,
)

TOO_MANY = Problem(key="server.processes", found="99", allowed="allowed is at most 16")
UNNAMED = Problem(key="name", found="nothing", allowed="this key is required")


def test_problem_is_one_line_with_key_found_and_allowed() -> None:
    assert str(TOO_MANY) == "server.processes: found 99; allowed is at most 16"


def test_scenario_error_lists_each_problem_on_a_line_of_its_own() -> None:
    error = ScenarioError("a.toml", [TOO_MANY, UNNAMED])
    assert str(error).splitlines() == ["a.toml: 2 problems", f"  {TOO_MANY}", f"  {UNNAMED}"]
    assert (error.source, error.problems) == ("a.toml", (TOO_MANY, UNNAMED))


def test_one_problem_is_no_plural() -> None:
    assert str(ScenarioError("a.toml", [UNNAMED])).splitlines()[0] == "a.toml: 1 problem"


def test_lab_error_says_what_would_help() -> None:
    error = LabError("unshare(CLONE_NEWUSER): EPERM", remedy="run with sudo")
    assert str(error) == "unshare(CLONE_NEWUSER): EPERM\n  remedy: run with sudo"
    assert "twbench doctor" in LabError("no veth").remedy


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (TwbenchError("a bug"), 1),
        (UsageError("no such folder"), 2),
        (ScenarioError("a.toml", [UNNAMED]), 2),
        (RecordError("the disk is full"), 2),
        (LabError("no namespaces"), 3),
    ],
)
def test_each_error_has_its_exit_status(error: TwbenchError, status: int) -> None:
    assert error.exit_status == status
