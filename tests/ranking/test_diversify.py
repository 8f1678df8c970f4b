import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isometry.errors import DimensionMismatch, InputError, UnknownName
from isometry.ranking import Diversify
from isometry.types import Hits, Queries

QUERIES = Queries.of(["q"])


def naive(scores, x, lam, k):
    """Carbonell and Goldstein's loop over ids, with relevance scaled to [0, 1]."""
    low, high = min(scores.values()), max(scores.values())
    taken = []
    while len(taken) < min(k, len(scores)):
        values = {}
        for i in sorted(set(scores) - {t for t, _ in taken}):
            relevance = (scores[i] - low) / (high - low) if high > low else 1.0
            cosines = [float(x[i] @ x[j] / (np.linalg.norm(x[i]) * np.linalg.norm(x[j]))) for j, _ in taken]
            values[i] = np.float32(lam * relevance - (1 - lam) * max(cosines, default=-1.0))
        best = max(sorted(values), key=lambda i: values[i])
        taken.append((best, float(values[best])))
    return taken


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 14), st.sampled_from([0.0, 0.2, 0.5, 0.9]), st.integers(1, 16), st.integers(0, 10_000))
def test_equals_the_naive_loop(n, lam, k, seed):
    rng = np.random.default_rng(seed)
    x = {f"{i:02d}": v for i, v in enumerate(rng.standard_normal((n, 3)).astype(np.float32))}
    scores = dict(zip(x, rng.permutation(n).astype(float), strict=True))
    hits = Diversify(lam=lam, k=k, vectors=x)(QUERIES, Hits.build(["0"], [scores.items()]))
    expected = naive(scores, x, lam, k)
    assert [i for i, _ in hits.row(0)] == [i for i, _ in expected]
    assert [s for _, s in hits.row(0)] == pytest.approx([s for _, s in expected], abs=1e-6)
    assert (np.diff(hits.scores) <= 0).all()


def test_relevance_alone_changes_nothing():
    rng = np.random.default_rng(0)
    before = Hits.build(["0"], [[(f"{i}", s) for i, s in enumerate(rng.standard_normal(30))]])
    x = {str(i): rng.standard_normal(4) for i in range(30)}
    assert Diversify(lam=1, k=30, vectors=x)(QUERIES, before).row(0) == before.row(0)
    assert Diversify(lam=1, k=5, vectors=x)(QUERIES, before).row(0) == before.row(0)[:5]


def test_a_copy_comes_last():
    x = {"a": [1, 0, 0], "a2": [1, 0, 0], "b": [0, 1, 0], "c": [0, 0, 1]}
    hits = Hits.build(["0"], [[("a", 1.0), ("a2", 0.99), ("b", 0.8), ("c", 0.7)]])
    assert Diversify(lam=0.5, k=4, vectors=x)(QUERIES, hits).ids.tolist() == ["a", "b", "c", "a2"]


def test_scale_of_scores_and_vectors_is_irrelevant():
    rng = np.random.default_rng(3)
    x = {str(i): v for i, v in enumerate(rng.standard_normal((20, 5)))}
    row = [(i, float(s)) for i, s in zip(x, rng.standard_normal(20), strict=True)]
    plain = Diversify(vectors=x)(QUERIES, Hits.build(["0"], [row]))
    scaled = Diversify(vectors={i: 7 * v for i, v in x.items()})(
        QUERIES, Hits.build(["0"], [[(i, 0.01 * s + 5) for i, s in row]])
    )
    assert plain.ids.tolist() == scaled.ids.tolist()


def test_equal_hits_come_by_id_and_zero_vectors_are_like_nothing():
    x = {i: [1.0, 0.0] for i in "dbca"} | {"z": [0.0, 0.0]}
    hits = Diversify(k=5, vectors=x)(QUERIES, Hits.build(["0"], [[(i, 1.0) for i in "zdbca"]]))
    assert hits.ids.tolist() == ["a", "z", "b", "c", "d"]


def test_ids_are_looked_up_once():
    asked = []

    def vectors(ids):
        asked.append(list(ids))
        return np.ones((len(ids), 2))

    hits = Hits.build(["p", "q"], [[("a", 2.0), ("b", 1.0)], [("b", 2.0)]])
    Diversify(vectors=vectors)(Queries.of({"p": "", "q": ""}), hits)
    assert asked == [["a", "b"]]


def test_bad_arguments():
    hits = Hits.build(["0"], [[("a", 2.0), ("b", 1.0)]])
    for lam in (-0.1, 1.1, float("nan")):
        with pytest.raises(InputError, match="lam"):
            Diversify(lam=lam, vectors={})
    with pytest.raises(InputError, match="k must be"):
        Diversify(k=0, vectors={})
    with pytest.raises(UnknownName, match="'b'"):
        Diversify(vectors={"a": [1.0]})(QUERIES, hits)
    with pytest.raises(InputError, match="one vector per id"):
        Diversify(vectors=lambda ids: np.ones((1, 2)))(QUERIES, hits)
    with pytest.raises(DimensionMismatch, match="NaN"):
        Diversify(vectors=lambda ids: np.full((2, 2), np.nan))(QUERIES, hits)
