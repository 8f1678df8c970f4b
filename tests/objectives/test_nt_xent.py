"""NT-Xent against loops over pairs, against InfoNCE, and what the miner keeps."""

import pytest
import torch
from torch.nn.functional import normalize

from isometry.errors import DimensionMismatch, EmptyInput, InputError, UnknownName
from isometry.objectives.info_nce import info_nce
from isometry.objectives.nt_xent import (
    NTXent,
    group_labels,
    label_pairs,
    multi_similarity_pairs,
    nt_xent,
    pairwise_similarity,
)


@pytest.fixture
def batch():
    vectors = torch.randn(7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return vectors, torch.tensor([0, 0, 0, 1, 1, 2, 3])


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_matches_a_loop_over_pairs(batch, distance):
    vectors, labels = batch
    unit = normalize(vectors, dim=-1)
    similar = unit @ unit.T if distance == "cosine" else -torch.cdist(unit, unit)
    losses = []
    for i in range(7):
        for j in range(7):
            if i != j and labels[i] == labels[j]:
                others = [similar[i, k] / 0.5 for k in range(7) if labels[k] != labels[i]]
                losses.append(torch.stack([similar[i, j] / 0.5, *others]).logsumexp(0) - similar[i, j] / 0.5)
    found = nt_xent(vectors, labels, temperature=0.5, distance=distance)
    torch.testing.assert_close(found, torch.stack(losses).mean(), rtol=1e-6, atol=1e-6)


def test_pairs_alone_are_info_nce_with_same_tower_negatives():
    q, p = (torch.randn(6, 8, generator=torch.Generator().manual_seed(s), dtype=torch.float64) for s in (1, 2))
    labels = torch.arange(6).repeat(2)
    both = [info_nce(a, b, temperature=0.1, blocks=("qd", "qq")) for a, b in ((q, p), (p, q))]
    torch.testing.assert_close(nt_xent(torch.cat([q, p]), labels, temperature=0.1), (both[0] + both[1]) / 2)


def test_invariant_to_order_and_length(batch):
    vectors, labels = batch
    order = torch.tensor([3, 1, 6, 0, 5, 2, 4])
    torch.testing.assert_close(nt_xent(vectors[order] * 3, labels[order]), nt_xent(vectors, labels))


def test_euclidean_gradient_is_finite_for_equal_vectors():
    vectors = torch.ones(3, 4, requires_grad=True)
    nt_xent(vectors * torch.tensor([[1.0], [1.0], [1.0]]), torch.tensor([0, 0, 1]), distance="euclidean").backward()
    assert torch.isfinite(vectors.grad).all()


def test_euclidean_is_the_distance_not_its_square():
    found = pairwise_similarity(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), "euclidean")
    assert found[0, 1] == pytest.approx(-2.0)


def test_miner_keeps_what_its_definition_says(batch):
    vectors, labels = batch
    similar = pairwise_similarity(vectors)
    positives, negatives = multi_similarity_pairs(vectors, labels, epsilon=0.1)
    own, other = label_pairs(vectors, labels)
    assert not (positives & ~own).any()
    assert not (negatives & ~other).any()
    for i in range(7):
        same, apart = similar[i][own[i]], similar[i][other[i]]
        for k in range(7):
            if own[i, k]:
                assert positives[i, k] == (similar[i, k] < apart.max() + 0.1)
            if other[i, k]:
                assert negatives[i, k] == (len(same) > 0 and bool(similar[i, k] > same.min() - 0.1))


def test_a_wide_margin_keeps_every_pair_of_anchors_with_positives(batch):
    vectors, labels = batch
    positives, negatives = multi_similarity_pairs(vectors, labels, epsilon=10)
    own, other = label_pairs(vectors, labels)
    assert torch.equal(positives, own)
    has = own.any(1)
    assert torch.equal(negatives[has], other[has])
    full = nt_xent(vectors, labels)
    torch.testing.assert_close(nt_xent(vectors, labels, pairs=(positives, negatives)), full)


def test_group_labels_interleave_and_never_share_negatives():
    labels = group_labels([(2, 1), (1, 2), (1, 0)]).tolist()
    assert labels[:3] == [0, 0, 0]
    assert labels[4:6] == [1, 1]
    assert labels[8:] == [2, 2]
    negatives = [labels[3], *labels[6:8]]
    assert len(set(negatives)) == 3
    assert min(negatives) > 2


def test_loss_object_merges_rows_of_one_text():
    columns = [torch.randn(3, 4, generator=torch.Generator().manual_seed(s)) for s in (3, 4)]
    texts = [["a", "b", "a"], ["x", "y", "z"]]
    found = NTXent().compute_loss_from_embeddings(columns, texts=texts)
    expected = nt_xent(torch.cat(columns), torch.tensor([0, 1, 0, 0, 1, 0]))
    torch.testing.assert_close(found, expected)


def test_loss_object_third_column_is_negatives_only():
    columns = [torch.randn(2, 4, generator=torch.Generator().manual_seed(s)) for s in (3, 4, 5)]
    found = NTXent(distance="euclidean").compute_loss_from_embeddings(columns, torch.tensor([7, 3]))
    expected = nt_xent(torch.cat(columns), torch.tensor([7, 3, 7, 3, 8, 9]), distance="euclidean")
    torch.testing.assert_close(found, expected)


def test_bad_input(batch):
    vectors, labels = batch
    with pytest.raises(InputError, match="temperature"):
        nt_xent(vectors, labels, temperature=0)
    with pytest.raises(DimensionMismatch):
        nt_xent(vectors, labels[:3])
    with pytest.raises(UnknownName, match="manhattan"):
        nt_xent(vectors, labels, distance="manhattan")
    with pytest.raises(EmptyInput, match="positive pair"):
        nt_xent(vectors, torch.arange(7))
    with pytest.raises(DimensionMismatch, match="two bool masks"):
        nt_xent(vectors, labels, pairs=(torch.ones(2, 2) > 0, torch.ones(2, 2) > 0))
    with pytest.raises(InputError, match="class numbers"):
        NTXent().compute_loss_from_embeddings([vectors, vectors], torch.rand(7))
