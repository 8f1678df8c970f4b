import pytest

from isometry.errors import InputError
from isometry.ranking import mention_edges

NAMES = {"a": ["beagle"], "b": ["hound", "hound dog"], "c": ["New York", "Big Apple"], "d": ["bank"], "e": ["Bank"]}


def pairs(texts, names=NAMES, **options):
    return [(e.source, e.target) for e in mention_edges(texts, names, **options)]


def test_whole_names_of_one_or_more_words_and_no_loops():
    assert pairs({"a": "a small HOUND, from New York."}) == [("a", "b"), ("a", "c")]
    assert pairs({"a": "hounds of New Yorkers; beagle"}) == []


def test_ambiguous_short_and_frequent_names_say_nothing():
    assert pairs({"a": "the bank"}) == []
    assert pairs({"a": "hound"}, shortest=6) == []
    texts = {str(i): "hound" for i in range(5)}
    assert len(pairs(texts, most=5)) == 5
    assert pairs(texts, most=4) == []
    assert pairs({"a": "new york"}, words=1) == []
    with pytest.raises(InputError, match="at least 1"):
        pairs({}, most=0)
