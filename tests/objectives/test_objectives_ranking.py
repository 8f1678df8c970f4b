"""Ranking losses: the definitions in loops, peers of the sentence-transformers kind, gradients, invariances."""

import math
from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isometry.errors import DimensionMismatch, InputError
from isometry.objectives import Ranking, candidate_scores, list_mle, list_net, p_list_mle, ranknet


def numbers(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def order_of(seed: int, b: int, k: int) -> torch.Tensor:
    return torch.rand(b, k, generator=torch.Generator().manual_seed(seed)).argsort(1)


def padding(seed: int, b: int, k: int) -> torch.Tensor:
    keep = torch.rand(b, k, generator=torch.Generator().manual_seed(seed)) < 0.6
    keep[:, 0] = True
    return keep


lists = {"seed": st.integers(0, 10**6), "b": st.integers(1, 4), "k": st.integers(1, 6)}


@settings(deadline=None, max_examples=30)
@given(**lists, by_rank=st.booleans())
def test_ranknet_equals_the_definition_written_with_loops(seed, b, k, by_rank) -> None:
    s, ranks, keep = numbers(seed, b, k), order_of(seed, b, k) // 2 + 1, padding(seed, b, k)
    terms = []
    for row in range(b):
        for i in range(k):
            for j in range(k):
                if keep[row, i] and keep[row, j] and ranks[row, i] < ranks[row, j]:
                    loss = math.log1p(math.exp(-3 * float(s[row, i] - s[row, j])))
                    terms.append(loss / int(ranks[row, i] + ranks[row, j]) if by_rank else loss)
    wanted = sum(terms) / len(terms) if terms else 0.0
    assert float(ranknet(s, ranks, scale=3.0, keep=keep, by_rank=by_rank)) == pytest.approx(wanted, rel=1e-9, abs=1e-12)


def plackett_luce(s: list[float], order: list[int], weights: list[float]) -> float:
    tails = [[s[j] for j in order[i:]] for i in range(len(order))]
    return sum(w * (math.log(sum(map(math.exp, tail))) - tail[0]) for w, tail in zip(weights, tails, strict=True))


@settings(deadline=None, max_examples=30)
@given(**lists)
def test_list_mle_and_its_position_aware_form_equal_the_definition(seed, b, k) -> None:
    s, relevance, keep = numbers(seed, b, k), order_of(seed, b, k).double(), padding(seed, b, k)
    plain, aware = 0.0, 0.0
    for row in range(b):
        order = sorted((j for j in range(k) if keep[row, j]), key=lambda j: -float(relevance[row, j]))
        n = len(order)
        raw = [2.0 ** (n - i) - 1 for i in range(1, n + 1)]
        plain += plackett_luce(s[row].tolist(), order, [1.0] * n) / b
        aware += plackett_luce(s[row].tolist(), order, [w / max(raw[0], 1) for w in raw]) / b
    assert float(list_mle(s, relevance, keep=keep)) == pytest.approx(plain, rel=1e-9, abs=1e-9)
    assert float(p_list_mle(s, relevance, keep=keep)) == pytest.approx(aware, rel=1e-9, abs=1e-9)
    ones = torch.ones(k, dtype=torch.float64)
    torch.testing.assert_close(p_list_mle(s, relevance, keep=keep, weights=ones), list_mle(s, relevance, keep=keep))


def test_list_mle_is_a_likelihood_over_all_orders() -> None:
    s = numbers(0, 1, 4)
    total = sum(
        math.exp(-float(list_mle(s, torch.tensor([order], dtype=torch.float64)))) for order in permutations(range(4))
    )
    assert total == pytest.approx(1.0)


def test_list_losses_equal_sentence_transformers() -> None:
    """The peers take a cross-encoder; one that returns given logits is enough."""
    from sentence_transformers.cross_encoder import losses as peers

    scores, labels = numbers(0, 2, 3).float(), torch.tensor([[2.0, 1.0, 0.0], [1.0, 0.0, 2.0]])

    class Tokens(dict):
        def to(self, device):
            return self

    class Model(torch.nn.Module):
        num_labels, device = 1, "cpu"

        def preprocess(self, pairs, **options):
            return Tokens(rows=pairs)

        def tokenizer(self, pairs, **options):
            return Tokens(rows=pairs)

        def forward(self, tokens=None, rows=None):
            rows = tokens["rows"] if rows is None else rows
            values = torch.stack([scores[int(q), int(d)] for q, d in rows])
            return {"scores": values, "logits": values[:, None]} if tokens is not None else (values[:, None],)

    batch = (["0", "1"], [["0", "1", "2"], ["0", "1", "2"]])
    plain = torch.nn.Identity()
    for ours, peer in (
        (list_net, peers.ListNetLoss(Model(), activation_fn=plain)),
        (list_mle, peers.ListMLELoss(Model(), activation_fn=plain, respect_input_order=False)),
    ):
        theirs = peer([list(batch[0]), [list(docs) for docs in batch[1]]], list(labels))
        torch.testing.assert_close(ours(scores, labels), theirs)


def test_right_orders_with_large_margins_cost_nothing() -> None:
    relevance = torch.tensor([[3.0, 2.0, 1.0]])
    small, large = (float(list_mle(relevance * x, relevance)) for x in (1.0, 50.0))
    assert 0 <= large < 1e-6 < small
    assert float(p_list_mle(relevance * 50, relevance)) < 1e-6
    assert float(ranknet(relevance * 50, torch.tensor([[1, 2, 3]]))) < 1e-6


@pytest.mark.parametrize("loss", [list_mle, p_list_mle, list_net, lambda s, y, keep: ranknet(s, -y, keep=keep)])
def test_constants_change_nothing_and_gradients_are_right_with_padding(loss) -> None:
    s, y, keep = numbers(0, 3, 5), order_of(1, 3, 5).double(), padding(2, 3, 5)
    torch.testing.assert_close(loss(s + 100.0, y, keep=keep), loss(s, y, keep=keep))
    assert torch.autograd.gradcheck(lambda x: loss(x, y, keep=keep), [s.clone().requires_grad_()])
    moved = torch.where(keep, s, 1e3)
    torch.testing.assert_close(loss(moved, y, keep=keep), loss(s, y, keep=keep))


def test_ties_are_broken_anew_and_fairly() -> None:
    s, y = torch.tensor([[2.0, 0.0]]), torch.zeros(1, 2)
    generator = torch.Generator().manual_seed(0)
    found = {round(float(list_mle(s, y, generator=generator)), 4) for _ in range(40)}
    assert found == {round(math.log1p(math.exp(-2)), 4), round(2 + math.log1p(math.exp(-2)), 4)}


def test_long_lists_stay_finite() -> None:
    s, y = numbers(0, 1, 400).float() * 50, order_of(1, 1, 400).float()
    assert math.isfinite(float(p_list_mle(s, y)))
    assert math.isfinite(float(list_mle(s, y)))


def test_loss_object_compares_cosines_of_own_candidates() -> None:
    columns, ranks = [numbers(i, 4, 6) for i in range(4)], order_of(0, 4, 3) + 1
    got = Ranking().compute_loss_from_embeddings(columns, ranks)
    torch.testing.assert_close(got, ranknet(candidate_scores(columns), ranks))


def test_bad_input() -> None:
    x = torch.ones(2, 3)
    with pytest.raises(DimensionMismatch):
        ranknet(x, x[:1])
    with pytest.raises(InputError, match="3 numbers"):
        p_list_mle(x, x, weights=torch.ones(2))
    with pytest.raises(InputError, match="finite"):
        list_mle(x, torch.full((2, 3), math.nan))
    with pytest.raises(InputError, match="the right order; pass ranks"):
        Ranking().compute_loss_from_embeddings([x, x, x])
    assert float(ranknet(x, x)) == 0.0  # all of one rank: no pair
