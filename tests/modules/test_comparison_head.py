"""Scores from cached candidates equal the end-to-end forward; both heads save and load with their encoder."""

import numpy as np
import pytest
import torch

from isometry.encoders import load
from isometry.errors import DataFormatError, DimensionMismatch, EmptyInput, InputError
from isometry.modules import ComparisonHead, DotHead, PairStudent, cut_layers
from isometry.modules.pooling import with_top_layers


@pytest.fixture(scope="module")
def encoder():
    return with_top_layers(cut_layers(load("minilm", engine="torch").model, 2), last=2)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("labels", [1, 3])
def test_cached_scores_equal_the_forward(symmetric, labels):
    torch.manual_seed(0)
    head = ComparisonHead(12, labels=labels, hidden=20, symmetric=symmetric, seed=3).eval()
    u, v = torch.randn(12), torch.randn(2500, 12)
    with torch.no_grad():
        wanted = head(u.expand_as(v), v)
        assert torch.allclose(head.score(u, v), wanted, atol=1e-5)
        assert torch.allclose(head.score(u, v, head.prepare(v)), wanted, atol=1e-5)
        assert head.score(u, v[:0]).shape == (0, labels)


def test_order_matters_unless_symmetrised():
    torch.manual_seed(0)
    u, v = torch.randn(2, 8, 6)
    plain, fair = ComparisonHead(6, hidden=8).eval(), ComparisonHead(6, hidden=8, symmetric=True).eval()
    with torch.no_grad():
        assert not torch.allclose(plain(u, v), plain(v, u), atol=1e-4)
        assert torch.allclose(fair(u, v), fair(v, u), atol=1e-6)
        assert torch.allclose(fair(u, v), (plain(u, v) + plain(v, u)) / 2, atol=1e-6)


@pytest.mark.parametrize("unit", [True, False])
def test_dot_head_is_a_dot_product_of_what_it_prepares(unit):
    torch.manual_seed(0)
    head = DotHead(6, width=4, unit=unit)
    head.calibrate(*torch.randn(2, 9, 6))
    u, v = torch.randn(6), torch.randn(5, 6)
    with torch.no_grad():
        assert torch.allclose(head.score(u, v), head(u.expand_as(v), v), atol=1e-6)
        wanted = head.scale * (head.prepare(v) @ head.prepare(u)) + head.bias
        assert torch.allclose(head.score(u, v)[:, 0], wanted, atol=1e-6)
        longer = torch.allclose(head.prepare(3 * v), head.prepare(v), atol=1e-6)
    assert longer == unit  # the length of a vector says nothing


@pytest.mark.parametrize("unit", [True, False])
def test_calibrated_logits_have_mean_0_and_deviation_1(unit):
    torch.manual_seed(0)
    head, (u, v) = DotHead(6, width=4, unit=unit), torch.randn(2, 40, 6) + 5
    with torch.no_grad():
        before = head(u, v)[:, 0]
        head.calibrate(u, v)
        after = head(u, v)[:, 0]
    assert float(after.mean()) == pytest.approx(0, abs=1e-4)
    assert float(after.std()) == pytest.approx(1, abs=1e-4)
    assert torch.equal(before.argsort(), after.argsort())
    with pytest.raises(InputError, match="different products"):
        head.calibrate(u[:1], v[:1])


@pytest.mark.parametrize("kind", [ComparisonHead, DotHead])
def test_student_saves_and_loads(encoder, kind, tmp_path):
    student = PairStudent(encoder, kind(768, seed=1))
    pairs = [("a red apple", "an apple, red"), ("a longer text about the weather at sea", "rain")]
    wanted = student.predict(pairs)
    student.save(tmp_path)
    np.testing.assert_allclose(PairStudent.load(tmp_path).predict(pairs), wanted, atol=1e-5)
    with torch.no_grad():
        u, v = student.encode([pairs[0][0]])[0], student.encode([b for _, b in pairs])
        assert float(student.head.score(u, v)[0, 0]) == pytest.approx(float(wanted[0]), abs=1e-5)


def test_vectors_do_not_depend_on_padding(encoder):
    student = PairStudent(encoder, ComparisonHead(768))
    texts = ["tea", "a much longer text with many words about tea and how it is made in the morning"]
    alone = torch.cat([student.encode([text]) for text in texts])
    assert torch.allclose(student.encode(texts), alone, atol=1e-5)


def test_bad_input(encoder, tmp_path):
    with pytest.raises(EmptyInput, match="Text 1 is empty"):
        PairStudent(encoder, ComparisonHead(768)).encode(["a", ""])
    with pytest.raises(DimensionMismatch, match="compares"):
        ComparisonHead(4).score(torch.zeros(3), torch.zeros(2, 4))
    with pytest.raises(InputError, match="positive widths"):
        ComparisonHead(0)
    with pytest.raises(InputError, match="positive widths"):
        DotHead(4, width=0)
    with pytest.raises(DataFormatError, match="cannot be read"):
        PairStudent.load(tmp_path)
