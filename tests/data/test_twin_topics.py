"""Twin topics: the query fits both twins, the candidates are five, two and three, and no word belongs to two pairs."""

import pytest

from isometry.data.twin_topics import OWN, SHARED, twin_slates, twin_words
from isometry.errors import InputError

TOPICS = 6


def topic_of(document):
    """The topic of five of six words, after checking that the sixth is one its pair shares."""
    own = [word // OWN for word in document if word < TOPICS * OWN]
    shared = [(word - TOPICS * OWN) // SHARED for word in document if word >= TOPICS * OWN]
    assert len(own) == 5
    assert len(set(own)) == 1
    assert shared == [own[0] // 2]
    return own[0]


def test_slates_hold_what_they_promise():
    slates = twin_slates(TOPICS, 60, seed=1)
    assert slates.docs.shape == (60, 10, 6)
    assert int(slates.docs.max()) < twin_words(TOPICS) == 6 * 12 + 3 * 2
    for query, docs, relevant in zip(slates.queries.tolist(), slates.docs.tolist(), slates.relevant, strict=True):
        topics = [topic_of(document) for document in docs]
        true = {t for t, right in zip(topics, relevant.tolist(), strict=True) if right}.pop()
        assert [t == true for t in topics] == relevant.tolist()
        assert (topics.count(true), topics.count(true ^ 1)) == (5, 2)
        assert query == [TOPICS * OWN + true // 2 * SHARED + i for i in range(SHARED)]  # the same for its twin
    assert {bool(r[0]) for r in slates.relevant} == {True, False}  # shuffled
    assert (twin_slates(TOPICS, 60, seed=1).docs == slates.docs).all()


@pytest.mark.parametrize("topics", [2, 5])
def test_topics_must_be_pairs(topics):
    with pytest.raises(InputError, match="even number"):
        twin_slates(topics, 3, seed=0)
