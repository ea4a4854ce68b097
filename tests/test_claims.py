"""All claims put to this kernel at once: each has a verdict, and evidence that can be opened."""

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from twbench.claims.catalogue import CLAIMS
from twbench.claims.claim import Findings

pytestmark = [pytest.mark.slow, pytest.mark.namespaces]

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = max((ROOT / "results" / "reference").glob("claims-*/claims.json"))
KEPT = json.loads(REFERENCE.read_text(encoding="utf-8"))
REFERENCED = {claim["id"]: claim for claim in KEPT["claims"]}
WEIGHS_THE_MACHINE = "time-wait-costs-memory"
"""What else runs on the machine can keep it from a verdict."""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Return every claim's result, by id, of one run of them all."""
    folder = tmp_path_factory.mktemp("claims")
    done = subprocess.run(
        [sys.executable, "-m", "twbench", "claims", "run", "--all", "--json", "--out", str(folder)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode in {0, 1}, done.stderr
    return {claim["id"]: claim for claim in json.loads(done.stdout)["claims"]}


def test_every_claim_was_put_to_the_kernel(results: dict[str, dict[str, Any]]) -> None:
    assert list(results) == list(CLAIMS)


@pytest.mark.parametrize("name", CLAIMS)
def test_claim_has_a_verdict_with_its_reasons(
    results: dict[str, dict[str, Any]], name: str
) -> None:
    result = results[name]
    assert result["finding"]
    if name == WEIGHS_THE_MACHINE and "other programs" in result["finding"]:
        return
    assert result["verdict"] in {"confirmed", "refuted", "nuanced", "unsupported"}, result
    assert len(result["evidence"]) == len(CLAIMS[name].scenes)
    if result["verdict"] != "unsupported":
        assert result["controls"]
        assert all((Path(folder) / "finding.json").is_file() for folder in result["evidence"])


def test_verdicts_are_those_of_the_reference_where_the_kernel_is(
    results: dict[str, dict[str, Any]],
) -> None:
    series = KEPT["kernel"].split()[1].split(".")[:2]
    same_kernel = platform.release().split(".")[:2] == series
    differing = {
        name: (result["verdict"], result["finding"])
        for name, result in results.items()
        if same_kernel
        and result["verdict"] != "inconclusive"
        and result["verdict"] != REFERENCED[name]["verdict"]
    }
    assert differing == {}


@pytest.mark.parametrize("name", CLAIMS)
def test_captures_are_read_without_a_complaint_and_mark_what_decides(
    results: dict[str, dict[str, Any]], name: str
) -> None:
    captures = [
        path for folder in results[name]["evidence"] for path in Path(folder).glob("*.pcapng")
    ]
    if all(scene.link != "wire" for scene in CLAIMS[name].scenes):
        assert not captures
        return
    assert captures
    if not shutil.which("tshark"):
        pytest.skip("tshark is not installed (Debian: apt install tshark)")
    comments = ""
    for path in captures:
        read = subprocess.run(
            ["tshark", "-r", str(path), "-T", "fields", "-e", "frame.comment"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert read.returncode == 0, read.stderr
        comments += read.stdout.strip()
    assert comments, "no packet is marked"


@pytest.mark.parametrize("name", CLAIMS)
def test_some_broken_expectation_changes_the_verdict(name: str) -> None:
    claim, findings = CLAIMS[name], REFERENCED[name]["findings"]
    verdicts = {
        claim.judge(findings, {**claim.expected, figure: wrong}).verdict
        for figure, right in claim.expected.items()
        for wrong in (-right - 1, 1000 * right + 1)
    }
    assert verdicts - {REFERENCED[name]["verdict"]}


@pytest.mark.parametrize("name", CLAIMS)
def test_kept_findings_of_the_reference_are_judged_the_same_again(name: str) -> None:
    kept = REFERENCED[name]
    findings: Findings = kept["findings"]
    judged = CLAIMS[name].judge(findings, CLAIMS[name].expected)
    assert (str(judged.verdict), judged.finding) == (kept["verdict"], kept["finding"])
