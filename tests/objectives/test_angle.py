from __future__ import annotations

import pytest
import torch

from isometry.errors import DimensionMismatch, InputError
from isometry.objectives import AnglE, CoSENT, InfoNCE, angle_similarity

GENERATOR = torch.Generator().manual_seed(0)
LEFT, RIGHT = torch.randn(5, 8, generator=GENERATOR), torch.randn(5, 8, generator=GENERATOR)
GOLD = torch.tensor([0.1, 0.9, 0.5, 1.0, 0.2])


def test_similarity_is_that_of_sentence_transformers():
    from sentence_transformers.util import pairwise_angle_sim

    assert torch.allclose(angle_similarity(LEFT, RIGHT), pairwise_angle_sim(LEFT, RIGHT), atol=1e-5)


def test_similarity_ignores_length_and_is_one_for_itself():
    assert torch.allclose(angle_similarity(LEFT, LEFT), torch.ones(5))
    assert torch.allclose(angle_similarity(3 * LEFT, RIGHT), angle_similarity(LEFT, RIGHT), atol=1e-6)


def test_similarity_is_complex_division():
    z, w = (torch.complex(*x.chunk(2, dim=1)) for x in (LEFT, RIGHT))
    quotient = (z * w.conj()).sum(1) / (z.abs().square().sum(1).sqrt() * w.abs().square().sum(1).sqrt())
    assert torch.allclose(angle_similarity(LEFT, RIGHT), (quotient.real + quotient.imag).abs(), atol=1e-6)


def test_the_cosine_term_alone_is_cosent():
    loss = AnglE(angle=0.0, in_batch=0.0).compute_loss_from_embeddings([LEFT, RIGHT], GOLD)
    assert torch.isclose(loss, CoSENT().compute_loss_from_embeddings([LEFT, RIGHT], GOLD))


def test_the_contrast_counts_pairs_that_are_alike_only():
    contrast = AnglE(cosine=0.0, angle=0.0)
    value = contrast.compute_loss_from_embeddings([LEFT, RIGHT], torch.ones(5))
    assert torch.isclose(value, InfoNCE(blocks=("qd", "qq")).compute_loss_from_embeddings([LEFT, RIGHT]), atol=1e-5)
    assert contrast.compute_loss_from_embeddings([LEFT, RIGHT], torch.zeros(5)) == 0


def test_training_on_angles_orders_pairs_as_people_do():
    x = LEFT.clone().requires_grad_()
    optimiser, loss = torch.optim.Adam([x], lr=0.05), AnglE(cosine=0.0, in_batch=0.0)
    for _ in range(100):
        optimiser.zero_grad()
        loss.compute_loss_from_embeddings([x, RIGHT], GOLD).backward()
        optimiser.step()
    assert angle_similarity(x, RIGHT).argsort().tolist() == GOLD.argsort().tolist()


def test_bad_input_is_refused():
    with pytest.raises(DimensionMismatch, match="even"):
        angle_similarity(LEFT[:, :3], RIGHT[:, :3])
    with pytest.raises(InputError, match="gold scores"):
        AnglE().compute_loss_from_embeddings([LEFT, RIGHT])
