"""The guided triplet and the hard mode: against loops, limits, gradients, bad input."""

import numpy as np
import pytest
import torch

from isometry.errors import InputError
from isometry.negatives import Guided, GuidedTriplet, gist_loss, guided_mask, guided_triplet
from isometry.objectives import score_blocks
from isometry.objectives.info_nce import Candidates, own_entries

BLOCKS = ("qd", "qq", "pp")


def columns(seed: int, b: int = 6, d: int = 5, count: int = 3) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    centre = torch.randn(b, d, generator=generator, dtype=torch.float64)
    return [centre + torch.randn(b, d, generator=generator, dtype=torch.float64) for _ in range(count)]


def by_block(seed: int) -> dict[str, torch.Tensor]:
    q, *docs = columns(seed)
    return dict(score_blocks(q, torch.cat(docs), blocks=BLOCKS))


class Table:
    def __init__(self, texts, vectors) -> None:
        self.known = dict(zip([t for column in texts for t in column], torch.cat(vectors).numpy(), strict=True))

    def encode_document(self, inputs, **_):
        return np.stack([self.known[text] for text in inputs]).astype(np.float32)

    encode_query = encode_document


@pytest.mark.parametrize("soft", [False, True])
def test_equals_the_definition_written_with_loops(soft) -> None:
    scores, targets = by_block(0), torch.arange(6)
    near = guided_mask(by_block(1), targets)
    total = 0.0
    for i in range(6):
        positives, negatives = [float(scores["qd"][i, i])], []
        for block, s in scores.items():
            own = own_entries(block, targets, s.shape[1])
            for j in range(s.shape[1]):
                if not own[i, j]:
                    (positives if near[block][i, j] else negatives).append(float(s[i, j]))
        far, close = (np.mean(positives), np.mean(negatives)) if soft else (min(positives), max(negatives))
        total += max(0.0, close - far + 0.2) / 6
    assert float(guided_triplet(scores, near, targets, margin=0.2, soft=soft)) == pytest.approx(total)


@pytest.mark.parametrize("soft", [False, True])
def test_a_row_without_negatives_costs_nothing_and_has_a_finite_gradient(soft) -> None:
    s = torch.rand(3, 3, dtype=torch.float64, requires_grad=True)
    loss = guided_triplet({"qd": s}, {"qd": torch.ones(3, 3).bool()}, torch.arange(3), soft=soft)
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert torch.equal(s.grad, torch.zeros(3, 3))


def test_descent_sets_positives_apart_by_the_margin() -> None:
    texts = [[f"{side} {i}" for i in range(6)] for side in "qpn"]
    guide = Table(texts, columns(5))
    start = torch.cat(columns(6)).requires_grad_()
    loss, optimiser = GuidedTriplet(guide=guide, margin=0.05), torch.optim.Adam([start], lr=0.05)
    for _ in range(300):
        optimiser.zero_grad()
        value = loss.compute_loss_from_embeddings(start.split(6), None, texts)
        value.backward()
        optimiser.step()
    assert float(value.detach()) < 0.1 * float(loss.compute_loss_from_embeddings(columns(6), None, texts))


def test_hard_mode_keeps_what_the_student_puts_above_its_positive_and_the_guide_below() -> None:
    texts = [[f"{side} {i}" for i in range(6)] for side in "qpn"]
    guide, scores = columns(7), by_block(8)
    flat = (texts[0], [*texts[1], *texts[2]])
    loss = gist_loss(guide=Table(texts, guide), hard=True)
    mask = loss.mask(Candidates(scores, torch.arange(6), flat))
    told = score_blocks(guide[0].float(), torch.cat(guide[1:]).float(), blocks=BLOCKS)
    for block in BLOCKS:
        own = own_entries(block, torch.arange(6), scores[block].shape[1])
        kept = (told[block] <= told["qd"].diagonal()[:, None]) & (scores[block] > scores["qd"].diagonal()[:, None])
        assert torch.equal(~mask[block] & ~own, kept & ~own)
    plain = Guided(loss.mask.guide)(Candidates(scores, torch.arange(6), flat))
    assert all((mask[block] | ~plain[block]).all() for block in BLOCKS)


def test_bad_input() -> None:
    with pytest.raises(InputError, match="frozen guide"):
        GuidedTriplet()
    with pytest.raises(InputError, match="margin"):
        guided_triplet({"qd": torch.eye(2)}, {"qd": torch.eye(2).bool()}, torch.arange(2), margin=-1)
    loss = GuidedTriplet(guide=Table([["a"]], [torch.eye(1)]))
    with pytest.raises(InputError, match="reads texts"):
        loss.compute_loss_from_embeddings(columns(0))
