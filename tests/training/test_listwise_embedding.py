"""The joint loss is its two parts, with the teacher's best candidate as positive and padding without influence."""

import pytest
import torch
from torch.nn.functional import cosine_similarity, cross_entropy, normalize, softplus

from isometry.errors import DimensionMismatch, InputError
from isometry.ranking import ListwisePrompt
from isometry.training import e2rank_loss
from isometry.training.cross_encoder import Schedule
from isometry.training.listwise_embedding import slate_scores, train_listwise_embedder
from small_models import save_small_model

G = torch.Generator().manual_seed(0)
PLAIN, ENHANCED, DOCS = (torch.randn(*shape, generator=G) for shape in ((3, 6), (3, 6), (3, 4, 6)))
RANKS = torch.tensor([[2, 1, 4, 3], [1, 2, 3, 4], [4, 3, 2, 1]])


def test_equals_the_sum_of_its_parts():
    rank = torch.stack([
        torch.stack([softplus(-10 * (s[i] - s[j])) for i in range(4) for j in range(4) if r[i] < r[j]]).mean()
        for s, r in zip(slate_scores(ENHANCED, DOCS), RANKS, strict=True)
    ]).mean()  # fmt: skip
    flat = normalize(DOCS.reshape(12, 6), dim=-1)
    positives = torch.tensor([1, 4 + 0, 8 + 3])  # the candidate of rank 1, not the first in the file
    contrast = cross_entropy(normalize(PLAIN, dim=-1) @ flat.T / 0.03, positives)
    assert torch.isclose(e2rank_loss(PLAIN, ENHANCED, DOCS, RANKS), contrast + 2 * rank, rtol=1e-5)
    assert torch.isclose(e2rank_loss(None, ENHANCED, DOCS, RANKS, weight=1.0), rank, rtol=1e-5)


def test_scores_are_cosines():
    wanted = cosine_similarity(ENHANCED[:, None].expand_as(DOCS), DOCS, dim=-1)
    assert torch.allclose(slate_scores(ENHANCED, DOCS), wanted, atol=1e-6)


def test_padding_is_no_candidate_to_anybody():
    padded = torch.cat([DOCS, torch.full((3, 2, 6), 7.0)], 1)
    ranks = torch.cat([RANKS, torch.ones(3, 2, dtype=torch.long)], 1)
    keep = torch.arange(6)[None, :].expand(3, -1) < 4
    found = e2rank_loss(PLAIN, ENHANCED, padded, ranks, keep=keep)
    assert torch.isclose(found, e2rank_loss(PLAIN, ENHANCED, DOCS, RANKS), rtol=1e-5)


SLATES = [["red cat", "old dog", "the ship"], ["cold tree", "quick owl"], ["a song", "small car", "quiet tax"]]
QUERIES, TEACHER = ["cat", "owl", "tax"], [[1, 2, 3], [2, 1], [3, 2, 1]]


@pytest.fixture
def model(tmp_path):
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(save_small_model(tmp_path / "small")), device="cpu")


def order(model, query, slate):
    prompt, docs = model.encode([ListwisePrompt().text(query, slate)]), model.encode(slate)
    return [slate[i] for i in (-(docs @ prompt[0])).argsort()]


def test_an_embedder_learns_the_teachers_order_of_slates_of_different_lengths(model):
    history = train_listwise_embedder(model, QUERIES, SLATES, TEACHER, Schedule(120, 3, lr=5e-3),
                                      write=ListwisePrompt().text, ask="about {}".format)  # fmt: skip
    assert history[-1] < 0.3 * history[0]
    for query, slate, ranks in zip(QUERIES, SLATES, TEACHER, strict=True):
        assert order(model, query, slate) == [text for _, text in sorted(zip(ranks, slate, strict=True))]


def test_rows_that_do_not_fit_are_refused(model):
    plan, write = Schedule(1, 2), ListwisePrompt().text
    with pytest.raises(InputError, match="Rows differ: 2 queries, 3 slates"):
        train_listwise_embedder(model, QUERIES[:2], SLATES, TEACHER, plan, write=write)
    with pytest.raises(InputError, match="Slate 1 needs two candidates"):
        train_listwise_embedder(model, QUERIES, [SLATES[0], ["one"], SLATES[2]], TEACHER, plan, write=write)


def test_bad_input():
    with pytest.raises(DimensionMismatch):
        e2rank_loss(PLAIN, ENHANCED, DOCS[:, :3], RANKS)
    with pytest.raises(InputError, match="count from 1"):
        e2rank_loss(PLAIN, ENHANCED, DOCS, RANKS - 1)
