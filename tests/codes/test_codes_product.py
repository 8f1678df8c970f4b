"""Product codes: tables against decoded products, error and recall against faiss, k-means."""

import faiss
import numpy as np
import pytest

from isometry.codes import ProductCode
from isometry.codes.product import kmeans, nearest
from isometry.errors import DimensionMismatch, InputError


@pytest.fixture(scope="module")
def x():
    rng = np.random.default_rng(2)
    z = rng.standard_normal((3000, 12)) @ rng.standard_normal((12, 32)) + 0.3 * rng.standard_normal((3000, 32))
    return (z / np.linalg.norm(z, axis=1, keepdims=True)).astype(np.float32)


def error(code, x):
    return float(np.mean(np.sum((code.inverse_transform(code.transform(x)) - x) ** 2, axis=1)))


@pytest.mark.parametrize(
    ("parts", "bits", "rotation"), [(4, 8, "none"), (8, 4, "none"), (4, 4, "opq"), (2, 8, "random")]
)
def test_tables_equal_decoded_products(x, parts, bits, rotation):
    code = ProductCode(parts, bits=bits, rotation=rotation, iterations=3).fit(x[:600])
    a, b = code.transform(x[:150]), code.transform(x[150:300])
    left, right = code.inverse_transform(a), code.inverse_transform(b)
    np.testing.assert_allclose(code.score(x[:150], b), x[:150] @ right.T, atol=2e-6)
    np.testing.assert_allclose(code.score_codes(a, b), left @ right.T, atol=2e-6)


def test_each_part_takes_its_nearest_centroid(x):
    code = ProductCode(8).fit(x[:600])
    digits = code.transform(x[:200])
    for part in range(8):
        stretch = x[:200, part * 4 : part * 4 + 4]
        far = ((stretch[:, None] - code.centroids_[part]) ** 2).sum(axis=2)
        chosen = far[np.arange(200), digits[:, part]]
        assert (chosen <= far.min(axis=1) + 1e-6).all()


def test_error_and_recall_within_noise_of_faiss(x):
    train, base, queries = x[:1500], x[1500:2800], x[2800:]
    ours = ProductCode(8).fit(train)
    peer = faiss.IndexPQ(32, 8, 8, faiss.METRIC_INNER_PRODUCT)
    peer.train(train)
    peer.add(base)
    best = np.argsort(-queries @ base.T, axis=1)[:, :10]
    found = np.argsort(-ours.score(queries, ours.transform(base)), axis=1)[:, :10]
    theirs = peer.search(queries, 10)[1]
    recall, reference = (
        np.mean([len(set(a) & set(b)) / 10 for a, b in zip(best, other, strict=True)]) for other in (found, theirs)
    )
    assert abs(recall - reference) < 0.03
    decoded = np.vstack([peer.reconstruct(i) for i in range(len(base))])
    assert error(ours, base) < 1.03 * float(np.mean(np.sum((decoded - base) ** 2, axis=1)))


def test_learned_rotation_lowers_the_error(x):
    skewed = x * np.linspace(3, 0.1, 32, dtype=np.float32)  # all variance in the first parts
    plain, learned = (ProductCode(4, bits=4, rotation=r, iterations=10).fit(skewed) for r in ("none", "opq"))
    assert error(learned, skewed) < 0.9 * error(plain, skewed)
    np.testing.assert_allclose(learned.rotation_ @ learned.rotation_.T, np.eye(32), atol=1e-5)


def test_more_parts_lower_the_error(x):
    errors = [error(ProductCode(m, bits=4).fit(x), x) for m in (2, 4, 8, 16)]
    assert errors == sorted(errors, reverse=True)


def test_kmeans_descends_and_settles(x):
    errors = []
    for iterations in (1, 2, 4, 30):
        centroids = x[:16].copy()
        kmeans(x, centroids, iterations)
        labels = nearest(x, centroids)
        errors.append(float(np.sum((x - centroids[labels]) ** 2)))
    assert errors == sorted(errors, reverse=True)
    from sklearn.cluster import KMeans

    peer = KMeans(16, init=x[:16], n_init=1, max_iter=30, algorithm="lloyd", tol=0).fit(x)
    assert abs(errors[-1] / peer.inertia_ - 1) < 0.01


def test_a_lost_centroid_is_put_to_use():
    x = np.array([[0.0, 0], [0, 1], [10, 0], [10, 1]], np.float32)
    centroids = np.array([[0.0, 0.5], [100, 100]], np.float32)
    kmeans(x, centroids, 5)
    assert sorted(centroids[:, 0].tolist()) == [0, 10]


def test_bad_parameters(x):
    for wrong in ({"parts": 4, "bits": 5}, {"parts": 4, "rotation": "pca"}, {"parts": 4, "iterations": 0}):
        with pytest.raises(InputError):
            ProductCode(**wrong)
    with pytest.raises(InputError, match="at least one byte"):
        ProductCode(1, bits=4)
    for parts in (0, -2, 2.0):
        with pytest.raises(InputError, match="parts must be a whole number"):
            ProductCode(parts)
    with pytest.raises(InputError, match="cut into 5 equal parts"):
        ProductCode(5).fit(x)
    with pytest.raises(InputError, match="256 centroids need"):
        ProductCode(4).fit(x[:255])
    with pytest.raises(DimensionMismatch):
        kmeans(x, x[:4, :3].copy(), 1)
    with pytest.raises(InputError, match="centroids need"):
        kmeans(x[:3], x[:4].copy(), 1)
