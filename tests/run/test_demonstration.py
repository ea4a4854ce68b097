"""The demo's three acts, which the README tells of."""

from twbench.run.demonstration import DURATION_S, PORTS, RATE_PER_S, acts
from twbench.run.planning import predict_scenario


def test_three_acts_differ_in_who_closes_first_or_whether_at_all() -> None:
    crawler, server_first, kept = acts()
    assert (crawler.ending.kind, crawler.client.pool) == ("client-fin", None)
    assert (server_first.ending.kind, server_first.client.pool) == ("server-fin", None)
    assert kept.ending.kind == "client-fin"
    assert kept.client.pool is not None


def test_everything_else_is_the_same_in_all_acts() -> None:
    same = [
        act.model_dump(exclude={"name": True, "description": True, "ending": True, "client": True})
        for act in acts()
    ]
    assert same[0] == same[1] == same[2]


def test_ports_run_out_in_the_first_act_and_in_no_other() -> None:
    first, *others = (predict_scenario(act, {}) for act in acts())
    ports = PORTS[1] - PORTS[0] + 1
    assert first.exhausted_after_s == ports / RATE_PER_S
    # two thirds in, so that there is something to see on either side of it
    assert DURATION_S / 2 < first.exhausted_after_s < DURATION_S
    assert [other.exhausted_after_s for other in others] == [None, None]


def test_all_acts_take_about_the_minute_that_is_announced() -> None:
    assert 60 <= sum(act.load.total_s for act in acts()) <= 90
