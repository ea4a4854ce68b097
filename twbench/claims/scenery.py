"""What a scene plays on: its lab, the stage on its wire, a folder for what it leaves."""

import json
import os
import shutil
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from twbench.claims.claim import Finding, NotHereError, Scene
from twbench.lab.lab import Lab
from twbench.lab.plan import LabPlan, Link
from twbench.lab.sysctls import path_of
from twbench.wire.drawing import draw_text
from twbench.wire.errors import StoppedError
from twbench.wire.stage import Stage
from twbench.wire.svg import draw_svg

_MAKING = threading.BoundedSemaphore(os.cpu_count() or 1)
"""Making a lab takes a processor for a moment: more at once would only slow those that play."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scenery:
    """A scene's surroundings: a lab unless its link is None, a stage if that is the wire."""

    folder: Path
    stop: threading.Event
    own_lab: Lab | None
    own_stage: Stage | None

    @property
    def lab(self) -> Lab:
        """Return the lab."""
        if self.own_lab is None:
            raise RuntimeError("a scene with link = None has no lab")
        return self.own_lab

    @property
    def stage(self) -> Stage:
        """Return the stage."""
        if self.own_stage is None:
            raise RuntimeError("only a scene on the wire has a stage")
        return self.own_stage

    def wait(self, duration_s: float) -> None:
        """Let time pass without looking at the wire; StoppedError when asked to stop."""
        if self.stop.wait(duration_s):
            raise StoppedError("stopped while an experiment waited")


def play(scene: Scene, *, title: str, folder: Path, stop: threading.Event) -> Finding:
    """Play a scene on hosts of its own, leave its evidence in `folder`, and return its finding.

    Leaves `finding.json`, and of a scene on the wire `ladder.txt`, `ladder.json`, `ladder.svg` and
    `capture.pcapng`, which are there when the scene fails, too. Raises SetUpError, NotHereError,
    StoppedError, and LabError where no lab can be made.
    """
    for name in {**scene.client_sysctls, **scene.server_sysctls}:
        if not path_of(name).exists():
            raise NotHereError(f"this kernel has no {name}")
    if folder.exists():
        # what an earlier try or run has left would pass for this one's evidence
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    with ExitStack() as opened:
        lab = stage = None
        if scene.link is not None:
            plan = _plan(scene, scene.link)
            with _MAKING:
                lab = opened.enter_context(Lab(plan))
            if scene.link is Link.WIRE:
                stage = Stage(lab, plan.wire_ports, rules=scene.rules, stop=stop)
                opened.callback(_leave_evidence, stage, title, scene.sentence, folder)
                opened.enter_context(stage)
        finding = scene.play(Scenery(folder=folder, stop=stop, own_lab=lab, own_stage=stage))
    (folder / "finding.json").write_text(json.dumps(finding, indent=2) + "\n", encoding="utf-8")
    return finding


def _plan(scene: Scene, link: Link) -> LabPlan:
    return LabPlan(
        link=link,
        family=scene.family,
        client_sysctls=scene.client_sysctls,
        server_sysctls=scene.server_sysctls,
        expected_sockets=scene.expected_sockets,
    )


def _leave_evidence(stage: Stage, title: str, sentence: str, folder: Path) -> None:
    ladder = stage.ladder(title, sentence)
    for name, text in {
        "ladder.txt": draw_text(ladder),
        "ladder.svg": draw_svg(ladder),
        "ladder.json": json.dumps(ladder.as_json(), indent=2) + "\n",
    }.items():
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "capture.pcapng").write_bytes(stage.film.capture(f"{title}: {sentence}"))
