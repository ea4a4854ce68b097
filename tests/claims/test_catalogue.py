"""The claims as a whole."""

import re

import pytest

from twbench.claims import catalogue
from twbench.claims.catalogue import CLAIMS, find
from twbench.claims.claim import Claim
from twbench.model.errors import UsageError

LONGEST_S = 140


def test_there_are_at_least_sixteen() -> None:
    assert len(CLAIMS) >= 16


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS)
def test_claim_says_what_it_claims_where_from_and_what_would_refute_it(claim: Claim) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", claim.id)
    assert len(claim.sentence.split()) >= 5
    assert any("article" in source for source in claim.sources)
    assert any(re.search(r"RFC|\w+\(\)|\.[ch]\b|tcp_\w+|TCP_\w+", s) for s in claim.sources)
    assert claim.refuted_by
    assert 0 < claim.needs_s <= LONGEST_S


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS)
def test_scenes_have_names_of_their_own_and_say_what_they_show(claim: Claim) -> None:
    names = [scene.name for scene in claim.scenes]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) for name in names)
    assert all(scene.sentence for scene in claim.scenes)


def test_each_claim_has_a_file_of_its_own_name() -> None:
    modules = catalogue.MODULES
    named = [module.__name__.rpartition(".")[2].replace("_", "-") for module in modules]
    assert named == list(CLAIMS)


def test_claims_are_found_by_number_and_by_id_once() -> None:
    first, second, *_ = CLAIMS.values()
    assert find(["2", "1", first.id]) == [second, first]


def test_unknown_claim_is_told_with_what_is_near() -> None:
    near = next(iter(CLAIMS))
    with pytest.raises(UsageError, match=f"did you mean {near}"):
        find([near[:-1]])
    with pytest.raises(UsageError, match="allowed are 1 to"):
        find(["0"])
