"""What a run of claims leaves in its folder, beside each scene's evidence: the verdicts."""

import json
import os
import platform
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from twbench.claims.catalogue import CLAIMS
from twbench.claims.runner import Result
from twbench.model.errors import UsageError

SCHEMA = 1
_FILE = "claims.json"


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
    """Write `claims.json` and each claim's `reasoning.txt`; return what to tell of this run.

    What claims.json has of other claims, from earlier runs on this kernel, stays. Evidence is named
    there as the folder has it, so the folder can be moved; what is returned names it from here.
    """
    kernel = f"{platform.system()} {platform.release()} {platform.machine()}"
    first = [result for result in results if result.repeat == 1]
    told = {result.claim.id: result.as_json() for result in first}
    document: dict[str, Any] = {"schema": SCHEMA, "kernel": kernel}
    kept = {**_kept(folder / _FILE, kernel), **told}
    in_order = [kept[name] for name in CLAIMS if name in kept]
    others = [each for name, each in kept.items() if name not in CLAIMS]
    _put(folder / _FILE, document | {"claims": in_order + others})
    for result in first:
        reasoning = folder / result.claim.id / "reasoning.txt"
        reasoning.parent.mkdir(exist_ok=True)
        reasoning.write_text(_reasoning(result), encoding="utf-8")
    document["claims"] = [
        each | {"evidence": [str(folder / scene) for scene in each["evidence"]]}
        for each in told.values()
    ]
    if any(result.repeat > 1 for result in results):
        document["agreement"] = agreement(results)
    return document


def _kept(path: Path, kernel: str) -> dict[str, dict[str, Any]]:
    """Return the claims of an earlier run on the same kernel, by id."""
    try:
        earlier = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    if (earlier.get("schema"), earlier.get("kernel")) != (SCHEMA, kernel):
        return {}
    return {claim["id"]: claim for claim in earlier["claims"]}


def _put(path: Path, document: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


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
        *(f"  {line}" for line in _changed(result)),
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
        again = f"played {each.tries} times" if each.tries > 1 else ""
        told = "; ".join(filter(None, (why, again)))
        lines.append(f"  {each.take.scene.name}: {each.take.scene.sentence}{told and f' ({told})'}")
    return "\n".join(lines) + "\n"


def _changed(result: Result) -> list[str]:
    usual = result.claim.expected
    return [
        f"by hand: {name} = {value:g} instead of {usual[name]:g}"
        for name, value in result.expected.items()
        if value != usual[name]
    ]


def _figures(expected: Mapping[str, float]) -> str:
    return ", ".join(f"{name} = {value:g}" for name, value in expected.items()) or "no figures"
