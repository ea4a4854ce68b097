"""From TOML to a scenario: every mistake at once, with its key, what was found, what may be."""

from pathlib import Path
from typing import Any

import pytest

from twbench.model.errors import ScenarioError
from twbench.model.parse import build_scenario, load_scenario, parse_scenario
from twbench.model.scenario import Scenario

FILES = sorted((Path(__file__).parents[2] / "configs").glob("*.toml"))
CONFIGS = [path for path in FILES if "[[contestant]]" not in path.read_text()]
VALID = 'name = "x"\nload = { concurrency = 1, duration_s = 1 }\n'

Row = tuple[str, str, str]
"""A problem's key, what was found and what is allowed."""


def parse(text: str, *overrides: str) -> Scenario:
    return parse_scenario(text, source="test.toml", overrides=overrides)


def problems(text: str, *overrides: str) -> list[Row]:
    with pytest.raises(ScenarioError) as caught:
        parse(text, *overrides)
    assert caught.value.source == "test.toml"
    return [(p.key, p.found, p.allowed) for p in caught.value.problems]


def test_five_mistakes_are_reported_at_once() -> None:
    text = """
        name = "Bad Name"
        [server]
        processes = 99
        response_size = 1
        [load]
        concurrency = 0
        duration_s = "5"
    """
    assert problems(text) == [
        ("name", "'Bad Name'", "allowed are lower-case letters, digits and hyphens, 64 at most"),
        ("server.processes", "99", "allowed is less than or equal to 16"),
        (
            "server.response_size",
            "an unknown key",
            (
                "did you mean 'response_bytes'? allowed here: engine, processes, response_bytes,"
                " delay_ms, keepalive_timeout_s, keepalive_requests, backlog"
            ),
        ),
        ("load.concurrency", "0", "allowed is greater than or equal to 1"),
        ("load.duration_s", "'5'", "allowed is a valid number"),
    ]


@pytest.mark.parametrize(
    ("key", "suggestion"),
    [
        ("clint.a", "client"),
        ("server.proceses", "processes"),
        ("lab.client.adresses", "addresses"),
        ("client.pool.sise", "size"),
        ("client.socket.so_linger", "SO_LINGER"),
        ("sampling.tick_per_s", "ticks_per_s"),
    ],
)
def test_unknown_key_brings_the_nearest_one_of_its_own_table(key: str, suggestion: str) -> None:
    [(where, found, allowed)] = problems(VALID + f"{key} = 1")
    assert key.startswith(where)
    assert found == "an unknown key"
    assert allowed.startswith(f"did you mean '{suggestion}'? allowed here: ")


def test_unknown_key_of_a_stage_brings_the_keys_of_a_stage() -> None:
    text = 'name = "x"\nload = { stages = [{ duration_s = 1, concurency = 2 }] }'
    assert problems(text) == [
        (
            "load.stages.0.concurency",
            "an unknown key",
            "did you mean 'concurrency'? allowed here: duration_s, rate_per_s, concurrency",
        )
    ]


def test_key_like_no_other_brings_the_list_alone() -> None:
    [(_, _, allowed)] = problems(VALID + "sampling.zzz = 1")
    assert allowed == "allowed here: ticks_per_s, looks_per_s, after_s"


def test_empty_file_lacks_what_is_required() -> None:
    required = "this key is required"
    assert problems("") == [("name", "nothing", required), ("load", "nothing", required)]


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("name = \n", "line 1, column 8"),
        ('name = "x"\nname = "y"\n', "line 2"),
        ("[load\n", "line 1"),
        ("a = " + "[" * 5000 + "]" * 5000, "recursion"),
        ("a = 1" + "0" * 5000, "digits"),
    ],
    ids=["no value", "twice", "no bracket", "nested too deeply", "too many digits"],
)
def test_what_is_no_toml_is_one_problem_that_says_where(text: str, where: str) -> None:
    [(key, found, allowed)] = problems(text)
    assert (key, allowed) == ("TOML", "allowed is a TOML document")
    assert where in found


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ('server.processes = "5"', ("server.processes", "'5'", "allowed is a valid integer")),
        ("server.processes = true", ("server.processes", "True", "allowed is a valid integer")),
        ("server.processes = 5.0", ("server.processes", "5.0", "allowed is a valid integer")),
        ('server.delay_ms = "5"', ("server.delay_ms", "'5'", "allowed is a valid number")),
        ("server.delay_ms = true", ("server.delay_ms", "True", "allowed is a valid number")),
        ("server.delay_ms = nan", ("server.delay_ms", "nan", "allowed is a finite number")),
        ("server.delay_ms = inf", ("server.delay_ms", "inf", "allowed is a finite number")),
        (
            "client.bind_before_connect = 1",
            ("client.bind_before_connect", "1", "allowed is a valid boolean"),
        ),
        ("description = 5", ("description", "5", "allowed is a valid string")),
        (
            "description = 2026-01-31",
            ("description", "2026-01-31", "allowed is a valid string"),
        ),
        ("sampling = 07:30:00", ("sampling", "07:30:00", "allowed is a table")),
        ("server = 5", ("server", "5", "allowed is a table")),
        ("client.pool = false", ("client.pool", "False", "allowed is a table")),
        ("thresholds = []", ("thresholds", "[]", "allowed is a table")),
        ("lab.server.ports = []", ("lab.server.ports", "[]", "")),
        ("lab.server.ports = [1, '2']", ("lab.server.ports.1", "'2'", "")),
    ],
)
def test_nothing_is_taken_for_what_it_is_not(text: str, row: Row) -> None:
    [(key, found, allowed)] = problems(VALID + text)
    assert (key, found) == row[:2]
    assert allowed.startswith(row[2])


def test_long_values_are_cut_short() -> None:
    [(_, found, _)] = problems(VALID + f'ending.kind = "{"x" * 500}"')
    assert len(found) == 80
    assert found.endswith("…")


def test_integer_serves_where_a_fraction_may_stand() -> None:
    assert parse(VALID + "server.delay_ms = 5").server.delay_ms == 5


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_scenario_that_we_ship_parses(path: Path) -> None:
    assert load_scenario(path).description, "says nothing of what it shows"


def test_we_ship_scenarios() -> None:
    assert CONFIGS


# --set key=value


@pytest.mark.parametrize(
    ("override", "tables"),
    [
        ("load.duration_s=5", {"load": {"concurrency": 1, "duration_s": 5}}),
        ("load.duration_s = 5 # s", {"load": {"concurrency": 1, "duration_s": 5}}),
        ("name=y", {"name": "y"}),
        ('name="y"', {"name": "y"}),
        ("description=a = b", {"description": "a = b"}),
        ("description=", {"description": ""}),
        ("description=two\nlines = 2", {"description": "two\nlines = 2"}),
        ("description=1\nlines = 2", {"description": "1\nlines = 2"}),
        ("description=" + "[" * 5000, {"description": "[" * 5000}),
        ("lab.server.ports=[80, 81]", {"lab": {"server": {"ports": [80, 81]}}}),
        ("client.pool={size = 3}", {"client": {"pool": {"size": 3}}}),
        ("client.pool.size=3", {"client": {"pool": {"size": 3}}}),
        (
            "lab.client.sysctl.net.ipv4.tcp_tw_reuse=1",
            {"lab": {"client": {"sysctl": {"net.ipv4.tcp_tw_reuse": 1}}}},
        ),
        (
            'lab.client.sysctl."net.ipv4.tcp_tw_reuse"=1',
            {"lab": {"client": {"sysctl": {"net.ipv4.tcp_tw_reuse": 1}}}},
        ),
        (
            "lab.client.sysctl.net.ipv4.ip_local_port_range=32768 36863",
            {"lab": {"client": {"sysctl": {"net.ipv4.ip_local_port_range": "32768 36863"}}}},
        ),
        ("thresholds.outcomes.ok=>= 5", {"thresholds": {"outcomes.ok": ">= 5"}}),
        (
            'thresholds.outcomes.ok=[">= 5", "< 9"]',
            {"thresholds": {"outcomes.ok": [">= 5", "< 9"]}},
        ),
        (
            "thresholds.outcomes.errors.read:EOF:keepalive_race=== 0",
            {"thresholds": {"outcomes.errors.read:EOF:keepalive_race": "== 0"}},
        ),
    ],
)
def test_override_is_like_a_line_of_the_file(override: str, tables: dict[str, Any]) -> None:
    raw = {"name": "x", "load": {"concurrency": 1, "duration_s": 1}} | tables
    assert parse(VALID, override) == build_scenario(raw, source="test")


def test_override_keeps_the_rest_of_its_table_and_the_last_one_wins() -> None:
    text = VALID + '[lab.client.sysctl]\n"net.ipv4.tcp_tw_reuse" = 0\n"net.ipv4.tcp_sack" = 1'
    key = "lab.client.sysctl.net.ipv4.tcp_tw_reuse"
    assert parse(text, f"{key}=1", f"{key}=2").lab.client.sysctl == {
        "net.ipv4.tcp_tw_reuse": 2,
        "net.ipv4.tcp_sack": 1,
    }


def test_overrides_that_are_none_are_reported_together() -> None:
    form = "allowed is key=value, as in load.duration_s=5"
    assert problems(VALID, "x", "=1", "load..a=1", "load.duration_s.x=1") == [
        ("--set", "'x'", form),
        ("--set", "'=1'", form),
        ("--set", "'load..a=1'", form),
        (
            "--set load.duration_s.x",
            "a value at load.duration_s",
            "allowed is a key inside a table",
        ),
    ]


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("load.duration=5", "load.duration"),
        ("load.duration_s=soon", "load.duration_s"),
        ("thresholds=5", "thresholds"),
        ("thresholds.outcomes.ok=5", "thresholds.outcomes.ok"),
        ("lab.client.sysctl=5", "lab.client.sysctl"),
        ("lab.sysctl.thresholds.x=5", "lab.sysctl"),
        ("lab.client.sysctl.nonsense=5", "lab.client.sysctl.nonsense"),
    ],
)
def test_override_with_a_mistake_is_reported_by_its_key(override: str, key: str) -> None:
    assert [where for where, _, _ in problems(VALID, override)] == [key]


def test_mistakes_of_overrides_and_of_the_file_are_reported_together() -> None:
    found = problems(VALID + "server.processes = 99", "x", "client.workers=0", "load..a=1")
    assert [key for key, _, _ in found] == [
        "--set",
        "--set",
        "server.processes",
        "client.workers",
    ]


def test_mistake_of_the_file_is_none_where_an_override_mends_it() -> None:
    found = problems(VALID + "server.processes = 99", "x", "server.processes=2")
    assert [key for key, _, _ in found] == ["--set"]


# files


@pytest.mark.parametrize(
    ("name", "reason"),
    [("missing.toml", "No such file"), (".", "Is a directory"), ("a\0b", "null byte")],
)
def test_path_that_is_no_file_is_a_problem(tmp_path: Path, name: str, reason: str) -> None:
    path = tmp_path / name
    with pytest.raises(ScenarioError) as caught:
        load_scenario(path)
    [problem] = caught.value.problems
    assert problem.key == str(path)
    assert reason in problem.found


def test_file_is_read_as_utf_8_and_takes_overrides(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes((VALID + 'description = "größer"').encode())
    assert load_scenario(path, overrides=["name=y"]).description == "größer"
    path.write_bytes((VALID + 'description = "größer"').encode("latin-1"))
    with pytest.raises(ScenarioError, match="utf-8"):
        load_scenario(path)
