"""MaxSim on padded tokens: equality with loops, masks, gradients; InfoNCE over it."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from isometry.errors import DimensionMismatch, InputError
from isometry.objectives import MaxSimInfoNCE, maxsim_info_nce, maxsim_scores


def batch(*lengths, dim=5, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(len(lengths), max(lengths), dim, generator=generator).to(dtype)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return torch.where(mask[..., None], x, torch.nan), mask


def by_loops(q, q_mask, d, d_mask):
    scores = [[sum(float((d[j][d_mask[j]] @ token).max()) for token in q[i][q_mask[i]]) for j in range(len(d))]
              for i in range(len(q))]  # fmt: skip
    return torch.tensor(scores)


def test_scores_equal_the_sum_of_maxima_written_as_loops():
    (q, qm), (d, dm) = batch(3, 1, 6), batch(4, 9, 1, 2, seed=1)
    torch.testing.assert_close(maxsim_scores(q, qm, d, dm), by_loops(q, qm, d, dm))
    per_vector = by_loops(q, qm, d, dm) / torch.tensor([[3.0], [1.0], [6.0]])
    torch.testing.assert_close(maxsim_scores(q, qm, d, dm, normalise=True), per_vector)


def test_scores_equal_the_search_scorer_on_ragged_embeddings():
    from isometry.indexes.maxsim import maxsim_scores as searched
    from isometry.types import Embeddings, Space, id_array

    sides = []
    for lengths, seed in (((3, 1, 6), 0), ((4, 9, 1, 2), 1)):
        x, mask = batch(*lengths, seed=seed)
        offsets = torch.tensor([0, *lengths]).cumsum(0).numpy()
        ids = id_array(map(str, range(len(lengths))))
        space = Space("toy", 5, similarity="maxsim", normalized=False)
        sides.append(((x, mask), Embeddings(x[mask].numpy(), ids, space, offsets=offsets)))
    (q, asked), (d, documents) = sides
    torch.testing.assert_close(maxsim_scores(*q, *d), torch.from_numpy(searched(asked, documents)))


def test_padding_changes_neither_scores_nor_gradients():
    (q, qm), (d, dm) = batch(3, 1), batch(4, 9, 1, seed=1)
    wider = [torch.cat([x, torch.full((len(x), 3, 5), torch.inf)], 1) for x in (q, d)]
    masks = [torch.cat([m, torch.zeros(len(m), 3, dtype=torch.bool)], 1) for m in (qm, dm)]
    leaves = [x.requires_grad_() for x in (q, d, *wider)]
    narrow, wide = maxsim_scores(leaves[0], qm, leaves[1], dm), maxsim_scores(leaves[2], masks[0], leaves[3], masks[1])
    torch.testing.assert_close(narrow, wide)
    (narrow.square().sum() + wide.square().sum()).backward()
    for thin, thick, mask in ((leaves[0], leaves[2], qm), (leaves[1], leaves[3], dm)):
        torch.testing.assert_close(thin.grad[mask], thick.grad[:, : mask.shape[1]][mask])
        assert not thick.grad[:, mask.shape[1] :].any()
        assert not thin.grad[~mask].any()


def test_gradient():
    (q, qm), (d, dm) = batch(3, 1, dtype=torch.float64), batch(4, 6, 1, seed=1, dtype=torch.float64)
    leaves = [torch.where(m[..., None], x, 0.0).requires_grad_() for x, m in ((q, qm), (d, dm))]
    assert torch.autograd.gradcheck(lambda a, b: maxsim_scores(a, qm, b, dm), leaves)
    assert torch.autograd.gradcheck(
        lambda a, b: maxsim_info_nce(maxsim_scores(a, qm, b, dm, normalise=True), temperature=0.3), leaves
    )


@pytest.mark.parametrize("shape", [(0, 3, 2), (2, 0, 2), (2, 3, 0)])
def test_nothing_to_compare_scores_zero(shape):
    m, t, s = shape
    q, d = torch.randn(2, s, 4, requires_grad=True), torch.randn(m, t, 4)
    scores = maxsim_scores(q, torch.ones(2, s, dtype=torch.bool), d, torch.ones(m, t, dtype=torch.bool))
    assert scores.shape == (2, m)
    assert not scores.any()


def test_a_document_without_vectors_scores_zero_beside_others():
    (q, qm), (d, dm) = batch(3, 2), batch(4, 5, seed=1)
    dm = dm.clone()
    dm[1] = False
    q = q.requires_grad_()
    scores = maxsim_scores(q, qm, d, dm)
    assert not scores[:, 1].any()
    scores.sum().backward()
    assert torch.isfinite(q.grad).all()


def test_loss_is_cross_entropy_of_what_is_not_dropped():
    scores = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    drop = torch.zeros(3, 5, dtype=torch.bool)
    drop[0, [0, 3]] = True  # its own positive stays all the same
    drop[2, 1] = True
    wanted = torch.stack([
        cross_entropy(scores[0, [0, 1, 2, 4]] / 0.2, torch.tensor(0)),
        cross_entropy(scores[1] / 0.2, torch.tensor(1)),
        cross_entropy(scores[2, [0, 2, 3, 4]] / 0.2, torch.tensor(1)),
    ])  # fmt: skip
    found = maxsim_info_nce(scores, temperature=0.2, drop=drop, reduction="none")
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(maxsim_info_nce(scores, temperature=0.2, drop=drop), wanted.mean())
    moved = maxsim_info_nce(scores.roll(1, dims=1), temperature=0.2, targets=torch.arange(1, 4))
    torch.testing.assert_close(moved, maxsim_info_nce(scores, temperature=0.2))


def test_the_scale_of_logits_does_not_depend_on_the_length_of_queries():
    """A query said twice has the same loss, so that a fixed temperature serves short queries and long ones."""
    (q, qm), (d, dm) = batch(4, 4), batch(5, 6, seed=1)
    loss = MaxSimInfoNCE(2.0)
    twice = torch.cat([q, q], 1), torch.cat([qm, qm], 1)
    torch.testing.assert_close(loss((q, qm), (d, dm)), loss(twice, (d, dm)))
    raw = MaxSimInfoNCE(2.0, normalise=False)
    assert raw((q, qm), (d, dm)) != raw(twice, (d, dm))


def test_temperature_is_learned_only_if_asked():
    (q, qm), (d, dm) = batch(4, 4), batch(5, 6, seed=1)
    fixed, learned = MaxSimInfoNCE(0.1), MaxSimInfoNCE(0.1, learn=True)
    assert [p for p in fixed.parameters() if p.requires_grad] == []
    assert fixed.temperature == pytest.approx(0.1)
    learned((q, qm), (d, dm)).backward()
    assert math.isfinite(learned.log_temperature.grad)
    assert learned.log_temperature.grad != 0


def test_wrong_input_is_refused():
    (q, qm), (d, dm) = batch(3, 2), batch(4, 5, seed=1)
    for wrong in ((q[0], qm, d, dm), (q, qm.float(), d, dm), (q, qm, d, dm[:, :2]), (q[..., :3], qm, d, dm)):
        with pytest.raises(DimensionMismatch):
            maxsim_scores(*wrong)
    scores = torch.randn(2, 3)
    with pytest.raises(InputError, match="temperature"):
        maxsim_info_nce(scores, temperature=0)
    with pytest.raises(InputError, match="temperature"):
        MaxSimInfoNCE(-1)
    with pytest.raises(InputError, match="targets"):
        maxsim_info_nce(scores, targets=torch.tensor([0, 3]))
    with pytest.raises(DimensionMismatch, match="drop"):
        maxsim_info_nce(scores, drop=torch.zeros(2, 2, dtype=torch.bool))
    for shape in ((3, 2), (0, 2), (3,)):
        with pytest.raises(DimensionMismatch, match="scores"):
            maxsim_info_nce(torch.zeros(shape))
