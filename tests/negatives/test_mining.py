"""Mining, margins, the consistency filter and judged selection: brute force, bounds, bad input."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isometry.errors import DataWarning, DimensionMismatch, InputError
from isometry.negatives import (
    Absolute,
    Ceiling,
    Relative,
    consistent,
    judge_candidates,
    mine,
    positive_ranks,
    removal_quality,
    select_judged,
)
from isometry.negatives.mining import best


def unit(seed: int, n: int, d: int = 4) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def some_positives(seed: int, n: int, m: int) -> list[set[int]]:
    rng = np.random.default_rng(seed)
    return [set(rng.choice(m, size=rng.integers(1, 4), replace=False).tolist()) for _ in range(n)]


sizes = {"seed": st.integers(0, 10**6), "n": st.integers(1, 6), "m": st.integers(4, 30), "k": st.integers(1, 8)}


@settings(deadline=None, max_examples=40)
@given(**sizes, margin=st.sampled_from([None, Absolute(0.0), Absolute(0.2), Ceiling(0.3), Relative(0.05)]))
@pytest.mark.filterwarnings("ignore::isometry.errors.DataWarning")
def test_hardest_survivors_equal_brute_force(seed, n, m, k, margin) -> None:
    queries, docs, positives = unit(seed, n), unit(seed + 1, m), some_positives(seed, n, m)
    found = mine(queries, docs, positives, k=k, margin=margin)
    for i in range(n):
        scores = docs @ queries[i]
        limit = np.inf if margin is None else margin(np.float32([scores[sorted(positives[i])].min()]))[0]
        left = [j for j in np.argsort(-scores, kind="stable") if j not in positives[i] and scores[j] < limit - 1e-6]
        got = [j for j in found.rows[i] if j >= 0]
        assert got == left[: len(got)]
        assert len(got) in {min(k, len(left)), min(k, len(left) + 1)}  # one may lie at the limit itself
        np.testing.assert_allclose(found.scores[i, : len(got)], scores[got], atol=1e-6)
        assert np.isnan(found.scores[i, len(got) :]).all()
        assert found.complete[i] == (len(got) == k)


@settings(deadline=None, max_examples=30)
@given(**sizes, start=st.integers(0, 3))
def test_windows_draw_from_their_ranks(seed, n, m, k, start) -> None:
    queries, docs, positives = unit(seed, n), unit(seed + 1, m), some_positives(seed, n, m)
    found = mine(queries, docs, positives, k=k, window=(start, m), seed=seed)
    again = mine(queries, docs, positives, k=k, window=(start, m), seed=seed)
    np.testing.assert_array_equal(found.rows, again.rows)
    for i in range(n):
        scores = docs @ queries[i]
        ranked = [j for j in np.argsort(-scores, kind="stable") if j not in positives[i]][start:]
        got = found.rows[i].tolist()
        if not ranked:
            assert got == [-1] * k
        else:
            assert set(got) <= set(ranked)
            assert len(set(got)) == min(k, len(ranked))
            assert -1 not in got


def test_a_window_draws_every_rank_equally_often() -> None:
    queries, docs = np.repeat(unit(0, 1), 6000, 0), unit(1, 8)
    found = mine(queries, docs, [{0}] * 6000, k=1, window=(2, 6)).rows.ravel()
    counts = np.unique(found, return_counts=True)[1]
    assert len(counts) == 4
    assert abs(counts - 1500).max() < 4 * np.sqrt(6000 * 0.25 * 0.75)


def test_no_negative_reaches_its_share_of_the_positive() -> None:
    """NV-Embed's rule: below 0.95 of the least similar positive."""
    docs = np.abs(unit(0, 300, 8))
    positives = [{i, (i + 1) % 300} for i in range(100)]
    found = mine(docs[:100] + 0, docs, positives, k=20, margin=Relative(0.05))
    assert (found.rows >= 0).mean() > 0.8
    assert (found.scores < 0.95 * found.positive[:, None])[found.rows >= 0].all()
    scores = docs[:100] @ docs.T
    limit = 0.95 * found.positive
    for i in range(100):
        scores[i, list(positives[i])] = -np.inf
    np.testing.assert_array_equal(found.rejected, (scores >= limit[:, None]).sum(1))


def test_copies_of_the_query_and_its_positives_are_left_out() -> None:
    docs = unit(0, 5)
    texts = (["who  IS it"], ["Who is it", "answer", "Answer ", "other", "more"])
    found = mine(docs[:1], docs, [{1}], k=5, texts=texts)
    assert sorted(j for j in found.rows[0] if j >= 0) == [3, 4]
    with pytest.raises(InputError, match="1 queries and 5 documents"):
        mine(docs[:1], docs, [{1}], k=5, texts=(texts[0], texts[1][:2]))


def test_best_breaks_ties_by_position() -> None:
    scores = np.float32([1, 3, 3, 3, -np.inf, 0])
    assert [best(scores, count).tolist() for count in (2, 4, 9)] == [[1, 2], [1, 2, 3, 0], [1, 2, 3, 0, 5]]


def test_relative_margins_fall_back_near_zero() -> None:
    with pytest.warns(DataWarning, match="2 of 3 positives score at most 0.05"):
        limits = Relative(0.1)(np.float32([0.5, 0.0, -0.4]))
    np.testing.assert_allclose(limits, [0.45, -0.1, -0.5], atol=1e-6)
    with pytest.raises(InputError, match="relative margin"):
        Relative(1.0)


def test_mining_refuses_bad_input() -> None:
    docs = unit(0, 40)
    with pytest.raises(InputError, match=r"window of ranks \(50, 100\) ends beyond the corpus of 40"):
        mine(docs, docs, [{0}] * 40, k=7, window=(50, 100))
    with pytest.raises(InputError, match="must rise"):
        mine(docs, docs, [{0}] * 40, k=7, window=(5, 5))
    with pytest.raises(InputError, match=r"Query 1 needs positives among rows 0\.\.39"):
        mine(docs[:2], docs, [{0}, set()], k=1)
    with pytest.raises(InputError, match="Query 0 needs positives"):
        mine(docs[:1], docs, [{40}], k=1)
    with pytest.raises(InputError, match="2 sets of positives"):
        mine(docs[:2], docs, [{0}], k=1)
    with pytest.raises(InputError, match="k must"):
        mine(docs[:1], docs, [{0}], k=0)
    with pytest.raises(DimensionMismatch):
        mine(docs[:1], unit(0, 5, 3), [{0}], k=1)


# The consistency filter


def test_ranks_equal_brute_force_and_do_not_count_the_query() -> None:
    queries, docs = unit(0, 20), unit(1, 30)
    positives = np.random.default_rng(2).integers(30, size=20)
    wanted = [(docs @ q > docs[p] @ q + 1e-7).sum() for q, p in zip(queries, positives, strict=True)]
    np.testing.assert_array_equal(positive_ranks(queries, docs, positives), wanted)
    texts = (["Same text"], ["same  text", "b", "c"])
    three = np.float32([[1, 0], [0.8, 0.6], [0, 1]])
    assert positive_ranks(three[:1], three, [1]).tolist() == [1]
    assert positive_ranks(three[:1], three, [1], texts=texts).tolist() == [0]


def test_filter_finds_planted_wrong_positives() -> None:
    rng = np.random.default_rng(0)
    docs = unit(1, 400, 32)
    queries = docs + 0.05 * rng.normal(size=docs.shape).astype(np.float32)
    wrong = rng.random(400) < 0.2
    positives = np.where(wrong, rng.integers(400, size=400), np.arange(400))
    quality = removal_quality(consistent(queries, docs, positives, k=10), wrong & (positives != np.arange(400)))
    assert quality["precision"] == 1.0
    assert quality["recall"] > 0.9
    assert consistent(queries, docs, np.arange(400), k=1).all()


def test_filter_refuses_bad_input() -> None:
    docs = unit(0, 5)
    with pytest.raises(InputError, match=r"1\.\.4 for a corpus of 5"):
        consistent(docs, docs, range(5), k=5)
    with pytest.raises(InputError, match="positives must name"):
        consistent(docs, docs, [7] * 5, k=2)
    with pytest.raises(InputError, match="texts must hold"):
        positive_ranks(docs, docs, range(5), texts=(["a"], ["b"]))
    with pytest.raises(InputError, match="one shape"):
        removal_quality(np.ones(2, bool), np.ones(3, bool))
    assert np.isnan(removal_quality(np.ones(2, bool), np.zeros(2, bool))["precision"])


# Judged selection

DOCS = ["0.9", "0.8", "0.7", "0.6", "0.5", "0.4", "0.95"]


def by_text(pairs) -> list[float]:
    return [float(doc) for _, doc in pairs]


def test_judged_selection_drops_what_the_judge_accepts_and_spreads() -> None:
    candidates = np.array([[0, 1, 2, 3, 4, 5, -1]])
    found = select_judged(by_text, ["q"], DOCS, [{6}], candidates, k=4, margin=Absolute(0.1), stride=2)
    assert found.rows.tolist() == [[1, 3, 5, 2]]  # 0.9 is above 0.85; every second of the rest, then those between
    np.testing.assert_allclose(found.scores[0], [0.8, 0.6, 0.4, 0.7])
    assert (found.rejected.tolist(), round(float(found.positive[0]), 2)) == ([1], 0.95)
    hardest = select_judged(by_text, ["q"], DOCS, [{6}], candidates, k=2)
    assert hardest.rows.tolist() == [[0, 1]]
    short = select_judged(by_text, ["q"], DOCS, [{4}], candidates[:, :6], k=3)
    assert short.rows.tolist() == [[5, 5, 5]]


def test_positives_among_the_candidates_are_never_chosen() -> None:
    found = select_judged(by_text, ["q"], DOCS, [{0, 5}], np.array([[0, 1, 5]]), k=2, margin=Ceiling(1.0))
    assert found.rows.tolist() == [[1, 1]]
    assert float(found.positive[0]) == pytest.approx(0.4)


def test_a_judge_that_says_yes_to_everything_is_named() -> None:
    with pytest.warns(DataWarning, match="accept almost everything"):
        found = select_judged(by_text, ["q"], DOCS, [{5}], np.array([[0, 1, 2]]), k=2)
    assert found.rows.tolist() == [[-1, -1]]
    assert not found.complete.any()


def test_judges_refuse_bad_input() -> None:
    candidates = np.array([[0, 1]])
    with pytest.raises(InputError, match="2 finite scores"):
        judge_candidates(lambda pairs: [1.0], ["q"], DOCS, candidates)
    with pytest.raises(InputError, match="finite"):
        judge_candidates(lambda pairs: [1.0, np.nan], ["q"], DOCS, candidates)
    with pytest.raises(DimensionMismatch, match=r"candidates must be \[2, c\]"):
        judge_candidates(by_text, ["q", "r"], DOCS, candidates)
    with pytest.raises(InputError, match="sets of positives"):
        select_judged(by_text, ["q"], DOCS, [set()], candidates, k=1)
    with pytest.raises(InputError, match="stride"):
        select_judged(by_text, ["q"], DOCS, [{1}], candidates, k=1, stride=0)
