"""Two real hosts with a wire between them, for the tests of what stands on it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from twbench.lab.lab import Lab
from twbench.lab.plan import LabPlan, Link
from twbench.wire.stage import Stage

WireLab = tuple[Lab, LabPlan]
OpenStage = Callable[..., AbstractContextManager[Stage]]


@contextmanager
def lab_of(family: int) -> Iterator[WireLab]:
    plan = LabPlan(link=Link.WIRE, family=family, expected_sockets=64)
    with Lab(plan) as lab:
        yield lab, plan


@pytest.fixture
def wire_lab() -> Iterator[WireLab]:
    """Give a lab of two IPv4 hosts, and its plan."""
    with lab_of(4) as made:
        yield made


@pytest.fixture
def wire_lab6() -> Iterator[WireLab]:
    """Give a lab of two IPv6 hosts, and its plan."""
    with lab_of(6) as made:
        yield made


@pytest.fixture
def open_stage() -> OpenStage:
    """Return what opens a stage on two new hosts; it takes the stage's options and `family`."""

    @contextmanager
    def opened(*rules: str, family: int = 4, **options: object) -> Iterator[Stage]:
        with (
            lab_of(family) as (lab, plan),
            Stage(lab, plan.wire_ports, rules=rules, **options) as stage,  # type: ignore[arg-type]
        ):
            yield stage

    return opened


@pytest.fixture
def stage(wire_lab: WireLab) -> Iterator[Stage]:
    """Give a stage on two IPv4 hosts, without rules."""
    lab, plan = wire_lab
    with Stage(lab, plan.wire_ports) as made:
        yield made
