"""A crawler of the user's is found, or what is wrong with it is said in a sentence."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from twbench.crawl.engines import NoEngineError, engine_of
from twbench.crawl.own import OwnCrawlerError, load, told
from twbench.model.scenario import ClientSpec

GOOD = """
from twbench.crawl import Pages
from beside import visits

async def crawl(pages: Pages) -> None:
    visits.append(pages)
    raise ValueError("on purpose")
"""


@pytest.fixture(autouse=True)
def _undo_imports(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("sys.path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name in {"crawler", "beside"}:
            del sys.modules[name]


async def test_coroutine_is_found_and_may_import_what_lies_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "crawler.py").write_text(GOOD)
    (tmp_path / "beside.py").write_text("visits = []\n")
    monkeypatch.chdir(tmp_path)
    engine = engine_of(ClientSpec(engine="./crawler.py:crawl"))
    assert engine.name == "./crawler.py:crawl"
    assert engine.path == str(tmp_path / "crawler.py")
    with pytest.raises(ValueError, match="on purpose") as raised:
        await engine.crawl(None)  # type: ignore[arg-type]
    assert sys.modules["beside"].visits == [None]
    lines = told(raised.value, engine.path).splitlines()
    assert "crawler.py" in lines[1]
    assert "test_own.py" not in "".join(lines)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "crawler.py: there is no such file"),
        ("def crawl(:\n", "crawler.py, line 1: invalid syntax"),
        ("x = 1\n", "crawler.py has no 'crawl': it needs `async def crawl(pages: Pages) -> None`"),
        ("def crawl(pages): ...\n", "'crawl' is no coroutine function: it needs `async def crawl"),
        ("async def crawl(): ...\n", "'crawl' does not take the pages: it needs `async def crawl"),
        ("\nimport no_such_module\n", "crawler.py, line 2: ModuleNotFoundError: No module named"),
        ("\n\nraise SystemExit(1)\n", "crawler.py, line 3: SystemExit: 1"),
    ],
    ids=["no file", "syntax", "no name", "no coroutine", "no parameter", "import", "exit"],
)
def test_mistake_is_told_in_one_sentence(tmp_path: Path, text: str | None, says: str) -> None:
    if text is not None:
        (tmp_path / "crawler.py").write_text(text)
    with pytest.raises(OwnCrawlerError) as raised:
        load(f"{tmp_path}/crawler.py:crawl")
    message = str(raised.value)
    assert says in message
    assert "\n" not in message


def test_file_may_have_the_name_of_a_module_and_leaves_none_where_it_fails(tmp_path: Path) -> None:
    import json

    (tmp_path / "json.py").write_text("async def crawl(pages): ...\n")
    path, crawl = load(f"{tmp_path}/json.py:crawl")
    assert sys.modules["json"] is json
    # as a dataclass in the file, for one, looks for it
    assert vars(sys.modules[crawl.__module__])["crawl"] is crawl
    assert path == str(tmp_path / "json.py")
    del sys.modules[crawl.__module__]
    before = set(sys.modules)
    (tmp_path / "json.py").write_text("raise ValueError\n")
    with pytest.raises(OwnCrawlerError):
        load(f"{tmp_path}/json.py:crawl")
    assert set(sys.modules) == before


def test_failure_outside_of_the_users_file_is_told_whole() -> None:
    with pytest.raises(OwnCrawlerError) as raised:
        load("./no-such-file.py:crawl")
    assert "in load" in told(raised.value, None)


def test_own_crawler_with_a_mistake_is_no_engine_and_the_crawlers_fault() -> None:
    with pytest.raises(NoEngineError, match="there is no such file") as raised:
        engine_of(ClientSpec(engine="./no-such-file.py:crawl"))
    assert raised.value.error == "crawler"
