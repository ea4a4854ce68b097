"""Which file has which engine, and what is said where its library is missing."""

import sys
from importlib import import_module
from typing import get_args

import pytest

from twbench.crawl.engines import ENGINES, NoEngineError, engine_of
from twbench.model.crawling import LIBRARIES
from twbench.model.scenario import ClientSpec, Engine


def test_table_has_every_engine_that_a_crawl_may_ask_for() -> None:
    assert set(ENGINES) == {*LIBRARIES, *get_args(Engine)} - {"uring"}


@pytest.mark.parametrize("name", ENGINES)
def test_each_engine_can_be_had_and_says_what_it_is(name: str) -> None:
    engine = engine_of(ClientSpec(engine=name))
    assert engine.name.startswith(ENGINES[name])
    assert engine.why
    assert engine.path is None


@pytest.mark.parametrize("name", LIBRARIES)
def test_library_that_is_not_installed_is_named_with_what_to_do(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = import_module(f"twbench.crawl.engines.{name}").__name__
    monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(NoEngineError, match=f"^{name} is not installed: pip install") as raised:
        engine_of(ClientSpec(engine=name))
    assert raised.value.error == "library"
