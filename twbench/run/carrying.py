"""The carrier of a run's wire, started."""

import os
import socket
from contextlib import ExitStack
from pathlib import Path

from twbench.lab.lab import Lab
from twbench.model.errors import RecordError
from twbench.model.plans import CarrierPlan, CarrierStart
from twbench.run.children import Child, Message

CAPTURE = "capture.pcapng"
_MODULE = "twbench.wire.carrier"


async def start_carrier(child: Child, lab: Lab, plan: CarrierPlan, folder: Path) -> Message:
    """Start the process that carries the packets; return what it is ready with.

    Raises:
        LabError: it could not.
        RecordError: the results folder takes no capture.
    """
    middle = lab.plan.middle
    assert middle is not None  # noqa: S101 - there is a plan for a wire only
    with ExitStack() as ours:
        sockets = [
            ours.enter_context(lab.socket(middle, socket.AF_PACKET, socket.SOCK_RAW))
            for _ in plan.ports
        ]
        capture = None
        if plan.wire.capture_packets:
            try:
                capture = os.open(folder / CAPTURE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            except OSError as error:
                raise RecordError(f"cannot make {folder / CAPTURE}: {error.strerror}") from error
            ours.callback(os.close, capture)
        numbers = tuple(each.fileno() for each in sockets)
        start = CarrierStart(plan=plan, sockets=numbers, capture=capture)
        passed = numbers if capture is None else (*numbers, capture)
        return await child.start(lab, _MODULE, start.as_line(), pass_fds=passed)
