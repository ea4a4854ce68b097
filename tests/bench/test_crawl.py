"""Crawlers and their bare loops carry the same load; what is done is written as it is done."""

import json
from pathlib import Path

import pytest

from bench import crawl
from bench.parts.figures import Row
from bench.parts.groups import Group
from bench.parts.loads import carry, closed, scenario
from twbench.model.errors import LabError

PAIRS = [
    *(("bare crawl", name) for name in crawl.CRAWLERS),
    *(("crawl", name) for name in ("aiohttp force_close", "requests")),
]


@pytest.mark.namespaces
@pytest.mark.parametrize(("client", "name"), PAIRS)
def test_crawlers_count_is_the_servers(client: str, name: str) -> None:
    task = scenario(closed(0.2), tables=crawl.CRAWLERS[name], server="streams")
    carried = carry(client, task, server="streams")
    assert carried.failed == 0
    assert carried.exchanges > 0
    assert carried.client_cpu_us > 0


def test_lab_that_fails_is_a_row_and_what_is_done_before_ctrl_c_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measure(name: str, _arguments: object, server: str) -> Group:
        if name == "streams":
            raise LabError("no veth here")
        if name == "httpx":
            raise KeyboardInterrupt
        return name, [Row(name=server, unit="", values=(1.0,))]

    argv = ["crawl.py", "--quick", "--server=streams", f"--out={tmp_path}"]
    monkeypatch.setattr("sys.argv", argv)
    monkeypatch.setattr(crawl, "measure", measure)
    assert crawl.main() == 130
    told = json.loads((tmp_path / "crawl.json").read_text())
    assert list(told["groups"]) == ["streams", "aiohttp", "aiohttp force_close"]
    assert told["groups"]["streams"][0]["goal"] == "broken: no veth here"
    assert told["head"]["server"] == "streams"
    assert "aiohttp force_close" in capsys.readouterr().out
