import numpy as np
import pytest

from isometry.errors import InputError
from isometry.ranking.affinity import affinity
from isometry.ranking.determinantal import LogDeterminant, dpp_map, positive_semidefinite


def gram(seed, n=10, d=4):
    x = np.random.default_rng(seed).standard_normal((n, d))
    return x @ x.T


@pytest.mark.parametrize("noise", [0.01, 0.5, 1.0])
def test_cholesky_increments_are_slogdet(noise):
    k = gram(1)
    f = LogDeterminant(k, noise)
    taken = []
    for i in (7, 2, 9, 0, 5):
        gain = f.add(i)
        before = np.linalg.slogdet(k[np.ix_(taken, taken)] + noise * np.eye(len(taken)))[1] if taken else 0.0
        taken.append(i)
        after = np.linalg.slogdet(k[np.ix_(taken, taken)] + noise * np.eye(len(taken)))[1]
        assert gain == pytest.approx(after - before - np.log(noise), abs=1e-8)


def test_map_pivots_are_slogdet_and_the_first_is_the_largest():
    k = gram(2, n=12, d=12)
    rows, gains = dpp_map(k, 5)
    assert rows[0] == k.diagonal().argmax()
    assert sum(gains) == pytest.approx(np.linalg.slogdet(k[np.ix_(rows, rows)])[1])
    assert (np.diff(gains) <= 1e-9).all()


def test_map_is_greedy_on_determinants():
    k = gram(3, n=9, d=9)
    taken: list[int] = []
    for _ in range(4):
        rest = [i for i in range(9) if i not in taken]
        taken.append(max(rest, key=lambda i: np.linalg.slogdet(k[np.ix_([*taken, i], [*taken, i])])[1]))
    assert dpp_map(k, 4)[0] == taken


def test_map_stops_where_the_volume_is_gone():
    rows, _ = dpp_map(gram(4, n=8, d=3), 8)
    assert len(rows) == 3  # rank 3


def test_a_copy_adds_least():
    k = np.array([[1, 1, 0.5], [1, 1, 0.5], [0.5, 0.5, 1]])
    f = LogDeterminant(k, 0.01)
    f.add(0)
    gains = f.gains(np.array([1, 2]))
    assert gains[0] == pytest.approx(np.log(1 + (1 - 1 / 1.01) / 0.01))
    assert gains[1] > 3 * gains[0]


def test_an_indefinite_kernel_is_lifted_to_the_nearest():
    x = np.random.default_rng(0).standard_normal((30, 3))
    clipped = affinity(x)  # clipping cosines at 0 breaks definiteness
    assert np.linalg.eigvalsh(clipped).min() < -1e-3
    lifted = positive_semidefinite(clipped)
    values, vectors = np.linalg.eigh(clipped)
    assert lifted == pytest.approx((vectors * np.maximum(values, 0)) @ vectors.T)
    good = gram(5)
    assert positive_semidefinite(good) == pytest.approx(good)
    f = LogDeterminant(clipped, 1e-6)
    assert all(f.add(i) >= 0 for i in range(30))


def test_bad_input():
    with pytest.raises(InputError, match="noise"):
        LogDeterminant(np.eye(2), 0)
    with pytest.raises(InputError, match="symmetric"):
        LogDeterminant([[1.0, 0.5], [0.0, 1.0]])
    with pytest.raises(InputError, match="symmetric"):
        dpp_map(np.ones((2, 3)), 1)
