"""Distilling pair scores: the loss by its definition, what alpha switches off, and a student that learns."""

import numpy as np
import pytest
import torch

from isometry.encoders import load
from isometry.errors import DimensionMismatch, InputError
from isometry.modules import ComparisonHead, DotHead, PairStudent, cut_layers
from isometry.modules.pooling import with_top_layers
from isometry.training.best_weights import BestWeights
from isometry.training.cross_encoder import Schedule, pointwise_loss
from isometry.training.pair_distillation import (
    MeanTeacher,
    TeacherLogits,
    cross_fitted,
    pair_distillation_loss,
    train_pair_student,
    unit_logits,
)

WORDS = ("apple", "river", "engine", "market", "violin", "glacier")
PAIRS = [(f"the {a}", f"one {b}") for a in WORDS for b in WORDS]
LABELS = np.array([float(a == b) for a in WORDS for b in WORDS], np.float32)


def one_block(*, frozen=True):
    model = with_top_layers(cut_layers(load("minilm", engine="torch").model, 1), last=1)
    return model.requires_grad_(not frozen)


@pytest.fixture(scope="module")
def encoder():
    return one_block()


def student_of(encoder, seed=0, labels=1):
    return PairStudent(encoder, ComparisonHead(384, labels=labels, hidden=32, dropout=0.0, seed=seed))


def test_loss_is_its_definition():
    z, t, y = torch.randn(5, 2), torch.randn(5, 2), torch.tensor([0.0, 1, 1, 0, 1])
    for alpha in (0.0, 0.3, 1.0):
        wanted = (1 - alpha) * pointwise_loss(z, y, "ce") + alpha * ((z - t) ** 2).sum(1).mean()
        assert torch.isclose(pair_distillation_loss(z, y, t, alpha=alpha, task="ce"), wanted)
    assert pair_distillation_loss(z, y, z, alpha=1.0, task="ce") == 0  # a student that copies logits
    flipped = 1 - y
    assert pair_distillation_loss(z, y, t, alpha=1.0) == pair_distillation_loss(z, flipped, t, alpha=1.0)
    assert torch.isclose(pair_distillation_loss(z, y, t, alpha=0.0, task="ce"), pointwise_loss(z, y, "ce"))


def test_pairs_without_label_teach_by_the_teacher_alone():
    z, t = torch.randn(4, 1), torch.randn(4, 1)
    y = torch.tensor([1.0, float("nan"), 0.0, float("nan")])
    wanted = 0.5 * pointwise_loss(z[[0, 2]], y[[0, 2]], "bce") + 0.5 * ((z - t) ** 2).mean()
    assert torch.isclose(pair_distillation_loss(z, y, t), wanted)
    assert pair_distillation_loss(z, torch.full((4,), torch.nan), t, alpha=0.0) == 0


@pytest.mark.parametrize("frozen", [True, False])
def test_student_learns_the_teacher(frozen):
    teacher = np.where(LABELS[:, None] > 0, 3.0, -2.0).astype(np.float32)
    student = student_of(one_block(frozen=frozen))
    weight = student.encoder[0].auto_model.encoder.layer[0].output.dense.weight
    before = weight.clone()
    schedule = Schedule(steps=150 if frozen else 40, batch_size=36, lr=2e-3 if frozen else 5e-4)
    history = train_pair_student(student, PAIRS, np.full(36, np.nan), teacher, schedule, alpha=1.0)
    assert history[-1] < 0.2 * history[0]
    assert torch.equal(before, weight) == frozen
    assert student.predict(PAIRS)[LABELS > 0].min() > student.predict(PAIRS)[LABELS == 0].mean()


def test_student_learns_three_classes(encoder):
    classes = np.arange(36) % 3
    teacher = 4 * np.eye(3, dtype=np.float32)[classes] - 2
    history = train_pair_student(student_of(encoder, labels=3), PAIRS, classes, teacher, Schedule(150, 36, lr=3e-3),
                                 task="ce")  # fmt: skip
    assert history[-1] < 0.7 * history[0]


def test_alpha_one_ignores_labels_and_alpha_zero_the_teacher(encoder):
    teacher = np.linspace(-1, 1, 36, dtype=np.float32)[:, None]
    schedule = Schedule(steps=5, batch_size=8, lr=1e-3)

    def weights(labels, logits, alpha):
        student = student_of(encoder)
        train_pair_student(student, PAIRS, labels, logits, schedule, alpha=alpha)
        return torch.cat([p.flatten() for p in student.head.parameters()])

    assert torch.equal(weights(LABELS, teacher, 1.0), weights(1 - LABELS, teacher, 1.0))
    assert torch.equal(weights(LABELS, teacher, 0.0), weights(LABELS, -teacher, 0.0))
    assert not torch.equal(weights(LABELS, teacher, 0.5), weights(LABELS, -teacher, 0.5))


def test_dot_head_learns_too(encoder):
    student = PairStudent(encoder, DotHead(384, width=32))
    teacher = (4 * LABELS - 2)[:, None]
    history = train_pair_student(student, PAIRS, LABELS, teacher, Schedule(80, 36, lr=1e-3))
    assert history[-1] < 0.5 * history[0]


def test_each_pair_is_scored_once():
    class Counting:
        asked = 0

        def logits(self, pairs):
            self.asked += len(pairs)
            return np.array([[len(a) - len(b)] for a, b in pairs], np.float32).reshape(len(pairs), 1)

    teacher = Counting()
    known = TeacherLogits(teacher)
    assert known([("ab", "c"), ("a", "bc"), ("ab", "c")])[:, 0].tolist() == [1, -1, 1]
    assert known([("a", "bc"), ("x", "y")])[:, 0].tolist() == [-1, 0]
    assert teacher.asked == 3
    assert known([]).shape == (0, 1)


def test_logits_in_units_of_their_deviation():
    logits = np.random.default_rng(0).normal(2, [1.0, 50.0], (40, 2)).astype(np.float32)
    scaled = unit_logits(logits, known=30)
    np.testing.assert_allclose(scaled[:30].std(0), 1, rtol=1e-5)
    np.testing.assert_allclose(unit_logits(logits * [3, 0.1], known=30), scaled, rtol=1e-5)  # whatever the scale
    assert (np.sign(scaled) == np.sign(logits)).all()
    with pytest.raises(InputError, match="one scale"):
        unit_logits(np.ones((3, 1), np.float32), known=3)


class Remembers:
    """A teacher that is sure of the pairs it was trained on and knows no others."""

    def __init__(self, rows):
        self.rows, self.known = rows, {PAIRS[row] for row in rows}

    def logits(self, pairs):
        return np.array([[float(pair in self.known)] for pair in pairs], np.float32).reshape(len(pairs), 1)


@pytest.mark.parametrize("folds", [2, 3])
def test_no_pair_is_scored_by_a_teacher_that_was_trained_on_it(folds):
    logits, teachers = cross_fitted(PAIRS, Remembers, folds=folds, seed=1)
    assert logits.shape == (36, 1)
    assert not logits.any()
    assert len(teachers) == folds
    assert [sum(row in t.rows for t in teachers) for row in range(36)] == [folds - 1] * 36
    mean = MeanTeacher(teachers).logits(PAIRS)
    np.testing.assert_allclose(mean, (folds - 1) / folds, rtol=1e-6)
    assert cross_fitted(PAIRS, Remembers, folds=1)[0].all()  # one teacher scores what it has seen
    with pytest.raises(InputError, match="cannot be shared"):
        cross_fitted(PAIRS, Remembers, folds=0)


def test_student_ends_with_the_weights_of_its_best_judgement(encoder):
    student, seen = student_of(encoder), []

    def judge(module):
        seen.append(module.head.first.weight.clone())
        module.eval()
        return [0.1, 0.7, 0.7, 0.2][len(seen) - 1]

    best = BestWeights(student, judge, every=2)
    train_pair_student(student, PAIRS, LABELS, LABELS[:, None], Schedule(7, 8, lr=1e-3), best=best)
    assert [step for step, _ in best.history] == [2, 4, 6, 7]
    assert torch.equal(student.head.first.weight, seen[1])
    assert not torch.equal(seen[1], seen[3])
    with pytest.raises(InputError, match="every 1 or more"):
        BestWeights(student, judge, every=0)


def test_bad_input(encoder):
    z = torch.zeros(2, 1)
    with pytest.raises(InputError, match="alpha must lie"):
        pair_distillation_loss(z, z[:, 0], z, alpha=2.0)
    with pytest.raises(DimensionMismatch, match="must agree"):
        pair_distillation_loss(z, z[:, 0], torch.zeros(2, 3))
    with pytest.raises(DimensionMismatch, match="as many targets"):
        train_pair_student(student_of(encoder), PAIRS, LABELS[:3], LABELS[:, None], Schedule(1))
