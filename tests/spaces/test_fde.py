"""The encoding against a loop over its definition, the paper's exact invariants and its approximation theorem."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isometry.errors import DataWarning, InputError, NotFitted, SpaceMismatch
from isometry.spaces import FDE
from isometry.spaces.fde import Draws
from isometry.types import Embeddings, Space, id_array


def ragged(counts, dim=12, seed=0, unit=True, role=None):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((sum(counts), dim))
    if unit:
        x /= np.linalg.norm(x, axis=1, keepdims=True)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    space = Space("made", dim, similarity="maxsim")
    return Embeddings(x, id_array(f"i{i}" for i in range(len(counts))), space, role=role, offsets=offsets)


def chamfer(queries, documents):
    pairs = [
        [(queries.item(i) @ documents.item(j).T).max(axis=1).sum() for j in range(len(documents))]
        for i in range(len(queries))
    ]
    return np.asarray(pairs)


def estimate(fde, queries, documents):
    return fde.transform_query(queries).vectors @ fde.transform(documents).vectors.T


def bits_to_bucket(bits):
    """Gray-decode: binary digit j is the exclusive or of the Gray digits up to j."""
    return int("".join(str(b) for b in np.cumsum(bits) % 2) or "0", 2)


def by_definition(fde, tokens, document):
    """One item's encoding, token by token and bucket by bucket."""
    draws, blocks = fde.draws, []
    for r in range(fde.repetitions):
        bits = (tokens @ draws.hyperplanes[r] > draws.thresholds[r]).astype(int)
        bucket = np.array([bits_to_bucket(row) for row in bits])
        inner = tokens if draws.projections is None else tokens @ draws.projections[r]
        for p in range(fde.buckets):
            here = inner[bucket == p]
            if not document:
                blocks.append(here.sum(axis=0))
            elif len(here):
                blocks.append(here.mean(axis=0))
            elif fde.fill_empty:
                own = np.array([int(c) for c in format(p ^ (p >> 1), f"0{fde.k_sim}b")])
                blocks.append(inner[np.argmin((bits != own).sum(axis=1))])
            else:
                blocks.append(np.zeros(inner.shape[1]))
    whole = np.concatenate(blocks)
    if draws.targets is not None:
        whole = np.bincount(draws.targets, weights=draws.signs * whole, minlength=fde.d_final)
    return whole / fde.repetitions if not document and fde.calibrated and not fde.reference_compatible else whole


VARIANTS = [
    {"d_proj": None},
    {"d_proj": None, "fill_empty": False},
    {"d_proj": 5},
    {"d_proj": 5, "projection": "count_sketch"},
    {"d_proj": 5, "d_final": 40},
    {"d_proj": None, "d_final": 40, "k_sim": 6},
    {"k_sim": 0},
    {"k_sim": 1, "d_proj": 3},  # fewer buckets than tokens: pooled first
    {"reference_compatible": True, "d_proj": 5},
    {"center": True, "calibrated": False},
]


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_equals_the_definition(options):
    documents, queries = ragged([1, 7, 30, 2, 18]), ragged([4, 1, 9], seed=1)
    fde = FDE(**{"repetitions": 3, "k_sim": 3, **options}).fit(documents)
    encoded, asked = fde.transform(documents), fde.transform_query(queries)
    assert encoded.vectors.shape == (5, fde.dim)
    for i in range(5):
        np.testing.assert_allclose(encoded.vectors[i], by_definition(fde, documents.item(i), True), atol=1e-5)
    for i in range(3):
        np.testing.assert_allclose(asked.vectors[i], by_definition(fde, queries.item(i), False), atol=1e-5)
    assert (encoded.role, asked.role) == ("document", "query")
    assert encoded.ids.tolist() == documents.ids.tolist()


def test_reference_layout_for_given_matrices():
    """Two hyperplanes, the reference's order of buckets: 00, 01, 11, 10."""
    planes = np.eye(2, dtype=np.float32)[None]
    fde = FDE(repetitions=1, k_sim=2, d_proj=None, fill_empty=False, reference_compatible=True)
    tokens = np.array([[-1, -2], [-3, 4], [5, 6], [7, -8]], np.float32)
    emb = Embeddings(tokens, id_array("a"), Space("made", 2, similarity="maxsim"), offsets=np.array([0, 4]))
    fde.use(emb.space, Draws(planes, np.zeros((1, 2), np.float32)))
    with pytest.warns(DataWarning, match="norms vary"):
        assert fde.transform(emb).vectors.tolist() == [[-1, -2, -3, 4, 5, 6, 7, -8]]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(0, 5))
def test_never_above_maxsim_with_filling(seed, repetitions, k_sim):
    documents, queries = ragged([1, 3, 8, 20], seed=seed), ragged([2, 5], seed=seed + 1)
    fde = FDE(repetitions=repetitions, k_sim=k_sim, d_proj=None, seed=seed).fit(documents)
    assert (estimate(fde, queries, documents) <= chamfer(queries, documents) + 1e-5).all()


def test_without_filling_the_bound_needs_maxima_of_at_least_zero():
    documents, queries = ragged([3, 8], seed=3), ragged([5], seed=4)
    positive = [dataclasses.replace(e, vectors=np.abs(e.vectors)) for e in (queries, documents)]
    for seed in range(20):
        fde = FDE(repetitions=4, k_sim=4, d_proj=None, fill_empty=False, seed=seed).fit(documents)
        assert (estimate(fde, *positive) <= chamfer(*positive) + 1e-5).all()
    negative = [positive[0], dataclasses.replace(positive[1], vectors=-positive[1].vectors)]
    assert (estimate(fde, *negative) > chamfer(*negative)).any()  # an empty bucket gives 0, above a negative maximum


@pytest.mark.parametrize("k_sim", [0, 1, 4, 7])
def test_exact_for_a_single_token(k_sim):
    documents, queries = ragged([1, 1, 1]), ragged([6, 2], seed=1)
    for seed in range(5):
        fde = FDE(repetitions=3, k_sim=k_sim, d_proj=None, seed=seed).fit(documents)
        np.testing.assert_allclose(estimate(fde, queries, documents), chamfer(queries, documents), atol=1e-5)


def test_one_bucket_is_query_sum_times_document_mean():
    documents, queries = ragged([3, 9, 1]), ragged([6, 2], seed=1)
    fde = FDE(repetitions=4, k_sim=0, d_proj=None).fit(documents)
    sums = np.stack([queries.item(i).sum(axis=0) for i in range(2)])
    means = np.stack([documents.item(i).mean(axis=0) for i in range(3)])
    np.testing.assert_allclose(estimate(fde, queries, documents), sums @ means.T, atol=1e-5)


def test_order_and_repetition_of_tokens():
    documents, queries = ragged([9, 14]), ragged([6, 3], seed=1)
    fde = FDE(repetitions=5, k_sim=2, fill_empty=False).fit(documents)
    base = estimate(fde, queries, documents)

    def changed(emb, how):
        parts = [how(emb.item(i)) for i in range(len(emb))]
        offsets = np.concatenate([[0], np.cumsum([len(p) for p in parts])]).astype(np.int64)
        return dataclasses.replace(emb, vectors=np.concatenate(parts), offsets=offsets)

    def twice(x):
        return np.concatenate([x, x])

    backwards = estimate(fde, changed(queries, np.flipud), changed(documents, np.flipud))
    np.testing.assert_allclose(backwards, base, atol=1e-5)
    np.testing.assert_allclose(estimate(fde, changed(queries, twice), documents), 2 * base, atol=1e-5)
    np.testing.assert_allclose(estimate(fde, queries, changed(documents, twice)), base, atol=1e-5)


@pytest.mark.parametrize("options", [{"projection": "dense"}, {"projection": "count_sketch"}, {"final": True}], ids=str)
def test_projections_keep_scores_in_expectation(options):
    documents, queries = ragged([7]), ragged([4], seed=1)
    plain = FDE(repetitions=2, k_sim=2, d_proj=None, seed=5).fit(documents)
    exact = estimate(plain, queries, documents)[0, 0]
    final, draws = options.pop("final", False), []
    for seed in range(200):
        fde = FDE(
            repetitions=2, k_sim=2, d_proj=None if final else 4, d_final=30 if final else None, seed=seed, **options
        )
        fde.fit(documents)
        fde.use(documents.space, dataclasses.replace(fde.draws, hyperplanes=plain.draws.hyperplanes))
        draws.append(estimate(fde, queries, documents)[0, 0])
    assert np.std(draws) > 0
    assert abs(np.mean(draws) - exact) < 4 * np.std(draws) / np.sqrt(len(draws))


def test_theorem_2_1():
    """One repetition, many hyperplanes: within eps of MaxSim / |Q| for at least 1 - delta of the draws.

    By the union bound of the proof, a token at angle a from q shares q's k bits with probability (1 - a / pi)^k, and
    the nearest keeps close in Hamming distance; eps = 0.45 and delta = 0.1 are met at k_sim = 9 with 6 tokens.
    """
    documents, queries = ragged([6] * 8, dim=16, seed=3), ragged([5] * 4, dim=16, seed=4)
    exact, within, misses = chamfer(queries, documents) / 5, [], {}
    for k_sim in (2, 5, 9):
        gaps = []
        for seed in range(60):
            fde = FDE(repetitions=1, k_sim=k_sim, d_proj=None, seed=seed).fit(documents)
            gaps.append(exact - estimate(fde, queries, documents) / 5)
        assert np.min(gaps) >= -1e-5
        misses[k_sim] = float(np.mean(np.array(gaps) > 0.45))
        within.append(np.mean(gaps))
    assert misses[9] <= 0.1
    assert within[0] > within[1] > within[2]  # finer partitions come nearer


def test_repetitions_reduce_the_variance():
    documents, queries = ragged([12]), ragged([6], seed=1)
    spread = [
        np.std([estimate(FDE(repetitions=r, k_sim=3, seed=s).fit(documents), queries, documents) for s in range(60)])
        for r in (1, 16)
    ]
    assert spread[1] < spread[0] / 2  # a quarter in expectation


def test_batches_and_shards_do_not_matter(monkeypatch):
    documents = ragged(np.random.default_rng(0).integers(1, 40, 60))
    fde = FDE(repetitions=4, k_sim=3, d_proj=4).fit(documents)
    whole, seen = fde.transform(documents), []
    parts = np.concatenate([part.vectors for part in fde.shards(documents, 7)])
    np.testing.assert_allclose(parts, whole.vectors, atol=1e-5)
    monkeypatch.setattr("isometry.spaces.fde.CELLS", 1)
    np.testing.assert_allclose(fde.transform(documents, lambda *at: seen.append(at)).vectors, whole.vectors, atol=1e-5)
    assert seen == [(i + 1, 60) for i in range(60)]


def test_every_setting_is_another_space():
    documents = ragged([3, 4])
    changes = [{}, {"seed": 1}, {"repetitions": 3}, {"k_sim": 3}, {"d_proj": 3}, {"projection": "count_sketch"},
               {"d_final": 64}, {"fill_empty": False}, {"calibrated": False}, {"center": True},
               {"reference_compatible": True}]  # fmt: skip
    base = {"repetitions": 2, "k_sim": 2, "d_proj": 4}
    spaces = [FDE(**{**base, **change}).fit(documents).space for change in changes]
    assert len({space.id for space in spaces}) == len(changes)
    assert FDE(**base).fit(documents).space == spaces[0]
    assert FDE(**base, max_bytes=1 << 30).fit(documents).space == spaces[0]
    assert spaces[0].similarity == "dot"
    with pytest.raises(SpaceMismatch, match="fde:"):
        spaces[0].check(spaces[1])


def test_streams_are_independent_unless_the_reference_is_wanted():
    documents = ragged([3])
    fde = FDE(repetitions=2, k_sim=4, d_proj=4).fit(documents)
    planes, signs = fde.draws.hyperplanes, fde.draws.projections
    assert not np.array_equal(planes[0], planes[1])
    assert not np.array_equal(signs[0], signs[1])
    np.testing.assert_allclose(np.abs(signs), 0.5)
    reference = FDE(repetitions=2, k_sim=4, d_proj=4, seed=7, reference_compatible=True).fit(documents).draws
    shifted = FDE(repetitions=2, k_sim=4, d_proj=4, seed=8, reference_compatible=True).fit(documents).draws
    np.testing.assert_array_equal(reference.hyperplanes[1], shifted.hyperplanes[0])  # repetition r draws from seed + r
    np.testing.assert_array_equal(reference.projections[1], shifted.projections[0])


def test_state_restores_the_encoding():
    documents = ragged([3, 8])
    fde = FDE(repetitions=2, k_sim=3, d_final=32, center=True).fit(documents)
    again = FDE.restore(fde.config(), fde.source, fde.state())
    assert again.space == fde.space
    np.testing.assert_array_equal(again.transform(documents).vectors, fde.transform(documents).vectors)


def test_automatic_width_of_the_projection():
    assert FDE(repetitions=1, k_sim=0).width(384) == 48
    assert FDE(repetitions=1, k_sim=0).width(96) == 16
    assert FDE(repetitions=1, k_sim=0).width(8) == 8


def test_memory_is_estimated_before_it_is_taken():
    documents = ragged([2, 2], dim=128)
    fde = FDE(repetitions=20, k_sim=7, d_proj=None, max_bytes=6 << 20)
    assert fde.width(128) == 327_680
    with pytest.raises(InputError, match=r"327,680 numbers wide.*set d_proj or d_final"):
        fde.fit(ragged([2] * 4, dim=128)).transform(ragged([2] * 4, dim=128))
    assert fde.fit(documents).estimate_bytes(1000) > 1000 * 327_680 * 4
    with pytest.raises(InputError, match="random maps and one item"):
        FDE(k_sim=30).fit(documents)


def test_bad_input():
    documents = ragged([2, 3], role="document")
    fde = FDE(repetitions=2, k_sim=2)
    for use in (lambda: fde.transform(documents), lambda: fde.space, lambda: fde.draws):
        with pytest.raises(NotFitted, match="call fit"):
            use()
    fde.fit(documents)
    with pytest.raises(InputError, match=r"Item 'i1' has no token vector \(1 such\)"):
        fde.transform(ragged([2, 0, 3]))
    with pytest.raises(InputError, match="role 'document': encode them with transform"):
        fde.transform_query(documents)
    with pytest.raises(InputError, match="one vector per id"):
        fde.transform(Embeddings(np.eye(12), id_array(map(str, range(12))), documents.space))
    with pytest.raises(SpaceMismatch):
        fde.transform(ragged([2], dim=8))
    with pytest.raises(InputError, match="tokens hold numbers as large as"):
        fde.transform(dataclasses.replace(documents, vectors=documents.vectors * 1e20))
    with pytest.raises(InputError, match="need"):
        fde.use(documents.space, Draws(np.zeros((1, 12, 2), np.float32), np.zeros((1, 2), np.float32)))
    with pytest.warns(DataWarning, match="Token norms vary"):
        fde.transform(ragged([5], unit=False))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"repetitions": 0}, "repetitions=0"),
        ({"k_sim": 31}, "k_sim=31"),
        ({"repetitions": 1.5}, "whole numbers repetitions"),
        ({"d_proj": 0}, "d_proj"),
        ({"d_final": 1.5}, "d_final"),
        ({"projection": "sparse"}, "'sparse'"),
        ({"reference_compatible": True, "center": True}, "does not centre"),
    ],
)
def test_bad_settings(options, message):
    with pytest.raises(InputError, match=message):
        FDE(**options)


def test_final_sketch_must_fit():
    documents = ragged([2])
    fde = FDE(repetitions=1, k_sim=1, d_proj=None, d_final=8).fit(documents)
    with pytest.raises(InputError, match=r"lie in \[0, 8\)"):
        fde.use(documents.space, dataclasses.replace(fde.draws, targets=fde.draws.targets + 8))


def test_no_items():
    documents = ragged([])
    assert FDE(repetitions=2, k_sim=2).fit(documents).transform(documents).vectors.shape == (0, 96)
