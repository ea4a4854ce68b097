"""Whatever is put in, out comes a scenario or a ScenarioError; what is written reads alike."""

import datetime as dt
from pathlib import Path
from typing import Any

import tomli_w
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from twbench.model.endings import ENDINGS, Departure
from twbench.model.errors import ScenarioError
from twbench.model.parse import build_scenario, load_scenario, parse_scenario
from twbench.model.scenario import Scenario

VALID = 'name = "x"\nload = { concurrency = 1, duration_s = 1 }\n'


def parse(text: str, *overrides: str) -> Scenario:
    return parse_scenario(text, source="test.toml", overrides=overrides)


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.dates(),
    st.times(),
    st.datetimes(),
)
known_keys = st.sampled_from(
    [
        *("name", "description", "lab", "server", "ending", "load", "client", "sampling"),
        *("thresholds", "sysctl", "stages", "pool", "socket", "kind", "mode", "rate_per_s"),
        *("concurrency", "duration_s", "hosts", "ports", "IP_LOCAL_PORT_RANGE", "[key]"),
    ]
)
trees = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(known_keys | st.text(max_size=5), inner, max_size=6)
    ),
    max_leaves=25,
)
tables = st.dictionaries(known_keys | st.text(max_size=5), trees, max_size=8)


def is_scenario_or_problems(call: Any, *args: Any, **kwargs: Any) -> bool:  # noqa: ANN401
    try:
        return isinstance(call(*args, **kwargs), Scenario)
    except ScenarioError as error:
        return len(error.problems) > 0 and all(p.key and p.found for p in error.problems)


@given(text=st.text(), overrides=st.lists(st.text(), max_size=3))
@example(text=VALID, overrides=["lab.sysctl.thresholds.x=1"])
@example(text=".".join("a" * 2000) + " = 1", overrides=[])
@example(text=".".join("a" * 500) + " = 1", overrides=[])
@example(text=VALID + "load2 = 0x" + "f" * 5000, overrides=[])
def test_any_text_is_a_scenario_or_has_problems(text: str, overrides: list[str]) -> None:
    assert is_scenario_or_problems(parse, text, *overrides)


@given(key=known_keys, inner=st.text(max_size=8), value=st.text(max_size=12))
def test_any_override_leaves_a_scenario_or_has_problems(key: str, inner: str, value: str) -> None:
    assert is_scenario_or_problems(parse, VALID, f"{key}.{inner}={value}", f"{key}={value}")


@given(raw=tables)
@example(raw={"name": "\ud800", "load": {}})
@example(raw={"name": "x", "lab": {"client": {"sysctl": {5: 1}}}})
@example(raw={"name": dt.date(2026, 1, 31), "load": {}})
def test_any_tables_are_a_scenario_or_have_problems(raw: dict[str, Any]) -> None:
    assert is_scenario_or_problems(build_scenario, raw, source="test")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary())
def test_any_file_is_a_scenario_or_has_problems(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "any.toml"
    path.write_bytes(content)
    assert is_scenario_or_problems(load_scenario, path)


# there and back

seconds = st.floats(0.001, 600)
sysctls = st.dictionaries(
    st.from_regex(r"net\.ipv4\.[a-z_]{1,20}", fullmatch=True),
    st.integers(-(1 << 31), 1 << 31) | st.text("0123456789 ", max_size=12),
    max_size=3,
)


comparisons = st.sampled_from([">= 1", "<0.5", "!= -3"])


def stages(figure: str) -> st.SearchStrategy[dict[str, Any]]:
    leg = st.fixed_dictionaries({"duration_s": seconds, figure: st.integers(0, 1000)})
    return st.fixed_dictionaries({"stages": st.lists(leg, min_size=1, max_size=3)})


def steady(figure: str) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"duration_s": seconds, figure: st.integers(1, 1000)})


def can_be(raw: dict[str, Any]) -> bool:
    """Return whether an ending has what it takes: a pool, a client that does not linger."""
    kind = raw.get("ending", {}).get("kind", "client-fin")
    client = raw.get("client", {})
    passive = ENDINGS[kind].client is Departure.PASSIVE_CLOSE
    return (kind != "server-idle" or bool(client)) and not (passive and "socket" in client)


scenarios: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "name": st.from_regex(r"[a-z0-9][a-z0-9-]{0,63}", fullmatch=True),
        "load": steady("concurrency")
        | stages("concurrency")
        | (steady("rate_per_s") | stages("rate_per_s")).map(lambda load: {**load, "mode": "open"}),
    },
    optional={
        "description": st.text(st.characters(exclude_categories=["Cs"])),
        "ending": st.fixed_dictionaries(
            {"hold_s": seconds},
            optional={
                "kind": st.sampled_from([*ENDINGS]).filter(
                    lambda kind: not ENDINGS[kind].needs_wire
                )
            },
        ),
        "lab": st.fixed_dictionaries(
            {
                "family": st.sampled_from(["ipv4", "ipv6"]),
                "client": st.fixed_dictionaries({"sysctl": sysctls}),
                "server": st.fixed_dictionaries(
                    {"ports": st.lists(st.integers(1, 65535), min_size=1, max_size=4)}
                ),
            }
        )
        | st.fixed_dictionaries(
            {"link": st.just("wire")},
            optional={
                "wire": st.fixed_dictionaries(
                    {"loss": st.floats(0, 1), "delay_ms": st.floats(0, 100)},
                    optional={"rules": st.lists(st.text(max_size=9), max_size=2)},
                )
            },
        ),
        "client": st.fixed_dictionaries(
            {"pool": st.fixed_dictionaries({"size": st.integers(1, 9)})},
            optional={
                "retries": st.integers(0, 9),
                "socket": st.fixed_dictionaries(
                    {"IP_LOCAL_PORT_RANGE": st.just([40_000, 40_100]), "SO_LINGER": st.just(0)}
                ),
            },
        ),
        "thresholds": st.dictionaries(
            st.builds(
                "{}.{}".format,
                st.sampled_from(["hosts", "rates", "audit"]),
                st.text(st.characters(exclude_categories=["Cs"])),
            ),
            comparisons | st.lists(comparisons, min_size=1, max_size=2),
            max_size=3,
        ),
    },
).filter(can_be)


@given(raw=scenarios)
def test_scenario_written_as_toml_reads_as_the_same_scenario(raw: dict[str, Any]) -> None:
    before = build_scenario(raw, source="test")
    text = tomli_w.dumps(before.model_dump(mode="json", exclude_none=True))
    assert parse(text) == before
