"""The table of endings: from how each side departs follows who holds TIME_WAIT and who resets."""

import pytest

from twbench.model.endings import ENDINGS, Departure, Ending
from twbench.model.outcomes import UNKNOWN, Phase, kind_of_key
from twbench.model.states import Side

NOBODY: frozenset[Side] = frozenset()
CLIENT, SERVER = frozenset({Side.CLIENT}), frozenset({Side.SERVER})
BOTH = CLIENT | SERVER

# name: who holds TIME_WAIT, who sends RST, who moves first
TABLE = {
    "client-fin": (CLIENT, NOBODY, CLIENT),
    "server-fin": (SERVER, NOBODY, SERVER),
    "client-rst": (NOBODY, CLIENT, CLIENT),
    "server-rst": (NOBODY, SERVER, SERVER),
    "client-half-close": (CLIENT, NOBODY, CLIENT),
    "server-half-close": (SERVER, NOBODY, SERVER),
    "server-unread": (NOBODY, SERVER, SERVER),
    "server-idle": (SERVER, NOBODY, SERVER),
    "simultaneous": (BOTH, NOBODY, BOTH),
    "crash": (NOBODY, SERVER, SERVER),
}
MAY_SEE = [(name, key) for name, ending in ENDINGS.items() for key in sorted(ending.may_see)]

each_ending = pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS)


def test_table_has_these_endings() -> None:
    assert ENDINGS.keys() == TABLE.keys()


@each_ending
def test_ending_leaves_time_wait_and_resets_where_the_table_says(ending: Ending) -> None:
    assert (ending.time_wait, ending.resets, ending.first) == TABLE[ending.name]


@each_ending
def test_ending_is_found_under_its_own_name_and_says_what_it_does(ending: Ending) -> None:
    assert ENDINGS[ending.name] is ending
    assert len(ending.sentence.split()) > 5


@each_ending
@pytest.mark.parametrize("side", Side)
def test_reset_on_one_side_is_a_reset_by_peer_on_the_other(ending: Ending, side: Side) -> None:
    sends = ending.departure(side) is Departure.ACTIVE_RESET
    assert sends == (ending.departure(side.other) is Departure.RESET_BY_PEER)


@each_ending
@pytest.mark.parametrize("side", Side)
def test_who_closes_second_has_a_peer_who_closed_first(ending: Ending, side: Side) -> None:
    if ending.departure(side) is Departure.PASSIVE_CLOSE:
        assert ending.departure(side.other) is Departure.ACTIVE_CLOSE
    else:
        assert side in ending.first or side.other in ending.resets


def test_only_endings_without_an_answer_fail_the_request() -> None:
    silent = {name for name, ending in ENDINGS.items() if not ending.answered}
    failing = {name for name, key in MAY_SEE if key.startswith("read:ECONNRESET:reset_by_peer")}
    assert silent == failing == {"server-unread", "crash"}


def test_only_crossing_closes_need_a_wire() -> None:
    assert [name for name, ending in ENDINGS.items() if ending.needs_wire] == ["simultaneous"]


@pytest.mark.parametrize(("name", "key"), MAY_SEE)
def test_error_that_an_ending_may_show_is_a_row_of_the_outcomes(name: str, key: str) -> None:
    phase, error, kind = key.split(":")
    assert phase in set(Phase)
    assert error == "EOF" or error.startswith("E")
    assert kind_of_key(key) is not UNKNOWN, name
    assert kind_of_key(key).name == kind


def test_table_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        ENDINGS["client-fin"] = ENDINGS["crash"]  # type: ignore[index]
