"""A comparison's file: what is laid over what, and every mistake at once."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twbench.model.contest import Contest, contest_schema, load_contest, merged, parse_contest
from twbench.model.errors import ScenarioError
from twbench.model.parse import parse_scenario
from twbench.model.presets import PRESETS

FILES = sorted((Path(__file__).parents[2] / "configs").glob("*.toml"))
CONTESTS = [path for path in FILES if "[[contestant]]" in path.read_text()]
BASE = 'name = "pools"\nload = { concurrency = 8, duration_s = 1 }\nweb = {}\n'
A = '[[contestant]]\nname = "a"\n'
B = '[[contestant]]\nname = "b"\n'


def parse(text: str, *overrides: str) -> Contest:
    return parse_contest(text, source="test.toml", overrides=overrides)


def problems(text: str, *overrides: str) -> list[tuple[str, str, str]]:
    with pytest.raises(ScenarioError) as caught:
        parse(text, *overrides)
    return [(p.key, p.found, p.allowed) for p in caught.value.problems]


def keys(text: str, *overrides: str) -> list[str]:
    return [key for key, _, _ in problems(text, *overrides)]


def test_each_contestant_is_the_base_with_its_preset_and_then_its_own_tables_laid_over_it() -> None:
    contest = parse(
        'name = "pools"\ndescription = "three"\n[web]\n[load]\nconcurrency = 8\nduration_s = 1\n'
        '[client]\nworkers = 2\n[compare]\nrepeats = 7\nseed = 3\nbaseline = "plain"\n'
        '[[contestant]]\nname = "plain"\n'
        '[[contestant]]\nname = "polite"\npreset = "scrapy-like"\ndescription = "mine"\n'
        "client.crawl.per_site = 2\n"
    )
    assert (contest.name, contest.description) == ("pools", "three")
    assert (contest.repeats, contest.seed, contest.baseline) == (7, 3, "plain")
    plain, polite = contest.contestants
    assert plain.differs == {}
    assert (plain.scenario.name, plain.scenario.load.concurrency) == ("plain", 8)
    # the preset's, the contestant's own, and the base's
    assert polite.scenario.load.concurrency == 16
    assert polite.scenario.client.crawl.per_site == 2
    assert polite.scenario.client.workers == 2
    assert polite.description == "mine"
    assert polite.differs["client.crawl.per_site"] == 2
    assert polite.differs["load.concurrency"] == 16
    assert "client.workers" not in polite.differs


def test_contestant_that_says_what_the_base_says_does_not_differ_in_it() -> None:
    contest = parse(f"{BASE}{A}load.concurrency = 8\n{B}load.concurrency = 9\n")
    assert [c.differs for c in contest.contestants] == [{}, {"load.concurrency": 9}]


def test_what_a_preset_takes_away_from_the_base_differs_too() -> None:
    text = f"{BASE}client.pool = {{ size = 7, requests_per_connection = 3 }}\n"
    a, b = parse(f'{text}{A}preset = "go-like"\n{B}', "client.pool.idle=1").contestants
    assert a.scenario.client.pool
    assert a.differs["client.pool.size"] == a.scenario.client.pool.size
    assert a.differs["client.pool.requests_per_connection"] is None
    assert a.scenario.client.pool.requests_per_connection is None
    assert b.differs == {}


def test_contestant_without_a_description_has_its_presets() -> None:
    contest = parse(f'{BASE}{A}preset = "go-like"\n{B}')
    first, second = contest.contestants
    assert first.description == PRESETS["go-like"].sentence
    assert second.description == ""


def test_every_preset_makes_a_contestant() -> None:
    tables = "".join(f'[[contestant]]\nname = "{n}"\npreset = "{n}"\n' for n in PRESETS)
    contest = parse(BASE + tables)
    assert [c.preset for c in contest.contestants] == [*PRESETS]


def test_overrides_are_laid_over_the_base_and_a_contestant_keeps_its_own_knob() -> None:
    given_ = ("load.concurrency=3", "client.workers=2", "compare.repeats=2", "name=other")
    contest = parse(f"{BASE}{A}load.concurrency = 9\n{B}", *given_)
    a, b = contest.contestants
    assert [c.scenario.load.concurrency for c in (a, b)] == [9, 3]
    assert [c.scenario.client.workers for c in (a, b)] == [2, 2]
    assert (a.differs, b.differs) == ({"load.concurrency": 9}, {})
    assert (contest.repeats, contest.name) == (2, "other")
    # what a preset sets is the contestant's own too
    preset = PRESETS["scrapy-like"].tables["load"]["concurrency"]
    text = f'{BASE}{A}preset = "scrapy-like"\n{B}'
    a, b = parse(text, "load.concurrency=3").contestants
    assert [c.scenario.load.concurrency for c in (a, b)] == [preset, 3]
    assert a.differs["load.concurrency"] == preset


def test_contestant_that_says_what_an_override_says_does_not_differ_in_it() -> None:
    contest = parse(f"{BASE}{A}load.concurrency = 9\n{B}", "load.concurrency=9")
    assert [c.differs for c in contest.contestants] == [{}, {}]


def test_overrides_of_what_knobs_share_leave_the_knobs_as_they_are() -> None:
    [path] = [each for each in CONTESTS if each.name == "compare-knobs.toml"]
    key = "net.ipv4.ip_local_port_range"
    contest = load_contest(
        path, overrides=["load.rate_per_s=900", f"lab.client.sysctl.{key}=40000 42000"]
    )
    ranges = {c.name: c.scenario.lab.client.sysctl[key] for c in contest.contestants}
    assert ranges.pop("wide-range") == "1024 65535"
    assert set(ranges.values()) == {"40000 42000"}
    assert {c.scenario.load.rate_per_s for c in contest.contestants} == {900}


def test_mistakes_of_all_are_told_at_once_and_those_of_the_base_once() -> None:
    text = (
        'name = "Bad Name"\nfoo = 1\nload = { concurrency = 8, duration_s = 1 }\n'
        '[compare]\nrepeats = 0\nbasline = "a"\n'
        f'{A}preset = "nothing"\n{B}client.engine = "streamz"\nclient.pool.sise = 1\n'
    )
    assert keys(text, "nonsense") == [
        "--set",
        "name",
        "compare.repeats",
        "compare.basline",
        "contestant[0].preset",
        "foo",
        "contestant[1].client.engine",
        "contestant[1].client.pool.sise",
    ]


@pytest.mark.parametrize(
    ("text", "key", "said"),
    [
        (f"{BASE}{A}", "contestant", "at least 2 tables"),
        (f"{BASE}{A}{A}", "contestant", "allowed is each name once"),
        (f"description = 5\n{BASE}{A}{B}", "description", "string"),
        (f'{BASE}compare.baseline = "c"\n{A}{B}', "compare.baseline", "of a contestant: a, b"),
        (f"{BASE}[[contestant]]\n{B}", "contestant[0].name", "required"),
        (f'{BASE}[[contestant]]\nname = "A!"\n{B}', "contestant[0].name", "lower-case"),
        (f'{BASE}{A}preset = "x"\n{B}', "contestant[0].preset", "go-like"),
        (f"{BASE}[contestant]\na = 1\n", "contestant", "array"),
        (f"contestant = [3, 4]\n{BASE}", "contestant[0]", "table"),
        (f'{BASE}{A}{B}lab.link = "host"\n', "contestant[1].lab.link", "fresh hosts"),
        (f'{BASE}lab.link = "host"\n{A}{B}', "lab.link", "fresh hosts"),
        (BASE, "contestant", "at least two tables [[contestant]]"),
        (f"{BASE}compare.repeats = 3\n", "contestant", "at least two tables [[contestant]]"),
    ],
)
def test_what_is_no_comparison_is_told_with_what_is_missing(text: str, key: str, said: str) -> None:
    found = [allowed for where, _, allowed in problems(text) if where == key]
    assert any(said in allowed for allowed in found), problems(text)


def test_contestants_of_one_name_are_told_together_with_the_other_mistakes() -> None:
    text = f'{BASE}compare.repeats = 0\n{A}{A}preset = "nothing"\n{B}'
    assert keys(text) == ["contestant", "compare.repeats", "contestant[1].preset"]
    assert [found for key, found, _ in problems(text) if key == "contestant"] == [
        "2 of the name 'a'"
    ]


def test_override_of_a_single_contestant_is_refused() -> None:
    [(key, _, allowed)] = problems(f"{BASE}{A}{B}", "contestant.a.load.concurrency=1")
    assert key == "--set"
    assert "for all contestants" in allowed


@pytest.mark.parametrize("more", [f"{A}{B}", "compare.repeats = 3\n"])
def test_comparison_is_no_scenario_and_says_which_command_takes_it(more: str) -> None:
    with pytest.raises(ScenarioError, match="twbench compare"):
        parse_scenario(BASE + more, source="test.toml")


def test_file_that_cannot_be_read_is_told_as_any_other(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="No such file"):
        load_contest(tmp_path / "none.toml")
    path = tmp_path / "c.toml"
    path.write_text(BASE + A + B)
    assert len(load_contest(path).contestants) == 2


@pytest.mark.parametrize("path", CONTESTS, ids=lambda path: path.name)
def test_every_comparison_that_we_ship_parses(path: Path) -> None:
    assert load_contest(path).description, "says nothing of what it shows"


def test_schema_has_every_key_of_a_contestant_and_is_closed() -> None:
    schema = contest_schema()
    entry = schema["$defs"]["Entry"]
    assert {"name", "preset", "client", "lab", "web"} <= set(entry["properties"])
    assert entry["required"] == ["name"]
    assert entry["additionalProperties"] is False
    assert schema["required"] == ["name", "contestant"]
    assert {"repeats", "seed", "baseline"} == set(schema["$defs"]["CompareSpec"]["properties"])


TREES = st.recursive(
    st.integers(), lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
)
TABLES = st.dictionaries(st.sampled_from("abc"), TREES, max_size=3)


@given(base=TABLES, over=TABLES)
def test_what_is_laid_over_always_shows_and_changes_neither(
    base: dict[str, object], over: dict[str, object]
) -> None:
    before = repr((base, over))
    result = merged(base, over)
    assert merged(result, over) == result
    assert set(result) == set(base) | set(over)
    assert all(result[key] == base[key] for key in set(base) - set(over))
    assert repr((base, over)) == before
