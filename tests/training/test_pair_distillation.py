"""Distilling pair scores: the loss by its definition, what alpha switches off, and a student that learns."""

import numpy as np
import pytest
import torch

from isometry.encoders import load
from isometry.errors import DimensionMismatch, InputError
from isometry.modules import ComparisonHead, DotHead, PairStudent, cut_layers
from isometry.modules.pooling import with_top_layers
from isometry.training.cross_encoder import Schedule, pointwise_loss
from isometry.training.pair_distillation import TeacherLogits, pair_distillation_loss, train_pair_student

WORDS = ("apple", "river", "engine", "market", "violin", "glacier")
PAIRS = [(f"the {a}", f"one {b}") for a in WORDS for b in WORDS]
LABELS = np.array([float(a == b) for a in WORDS for b in WORDS], np.float32)


@pytest.fixture(scope="module")
def encoder():
    return with_top_layers(cut_layers(load("minilm", engine="torch").model, 1), last=1)


def student_of(encoder, seed=0):
    return PairStudent(encoder, ComparisonHead(384, hidden=32, dropout=0.0, seed=seed))


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


@pytest.mark.parametrize("freeze", [True, False])
def test_student_learns_the_teacher(encoder, freeze):
    teacher = np.where(LABELS[:, None] > 0, 3.0, -2.0).astype(np.float32)
    student = student_of(encoder)
    before = encoder[0].auto_model.encoder.layer[0].output.dense.weight.clone()
    schedule = Schedule(steps=150 if freeze else 40, batch_size=36, lr=2e-3 if freeze else 5e-4)
    if not freeze:
        student = student_of(with_top_layers(cut_layers(load("minilm", engine="torch").model, 1), last=1))
    history = train_pair_student(
        student, PAIRS, np.full(36, np.nan), teacher, schedule, alpha=1.0, freeze_encoder=freeze
    )
    assert history[-1] < 0.2 * history[0]
    assert torch.equal(before, encoder[0].auto_model.encoder.layer[0].output.dense.weight)
    assert student.predict(PAIRS)[LABELS > 0].min() > student.predict(PAIRS)[LABELS == 0].mean()


def test_alpha_one_ignores_labels_and_alpha_zero_the_teacher(encoder):
    teacher = np.linspace(-1, 1, 36, dtype=np.float32)[:, None]
    schedule = Schedule(steps=5, batch_size=8, lr=1e-3)

    def weights(labels, logits, alpha):
        student = student_of(encoder)
        train_pair_student(student, PAIRS, labels, logits, schedule, alpha=alpha, freeze_encoder=True)
        return torch.cat([p.flatten() for p in student.head.parameters()])

    assert torch.equal(weights(LABELS, teacher, 1.0), weights(1 - LABELS, teacher, 1.0))
    assert torch.equal(weights(LABELS, teacher, 0.0), weights(LABELS, -teacher, 0.0))
    assert not torch.equal(weights(LABELS, teacher, 0.5), weights(LABELS, -teacher, 0.5))


def test_dot_head_learns_too(encoder):
    student = PairStudent(encoder, DotHead(384, width=32))
    teacher = (4 * LABELS - 2)[:, None]
    history = train_pair_student(student, PAIRS, LABELS, teacher, Schedule(80, 36, lr=1e-3), freeze_encoder=True)
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


def test_bad_input(encoder):
    z = torch.zeros(2, 1)
    with pytest.raises(InputError, match="alpha must lie"):
        pair_distillation_loss(z, z[:, 0], z, alpha=2.0)
    with pytest.raises(DimensionMismatch, match="must agree"):
        pair_distillation_loss(z, z[:, 0], torch.zeros(2, 3))
    with pytest.raises(DimensionMismatch, match="as many targets"):
        train_pair_student(student_of(encoder), PAIRS, LABELS[:3], LABELS[:, None], Schedule(1))
