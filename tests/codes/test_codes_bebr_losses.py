"""Losses between codes against their definitions."""

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from isometry.codes.recurrent_binary import both_ways, hard_info_nce, similarity_distillation
from isometry.errors import DimensionMismatch, InputError


def rows(n, m=6, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((n, m)))


def by_hand(q, d, hard, temperature, same):
    cosines = (normalize(q, dim=-1) @ normalize(d, dim=-1).T).numpy() / temperature
    losses = []
    for i, row in enumerate(cosines):
        others = sorted((row[j] for j in range(len(row)) if j != i and not same(i, j)), reverse=True)[:hard]
        losses.append(np.log(np.exp([row[i], *others]).sum()) - row[i])
    return float(np.mean(losses))


@pytest.mark.parametrize("hard", [1, 3, 5, 50, None])
def test_hardest_negatives(hard):
    q, d = rows(5), rows(9, seed=1)
    found = float(hard_info_nce(q, d, temperature=0.2, hard=hard))
    assert found == pytest.approx(by_hand(q, d, hard, 0.2, lambda i, j: False), rel=1e-9)


def test_ids_mask_copies_of_query_and_positive():
    q, d = rows(4), rows(6, seed=1)
    ids, doc_ids = torch.tensor([0, 1, 2, 3]), torch.tensor([7, 8, 7, 0, 1, 8])

    def same(i, j):
        return doc_ids[j] == doc_ids[i] or doc_ids[j] == ids[i]

    found = float(hard_info_nce(q, d, temperature=0.2, hard=None, ids=ids, doc_ids=doc_ids))
    assert found == pytest.approx(by_hand(q, d, None, 0.2, same), rel=1e-9)
    alike = torch.zeros(4, dtype=torch.long)
    assert float(hard_info_nce(q, d[:4], ids=alike, doc_ids=alike)) == 0  # no negative is left


def test_both_ways_uses_the_other_sides_queue():
    q, d, old_q, old_d = rows(4), rows(4, seed=1), rows(3, seed=2), rows(3, seed=3)
    found = both_ways(q, d, queues=(old_q, old_d), hard=3)
    expected = hard_info_nce(q, torch.cat([d, old_d]), hard=3) + hard_info_nce(d, torch.cat([q, old_q]), hard=3)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(both_ways(q, d), both_ways(d, q))


def test_distillation_is_least_where_cosines_agree():
    x = rows(8, seed=4)
    teacher = normalize(x, dim=-1) @ normalize(x, dim=-1).T
    exact, other = similarity_distillation(x, teacher), similarity_distillation(rows(8, seed=5), teacher)
    assert exact < other
    q = x.clone().requires_grad_()
    similarity_distillation(q, teacher).backward()
    assert q.grad.abs().max() < 1e-6
    y = rows(5, seed=6)
    across = normalize(x, dim=-1) @ normalize(y, dim=-1).T
    plain = -(torch.softmax(across / 0.05, 1) * torch.log_softmax(across / 0.05, 1)).sum(1).mean()
    torch.testing.assert_close(similarity_distillation(x, across, y), plain)


def test_bad_input():
    with pytest.raises(InputError, match="temperature"):
        hard_info_nce(rows(2), rows(2), temperature=0)
    with pytest.raises(InputError, match="hard"):
        hard_info_nce(rows(2), rows(2), hard=0)
    with pytest.raises(DimensionMismatch):
        hard_info_nce(rows(3), rows(2))
    with pytest.raises(DimensionMismatch, match="teacher"):
        similarity_distillation(rows(3), torch.zeros(2, 2))
