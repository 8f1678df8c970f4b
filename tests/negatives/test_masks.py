"""Mask sources: against their definitions, planted duplicates, unions, what they need."""

import pytest
import torch

from isometry.errors import InputError
from isometry.negatives.guided import guided_mask
from isometry.negatives.masks import AnyOf, OwnScores, same_label, same_text
from isometry.objectives.info_nce import BLOCKS, Candidates, InfoNCE, info_nce, own_entries, score_blocks
from isometry.types import normal_text


def batch(seed: int = 0, b: int = 4, m: int = 6, **known) -> Candidates:
    rng = torch.Generator().manual_seed(seed)
    q, docs = torch.randn(b, 5, generator=rng), torch.randn(m, 5, generator=rng)
    return Candidates(score_blocks(q, docs, blocks=BLOCKS), torch.arange(b), **known)


def test_same_text_finds_copies_on_either_side() -> None:
    queries = ["a", "b", "c", "A "]
    docs = ["pa", "pb", "pa", "c", "a", " PB"]
    mask = same_text(batch(texts=(queries, docs)))
    row_keys = [{normal_text(q), normal_text(d)} for q, d in zip(queries, docs, strict=False)]
    sides = {"q": queries, "d": docs, "p": docs[:4]}
    for block in BLOCKS:
        own = own_entries(block, torch.arange(4), mask[block].shape[1])
        for i, keys in enumerate(row_keys):
            for j, text in enumerate(sides[block[1]]):
                expected = (not own[i, j]) if block == "qd" and own[i, j] else (normal_text(text) in keys or own[i, j])
                assert bool(mask[block][i, j]) == bool(expected), (block, i, j)


def test_same_label_keeps_unknown_classes() -> None:
    labels = (torch.tensor([0, 1, 0, 2]), torch.tensor([0, 1, 0, 2, -1, 1]))
    mask = same_label(batch(labels=labels))
    assert mask["qd"].tolist() == [
        [False, False, True, False, False, False],
        [False, False, False, False, False, True],
        [True, False, False, False, False, False],
        [False, False, False, False, False, False],
    ]
    assert mask["qq"].nonzero().tolist() == [[0, 0], [0, 2], [1, 1], [2, 0], [2, 2], [3, 3]]


def test_rows_of_unknown_class_are_not_each_others_kin() -> None:
    labels = (torch.tensor([-1, -1, 0, 1]), torch.tensor([-1, -1, 0, 1, -1, -1]))
    mask = same_label(batch(labels=labels))
    assert not mask["qd"].any()
    assert torch.equal(mask["qq"], torch.eye(4).bool())


def test_all_labels_distinct_is_plain_info_nce() -> None:
    q, p = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(1))
    masked = InfoNCE(mask=same_label).compute_loss_from_embeddings([q, p], torch.arange(6))
    assert torch.equal(masked, info_nce(q, p))


def test_own_scores_is_the_published_rule() -> None:
    candidates = batch(3)
    mask = OwnScores(0.1)(candidates)
    positive = candidates.scores["qd"].diagonal()[:, None]
    for block in BLOCKS[:2]:
        own = own_entries(block, candidates.targets, mask[block].shape[1])
        expected = (candidates.scores[block] > positive + 0.1) & ~own
        assert torch.equal(mask[block] & ~own, expected)
    assert not OwnScores(2.0)(candidates)["qd"].any()


def test_union_of_sources() -> None:
    candidates = batch(4, labels=(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 1, 1, 0, 1])))
    union = AnyOf([same_label, OwnScores(0.0)])(candidates)
    own = guided_mask(candidates.scores, candidates.targets)
    labels = same_label(candidates)
    for block in BLOCKS:
        assert torch.equal(union[block], own[block] | labels[block])
    only_qd = AnyOf([lambda c: {"qd": c.scores["qd"] > 0}])(candidates)
    assert torch.equal(only_qd["qq"], torch.eye(4).bool())


def test_planted_duplicates_hurt_without_the_mask() -> None:
    """A copy of the positive in another row can never be told apart from it: unmasked, the loss stays above log 2."""
    q = torch.eye(4)[[0, 0, 1, 2]]
    texts = [["a", "a2", "b", "c"], ["pa", "pa", "pb", "pc"]]
    options = {"temperature": 0.01}
    plain = InfoNCE(**options).compute_loss_from_embeddings([q, q])
    masked = InfoNCE(mask=same_text, **options).compute_loss_from_embeddings([q, q], None, texts)
    assert float(masked) < 1e-6
    assert float(plain) > 0.3


@pytest.mark.parametrize(("source", "what"), [(same_text, "reads texts"), (same_label, "class numbers")])
def test_sources_say_what_they_need(source, what) -> None:
    with pytest.raises(InputError, match=what):
        source(batch())


def test_scores_given_as_labels_are_not_classes() -> None:
    q, p = torch.randn(2, 3, 4)
    with pytest.raises(InputError, match="class numbers"):
        InfoNCE(mask=same_label).compute_loss_from_embeddings([q, p], torch.tensor([0.1, 0.2, 0.3]))
