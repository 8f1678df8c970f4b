"""Generated texts carry the relevance and nothing else."""

import pytest

from isometry.diagnostics.limit import make_corpus, relevance_pattern
from isometry.diagnostics.limit.corpus import distinct_attributes, person_names
from isometry.errors import InputError

THINGS = [f"{a}{b} {c}" for a in ("Red", "Old", "Tall") for b in "abcdefgh" for c in ("Oaks", "Tea", "Chess", "Maps")]


def parts(document):
    listed = document.text.removeprefix(f"{document.id} likes ").removesuffix(".")
    head, last = listed.rsplit(" and ", 1)
    return [*head.split(", "), last]


@pytest.mark.parametrize("pattern", ["dense", "random", "cycle", "disjoint"])
def test_a_document_names_the_attribute_of_a_query_if_and_only_if_it_is_relevant(pattern):
    relevance = relevance_pattern(pattern, 15, 2, seed=3)
    made = make_corpus(relevance, THINGS, per_document=12, distractors=7, seed=1)
    assert len(made.documents) == relevance.shape[1] + 7
    assert len({d.id for d in made.documents}) == len(made.documents)
    asked = {q: text.removeprefix("Who likes ").removesuffix("?") for q, text in made.queries.items()}
    for document in made.documents:
        named = parts(document)
        assert len(named) == len(set(named)) == 12
        for query, attribute in asked.items():
            relevant = made.qrels[query].get(document.id, 0) == 1
            assert (attribute in named) == relevant == (attribute.casefold() in document.text.casefold())
    matrix = relevance.dense()
    rows = {d.id: j for j, d in enumerate(made.documents)}
    for i, grades in enumerate(made.qrels.values()):
        assert sorted(rows[d] for d in grades) == [j for j in range(matrix.shape[1]) if matrix[i, j]]


def test_templates_names_and_seeds():
    relevance = relevance_pattern("dense", 6)
    texts = [
        make_corpus(relevance, THINGS, names=["Shop A", "Shop B", "Shop C", "Shop D"], per_document=4,
                    document="At {name}: {attributes}", query="Where is {attribute} sold?", seed=s)
        for s in (0, 0, 1)
    ]  # fmt: skip
    assert texts[0] == texts[1] != texts[2]
    assert texts[0].documents[0].text.startswith("At Shop A: ")
    assert texts[0].queries["query_0"].endswith(" sold?")


def test_attributes_that_hold_others_are_left_out():
    assert distinct_attributes(["Tea", "Green Tea", "tea", "Chess", "  "]) == ["Tea", "Chess"]
    with pytest.raises(InputError, match="'Ink Pots'"):
        make_corpus(relevance_pattern("dense", 3), [*THINGS, "Ink Pots", "Ink"], per_document=3)
    with pytest.raises(InputError, match="a repeat"):
        make_corpus(relevance_pattern("dense", 3), [*THINGS, THINGS[0]], per_document=3)


def test_names_are_distinct_however_many():
    names = person_names(8000)
    assert len(set(names)) == 8000
    assert person_names(5) == person_names(5) != person_names(5, seed=1)


def test_bad_input():
    relevance = relevance_pattern("dense", 6)
    with pytest.raises(InputError, match="distinct names"):
        make_corpus(relevance, THINGS, names=["A", "A", "B", "C"], per_document=4)
    with pytest.raises(InputError, match="need 42 attributes"):
        make_corpus(relevance, THINGS[:20], per_document=39)
    with pytest.raises(InputError, match="answers 3 queries"):
        make_corpus(relevance, THINGS, per_document=2)
    with pytest.raises(InputError, match="template"):
        make_corpus(relevance, THINGS, per_document=4, query="Who?")
    with pytest.raises(InputError, match="made-up names"):
        person_names(10**6)
