"""`twbench diff`: two folders beside each other, and a gate for a CI job."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "results" / "reference"
CALM, RACE = str(REFERENCE / "keep-alive"), str(REFERENCE / "keepalive-race")

Done = subprocess.CompletedProcess[str]
Twbench = Callable[..., Done]
Write = Callable[..., str]


def rows(text: str) -> dict[str, list[str]]:
    """Return the cells of every table row by the first of them."""
    cells = ([cell.strip() for cell in line.strip("│").split("│")] for line in text.splitlines())
    return {first: rest for first, *rest in cells if rest}


def test_figures_stand_beside_each_other_and_what_they_depend_on_above(twbench: Twbench) -> None:
    done = twbench("diff", CALM, RACE)
    assert (done.returncode, done.stderr) == (0, "")
    table = rows(done.stdout)
    assert table["outcomes.ok"] == ["6,600", "14,548", "+7,948", "+120.4%"]
    assert table["hosts.server.time_wait.peak"] == ["0", "1,905", "+1,905", "from nothing"]
    assert table["outcomes.errors.read:EOF:keepalive_race"][:2] == ["0", "377"]
    assert table["scenario.client.pool.size"] == ["50", "200"]
    assert done.stdout.index("scenario.client.pool.size") < done.stdout.index("outcomes.ok")
    assert "outcomes.received_bytes" not in table
    assert "outcomes.received_bytes" in rows(twbench("diff", CALM, RACE, "--all").stdout)


def test_nothing_differs_from_itself(twbench: Twbench) -> None:
    done = twbench("diff", CALM, CALM, "--fail-if", "outcomes.ok > +0", "--all")
    assert done.returncode == 0
    assert "scenario, kernel, versions and sysctls are alike" in done.stdout
    assert "no figure differs" in done.stdout


def test_json_has_both_sides_and_both_changes(twbench: Twbench) -> None:
    done = twbench("diff", CALM, RACE, "--json", "--fail-if", "outcomes.ok < -5%")
    assert done.returncode == 0
    found = json.loads(done.stdout)
    assert (found["a"], found["b"]["name"]) == ({"kind": "run", "name": "keep-alive"}, RACE[-14:])
    assert found["context"]["scenario.load.mode"] == {"a": "open", "b": "closed"}
    ok = found["figures"]["outcomes.ok"]
    assert (ok["a"], ok["b"], ok["absolute"]) == (6600, 14548, 7948)
    assert ok["relative"] == pytest.approx(7948 / 6600)
    assert found["figures"]["hosts.server.time_wait.peak"]["relative"] is None
    (gate,) = found["fail_if"]
    assert (gate["expression"], gate["met"], gate["absolute"]) == ("outcomes.ok < -5%", False, 7948)


def test_change_that_is_too_large_is_told_and_leaves_with_its_own_status(twbench: Twbench) -> None:
    gates = (
        "hosts.server.time_wait.peak > +10%",
        "hosts.client.time_wait.peak > +10%",
        "outcomes.ok >= +7948",
    )
    options = [word for gate in gates for word in ("--fail-if", gate)]
    done = twbench("diff", CALM, RACE, *options)
    assert done.returncode == 4
    assert done.stderr.splitlines() == [
        f"twbench: --fail-if '{gates[0]}' is met: 0 -> 1,905 (from nothing)",
        f"twbench: --fail-if '{gates[2]}' is met: 6,600 -> 14,548 (+120.4%)",
    ]
    assert "outcomes.ok" in done.stdout
    told = twbench("diff", CALM, RACE, "--json", *options)
    assert told.returncode == 4
    assert [gate["met"] for gate in json.loads(told.stdout)["fail_if"]] == [True, False, True]


def test_scenarios_are_told_by_the_keys_that_differ(twbench: Twbench, scenario: Write) -> None:
    one = scenario(name="one")
    other = scenario('[client]\nengine = "streams"\n[client.pool]\nsize = 7\n', name="other")
    done = twbench("diff", one, other)
    assert (done.returncode, done.stderr) == (0, "")
    table = rows(done.stdout)
    assert table["client.engine"] == ["auto", "streams"]
    assert table["client.pool.size"] == ["unset", "7"]
    assert "load.rate_per_s" not in table


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((CALM, "missing"), "missing is no results folder"),
        ((CALM, "one.toml"), "allowed are two of a kind"),
        ((CALM, RACE, "--fail-if", "outcomes.ok > 5"), "allowed is KEY OP CHANGE"),
        ((CALM, RACE, "--fail-if", "outcomes.okay > +5"), "did you mean 'outcomes.ok'?"),
        (
            (CALM, RACE, "--fail-if", "forecast.measured.exhausted_after_s > +5%"),
            "'forecast.measured.exhausted_after_s' was measured neither in A nor in B",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_is_allowed(
    twbench: Twbench, scenario: Write, arguments: tuple[str, ...], said: str
) -> None:
    scenario(name="one")
    done = twbench("diff", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
