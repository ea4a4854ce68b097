"""What a run of claims leaves in its folder, beside each scene's evidence: the verdicts."""

import json
import os
import platform
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from twbench.claims.runner import Result
from twbench.model.errors import UsageError

SCHEMA = 1


def folder_for(results: Path) -> Path:
    """Return where the claims of the running kernel go: results/claims-<kernel release>."""
    return results / f"claims-{platform.release()}"


def make(folder: Path) -> None:
    """Make the folder, before anything is played. UsageError where that is refused."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(None, "Permission denied")
    except OSError as error:
        raise UsageError(f"--out: {folder}: {error.strerror}; name a folder to write in") from None


def write(folder: Path, results: Sequence[Result]) -> dict[str, Any]:
    """Write `claims.json` and each claim's `reasoning.txt`; return what claims.json holds."""
    document = {
        "schema": SCHEMA,
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "claims": [result.as_json(folder) for result in results if result.repeat == 1],
    }
    if any(result.repeat > 1 for result in results):
        document["agreement"] = agreement(results)
    text = json.dumps(document, indent=2) + "\n"
    (folder / "claims.json").write_text(text, encoding="utf-8")
    for result in results:
        if result.repeat == 1:
            reasoning = folder / result.claim.id / "reasoning.txt"
            reasoning.parent.mkdir(exist_ok=True)
            reasoning.write_text(_reasoning(result), encoding="utf-8")
    return document


def agreement(results: Iterable[Result]) -> dict[str, dict[str, int]]:
    """Return how often each verdict came, by claim."""
    counts: dict[str, Counter[str]] = {}
    for result in results:
        verdicts = counts.setdefault(result.claim.id, Counter())
        verdicts[str(result.judgement.verdict)] += 1
    return {claim: dict(verdicts) for claim, verdicts in counts.items()}


def _reasoning(result: Result) -> str:
    claim, judgement = result.claim, result.judgement
    lines = [
        claim.sentence,
        *(f"  source: {source}" for source in claim.sources),
        "",
        f"{str(judgement.verdict).upper()}: {judgement.finding}",
        "",
        f"What would refute it: {claim.refuted_by}",
        f"Expected: {_figures(result.expected)}",
    ]
    for part, checks in (
        ("The claim says", judgement.claimed),
        ("But also", judgement.caveats),
        ("Controls: the same with the mechanism off", judgement.controls),
    ):
        if checks:
            lines += ["", f"{part}:"]
            lines += [f"  [{'x' if check.holds else ' '}] {check.text}" for check in checks]
    lines += ["", "Scenes:"]
    for each in result.played:
        why = each.why.strip().rpartition("\n")[2]
        lines.append(f"  {each.take.scene.name}: {each.take.scene.sentence}{why and f' ({why})'}")
    return "\n".join(lines) + "\n"


def _figures(expected: Mapping[str, float]) -> str:
    return ", ".join(f"{name} = {value:g}" for name, value in expected.items()) or "no figures"
