"""What the run hands to the processes it starts: a plan each, one JSON line on standard input."""

from typing import Self

from pydantic import BaseModel, ConfigDict

from twbench.model.crawling import Web
from twbench.model.links import WirePort
from twbench.model.scenario import EndingSpec, Family, Scenario, ServerSpec, WireSpec

Endpoint = tuple[str, int]
"""An IP address literal and a TCP port."""


class _Plan(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    def as_line(self) -> bytes:
        """Return the plan as one line of JSON."""
        return self.model_dump_json().encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Self:
        """Read what `as_line` wrote."""
        return cls.model_validate_json(line)


class FleetPlan(_Plan):
    """The part of a scenario that one fleet worker carries."""

    scenario: Scenario
    worker: int
    """Which of all the workers this is, from 0."""
    workers: int
    """How many there are on all client hosts together."""
    sources: tuple[str, ...]
    """Source addresses of this worker's host."""
    destinations: tuple[Endpoint, ...]


class ServerPlan(_Plan):
    """What one server process listens on and how it behaves."""

    server: ServerSpec
    ending: EndingSpec
    family: Family
    endpoints: tuple[Endpoint, ...]
    connections: int = 0
    """How many there may be at once, with all processes of the server together; 0: not known."""
    web: Web | None = None
    """The sites to play, by Host; bodies have `server.response_bytes` in the median."""
    seed: int = 1
    """Of what pages there are."""
    by_url: bool = False
    """Whether a request may choose the ending, size and delay of its own answer."""


class CarrierPlan(_Plan):
    """What the process that carries the packets of a wire is told."""

    wire: WireSpec
    ports: tuple[WirePort, ...]
    own_rules: tuple[str, ...] = ()
    """Lines that the ending needs; they come after those of `wire`."""
    hold_s: float
    """How long a packet is held at the most."""


class CarrierStart(_Plan):
    """The same with the descriptors that the process has been left."""

    plan: CarrierPlan
    sockets: tuple[int, ...]
    """A packet socket of the middle stack for each port."""
    capture: int | None
    """The file that takes the capture, open for writing."""


def share(total: int, worker: int, workers: int) -> int:
    """Return the part of `total` that falls to one of several workers; the parts add up."""
    return total // workers + (worker < total % workers)
