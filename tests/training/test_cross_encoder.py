"""A cross-encoder is built from an encoder's body, learns from pairs and from lists, and is saved whole."""

import numpy as np
import pytest
import torch

from isometry.encoders import load
from isometry.errors import EmptyInput, InputError, UnknownName
from isometry.ranking import CrossEncoderScorer
from isometry.training.cross_encoder import (
    Schedule,
    batches_of,
    competition_ranks,
    cross_encoder,
    list_loss,
    pad_slates,
    pair_logits,
    pointwise_loss,
    train_cross_encoder,
    train_cross_encoder_listwise,
)

PAIRS = [("a red apple", "an apple that is red"), ("a red apple", "interest rates rose"), ("cold tea", "tea gone cold")]


@pytest.fixture(scope="module")
def encoder():
    return load("minilm", engine="torch").model


def test_untrained_model_reads_both_texts(encoder):
    model = cross_encoder(encoder, seed=1).eval()
    with torch.no_grad():
        logits = pair_logits(model, PAIRS)
        assert logits.shape == (3, 1)
        assert torch.allclose(logits[:1], pair_logits(model, PAIRS[:1]), atol=1e-5)  # padding makes no difference
        swapped = pair_logits(model, [(b, a) for a, b in PAIRS])
    assert not torch.allclose(logits, swapped)
    assert cross_encoder(encoder, labels=3).num_labels == 3
    before = encoder[0].auto_model.encoder.layer[0].output.dense.weight.clone()
    train_cross_encoder(model, PAIRS, [1, 0, 1], Schedule(2, 3, lr=1e-3))
    assert torch.equal(before, encoder[0].auto_model.encoder.layer[0].output.dense.weight)  # the encoder is a copy


@pytest.mark.parametrize(("loss", "labels"), [("bce", 1), ("mse", 1), ("ce", 2)])
def test_learns_its_training_pairs(encoder, loss, labels):
    model = cross_encoder(encoder, labels=labels)
    history = train_cross_encoder(model, PAIRS, [1, 0, 1], Schedule(30, 3, lr=3e-4), loss=loss)
    assert history[-1] < 0.3 * history[0]
    again = cross_encoder(encoder, labels=labels)
    assert train_cross_encoder(again, PAIRS, [1, 0, 1], Schedule(30, 3, lr=3e-4), loss=loss) == history
    scores = CrossEncoderScorer(model).predict(PAIRS)
    assert scores[[0, 2]].min() > scores[1]


@pytest.mark.parametrize("loss", ["ranknet", "list_net", "list_mle", "p_list_mle", "ce"])
def test_learns_lists_of_different_lengths(encoder, loss):
    model = cross_encoder(encoder)
    queries = ["fruit", "drink"]
    slates = [["an apple", "a stock market", "a motorway"], ["a train", "some tea"]]
    grades = [[1, 0, 0], [0, 1]]
    history = train_cross_encoder_listwise(model, queries, slates, grades, Schedule(20, 2, lr=3e-4), loss=loss)
    assert history[-1] < history[0]
    scorer = CrossEncoderScorer(model)
    assert scorer.predict([("fruit", t) for t in slates[0]]).argmax() == 0
    assert scorer.predict([("drink", t) for t in slates[1]]).argmax() == 1


@pytest.mark.parametrize("loss", ["ranknet", "list_net", "list_mle", "p_list_mle", "ce"])
def test_padding_of_a_slate_changes_nothing(loss):
    measure = list_loss(loss)
    scores, grades = torch.tensor([[0.3, -1.0, 0.7]]), torch.tensor([[2.0, 0.0, 1.0]])
    keep = torch.ones(1, 3, dtype=torch.bool)
    padded = [torch.cat([x, torch.full((1, 2), v, dtype=x.dtype)], 1) for x, v in ((scores, 9.0), (grades, 5.0))]
    masked = torch.cat([keep, torch.zeros(1, 2, dtype=torch.bool)], 1)
    assert torch.allclose(measure(scores, grades, keep), measure(*padded, masked), atol=1e-6)


def test_pointwise_losses_are_their_definitions():
    logits, targets = torch.tensor([[0.5], [-2.0]]), torch.tensor([1.0, 0.25])
    p = torch.sigmoid(logits[:, 0])
    assert torch.isclose(
        pointwise_loss(logits, targets, "bce"), -(targets * p.log() + (1 - targets) * (1 - p).log()).mean()
    )
    assert torch.isclose(pointwise_loss(logits, targets, "mse"), ((logits[:, 0] - targets) ** 2).mean())
    with pytest.raises(UnknownName, match="pointwise loss"):
        pointwise_loss(logits, targets, "hinge")


def test_batches_hold_every_row_once_a_pass():
    stream = batches_of(7, 3, seed=0)
    drawn = [row for _ in range(7) for row in next(stream)]
    assert all(sorted(drawn[i : i + 7]) == list(range(7)) for i in (0, 7, 14))
    assert sorted(next(batches_of(2, 8, seed=0))) == [0, 1]
    with pytest.raises(EmptyInput):
        next(batches_of(0, 3, seed=0))


def test_slates_and_ranks():
    scores, grade, keep = pad_slates(torch.tensor([1.0, 2.0, 3.0]), [np.array([4.0]), np.array([5.0, 6.0])])
    assert grade.tolist() == [[4.0, 0.0], [5.0, 6.0]]
    assert competition_ranks(grade, keep)[1].tolist() == [2, 1]
    assert scores[keep].tolist() == [1.0, 2.0, 3.0]


def test_bad_input(encoder):
    model = cross_encoder(encoder)
    with pytest.raises(InputError, match="as many targets"):
        train_cross_encoder(model, PAIRS, [1.0], Schedule(1))
    with pytest.raises(InputError, match=r"must be finite and in 0\.\.1"):
        train_cross_encoder(model, PAIRS, [1, 0, 3], Schedule(1))
    with pytest.raises(UnknownName, match="pointwise loss"):
        train_cross_encoder(model, PAIRS, [1, 0, 1], Schedule(1), loss="hinge")
    with pytest.raises(InputError, match="Slate 0 needs two candidates"):
        train_cross_encoder_listwise(model, ["q"], [["only"]], [[1]], Schedule(1))
    with pytest.raises(UnknownName, match="listwise loss"):
        train_cross_encoder_listwise(model, ["q"], [["a", "b"]], [[1, 0]], Schedule(1), loss="nope")
    with pytest.raises(InputError, match="one logit per pair"):
        train_cross_encoder_listwise(cross_encoder(encoder, labels=2), ["q"], [["a", "b"]], [[1, 0]], Schedule(1))
    with pytest.raises(InputError, match="at least one logit"):
        cross_encoder(encoder, labels=0)
