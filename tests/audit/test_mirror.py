"""What a server's books say of its client: one end of a connection seen from the other."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twbench.audit import Account, StackAccount
from twbench.audit.mirror import MIRROR, mirror, mirrored, together
from twbench.model.endings import ENDINGS, Departure, Ending
from twbench.model.reports import FleetReport, ServerReport
from twbench.model.states import Side


def stack(name: str, *sides: Side, **rest: object) -> StackAccount:
    fields: dict[str, object] = {
        "counters": {},
        "history": ((0.0, 0),),
        "waiting": (0,),
        "time_wait_end": 0,
        "accept_queue_end": 0,
        "fleet": FleetReport(),
        "server": ServerReport(),
        **rest,
    }
    return StackAccount(name=name, sides=frozenset(sides), **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("ending", [e for e in ENDINGS.values() if not e.needs_wire], ids=str)
def test_every_ending_with_one_first_closer_is_mirrored(ending: Ending) -> None:
    assert MIRROR[ending.server] is ending.client
    assert MIRROR[ending.client] is ending.server


def test_book_of_the_client_has_the_servers_connections_left_the_other_way() -> None:
    server = ServerReport(
        accepted=10,
        departures=Counter(active_close=4, passive_close=3, active_reset=2, reset_by_peer=1),
    )
    book = mirror(server)
    assert (book.connects, book.established) == (10, 10)
    assert book.departures == Counter(
        passive_close=4, active_close=3, reset_by_peer=2, active_reset=1
    )


def account(*stacks: StackAccount) -> Account:
    return Account(ending=ENDINGS["server-fin"], stacks=stacks, foreign=True)


SERVER = stack(
    "server",
    Side.SERVER,
    server=ServerReport(accepted=7, departures=Counter(active_close=7)),
)


def test_mirrored_book_takes_the_place_of_the_clients_own() -> None:
    pages = FleetReport(attempted=50, ok=50)
    found = mirrored(account(stack("client", Side.CLIENT, fleet=pages), SERVER))
    client, server = found.stacks
    assert (client.name, client.fleet.established, client.fleet.attempted) == ("client", 7, 0)
    assert client.departed(Departure.PASSIVE_CLOSE) == 7
    assert server == SERVER


def test_shared_stack_has_both_books() -> None:
    (lab,) = mirrored(account(stack("lab", *Side, server=SERVER.server))).stacks
    assert lab.departed(Departure.ACTIVE_CLOSE) == lab.departed(Departure.PASSIVE_CLOSE) == 7


def test_several_client_hosts_are_one() -> None:
    first = stack(
        "client-1",
        Side.CLIENT,
        counters={"TcpExtTW": 2, "TcpOutRsts": 1},
        history=((0.0, 0), (1.0, 2)),
        waiting=(0, 2),
        time_wait_end=2,
    )
    second = stack(
        "client-2",
        Side.CLIENT,
        counters={"TcpExtTW": 5},
        history=((0.5, 1), (1.5, 5)),
        waiting=(1, 4),
        time_wait_end=4,
    )
    clients, _ = mirrored(account(first, second, SERVER)).stacks
    assert clients.name == "clients"
    assert clients.counters == {"TcpExtTW": 7, "TcpOutRsts": 1}
    assert clients.history == ((0.0, 0), (0.5, 1), (1.0, 3), (1.5, 7))
    assert clients.waiting == (0, 1, 3, 6)
    assert clients.time_wait_end == 6


rises = st.lists(
    st.tuples(st.integers(0, 50), st.integers(0, 9)),
    min_size=1,
    max_size=8,
    unique_by=lambda t: t[0],
).map(sorted)


@given(st.lists(rises, min_size=1, max_size=4))
def test_stacks_together_never_fall_and_end_with_the_sum(
    curves: list[list[tuple[int, int]]],
) -> None:
    stacks = []
    for rising in curves:
        total, history = 0, []
        for at, rise in rising:
            total += rise
            history.append((at / 10, total))
        stacks.append(
            stack("client", Side.CLIENT, history=tuple(history), waiting=(0,) * len(history))
        )
    found = [entries for _, entries in together(stacks).history]
    assert found == sorted(found)
    assert found[-1] == sum(one.history[-1][1] for one in stacks)
