"""Negatives of the batch: the hardest that is allowed, by exhaustive search; the loss against plain triplets."""

import numpy as np
import pytest
import torch

from isometry.errors import InputError, UnknownName
from isometry.negatives import BatchTriplet, batch_negatives, same_label, same_text
from isometry.objectives import triplet_loss


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("choose", ["hard", "semi-hard"])
def test_choice_equals_exhaustive_search(seed, choose):
    rng = np.random.default_rng(seed)
    scores, drop = rng.uniform(-1, 1, (8, 12)).astype(np.float32), rng.random((8, 12)) < 0.4
    targets = rng.permutation(12)[:8]
    drop[3] = True
    found = batch_negatives(*(torch.from_numpy(x) for x in (scores, targets, drop)), choose=choose).tolist()
    for i, chosen in enumerate(found):
        allowed = [j for j in range(12) if j != targets[i] and not drop[i, j]]
        bar = scores[i, targets[i]]
        below = [j for j in allowed if scores[i, j] < bar]
        if not allowed:
            expected = -1
        elif choose == "hard" or below:
            expected = max(allowed if choose == "hard" else below, key=lambda j: scores[i, j])
        else:
            expected = min(allowed, key=lambda j: scores[i, j])
        assert chosen == expected


def test_loss_is_that_of_the_chosen_triplets():
    torch.manual_seed(0)
    q, p, n = torch.randn(3, 6, 8)
    loss = BatchTriplet(margin=0.5, choose="hard")
    found = loss.compute_loss_from_embeddings([q, p, n])
    docs = torch.nn.functional.normalize(torch.cat([p, n]), dim=1)
    chosen = batch_negatives(torch.nn.functional.normalize(q, dim=1) @ docs.T, torch.arange(6))
    rows = triplet_loss(q, p, docs[chosen], margin=0.5, reduction="none")
    torch.testing.assert_close(found, rows.mean())
    assert loss.active == pytest.approx(float((rows > 0).double().mean()))


def test_masks_keep_class_and_text_mates_out():
    q = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
    labels = torch.tensor([0, 0, 1])
    loss = BatchTriplet(choose="hard", margin=0.1, mask=same_label)
    expected = triplet_loss(q, q, q[[2, 2, 1]], margin=0.1)
    torch.testing.assert_close(loss.compute_loss_from_embeddings([q, q], labels), expected)
    texts = [["a", "b", "c"], ["x", "X", "y"]]
    loss = BatchTriplet(choose="hard", margin=0.1, mask=same_text)
    torch.testing.assert_close(loss.compute_loss_from_embeddings([q, q], None, texts), expected)


def test_a_batch_without_negatives_teaches_nothing():
    q = torch.randn(3, 4, requires_grad=True)
    loss = BatchTriplet(mask=same_label)
    value = loss.compute_loss_from_embeddings([q, q], torch.zeros(3, dtype=torch.int64))
    value.backward()
    assert value == 0
    assert not q.grad.any()
    assert loss.active == 0


def test_bad_input():
    with pytest.raises(UnknownName, match="'soft'"):
        BatchTriplet(choose="soft")
    with pytest.raises(UnknownName, match="'soft'"):
        batch_negatives(torch.eye(2), torch.arange(2), choose="soft")
    with pytest.raises(InputError, match="margin"):
        BatchTriplet(margin=2.0).compute_loss_from_embeddings([torch.eye(2), torch.eye(2)])
