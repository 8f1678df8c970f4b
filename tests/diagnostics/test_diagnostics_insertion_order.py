"""Every order is a permutation that does what its name says; the Hilbert curve visits neighbours in turn."""

import numpy as np
import pytest

from isometry.diagnostics import lid
from isometry.diagnostics.insertion_order import ORDERS, hilbert_curve, insertion_order
from isometry.errors import InputError, UnknownName

RNG = np.random.default_rng(0)
X = RNG.normal(size=(300, 12)).astype(np.float32)
LABELS = np.asarray([["a", "b", "c"][i] for i in RNG.integers(3, size=300)], object)


@pytest.mark.parametrize("order", ORDERS)
def test_every_order_is_a_permutation_and_deterministic(order):
    found = insertion_order(X, order, k=20, labels=LABELS, seed=3)
    assert sorted(found.tolist()) == list(range(300))
    np.testing.assert_array_equal(found, insertion_order(X, order, k=20, labels=LABELS, seed=3))


def test_orders_do_what_they_say():
    local = lid(X, 20)
    assert (np.diff(local[insertion_order(X, "lid_descending", k=20)]) <= 0).all()
    assert (np.diff(local[insertion_order(X, "lid_ascending", k=20)]) >= 0).all()
    away = np.linalg.norm(X - X.mean(axis=0), axis=1)
    assert (np.diff(away[insertion_order(X, "centre_out")]) >= 0).all()
    assert (np.diff(away[insertion_order(X, "edge_in")]) <= 0).all()
    assert insertion_order(X, "time").tolist() == list(range(300))
    blocks = LABELS[insertion_order(X, "labels", labels=LABELS)]
    assert (blocks[1:] != blocks[:-1]).sum() == 2


def test_a_curve_puts_neighbours_beside_each_other():
    def step(order):
        return np.linalg.norm(np.diff(X[order, :3], axis=0), axis=1).mean()

    plane = X.copy()
    plane[:, 3:] *= 0.01
    assert step(insertion_order(plane, "curve")) < 0.6 * step(insertion_order(plane, "random"))


@pytest.mark.parametrize(("axes", "bits"), [(2, 4), (3, 3), (4, 2), (1, 5)])
def test_the_curve_visits_every_cell_once_and_moves_to_a_neighbour(axes, bits):
    grid = np.stack(np.meshgrid(*[np.arange(1 << bits)] * axes, indexing="ij"), axis=-1).reshape(-1, axes)
    place = hilbert_curve(grid, bits)
    assert sorted(place.tolist()) == list(range(len(grid)))
    assert (np.abs(np.diff(grid[np.argsort(place)], axis=0)).sum(axis=1) == 1).all()


def test_bad_input():
    with pytest.raises(UnknownName, match="insertion order"):
        insertion_order(X, "backwards")
    with pytest.raises(InputError, match="one label"):
        insertion_order(X, "labels")
    with pytest.raises(InputError, match="63"):
        hilbert_curve(np.zeros((2, 8), np.int64), 8)
    with pytest.raises(InputError, match=r"0\.\.3"):
        hilbert_curve(np.full((2, 2), 4), 2)
