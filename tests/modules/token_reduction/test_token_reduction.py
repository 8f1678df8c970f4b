"""Reducers: CRISP's invariants, peers, padding, degenerate texts, names, ragged embeddings."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isometry.errors import DimensionMismatch, InputError, UnknownName
from isometry.modules.token_reduction import (
    Agglomerative,
    Clusters,
    Identity,
    Mean,
    Stride,
    Tail,
    from_record,
    reduce_embeddings,
    reducers,
    segment_mean,
    to_record,
    within_share,
)
from isometry.modules.token_reduction.lloyd import lloyd, squared_distances
from isometry.modules.token_reduction.ragged import padded
from isometry.objectives.maxsim import maxsim_scores
from isometry.types import Embeddings, Space, id_array

EVERY = (
    Identity(), Mean(), Mean(renormalise=True), Tail(3), Stride(2), Clusters(k=4), Clusters(share=0.5),
    Clusters(k=3, renormalise=True), Agglomerative(k=3), Agglomerative(factor=2),
)  # fmt: skip


def tokens(*lengths, dim=6, seed=0, dtype=torch.float32):
    """Unit rows; NaN in the padding, which nobody may read."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.nn.functional.normalize(torch.randn(len(lengths), max(lengths), dim, generator=generator), dim=-1)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return torch.where(mask[..., None], x, torch.nan).to(dtype), mask


def sets(x, mask):
    return [row[kept].detach() for row, kept in zip(x, mask, strict=True)]


def as_rows(x):
    """Rows of a set in an order of their own, so that sets can be compared."""
    return x[np.lexsort(x.round(decimals=4).numpy().T)] if len(x) else x


# The six facts of the method -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("generator", [None, torch.Generator().manual_seed(1)])
def test_as_many_clusters_as_tokens_is_no_reduction_at_all(generator):
    (q, q_mask), (d, d_mask) = tokens(3, 5, 1), tokens(8, 2, 7, 4, seed=1)
    results = []
    for reducer in (Identity(), Clusters(k=8)):
        leaves = [x.clone().requires_grad_() for x in (q, d)]
        sides = [reducer.reduce(x, m, generator=generator) for x, m in zip(leaves, (q_mask, d_mask), strict=True)]
        scores = maxsim_scores(*sides[0], *sides[1])
        (scores * torch.arange(12.0).view(3, 4)).sum().backward()
        results.append((scores.detach(), *(leaf.grad for leaf in leaves)))
    for mv, clustered in zip(*results, strict=True):
        assert torch.equal(mv, clustered)


def test_one_cluster_scores_by_the_means():
    (q, q_mask), (d, d_mask) = tokens(3, 5), tokens(8, 2, 7, seed=1)
    scores = maxsim_scores(*Clusters(k=1).reduce(q, q_mask), *Clusters(k=1).reduce(d, d_mask))
    means = [torch.stack([row.mean(0) for row in sets(x, m)]) for x, m in ((q, q_mask), (d, d_mask))]
    torch.testing.assert_close(scores, means[0] @ means[1].T)


def test_gradient_of_the_segmented_mean():
    x, mask = tokens(7, 4, 1, dtype=torch.float64)
    x = torch.where(mask[..., None], x, 0.0).requires_grad_()
    assignment = torch.tensor([[0, 1, 0, 2, 2, 2, 1], [2, 2, 0, 0, 9, 9, 9], [1, 0, 0, 0, 0, 0, 0]])
    assert torch.autograd.gradcheck(lambda v: segment_mean(v, assignment, 3, mask)[0], (x,))

    weight = torch.randn(3, 3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    (segment_mean(x, assignment, 3, mask)[0] * weight).sum().backward()
    for i in range(3):  # written by hand: A^T X / n, so dX = A diag(1/n) dY
        a = torch.nn.functional.one_hot(assignment[i][mask[i]], 3).double()
        expected = a @ (weight[i] / a.sum(0).clamp_min(1)[:, None])
        torch.testing.assert_close(x.grad[i][mask[i]], expected)
        assert not x.grad[i][~mask[i]].any()


def test_gradient_of_a_loss_through_clusters_is_that_with_fixed_assignments():
    x, mask = tokens(9, 6, dtype=torch.float64)
    reducer = Clusters(k=3)
    assignment = reducer.assign(x, mask)
    grads = []
    for way in (lambda v: reducer.reduce(v, mask)[0], lambda v: segment_mean(v, assignment, 3, mask)[0]):
        leaf = x.clone().requires_grad_()
        way(leaf).pow(3).sum().backward()
        grads.append(leaf.grad)
    assert torch.equal(*grads)
    assert torch.isfinite(grads[0]).all()


@pytest.mark.parametrize("seeded", [True, False])
def test_the_objective_of_k_means_never_rises(seeded):
    x, mask = tokens(40, 33, 12, 5, 1, dim=8)
    generator = torch.Generator().manual_seed(3) if seeded else None
    assignment, history = lloyd(x, mask, torch.tensor([8, 3, 5, 8, 2]), steps=12, generator=generator)
    assert history.shape == (13, 5)
    assert (history.diff(dim=0) <= 1e-5).all()
    means, _ = segment_mean(x, assignment, 8, mask)
    own = (torch.where(mask[..., None], x, 0) - means.gather(1, assignment[..., None].expand_as(x))).square().sum(-1)
    assert ((own * mask).sum(1) <= history[-1] + 1e-5).all()


@given(st.integers(0, 10_000), st.integers(1, 14), st.integers(1, 8))
@settings(max_examples=25, deadline=None)
def test_the_order_of_tokens_does_not_matter(seed, length, k):
    x, mask = tokens(length, seed=seed)
    order = torch.randperm(length, generator=torch.Generator().manual_seed(seed))
    first, second = (sets(*Clusters(k=k).reduce(v, mask))[0] for v in (x, x[:, order]))
    torch.testing.assert_close(as_rows(first), as_rows(second), atol=1e-5, rtol=0)


def test_the_index_holds_exactly_the_kept_vectors():
    embeddings = ragged([5, 12, 1, 30])
    reduced, size = reduce_embeddings(embeddings, Clusters(k=8))
    assert np.diff(reduced.offsets).tolist() == [5, 8, 1, 8]
    assert (size.vectors_before, size.vectors) == (48, 22)
    assert (size.bytes_before, size.bytes) == (48 * 6 * 4, 22 * 6 * 4) == (48 * 24, reduced.vectors.nbytes)
    assert size.share == 22 / 48


# What holds for every reducer ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("reducer", EVERY, ids=repr)
def test_padding_and_company_change_nothing(reducer):
    lengths = (1, 9, 4, 2, 13)
    x, mask = tokens(*lengths)
    together = sets(*reducer.reduce(x, mask))
    for i, length in enumerate(lengths):
        (alone,) = sets(*reducer.reduce(x[i : i + 1, :length], mask[i : i + 1, :length]))
        torch.testing.assert_close(together[i], alone, atol=1e-6, rtol=0)
        assert torch.isfinite(alone).all()
        assert 1 <= len(alone) <= length


@pytest.mark.parametrize("reducer", EVERY, ids=repr)
def test_holes_in_the_mask_are_no_tokens(reducer):
    x, _ = tokens(7)
    mask = torch.tensor([[True, False, True, True, False, True, True]])
    (holed,) = sets(*reducer.reduce(x, mask))
    (dense,) = sets(*reducer.reduce(x[:, mask[0]], torch.ones(1, 5, dtype=torch.bool)))
    torch.testing.assert_close(holed, dense, atol=1e-6, rtol=0)


@pytest.mark.parametrize("reducer", EVERY, ids=repr)
@pytest.mark.parametrize("seeded", [True, False])
def test_empty_and_equal_tokens_give_no_nan(reducer, seeded):
    x = torch.ones(3, 6, 4) / 2
    x[1] = torch.nan
    mask = torch.tensor([[True] * 6, [False] * 6, [True, False, False, False, False, False]])
    x = x.requires_grad_()
    y, kept = reducer.reduce(x, mask, generator=torch.Generator().manual_seed(0) if seeded else None)
    counts = kept.sum(1).tolist()
    assert counts[1] == 0
    assert 1 <= counts[0] <= 6
    assert counts[2] == 1
    assert torch.isfinite(y[kept]).all()
    y[kept].sum().backward()
    assert torch.isfinite(x.grad).all()
    # k distinct centroids of equal tokens are impossible; those that stay are the token.
    if isinstance(reducer, Clusters) and reducer.k == 4:
        assert counts[0] == 1


@pytest.mark.parametrize("reducer", EVERY, ids=repr)
def test_no_text_at_all(reducer):
    y, mask = reducer.reduce(torch.zeros(0, 5, 4), torch.zeros(0, 5, dtype=torch.bool))
    assert len(y) == len(mask) == 0


@pytest.mark.parametrize("reducer", EVERY, ids=repr)
def test_norms_and_records(reducer):
    x, mask = tokens(9, 5)
    y, kept = reducer.reduce(x, mask)
    assert torch.allclose(y[kept].norm(dim=-1), torch.ones(1)) == reducer.keeps_norm
    assert from_record(to_record(reducer)) == reducer
    with pytest.raises(DimensionMismatch, match="bool mask"):
        reducer.reduce(x, mask.float())


def test_half_precision_is_clustered_as_float32_is():
    x, mask = tokens(30)
    half = x.to(torch.bfloat16)
    assert torch.equal(Clusters(k=5).assign(half, mask), Clusters(k=5).assign(half.float(), mask))
    assert Clusters(k=5).reduce(half, mask)[0].dtype == torch.bfloat16


# Against peers -------------------------------------------------------------------------------------------------------


def test_lloyd_equals_scikit_learns_from_the_same_seeds():
    from sklearn.cluster import KMeans

    from isometry.modules.token_reduction.lloyd import farthest_first

    x, mask = tokens(60, 45, dim=5, seed=4)
    assignment, history = lloyd(x, mask, torch.tensor([6, 6]), steps=50)
    seeds = farthest_first(torch.where(mask[..., None], x, 0), mask, 6)
    for i, row in enumerate(sets(x, mask)):
        peer = KMeans(6, init=seeds[i].numpy(), n_init=1, max_iter=50, tol=0).fit(row.numpy())
        assert peer.labels_.tolist() == assignment[i][mask[i]].tolist()
        assert history[-1, i].item() == pytest.approx(peer.inertia_, rel=1e-5)


def test_farthest_first_is_within_twice_the_best_radius():
    """Gonzalez's bound, after the first choice: no token is farther than twice the radius of any k + 1 centres."""
    from itertools import combinations

    from isometry.modules.token_reduction.lloyd import farthest_first

    for seed in range(5):
        x, mask = tokens(9, dim=3, seed=seed)
        radius = squared_distances(x, farthest_first(x, mask, 3)).amin(-1).max().sqrt()
        apart = torch.cdist(x[0], x[0])
        best = min(apart[:, list(chosen)].amin(1).max() for chosen in combinations(range(9), 3))
        assert radius <= 2 * best + 1e-6


def test_seeds_of_training_follow_the_generator_and_inference_is_fixed():
    x, mask = tokens(50, 50)
    drawn = [Clusters(k=8).assign(x, mask, generator=torch.Generator().manual_seed(s)) for s in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert torch.equal(Clusters(k=8).assign(x, mask), Clusters(k=8).assign(x, mask))


def test_plus_plus_draws_by_squared_distance():
    from isometry.modules.token_reduction.lloyd import plus_plus

    x = torch.tensor([[[0.0], [0.0], [1.0], [2.0], [99.0]]]).expand(4000, -1, -1)
    mask = torch.tensor([[True, True, True, True, False]]).expand(4000, -1)
    seeds = plus_plus(x, mask, 2, torch.Generator().manual_seed(0))[..., 0]
    first, second = seeds[:, 0], seeds[:, 1]
    assert (first == 0).float().mean() == pytest.approx(0.5, abs=0.03)
    assert (second[first == 0] == 2).float().mean() == pytest.approx(0.8, abs=0.03)  # 4 of 0 + 0 + 1 + 4
    assert not (seeds == 99).any()


def test_hierarchical_pooling_equals_scikit_learns_ward():
    """Ward on the cosine distances as given; scikit-learn's on coordinates agrees where clusters are well apart."""
    from sklearn.cluster import AgglomerativeClustering
    from sklearn.metrics import adjusted_rand_score

    rng = np.random.default_rng(0)
    centres = np.linalg.qr(rng.standard_normal((8, 8)))[0]
    x = np.repeat(centres[:5], [3, 7, 2, 5, 4], axis=0) + 0.05 * rng.standard_normal((21, 8))
    ours = Agglomerative(k=5).assign(x)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    assert adjusted_rand_score(ours, AgglomerativeClustering(5, linkage="ward").fit_predict(unit)) == 1.0
    assert ours[0] == 0
    assert (np.diff(np.unique(ours, return_index=True)[1]) > 0).all()


@pytest.mark.parametrize(("tokens_", "factor", "kept"), [(30, 2, 16), (31, 4, 8), (3, 6, 1), (1, 2, 1), (2, 1, 2)])
def test_pooling_by_a_factor_keeps_the_stated_number(tokens_, factor, kept):
    mask = Agglomerative(factor=factor).reduce(*tokens(tokens_))[1]
    assert int(mask.sum()) == kept


# Which tokens, how many ----------------------------------------------------------------------------------------------


def test_tail_and_stride_pick_by_position_of_tokens_that_count():
    x = torch.arange(7.0).view(1, 7, 1)
    mask = torch.tensor([[True, True, False, True, True, True, False]])
    assert sets(*Tail(2).reduce(x, mask))[0].flatten().tolist() == [4, 5]
    assert sets(*Tail(9).reduce(x, mask))[0].flatten().tolist() == [0, 1, 3, 4, 5]
    assert sets(*Stride(2).reduce(x, mask))[0].flatten().tolist() == [0, 3, 5]


@pytest.mark.parametrize(
    ("share", "length", "kept"), [(0.25, 3, 1), (0.25, 17, 4), (0.5, 9, 4), (0.29, 100, 29), (1, 7, 7)]
)
def test_relative_clusters_keep_a_share_of_each_text(share, length, kept):
    x, mask = tokens(length, 20, dim=64)
    assert Clusters(share=share).counts(mask)[0] == kept
    held = Clusters(share=share).reduce(x, mask)[1]
    assert held.sum(1).tolist() == [kept, int(share * 20)]


def test_share_of_variance_within_clusters():
    x = torch.tensor([[[0.0], [2.0], [10.0], [12.0]]])
    mask = torch.ones(1, 4, dtype=torch.bool)
    assert within_share(x, torch.tensor([[0, 0, 1, 1]]), 2, mask).item() == pytest.approx(4 / 104)
    assert within_share(x, torch.zeros(1, 4, dtype=torch.long), 2, mask).item() == pytest.approx(1)
    assert within_share(x, torch.arange(4)[None], 4, mask).item() == 0


def test_names_of_the_paper():
    assert reducers("C8x32") == {"query": Clusters(k=8), "document": Clusters(k=32)}
    assert reducers("C25")["query"] == Clusters(share=0.25)
    assert reducers("Tail 4x8") == {"query": Tail(4), "document": Tail(8)} == reducers("Tail4x8")
    assert reducers("K2") == {"query": Stride(2), "document": Stride(2)}
    assert reducers("Pool4") == {"query": Identity(), "document": Agglomerative(factor=4)}
    assert reducers("SV")["query"] == Mean()
    with pytest.raises(UnknownName, match="C4x8"):
        reducers("C4by8")


@pytest.mark.parametrize(
    "bad",
    [lambda: Clusters(), lambda: Clusters(k=2, share=0.5), lambda: Clusters(k=0), lambda: Clusters(share=1.5),
     lambda: Clusters(k=2, steps=-1), lambda: Tail(0), lambda: Stride(0), lambda: Agglomerative(),
     lambda: reducers("C0"),     lambda: Agglomerative(factor=0),
     lambda: to_record(object()), lambda: from_record({"kind": "os.system"})],
)  # fmt: skip
def test_wrong_settings_are_refused(bad):
    with pytest.raises(InputError):
        bad()


# Ragged embeddings ---------------------------------------------------------------------------------------------------


def ragged(lengths, role="document", dim=6):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((sum(lengths), dim)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    space = Space("toy", dim, similarity="maxsim")
    return Embeddings(x, id_array(map(str, range(len(lengths)))), space, role=role, offsets=offsets)


def test_embeddings_are_reduced_item_by_item():
    embeddings = ragged([5, 0, 12, 1, 30])
    reduced, _ = reduce_embeddings(embeddings, Clusters(k=4))
    assert np.diff(reduced.offsets).tolist() == [4, 0, 4, 1, 4]
    for i in (0, 2, 3, 4):
        x = torch.from_numpy(embeddings.item(i))[None]
        (alone,) = sets(*Clusters(k=4).reduce(x, torch.ones(x.shape[:2], dtype=torch.bool)))
        np.testing.assert_allclose(reduced.item(i), alone.numpy(), atol=1e-6)
    assert not reduced.space.normalized
    assert reduce_embeddings(embeddings, Tail(2))[0].space.normalized
    assert reduced.space.id != embeddings.space.id


def test_both_sides_of_a_pair_of_reducers_share_a_space():
    pair = reducers("C4x8")
    query, document = (reduce_embeddings(ragged([9, 9], role), pair)[0] for role in ("query", "document"))
    query.space.check(document.space)
    assert np.diff(query.offsets).tolist() == [4, 4]
    assert np.diff(document.offsets).tolist() == [8, 8]
    with pytest.raises(InputError, match="role"):
        reduce_embeddings(ragged([3], None), pair)


def test_single_vectors_cannot_be_reduced():
    single = Embeddings(np.ones((2, 3), np.float32), id_array("ab"), Space("toy", 3))
    with pytest.raises(InputError, match="multi-vector"):
        reduce_embeddings(single, Mean())
    with pytest.raises(InputError, match="multi-vector"):
        padded(single, [0])
    assert padded(ragged([2, 3]), [])[0].shape == (0, 0, 6)
