"""Mixed negatives: geometry, who takes part, gradients, what they do to the loss."""

import pytest
import torch
from torch.nn.functional import normalize

from isometry.errors import DimensionMismatch, InputError, UnknownName
from isometry.negatives import Mixer, mix_lists, mix_pairs
from isometry.objectives import InfoNCE
from isometry.objectives.info_nce import info_nce


def vectors(seed: int, *shape: int, positive: bool = False) -> torch.Tensor:
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x.abs() if positive else x


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("beta", [1, 2])
def test_mixes_are_unit_vectors_no_easier_than_the_lesser_parent(beta: int) -> None:
    q, docs = normalize(vectors(0, 6, 5, positive=True), dim=1), normalize(vectors(1, 9, 5, positive=True), dim=1)
    allowed = torch.rand(6, 9, generator=rng()) < 0.7
    mixes = mix_pairs(q, docs, allowed, count=50, hardest=4, generator=rng(), beta=beta)
    assert mixes.shape == (6, 50, 5)
    torch.testing.assert_close(mixes.norm(dim=-1), torch.ones(6, 50, dtype=torch.float64))
    scores = (q @ docs.T).masked_fill(~allowed, -torch.inf).topk(4).values
    least = scores.masked_fill(scores == -torch.inf, torch.inf).amin(1)
    assert bool(((mixes @ q[:, :, None]).squeeze(-1) >= least[:, None] - 1e-9).all())


def test_parents_are_two_different_ones_of_the_hardest_that_are_allowed() -> None:
    docs = torch.eye(6, dtype=torch.float64)
    q = torch.tensor([[0.6, 0.5, 0.4, 0.3, 0.2, 0.1]], dtype=torch.float64)
    allowed = torch.tensor([[False, True, True, True, True, True]])
    mixes = mix_pairs(q, docs, allowed, count=300, hardest=3, generator=rng())[0]
    parents = mixes > 0
    assert torch.equal(parents.any(0), torch.tensor([False, True, True, True, False, False]))
    assert bool((parents.sum(1) == 2).all())
    pairs = {tuple(row.nonzero().ravel().tolist()) for row in parents}
    assert pairs == {(1, 2), (1, 3), (2, 3)}
    lists = mix_lists(q, docs, allowed, count=50, hardest=3, generator=rng(), size=3, temperature=0.1)[0]
    weights = torch.tensor([0.5, 0.4, 0.3], dtype=torch.float64) / q.norm() / 0.1
    wanted = normalize(weights.softmax(0), dim=0)
    torch.testing.assert_close(lists[:, 1:4], wanted.expand(50, 3))
    small = mix_lists(q, docs, allowed, count=50, hardest=5, generator=rng(), size=2)[0]
    assert bool(((small > 0).sum(1) == 2).all())


@pytest.mark.parametrize(("beta", "variance"), [(1, 1 / 12), (2, 1 / 20), (3, 1 / 28)])
def test_shares_have_a_beta_distribution(beta: int, variance: float) -> None:
    docs = torch.eye(2, dtype=torch.float64)
    mixes = mix_pairs(
        torch.ones(1, 2, dtype=torch.float64), docs, torch.ones(1, 2).bool(), count=20000, hardest=2, generator=rng(),
        beta=beta,
    )[0]  # fmt: skip
    share = mixes[:, 0] / mixes.sum(1)
    assert float(share.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(share.var()) == pytest.approx(variance, rel=0.04)


def test_too_few_or_opposite_parents_give_nothing() -> None:
    docs = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]], requires_grad=True)
    q = torch.ones(2, 2)
    allowed = torch.tensor([[True, False, False], [False, False, False]])
    for mix in (mix_pairs, mix_lists):
        found = mix(q, docs, allowed, count=3, hardest=2, generator=rng())
        assert found.abs().max() == 0
        found.sum().backward()
        assert not docs.grad.isnan().any()
    opposite = mix_lists(
        torch.tensor([[0.0, 1.0]]), docs, torch.tensor([[True, True, False]]), count=1, hardest=2, generator=rng()
    )
    assert opposite.abs().max() == 0


def test_gradients_reach_both_parents() -> None:
    q, docs = vectors(0, 3, 4), vectors(1, 5, 4)
    allowed = torch.ones(3, 5, dtype=torch.bool)
    for mix in (mix_pairs, mix_lists):
        assert torch.autograd.gradcheck(
            lambda d, mix=mix: mix(q, d, allowed, count=2, hardest=5, generator=rng()), [docs.clone().requires_grad_()]
        )


@pytest.mark.parametrize("kind", ["pairs", "lists", "both"])
def test_mixing_never_lowers_a_rows_loss_and_keeps_out_what_the_mask_drops(kind: str) -> None:
    q, p, n = (vectors(i, 6, 5) for i in range(3))
    docs = torch.cat([p, n])
    dropped = torch.rand(6, 12, generator=rng()) < 0.3
    mixer = Mixer(kind, count=3, hardest=4)
    extra = mixer(q, docs, torch.arange(6), dropped)
    assert extra.shape == (6, 6 if kind == "both" else 3, 5)
    plain = info_nce(q, docs, drop=dropped, reduction="none")
    assert bool((info_nce(q, docs, drop=dropped, extra=extra, reduction="none") >= plain).all())
    everything = torch.ones(6, 12, dtype=torch.bool)
    assert mixer(q, docs, torch.arange(6), everything).abs().max() == 0
    only_positives = ~torch.eye(6, 12, dtype=torch.bool)
    assert mixer(q, docs, torch.arange(6), only_positives).abs().max() == 0


def test_the_loss_object_mixes_after_its_mask_and_repeats_for_a_seed() -> None:
    columns = [vectors(i, 6, 5) for i in range(3)]

    def mask(candidates):
        return {"qd": candidates.scores["qd"] > 0.1}

    values = [
        float(InfoNCE(mask=mask, mix=Mixer(seed=seed)).compute_loss_from_embeddings(columns)) for seed in (1, 1, 2)
    ]
    assert values[0] == values[1] != values[2]
    assert values[0] >= float(InfoNCE(mask=mask).compute_loss_from_embeddings(columns))


def test_bad_input() -> None:
    q, docs, allowed = vectors(0, 2, 3), vectors(1, 4, 3), torch.ones(2, 4, dtype=torch.bool)
    with pytest.raises(DimensionMismatch, match="allowed must be bool"):
        mix_pairs(q, docs, allowed[:1], count=1, hardest=2, generator=rng())
    with pytest.raises(InputError, match="two parents"):
        mix_pairs(q, docs, allowed, count=1, hardest=1, generator=rng())
    with pytest.raises(InputError, match="count and beta"):
        mix_pairs(q, docs, allowed, count=0, hardest=2, generator=rng())
    with pytest.raises(InputError, match="size >= 2"):
        mix_lists(q, docs, allowed, count=1, hardest=2, generator=rng(), size=1)
    with pytest.raises(UnknownName, match="kind of mix"):
        Mixer("triples")
