"""Class separation and neighbour precision against loops."""

import numpy as np
import pytest

from isometry.errors import DimensionMismatch, InputError
from isometry.tasks import neighbour_precision
from isometry.tasks.class_separation import class_separation


def data(seed: int, n: int, d: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = (x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True) for x in (a, b))
    return a @ b.T


def test_separation_equals_loops() -> None:
    x, labels = data(0, 30), np.random.default_rng(1).integers(4, size=30)
    labels[0] = 9  # alone in its class
    c, got = cosines(x, x), class_separation(x, labels)
    assert np.isnan(got[0])
    for i in range(1, 30):
        same = [c[i, j] for j in range(30) if j != i and labels[j] == labels[i]]
        other = [c[i, j] for j in range(30) if labels[j] != labels[i]]
        assert got[i] == pytest.approx(np.mean(same) - np.mean(other), abs=1e-9)
    np.testing.assert_allclose(class_separation(2 * x, [f"class {i}" for i in labels]), got)


def test_separation_of_collapsed_and_of_orthogonal_classes() -> None:
    labels = np.arange(6) // 2
    np.testing.assert_allclose(class_separation(np.ones((6, 3), np.float32), labels), 0, atol=1e-12)
    np.testing.assert_allclose(class_separation(np.eye(3, dtype=np.float32)[labels], labels), 1, atol=1e-12)


def test_neighbour_precision_equals_loops() -> None:
    q, pool, rng = data(0, 600), data(1, 40), np.random.default_rng(2)
    ql, pl = rng.integers(3, size=600), rng.integers(3, size=40)
    c, got = cosines(q, pool), neighbour_precision(q, ql, pool, pl, k=7)
    for i in range(600):
        assert got[i] == pytest.approx(np.mean(pl[np.argsort(-c[i])[:7]] == ql[i]))


def test_bad_input() -> None:
    x = data(0, 4)
    with pytest.raises(InputError, match="two classes"):
        class_separation(x, ["a"] * 4)
    with pytest.raises(InputError, match="two classes, one of them with two"):
        class_separation(x, list("abcd"))
    with pytest.raises(InputError, match="4 vectors need 4 labels"):
        class_separation(x, [1, 2])
    with pytest.raises(InputError, match="Vector 1 has length 0"):
        class_separation(np.float32([[1, 0], [0, 0]]), [0, 1])
    with pytest.raises(InputError, match=r"k must be in 1\.\.4"):
        neighbour_precision(x, [0] * 4, x, [0] * 4)
    with pytest.raises(InputError, match="as many labels"):
        neighbour_precision(x, [0] * 3, x, [0] * 5, k=1)
    with pytest.raises(DimensionMismatch):
        neighbour_precision(x, [0] * 4, data(0, 4, 3), [0] * 4, k=1)
