"""InfoNCE with blocks, masks and weights: closed forms, peer libraries, gradients, invariances, bad input."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from torch.nn.functional import cross_entropy, normalize

from isometry.errors import DimensionMismatch, InputError, UnknownName
from isometry.objectives.info_nce import BLOCKS, InfoNCE, info_nce, own_entries, score_blocks, settle


def vectors(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def by_loops(q, docs, targets, temperature, blocks, drop, weights) -> float:
    """The definition, written with Python loops and sums of exponentials."""
    q, docs = normalize(q, dim=1), normalize(docs, dim=1)
    losses = []
    for i, target in enumerate(targets.tolist()):
        positive = math.exp(float(q[i] @ docs[target]) / temperature)
        total = positive
        for block in blocks:
            row = q[i] if block[0] == "q" else docs[target]
            columns = {"d": docs, "q": q, "p": docs[targets]}[block[1]]
            for j, column in enumerate(columns):
                if block[1] == "d":
                    own = j == target
                else:
                    own = j == i if block == "qq" else int(targets[j]) == target
                if own or bool(drop[block][i, j]):
                    continue
                total += float(weights[block][i, j]) * math.exp(float(row @ column) / temperature)
        losses.append(math.log(total / positive))
    return sum(losses) / len(losses)


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    b=st.integers(1, 6),
    extra=st.integers(0, 5),
    temperature=st.sampled_from([0.05, 0.3, 2.0]),
    others=st.sets(st.sampled_from(BLOCKS[1:])),
)
def test_equals_the_definition_written_with_loops(seed, b, extra, temperature, others) -> None:
    rng = torch.Generator().manual_seed(seed)
    q, docs = vectors(seed, b, 5), vectors(seed + 1, b + extra, 5)
    targets = torch.randint(0, b + extra, (b,), generator=rng)
    blocks = ("qd", *sorted(others))
    shapes = {block: (b, b + extra if block[1] == "d" else b) for block in blocks}
    drop = {block: torch.rand(shape, generator=rng) < 0.4 for block, shape in shapes.items()}
    weights = {block: torch.rand(shape, generator=rng, dtype=torch.float64) * 2 for block, shape in shapes.items()}
    ours = info_nce(q, docs, temperature=temperature, targets=targets, drop=drop, weights=weights, blocks=blocks)
    assert float(ours) == pytest.approx(by_loops(q, docs, targets, temperature, blocks, drop, weights), rel=1e-9)


def test_plain_form_is_cross_entropy_of_cosines() -> None:
    q, docs = vectors(0, 8, 16), vectors(1, 12, 16)
    by_hand = cross_entropy(normalize(q, dim=1) @ normalize(docs, dim=1).T / 0.07, torch.arange(8))
    torch.testing.assert_close(info_nce(q, docs, temperature=0.07), by_hand)


@pytest.mark.parametrize("mode", ["plain", "all blocks", "hardness"])
def test_equals_sentence_transformers_multiple_negatives_ranking(mode: str) -> None:
    columns = [vectors(i, 6, 8) for i in range(3 if mode != "all blocks" else 2)]
    q, docs = columns[0], torch.cat(columns[1:])
    options = {}
    if mode == "all blocks":
        options = {"directions": ("query_to_doc", "query_to_query", "doc_to_doc")}
        ours = info_nce(q, docs, blocks=("qd", "qq", "pp"))
    elif mode == "hardness":
        options = {"hardness_mode": "all_negatives", "hardness_strength": 5.0}
        weights = (5.0 * score_blocks(q, docs)["qd"]).exp()
        ours = info_nce(q, docs, weights=weights)
    else:
        ours = info_nce(q, docs)
    peer = MultipleNegativesRankingLoss(None, scale=20.0, **options)
    torch.testing.assert_close(ours, peer.compute_loss_from_embeddings(columns, None))


def test_symmetric_block_holds_the_other_queries_once() -> None:
    """``pq`` leaves its diagonal out: the positive pair must not stand in its own denominator twice."""
    q, docs = vectors(0, 5, 4), vectors(1, 5, 4)
    s = score_blocks(q, docs)["qd"] / 0.05
    others = s.T.masked_fill(torch.eye(5).bool(), -torch.inf)
    by_hand = cross_entropy(torch.cat([s, others], 1), torch.arange(5))
    torch.testing.assert_close(info_nce(q, docs, blocks=("qd", "pq")), by_hand)


@pytest.mark.parametrize("blocks", [("qd",), BLOCKS])
def test_gradients_match_finite_differences(blocks) -> None:
    q, docs = vectors(2, 3, 4).requires_grad_(), vectors(3, 5, 4).requires_grad_()
    temperature = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    drop = {"qd": torch.rand(3, 5, generator=torch.Generator().manual_seed(0)) < 0.3}
    weights = dict.fromkeys(blocks, 0.7)

    def loss(q, docs, temperature):
        return info_nce(q, docs, temperature=temperature, drop=drop, weights=weights, blocks=blocks)

    assert torch.autograd.gradcheck(loss, (q, docs, temperature))


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), share=st.floats(0, 1))
def test_masked_loss_is_at_most_the_unmasked(seed: int, share: float) -> None:
    q, docs = vectors(seed, 6, 4), vectors(seed + 1, 9, 4)
    drop = torch.rand(6, 9, generator=torch.Generator().manual_seed(seed)) < share
    rows = info_nce(q, docs, drop=drop, reduction="none")
    assert (rows <= info_nce(q, docs, reduction="none") + 1e-12).all()
    assert (rows >= 0).all()


def test_everything_masked_gives_zero_loss_and_zero_gradient() -> None:
    """A mask over the positive's own column would give NaN; it is protected, and the row then teaches nothing."""
    q = vectors(0, 4, 3).requires_grad_()
    masks = {block: torch.ones(4, 4, dtype=torch.bool) for block in BLOCKS}
    loss = info_nce(q, vectors(1, 4, 3), drop=masks, blocks=BLOCKS)
    loss.backward()
    assert loss.item() == 0.0
    assert (q.grad == 0).all()


def test_weights_protect_the_positive_and_zero_switches_a_block_off() -> None:
    q, docs = vectors(0, 5, 4), vectors(1, 5, 4)
    plain = info_nce(q, docs)
    torch.testing.assert_close(info_nce(q, docs, weights={"qq": 0.0, "pd": 0.0}, blocks=("qd", "qq", "pd")), plain)
    assert float(info_nce(q, docs, weights=torch.zeros(5, 5))) == 0.0
    torch.testing.assert_close(info_nce(q, docs, weights={"qd": 1.0}), plain)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10**6))
def test_mean_ignores_the_order_of_rows_and_documents(seed: int) -> None:
    q, docs = vectors(seed, 6, 4), vectors(seed + 1, 9, 4)
    rng = torch.Generator().manual_seed(seed)
    rows, columns = torch.randperm(6, generator=rng), torch.randperm(9, generator=rng)
    moved = torch.argsort(columns)[rows]
    for blocks in (("qd",), BLOCKS):
        torch.testing.assert_close(
            info_nce(q[rows], docs[columns], targets=moved, blocks=blocks), info_nce(q, docs, blocks=blocks)
        )


def test_lengths_do_not_matter_and_half_precision_is_raised() -> None:
    q, docs = vectors(0, 4, 8, dtype=torch.float32), vectors(1, 4, 8, dtype=torch.float32)
    torch.testing.assert_close(info_nce(3 * q, 0.2 * docs, temperature=0.01), info_nce(q, docs, temperature=0.01))
    half = info_nce(q.bfloat16(), docs.bfloat16(), temperature=0.01)
    assert half.dtype == torch.float32
    exact = info_nce(q.bfloat16().float(), docs.bfloat16().float(), temperature=0.01)
    torch.testing.assert_close(half, exact)


def test_one_row_and_zero_vectors_stay_finite() -> None:
    assert float(info_nce(vectors(0, 1, 3), vectors(1, 1, 3), blocks=BLOCKS)) == pytest.approx(0.0, abs=1e-12)
    q = torch.zeros(3, 4, requires_grad=True)
    loss = info_nce(q, vectors(1, 3, 4, dtype=torch.float32))
    loss.backward()
    assert loss.item() == pytest.approx(math.log(3))
    assert torch.isfinite(q.grad).all()


def test_own_entries_of_a_shared_positive() -> None:
    """Two queries with one positive: neither may meet that positive as a negative in ``pp``."""
    targets = torch.tensor([1, 1, 0])
    assert own_entries("pp", targets, 2).tolist() == [[True, True, False], [True, True, False], [False, False, True]]
    assert own_entries("qd", targets, 2).tolist() == [[False, True], [False, True], [True, False]]
    kept = settle({"qd": torch.ones(3, 2).bool(), "qq": torch.zeros(3, 3).bool()}, targets)
    assert torch.equal(kept["qd"], ~own_entries("qd", targets, 2))
    assert torch.equal(kept["qq"], torch.eye(3).bool())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"temperature": 0.0}, InputError, "temperature must be > 0"),
        ({"temperature": float("nan")}, InputError, "temperature must be > 0"),
        ({"blocks": ("qd", "dq")}, UnknownName, "Unknown score block 'dq'"),
        ({"blocks": ("qq",)}, InputError, "must begin with 'qd'"),
        ({"blocks": ("qd", "qq", "qq")}, InputError, "not repeat"),
        ({"targets": torch.tensor([0, 1, 9])}, InputError, "one of the 4 documents"),
        ({"targets": torch.tensor([0, 1])}, InputError, "each of the 3 queries"),
        ({"drop": torch.zeros(3, 3).bool()}, DimensionMismatch, r"must be bool \[3, 4\]"),
        ({"drop": torch.zeros(3, 4)}, DimensionMismatch, "torch.float32"),
        ({"drop": {"qq": torch.zeros(3, 3).bool()}}, InputError, r"\['qq'\], which are not among"),
        ({"weights": -torch.ones(3, 4)}, InputError, "must be >= 0, got -1"),
        ({"weights": torch.ones(4)}, DimensionMismatch, r"a number or \[3, 4\]"),
    ],
)
def test_bad_options_are_named(options, error, message) -> None:
    with pytest.raises(error, match=message):
        info_nce(vectors(0, 3, 2), vectors(1, 4, 2), **options)


@pytest.mark.parametrize(("a", "b"), [((0, 2), (3, 2)), ((3, 2), (3, 4)), ((3,), (3, 2))])
def test_bad_shapes_are_named(a, b) -> None:
    with pytest.raises(DimensionMismatch, match="matrices"):
        info_nce(vectors(0, *a), vectors(1, *b))


def test_fewer_documents_than_queries_need_targets() -> None:
    q, docs = vectors(0, 3, 2), vectors(1, 1, 2)
    with pytest.raises(InputError, match="targets"):
        info_nce(q, docs)
    assert float(info_nce(q, docs, targets=torch.zeros(3, dtype=torch.int64))) == 0.0


def test_loss_object_equals_the_function_and_tells_the_mask_what_it_knows() -> None:
    seen = {}

    def mask(candidates):
        seen["texts"], seen["labels"] = candidates.texts, candidates.labels
        assert not any(s.requires_grad for s in candidates.scores.values())
        return {"qd": candidates.scores["qd"] > 0.2}

    columns = [vectors(i, 4, 3).requires_grad_() for i in range(3)]
    texts = [[f"{c}{i}" for i in range(4)] for c in "qpn"]
    loss = InfoNCE(temperature=0.1, blocks=("qd", "qq"), mask=mask, weights=lambda _: {"qq": 0.5})
    got = loss.compute_loss_from_embeddings(columns, torch.arange(4), texts)
    q, docs = columns[0], torch.cat(columns[1:])
    drop = score_blocks(q, docs)["qd"] > 0.2
    torch.testing.assert_close(
        got, info_nce(q, docs, temperature=0.1, drop=drop, weights={"qq": 0.5}, blocks=("qd", "qq"))
    )
    assert seen["texts"] == (texts[0], texts[1] + texts[2])
    assert seen["labels"][1].tolist() == [0, 1, 2, 3, -1, -1, -1, -1]
    assert loss.get_config_dict() == {
        "temperature": 0.1,
        "blocks": ["qd", "qq"],
        "mask": "mask",
        "weights": "<lambda>",
    }
    assert "1807.03748" in loss.citation


def test_loss_object_without_model_or_positives_says_so() -> None:
    with pytest.raises(InputError, match="no model"):
        InfoNCE()([{}, {}])
    with pytest.raises(InputError, match="one of positives"):
        InfoNCE().compute_loss_from_embeddings([vectors(0, 2, 2)])
