"""Ball carving keeps sums, makes balls of near tokens only, and never raises MaxSim."""

import numpy as np
import pytest

from isometry.errors import InputError
from isometry.indexes import maxsim_scores
from isometry.spaces import carve, carve_queries
from isometry.types import Embeddings, Space, id_array


def clustered(seed, t=32, centres=5, dim=16):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((centres, dim))[rng.integers(0, centres, t)] + 0.15 * rng.standard_normal((t, dim))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("seed", range(5))
def test_sum_is_kept_and_clusters_are_found(seed):
    x = clustered(seed)
    carved = carve(x)
    np.testing.assert_allclose(carved.sum(axis=0), x.sum(axis=0), atol=1e-4)
    assert len(carved) <= 8
    np.testing.assert_array_equal(carve(x, 1.1), x)


def test_greedy_order():
    """The first free token opens the ball; one near a member but not near the opener stays outside."""
    angles = np.deg2rad([0, 40, 80])
    x = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    np.testing.assert_allclose(carve(x, 0.7), [x[0] + x[1], x[2]], atol=1e-6)


def test_never_above_full_maxsim():
    space = Space("made", 16, similarity="maxsim")
    queries = Embeddings(np.concatenate([clustered(s) for s in range(4)]), id_array("abcd"), space, role="query",
                         offsets=np.arange(5) * 32)  # fmt: skip
    documents = Embeddings(clustered(9, 60), id_array(map(str, range(6))), space, offsets=np.arange(7) * 10)
    carved = carve_queries(queries)
    assert len(carved.vectors) < len(queries.vectors) / 3
    assert (carved.ids.tolist(), carved.role) == (queries.ids.tolist(), "query")
    assert (maxsim_scores(carved, documents) <= maxsim_scores(queries, documents) + 1e-4).all()


def test_edges():
    assert carve(np.zeros((0, 4), np.float32)).shape == (0, 4)
    assert carve(np.zeros((2, 4), np.float32)).shape == (2, 4)  # a zero token is near nothing, and is kept
    with pytest.raises(InputError, match="threshold"):
        carve(np.eye(2, dtype=np.float32), float("nan"))
    with pytest.raises(InputError, match="multi-vector"):
        carve_queries(Embeddings(np.eye(2), id_array("ab"), Space("made", 2)))
