"""Cross-entropy against frozen entries: torch's own, chunks, sampling, synonyms, what takes a gradient."""

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from isometry.errors import DimensionMismatch, InputError
from isometry.objectives import EntryCrossEntropy, entry_cross_entropy


def data(b=5, e=40, d=6):
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(b, d, generator=generator, dtype=torch.float64)
    entries = torch.randn(e, d, generator=generator, dtype=torch.float64)
    return vectors, entries, torch.randint(e, (b,), generator=generator)


@pytest.mark.parametrize("chunk", [1, 7, 40, 1000])
def test_agrees_with_cross_entropy_in_value_and_gradient(chunk):
    vectors, entries, labels = data()
    ours, theirs = vectors.clone().requires_grad_(), vectors.clone().requires_grad_()
    loss, expected = entry_cross_entropy(ours, entries, labels, chunk=chunk), cross_entropy(theirs @ entries.T, labels)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_entries_take_no_gradient_and_zero_vectors_cost_log_of_their_number():
    vectors, entries, labels = data()
    entries.requires_grad_()
    assert math.isclose(float(entry_cross_entropy(vectors * 0, entries, labels)), math.log(40))
    entry_cross_entropy(vectors.requires_grad_(), entries, labels).backward()
    assert entries.grad is None
    assert not list(EntryCrossEntropy(entries=entries).parameters())


def test_scaling_the_entries_is_a_temperature():
    vectors, entries, labels = data()
    expected = cross_entropy(100 * (vectors @ entries.T), labels)
    torch.testing.assert_close(entry_cross_entropy(vectors, 100 * entries, labels), expected)


@pytest.mark.parametrize("chunk", [3, 100])
def test_synonyms_do_not_compete(chunk):
    vectors, entries, labels = data()
    also = torch.tensor([[1, 2], [3, -1], [-1, -1], [4, 5], [39, 0]])
    logits = vectors @ entries.T
    for row, others in enumerate(also.tolist()):
        for other in others:
            if other >= 0 and other != labels[row]:
                logits[row, other] = -torch.inf
    found = entry_cross_entropy(vectors, entries, labels, also=also, chunk=chunk, reduction="none")
    torch.testing.assert_close(found, cross_entropy(logits, labels, reduction="none"))


def test_sampled_softmax_estimates_the_whole():
    vectors, entries, labels = data(e=2000)
    whole = entry_cross_entropy(0.3 * vectors, entries, labels)
    torch.manual_seed(0)
    drawn = torch.stack([entry_cross_entropy(0.3 * vectors, entries, labels, sampled=200) for _ in range(200)])
    assert abs(drawn.mean() - whole) < 0.02
    assert drawn.std() > 0
    torch.testing.assert_close(entry_cross_entropy(vectors, entries, labels, sampled=2000),
                               entry_cross_entropy(vectors, entries, labels))  # fmt: skip


def test_loss_object_with_head_and_synonyms():
    vectors, entries, labels = data()
    head = nn.Sequential(nn.Linear(6, 6), nn.Tanh()).double()
    loss = EntryCrossEntropy(entries=entries, head=head)
    torch.testing.assert_close(loss.compute_loss_from_embeddings([vectors], labels),
                               entry_cross_entropy(head(vectors), entries, labels))  # fmt: skip
    both = torch.stack([labels, (labels + 1) % 40], dim=1)
    assert loss.compute_loss_from_embeddings([vectors], both) < loss.compute_loss_from_embeddings([vectors], labels)
    assert loss.get_config_dict()["entries"] == 40


def test_bad_input():
    vectors, entries, labels = data()
    with pytest.raises(DimensionMismatch, match=r"\[b, d\] and \[E, d\]"):
        entry_cross_entropy(vectors[:, :2], entries, labels)
    with pytest.raises(InputError, match="one of the 40 entries"):
        entry_cross_entropy(vectors, entries, labels + 40)
    with pytest.raises(InputError, match="chunk and sampled"):
        entry_cross_entropy(vectors, entries, labels, chunk=0)
    with pytest.raises(InputError, match="also must be"):
        entry_cross_entropy(vectors, entries, labels, also=torch.full((5, 1), 77))
    with pytest.raises(InputError, match="needs labels"):
        EntryCrossEntropy(entries=entries).compute_loss_from_embeddings([vectors])
    with pytest.raises(InputError, match=r"columns \(definition\); got 2"):
        EntryCrossEntropy(entries=entries).compute_loss_from_embeddings([vectors, vectors], labels)
