"""Every group is written as it ends: a lab that fails breaks one, and Ctrl-C keeps the earlier."""

import json
from pathlib import Path

import pytest

from bench import peers
from bench.parts import groups
from bench.parts.figures import Row
from twbench.model.errors import LabError

ROWS = [Row(name="a", unit="", values=(1.0,))]


def fail(error: BaseException) -> groups.Group:
    raise error


def test_lab_that_fails_is_a_row_and_what_is_done_before_ctrl_c_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["peers.py", "--quick", f"--out={tmp_path}"])
    monkeypatch.setattr(groups, "contest", lambda _: fail(LabError("no veth here")))
    monkeypatch.setattr(groups, "endings", lambda _: ("Endings", ROWS))
    monkeypatch.setattr(groups, "keep_alive", lambda _: fail(KeyboardInterrupt()))
    assert peers.main() == 130
    told = json.loads((tmp_path / "peers.json").read_text())
    assert list(told["groups"]) == ["contest", "Endings"]
    assert told["groups"]["contest"][0]["goal"] == "broken: no veth here"
    assert told["bars"] == []
    assert "Endings" in capsys.readouterr().out
