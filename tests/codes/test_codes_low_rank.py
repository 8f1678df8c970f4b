"""Low-rank codes: the closed-form error, and codes inside them."""

import numpy as np
import pytest
from sklearn.decomposition import PCA

from isometry.codes import BinaryCode, LowRankCode, ScalarCode
from isometry.errors import InputError

X = (np.random.default_rng(4).standard_normal((200, 20)) * np.linspace(3, 0.1, 20) + 0.5).astype(np.float32)


@pytest.mark.parametrize("rank", [1, 5, 19, 20])
def test_error_is_the_sum_of_the_dropped_squares(rank):
    code = LowRankCode(rank).fit(X)
    error = np.sum((code.inverse_transform(code.transform(X)).astype(np.float64) - X) ** 2)
    sigma = np.linalg.svd(X.astype(np.float64), compute_uv=False)
    np.testing.assert_allclose(error, np.sum(sigma[rank:] ** 2), rtol=1e-4, atol=1e-6)


def test_centred_is_pca():
    code = LowRankCode(6, center=True).fit(X)
    peer = PCA(6).fit(X)
    np.testing.assert_allclose(
        code.inverse_transform(code.transform(X)), peer.inverse_transform(peer.transform(X)), atol=1e-4
    )


def test_codes_inside():
    plain, coded = LowRankCode(8, center=True).fit(X), LowRankCode(8, ScalarCode(8), center=True).fit(X)
    assert (plain.code_bytes, coded.code_bytes) == (32, 8)
    gap = plain.inverse_transform(plain.transform(X)) - coded.inverse_transform(coded.transform(X))
    assert np.abs(gap).max() < 0.3
    signs = LowRankCode(16, BinaryCode(), center=True).fit(X)
    assert signs.code_bytes == 2
    assert signs.overhead_bytes == signs.inner.overhead_bytes + 4 * 20 + 4 * 20 * 16


def test_bad_parameters():
    with pytest.raises(InputError, match="at least 1"):
        LowRankCode(0)
    with pytest.raises(InputError, match="rank 21 exceeds"):
        LowRankCode(21).fit(X)
    with pytest.raises(InputError, match="rank 5 exceeds"):
        LowRankCode(5).fit(X[:4])
