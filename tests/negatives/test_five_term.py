"""The losses of large embedders against the written-out denominators, and their masks against brute force."""

import math

import pytest
import torch
from torch.nn.functional import normalize

from isometry.errors import InputError, UnknownName
from isometry.negatives.five_term import SelfMask, five_term_loss, hard_negative_loss, others_hard_negatives
from isometry.objectives.info_nce import Candidates, score_blocks

B, K, D = 5, 3, 6


def columns(seed=0, near=0.0):
    g = torch.Generator().manual_seed(seed)
    q = torch.randn(B, D, generator=g)
    docs = [q * near + torch.randn(B, D, generator=g) for _ in range(1 + K)]
    return [q, *docs]


def texts(unique=True):
    return [[f"{c} {i if unique else i // 2}" for i in range(B)] for c in range(2 + K)]


def by_hand(parts, names, *, margin, temperature, all_documents):
    """Qwen3-Embedding, equation 1, with loops."""
    unit = [normalize(p, dim=1) for p in parts]
    q, d, hard = unit[0], unit[1], unit[2:]
    total = 0.0
    for i in range(B):
        positive = float(q[i] @ d[i])

        def m(score, text, i=i, positive=positive):
            return 0 if score > positive + margin or text in (names[1][i], names[0][i]) else 1

        z = math.exp(positive / temperature)
        for k, column in enumerate(hard):
            for j in range(B):
                if j == i or all_documents:
                    s = float(q[i] @ column[j])
                    z += m(s, names[2 + k][j]) * math.exp(s / temperature)
        for j in range(B):
            if j != i:
                rivals = [(q[i] @ q[j], names[0][j]), (d[i] @ d[j], names[1][j]), (q[i] @ d[j], names[1][j])]
                for score, text in [(float(s), t) for s, t in rivals]:
                    z += m(score, text) * math.exp(score / temperature)
        total -= positive / temperature - math.log(z)
    return total / B


@pytest.mark.parametrize("all_documents", [False, True])
@pytest.mark.parametrize("margin", [0.0, 0.1, 0.4, math.inf])
@pytest.mark.parametrize("unique", [True, False])
def test_five_terms_are_those_of_the_equation(margin, all_documents, unique):
    for seed in range(3):
        parts, names = columns(seed, near=0.3), texts(unique)
        loss = five_term_loss(temperature=0.2, margin=margin, all_documents=all_documents)
        found = loss.compute_loss_from_embeddings(parts, texts=names).item()
        expected = by_hand(parts, names, margin=margin, temperature=0.2, all_documents=all_documents)
        assert found == pytest.approx(expected, rel=1e-4)


def test_mask_compares_cosines_not_logits():
    """At a small temperature logits differ by far more than the margin; the mask must not change."""
    parts = columns(1)
    candidates = Candidates(score_blocks(parts[0], torch.cat(parts[1:]), blocks=("qd", "qq", "pp")), torch.arange(B))
    masks = SelfMask(0.1)(candidates)
    positive = candidates.scores["qd"].diagonal()
    for block, scores in candidates.scores.items():
        expected = scores > positive[:, None] + 0.1
        eye = torch.eye(*scores.shape, dtype=torch.bool)
        assert torch.equal(masks[block], (expected & ~eye) if block == "qd" else (expected | eye))


def test_duplicates_of_the_positive_are_always_masked():
    parts, names = columns(2), texts()
    parts[3][4], names[3][4] = parts[1][1], names[1][1].upper()
    loss = five_term_loss(all_documents=True, margin=math.inf, temperature=0.2)
    before = loss.compute_loss_from_embeddings(parts, texts=names)
    parts[3] = parts[3].clone()
    names[3][4] = "something else"
    assert loss.compute_loss_from_embeddings(parts, texts=names) > before


def test_levels_are_nested_and_own_negatives_know_no_other_row():
    parts = [p.requires_grad_() for p in columns(3)]
    own = hard_negative_loss(negatives="own", temperature=0.2)
    values = [
        hard_negative_loss(negatives=kind, temperature=0.2, margin=math.inf).compute_loss_from_embeddings(parts).item()
        for kind in ("own", "batch", "same tower", "masked")
    ]
    assert values == sorted(values)
    assert len(set(values)) == 4
    whole = torch.autograd.grad(own.compute_loss_from_embeddings(parts), parts)
    for i in range(B):
        alone = [p[i : i + 1].detach().clone().requires_grad_() for p in parts]
        gradients = torch.autograd.grad(own.compute_loss_from_embeddings(alone), alone)
        for together, single in zip(whole, gradients, strict=True):
            torch.testing.assert_close(together[i : i + 1] * B, single, atol=1e-6, rtol=1e-4)


def test_a_batch_of_one_has_only_its_own_negatives():
    parts = [p[:1] for p in columns(4)]
    values = {
        hard_negative_loss(negatives=kind, temperature=0.1, margin=math.inf).compute_loss_from_embeddings(parts).item()
        for kind in ("own", "batch", "same tower", "masked")
    }
    assert max(values) - min(values) < 1e-6


def test_no_margin_and_unique_texts_is_unmasked():
    parts, names = columns(5), texts()
    masked = five_term_loss(margin=math.inf, all_documents=True, temperature=0.1)
    plain = five_term_loss(margin=math.inf, all_documents=True, temperature=0.1)
    plain.mask = None
    assert torch.equal(
        masked.compute_loss_from_embeddings(parts, texts=names), plain.compute_loss_from_embeddings(parts)
    )


def test_wrong_input():
    with pytest.raises(UnknownName, match="set of negatives"):
        hard_negative_loss(negatives="all")
    with pytest.raises(InputError, match="margin must be"):
        five_term_loss(margin=-0.1)
    q = torch.randn(4, 3)
    scores = score_blocks(q, torch.randn(6, 3))
    with pytest.raises(InputError, match="a multiple of 4"):
        others_hard_negatives(Candidates(scores, torch.arange(4)))
