import re

import pytest

from isometry.errors import InputError
from isometry.tasks import two_hop_questions

TEXTS = {
    "beagle": "beagle: a small hound",
    "hound": "hound: a dog used for hunting",
    "cup": "beagle cup: a prize of hound shows",
    "dog": "dog: an animal",
    **{f"filler{i}": f"text {i}" for i in range(20)},
}
NAMES = {i: text.split(":")[0] for i, text in TEXTS.items()}
LINKS = [("beagle", "hound"), ("cup", "hound"), ("hound", "dog"), ("dog", "cup"), ("beagle", "cup")]


def test_answers_share_no_word_with_the_question_and_all_is_in_the_corpus():
    made = two_hop_questions(NAMES, TEXTS, LINKS, count=9, size=12, seed=1)
    assert set(made.qrels) == {"cup", "hound", "dog"}  # beagle also links to a text that names it
    assert len(made.ids) == len(set(made.ids)) == 12
    for source, grades in made.qrels.items():
        assert {source, *grades} <= set(made.ids)
        for target in grades:
            assert (source, target) in made.links
            assert not set(re.findall(r"\w+", NAMES[source])) & set(re.findall(r"\w+", TEXTS[target]))
    assert all(s in made.ids and t in made.ids for s, t in made.links)


def test_repeats_by_seed_and_never_asks_for_more_than_there_is():
    made = [two_hop_questions(NAMES, TEXTS, LINKS, count=1, size=8, seed=s) for s in (0, 0, 1, 2, 3)]
    assert made[0] == made[1]
    assert len({m.ids.__repr__() for m in made}) > 1
    assert len(two_hop_questions(NAMES, TEXTS, LINKS, count=3, size=999).ids) == len(TEXTS)


def test_nothing_to_ask():
    with pytest.raises(InputError, match="No item links"):
        two_hop_questions(NAMES, TEXTS, [("beagle", "cup")], count=1, size=5)
