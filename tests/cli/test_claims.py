"""`twbench claims`: list and run."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from twbench.claims.catalogue import CLAIMS

Done = subprocess.CompletedProcess[str]
Twbench = Callable[..., Done]

ROOT = Path(__file__).resolve().parents[2]
QUICK = "half-close"
"""A claim that takes seconds."""


def test_list_shows_id_sentence_source_and_time(twbench: Twbench) -> None:
    for words in (("claims",), ("claims", "list")):
        done = twbench(*words)
        assert (done.returncode, done.stderr) == (0, "")
        for claim in CLAIMS.values():
            assert claim.id in done.stdout
            assert f"{claim.needs_s:.0f} s" in done.stdout
    told = json.loads(twbench("claims", "list", "--json").stdout)["claims"]
    assert [claim["id"] for claim in told] == list(CLAIMS)
    assert all(claim["sentence"] and claim["sources"] and claim["needs_s"] for claim in told)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["no-such-claim"], "unknown claim no-such-claim"),
        ([], "which claims?"),
        (["1", "--all"], "--all and names"),
        (["1", "--expect", "nonsense=1"], "unknown name 'nonsense'"),
        (["time-wait-lasts-60-s", "--expect", "lifetime_s"], "allowed is NAME=NUMBER"),
        (["time-wait-lasts-60-s", "--expect", "lifetime_s=nan"], "a finite number"),
        (["1", "--out", "/proc/nothing"], "--out"),
    ],
)
def test_wrong_words_end_with_one_clear_message(
    twbench: Twbench, words: list[str], message: str
) -> None:
    done = twbench("claims", "run", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.namespaces
def test_run_gives_verdict_finding_and_evidence(twbench: Twbench, tmp_path: Path) -> None:
    done = twbench("claims", "run", QUICK, "--json", "--repeat", "2")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    (claim,) = document["claims"]
    assert claim["id"] == QUICK
    assert claim["verdict"] in {"confirmed", "nuanced", "refuted"}
    assert sum(document["agreement"][QUICK].values()) == 2
    for folder in claim["evidence"]:
        assert (tmp_path / folder / "capture.pcapng").stat().st_size > 0
    assert f"✓ 1/{2 * len(CLAIMS[QUICK].scenes)} {QUICK}" in done.stderr


@pytest.mark.namespaces
def test_table_ends_with_the_verdicts_and_where_the_evidence_lies(
    twbench: Twbench, tmp_path: Path
) -> None:
    done = twbench("claims", "run", QUICK)
    assert done.returncode == 0, done.stderr
    assert QUICK in done.stdout
    folder = done.stdout.rpartition("evidence and reasoning: ")[2].strip()
    assert (tmp_path / folder / "claims.json").is_file()
    assert (tmp_path / folder / QUICK / "reasoning.txt").is_file()


@pytest.mark.namespaces
def test_ctrl_c_ends_the_waiting_and_leaves_what_is_known(tmp_path: Path) -> None:
    words = ["claims", "run", "time-wait-lasts-60-s", "--json", "--out", str(tmp_path)]
    with subprocess.Popen(
        [sys.executable, "-m", "twbench", *words],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        while not list(tmp_path.glob("claims-*/time-wait-lasts-60-s/*")):
            assert running.poll() is None
            time.sleep(0.1)
        running.send_signal(signal.SIGINT)
        told, _ = running.communicate(timeout=60)
    assert running.returncode == 130
    (claim,) = json.loads(told)["claims"]
    assert claim["verdict"] == "inconclusive"
    assert "stopped" in claim["finding"]
