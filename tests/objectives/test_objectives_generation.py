"""Likelihoods against torch's cross-entropy, preference losses against their closed forms, agreement's gradients."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy, logsigmoid

from isometry.errors import DimensionMismatch, EmptyInput, InputError, UnknownName
from isometry.objectives.generation import (
    agreement_loss,
    next_token_loss,
    passage_labels,
    preference_loss,
    sequence_log_probs,
    token_log_probs,
)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 6, 11, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 11, (3, 6), generator=generator)
    labels[0, :4], labels[2, 5] = -100, -100
    return logits, labels


def test_next_token_loss_is_the_shifted_cross_entropy(batch):
    logits, labels = batch
    expected = cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
    torch.testing.assert_close(next_token_loss(logits, labels), expected)


def test_the_first_position_is_never_a_target(batch):
    logits, labels = batch
    other = labels.clone()
    other[:, 0] = 3
    assert next_token_loss(logits, labels) == next_token_loss(logits, other)


def test_vocabulary_mask_renormalises_over_what_is_left(batch):
    logits, labels = batch
    known = torch.ones(11, dtype=torch.bool)
    known[10] = False
    labels = labels.where(labels != 10, 0)
    torch.testing.assert_close(
        next_token_loss(logits, labels, vocabulary=known), next_token_loss(logits[..., :10], labels)
    )
    with pytest.raises(InputError, match="outside the vocabulary mask"):
        next_token_loss(logits, labels.where(labels != 0, 10), vocabulary=known)


def test_masked_tokens_get_no_gradient(batch):
    logits, labels = batch
    logits = logits.requires_grad_()
    known = torch.arange(11) < 10
    next_token_loss(logits, labels.clamp(max=9), vocabulary=known).backward()
    assert torch.isfinite(logits.grad).all()
    assert not logits.grad[..., 10].any()
    assert not logits.grad[0, :3].any()  # labels that do not count


def test_sequence_log_probs_sum_and_mean(batch):
    logits, labels = batch
    sums, means = (sequence_log_probs(logits, labels, reduction=how) for how in ("sum", "mean"))
    for row in range(3):
        counted = (labels[row, 1:] != -100).nonzero()[:, 0]
        chosen = [logits[row, t].log_softmax(-1)[labels[row, t + 1]] for t in counted]
        torch.testing.assert_close(sums[row], torch.stack(chosen).sum())
        torch.testing.assert_close(means[row], torch.stack(chosen).mean())


def test_a_row_without_a_passage_is_named(batch):
    logits, labels = batch
    labels[1] = -100
    with pytest.raises(InputError, match=r"Rows \[1\] have no labelled token"):
        sequence_log_probs(logits, labels)
    with pytest.raises(EmptyInput, match="No label counts"):
        next_token_loss(logits, torch.full_like(labels, -100))


def test_bad_logits_and_labels(batch):
    logits, labels = batch
    with pytest.raises(DimensionMismatch, match="logits and labels"):
        token_log_probs(logits, labels[:, :3])
    with pytest.raises(InputError, match=r"0\.\.10"):
        token_log_probs(logits, labels.where(labels != -100, 99))
    with pytest.raises(DimensionMismatch, match=r"bool \[11\]"):
        token_log_probs(logits, labels, vocabulary=torch.ones(3, dtype=torch.bool))


@pytest.fixture
def likelihoods():
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(5, generator=generator, dtype=torch.float64) for _ in range(4)]


def test_dpo_without_reference_is_dpo_with_a_zero_one(likelihoods):
    chosen, rejected, *_ = likelihoods
    for kind in ("sigmoid", "ipo", "hinge", "kto_pair"):
        zero = torch.zeros_like(chosen)
        free = preference_loss(chosen, rejected, kind=kind)
        assert free == preference_loss(chosen, rejected, kind=kind, reference=(zero, zero))


def test_closed_forms(likelihoods):
    a, b, ra, rb = likelihoods
    margin = (a - ra) - (b - rb)
    reference = (ra, rb)
    smooth = 0.9 * -logsigmoid(0.3 * margin) + 0.1 * -logsigmoid(-0.3 * margin)
    torch.testing.assert_close(preference_loss(a, b, beta=0.3, label_smoothing=0.1, reference=reference), smooth.mean())
    torch.testing.assert_close(
        preference_loss(a, b, kind="ipo", beta=0.3, reference=reference), ((margin - 1 / 0.6) ** 2).mean()
    )
    torch.testing.assert_close(
        preference_loss(a, b, kind="hinge", beta=0.3, reference=reference), (1 - 0.3 * margin).clamp(min=0).mean()
    )
    torch.testing.assert_close(preference_loss(a, b, kind="sft"), -a.mean())


def test_kto_pair_follows_its_two_halves(likelihoods):
    a, b, ra, rb = likelihoods
    above, below = max(0.0, float((a - ra).mean())), max(0.0, float((b - rb).mean()))
    first = 1 - torch.sigmoid(0.1 * ((a - ra) - below))
    second = 1 - torch.sigmoid(0.1 * (above - (b - rb)))
    torch.testing.assert_close(
        preference_loss(a, b, kind="kto_pair", reference=(ra, rb)), torch.cat([first, second]).mean()
    )


def test_ipo_is_least_at_half_over_beta():
    beta, rejected = 0.2, torch.zeros(1, dtype=torch.float64)
    margin = torch.tensor([1 / (2 * beta)], dtype=torch.float64, requires_grad=True)
    loss = preference_loss(margin, rejected, kind="ipo", beta=beta)
    loss.backward()
    assert (float(loss.detach()), float(margin.grad)) == (0.0, 0.0)


@pytest.mark.parametrize("kind", ["sigmoid", "hinge", "kto_pair", "sft"])
def test_a_likelier_positive_costs_less(kind, likelihoods):
    a, b, *_ = likelihoods
    assert preference_loss(a + 1, b, kind=kind) < preference_loss(a, b, kind=kind)


def test_bad_preferences(likelihoods):
    a, b, *_ = likelihoods
    with pytest.raises(UnknownName, match="dpo"):
        preference_loss(a, b, kind="dpo")
    with pytest.raises(InputError, match="label_smoothing"):
        preference_loss(a, b, label_smoothing=0.5)
    with pytest.raises(DimensionMismatch):
        preference_loss(a, b[:2])


def test_agreement_matches_the_sum_over_candidates():
    generator = torch.Generator().manual_seed(2)
    s, g = (torch.randn(4, 6, generator=generator, dtype=torch.float64) for _ in range(2))
    retrieval, generation = (s / 0.1).softmax(1), g.softmax(1)
    code = (generation * (generation / retrieval).log()).sum(1).mean()
    paper = (retrieval * (retrieval / generation).log()).sum(1).mean()
    torch.testing.assert_close(agreement_loss(s, g), code)
    torch.testing.assert_close(agreement_loss(s, g, direction="retrieval"), paper)


def test_agreement_in_code_form_teaches_the_vectors_only():
    s, g = (torch.randn(2, 3, requires_grad=True) for _ in range(2))
    agreement_loss(s, g).backward()
    assert s.grad is not None
    assert g.grad is None
    agreement_loss(s, g, direction="retrieval").backward()
    assert g.grad is not None


def test_missing_candidates_do_not_count():
    s, g = torch.tensor([[0.1, 0.4, 9.0]]), torch.tensor([[1.0, 0.0, -3.0]])
    keep = torch.tensor([[True, True, False]])
    torch.testing.assert_close(agreement_loss(s, g, keep=keep), agreement_loss(s[:, :2], g[:, :2]))
    s.requires_grad_()
    agreement_loss(s, g, keep=keep).backward()
    assert torch.isfinite(s.grad).all()
    with pytest.raises(InputError, match="in every row"):
        agreement_loss(s, g, keep=torch.zeros_like(keep))


def test_bad_agreement():
    s = torch.zeros(2, 3)
    with pytest.raises(DimensionMismatch):
        agreement_loss(s, s[:1])
    with pytest.raises(InputError, match="temperature"):
        agreement_loss(s, s, temperature=0)
    with pytest.raises(UnknownName):
        agreement_loss(s, s, direction="both")


def test_passage_labels_leave_out_prompt_and_padding():
    ids, mask = torch.tensor([[5, 6, 7, 0], [5, 6, 7, 8]]), torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])
    found = passage_labels(ids, torch.tensor([2, 1]), mask)
    assert found.tolist() == [[-100, -100, 7, -100], [-100, 6, 7, 8]]


def test_uniform_model_has_the_vocabulary_as_perplexity():
    labels = torch.arange(6)[None] % 4
    assert math.exp(next_token_loss(torch.zeros(1, 6, 4), labels)) == pytest.approx(4)
