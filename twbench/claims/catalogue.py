"""Every claim, in the order in which the articles make them."""

import difflib
from collections.abc import Iterable, Mapping
from types import MappingProxyType, ModuleType

from twbench.claims import (
    a_port_per_connection,
    closing_states,
    four_causes_of_rst,
    half_close,
    last_ack_never_comes,
    lost_last_ack,
    old_duplicate,
    only_the_first_closer_waits,
    retransmission_times,
    three_or_four_segments,
    time_wait_costs_memory,
    time_wait_knobs,
    time_wait_lasts_60_s,
    two_faces_of_a_reset,
    what_restarts_time_wait,
    who_piles_up,
)
from twbench.claims.claim import Claim
from twbench.model.errors import UsageError

MODULES: tuple[ModuleType, ...] = (
    closing_states,
    only_the_first_closer_waits,
    time_wait_lasts_60_s,
    three_or_four_segments,
    half_close,
    lost_last_ack,
    last_ack_never_comes,
    retransmission_times,
    what_restarts_time_wait,
    old_duplicate,
    time_wait_costs_memory,
    a_port_per_connection,
    who_piles_up,
    four_causes_of_rst,
    two_faces_of_a_reset,
    time_wait_knobs,
)
"""Each holds a `CLAIM`, whose id is the module's name with dashes."""

CLAIMS: Mapping[str, Claim] = MappingProxyType(
    {module.CLAIM.id: module.CLAIM for module in MODULES}
)
"""By id."""


def find(names: Iterable[str]) -> list[Claim]:
    """Return the claims by their ids, or by their numbers from 1. UsageError for an unknown one."""
    numbered = {str(number): claim for number, claim in enumerate(CLAIMS.values(), start=1)}
    found, unknown = [], []
    for name in names:
        claim = CLAIMS.get(name) or numbered.get(name)
        if claim is None:
            unknown.append(name)
        elif claim not in found:
            found.append(claim)
    if unknown:
        near = [n for name in unknown for n in difflib.get_close_matches(name, CLAIMS, n=1)]
        hint = f"did you mean {', '.join(near)}? " if near else ""
        raise UsageError(
            f"unknown claim {', '.join(unknown)}; {hint}allowed are 1 to {len(CLAIMS)},"
            " or an id of `twbench claims list`"
        )
    return found
