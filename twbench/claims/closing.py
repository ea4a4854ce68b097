"""Closes that have happened: a process being started elsewhere may hold a copy of the descriptor.

Between its fork and its exec a child of this program has every descriptor of the program, and a
socket's close() does nothing while it has.
"""

import time

from twbench.claims.claim import SetUpError
from twbench.claims.scenery import Scenery
from twbench.model.states import TcpState
from twbench.trace.scripts import play_to
from twbench.wire.endpoint import Endpoint

_GLANCE_S = 0.02
_WITHIN_S = 20.0


def end(at: Scenery, endpoint: Endpoint, *, reset: bool = False) -> None:
    """Close an endpoint, by RST if so wished, and wait until its kernel has done it.

    Nothing crosses the wire meanwhile. Raises SetUpError where it does not come about.
    """
    stage, side = at.stage, endpoint.side
    before = stage.state(side)
    if reset:
        endpoint.reset()
    else:
        endpoint.close()
    end_s = time.monotonic() + _WITHIN_S
    while stage.state(side) is before:
        if time.monotonic() > end_s:
            raise SetUpError(f"the {side}'s socket is closed, and still in {before.name}")
        at.wait(_GLANCE_S)


def end_in_turn(at: Scenery, first: Endpoint, second: Endpoint) -> None:
    """Close one end, and when the other has acknowledged and seen the FIN, close that."""
    end(at, first)
    play_to(at.stage, first.side, TcpState.FIN_WAIT2)
    second.receive()
    end(at, second)
    at.stage.play()
