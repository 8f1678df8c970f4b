"""Facts in families."""

import re

import pytest

from isometry.data import fact_families
from isometry.data.families import ATTRIBUTES
from isometry.errors import InputError


def attributes(text: str, side: int) -> list[int]:
    """Return which value of each attribute a document (side 0) or query (side 1) names, and its numbers."""
    known = set(re.findall(r"\w+", text))
    named = [next(i for i, value in enumerate(values) if value[side] in known) for values in ATTRIBUTES]
    numbers = [int(number) for number in re.findall(r"\d{4}", text)]
    return named + (numbers if side == 0 else numbers[::-1])


def test_siblings_differ_in_one_attribute_and_queries_say_what_their_document_says() -> None:
    facts = fact_families(200, share=0.3, size=5, seed=1)
    assert len(set(facts.documents)) == len(set(facts.queries)) == 200
    assert (facts.family >= 0).sum() == 60
    for row in range(200):
        mine = attributes(facts.documents[row], 0)
        assert attributes(facts.queries[row], 1) == mine
        for other in facts.siblings(row):
            assert sum(a != b for a, b in zip(mine, attributes(facts.documents[other], 0), strict=True)) == 1
    assert len(facts.siblings(0)) == 4
    assert facts.siblings(150) == []
    assert facts.documents == fact_families(200, share=0.3, size=5, seed=1).documents


@pytest.mark.parametrize("options", [{"n": 0}, {"n": 10, "share": 2.0}, {"n": 10, "size": 13}, {"n": 10**6 + 1}])
def test_bad_input(options) -> None:
    with pytest.raises(InputError, match="Facts need"):
        fact_families(**options)
