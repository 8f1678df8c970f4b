"""The closed form is the least-squares optimum, and agreement tells a constant from a good map."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from isometry.errors import DimensionMismatch, InputError, NotFitted
from isometry.spaces import LeastSquaresMap, agreement


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 6)) * np.arange(1, 7) + 3
    return x, x @ rng.normal(size=(6, 4)) + 0.3 * rng.normal(size=(200, 4)) + 1


def test_equals_scikit_learns_ridge(data):
    x, y = data
    centred = x - x.mean(0)
    penalty = 0.1 * np.trace(centred.T @ centred) / 6
    peer = Ridge(alpha=penalty).fit(x, y)
    found = LeastSquaresMap(ridge=0.1).fit(x, y)
    np.testing.assert_allclose(found.weight_, peer.coef_.T, atol=1e-5)
    np.testing.assert_allclose(found.transform(x), peer.predict(x), atol=1e-4)
    plain = LeastSquaresMap(ridge=0.0, bias=False).fit(x, y)
    np.testing.assert_allclose(plain.weight_, np.linalg.lstsq(x, y, rcond=None)[0], atol=1e-5)
    assert (plain.bias_ == 0).all()


def test_automatic_ridge_leaves_out_each_row():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(30, 12))
    y = x @ rng.normal(size=(12, 3)) + 2 * rng.normal(size=(30, 3)) + 5

    def left_out(ridge):
        scale = ridge * np.trace((x - x.mean(0)).T @ (x - x.mean(0))) / 12
        rows = [np.arange(30) != i for i in range(30)]
        # the exact shortcut holds the mean of all rows fixed up to its leverage; refitting it here moves it alike
        return sum(float(((Ridge(alpha=scale).fit(x[r], y[r]).predict(x[~r]) - y[~r]) ** 2).sum()) for r in rows)

    found = LeastSquaresMap().fit(x, y)
    best = min((10.0**e for e in range(-6, 3)), key=left_out)
    assert found.ridge_ == best
    assert 1e-6 < best < 1e2
    np.testing.assert_allclose(found.transform(x), LeastSquaresMap(ridge=best).fit(x, y).transform(x), atol=1e-5)


def test_gradient_descent_approaches_it(data):
    x, y = (torch.from_numpy(part).float() for part in data)
    x = (x - x.mean(0)) / x.std(0)
    head = torch.nn.Linear(6, 4)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.1)
    best = LeastSquaresMap(ridge=0.0).fit(x.numpy(), y.numpy())
    floor = float(((torch.from_numpy(best.transform(x.numpy())) - y) ** 2).mean())
    for _ in range(400):
        optimizer.zero_grad()
        loss = ((head(x) - y) ** 2).mean()
        assert loss.item() >= floor - 1e-6
        loss.backward()
        optimizer.step()
    assert loss.item() == pytest.approx(floor, rel=1e-2)


def test_agreement_of_a_constant_is_no_agreement(data):
    _, y = data
    y = y + 50
    constant = np.broadcast_to(y.mean(0), y.shape)
    found = agreement(constant, y)
    assert found["cosine"] > 0.9
    assert found["r2"] == pytest.approx(0, abs=1e-6)
    assert agreement(y, y) == pytest.approx({"cosine": 1.0, "distance": 0.0, "r2": 1.0})


def test_rows_in_no_full_rank_and_bad_input(data):
    x, y = data
    wide = np.hstack([x, x[:, :2]])
    np.testing.assert_allclose(
        LeastSquaresMap(ridge=0.0).fit(wide, y).transform(wide),
        LeastSquaresMap(ridge=0.0).fit(x, y).transform(x),
        atol=1e-3,
    )
    with pytest.raises(NotFitted):
        LeastSquaresMap().transform(x)
    with pytest.raises(DimensionMismatch, match="as many targets"):
        LeastSquaresMap().fit(x, y[:3])
    with pytest.raises(InputError, match="ridge"):
        LeastSquaresMap(ridge=-1).fit(x, y)
    with pytest.raises(DimensionMismatch, match="one shape"):
        agreement(x, y)
