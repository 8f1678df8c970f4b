from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from isometry.errors import DimensionMismatch
from isometry.tasks.size_grid import layer_vectors, sts_by_size

RNG = np.random.default_rng(0)
LEFT, RIGHT = (RNG.normal(size=(4, 30, 8)).astype(np.float32) for _ in range(2))
GOLD = RNG.random(30)


def test_mean_over_pairs_is_the_rank_correlation_of_cosines_of_prefixes():
    units = sts_by_size(LEFT, RIGHT, GOLD, [(1, 3), (3, 8)])
    for (n, d), values in units.items():
        a, b = LEFT[n, :, :d].astype(float), RIGHT[n, :, :d].astype(float)
        cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        assert values.mean() == pytest.approx(spearmanr(cosine, GOLD).statistic)


def test_sizes_that_are_not_there_are_refused():
    for size in ((4, 3), (1, 9), (1, 0)):
        with pytest.raises(DimensionMismatch, match="no size"):
            sts_by_size(LEFT, RIGHT, GOLD, [size])
    with pytest.raises(DimensionMismatch, match="one shape"):
        sts_by_size(LEFT, RIGHT[:, :5], GOLD, [(1, 3)])


def test_vectors_come_in_the_order_of_the_texts_and_end_with_the_models_own():
    from isometry.encoders import load

    model = load("minilm", engine="torch").model
    texts = ["a much longer sentence about nothing in particular", "short", "in between, perhaps", "x"]
    vectors = layer_vectors(model, texts, batch_size=2)
    assert vectors.shape == (7, 4, 384)
    last = vectors[-1] / np.linalg.norm(vectors[-1], axis=1, keepdims=True)
    np.testing.assert_allclose(last, model.encode(texts, show_progress_bar=False), atol=1e-5)
