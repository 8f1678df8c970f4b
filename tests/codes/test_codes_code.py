"""What every code promises, checked on each of them."""

import numpy as np
import pytest

from isometry.codes import BinaryCode, Code, LowRankCode, ProductCode, RecurrentBinaryCode, ScalarCode
from isometry.codes.recurrent_binary import Training
from isometry.errors import CorruptStore, DimensionMismatch, EmptyInput, InputError, NotFitted
from isometry.types import Space

CODES = {
    "int8 rows": lambda: ScalarCode(8, ranges="row"),
    "int4": lambda: ScalarCode(4),
    "int2": lambda: ScalarCode(2),
    "int1": lambda: ScalarCode(1),
    "sign": BinaryCode,
    "rotated": lambda: BinaryCode(72, rotation="random"),
    "itq": lambda: BinaryCode(16, rotation="itq"),
    "pq8": lambda: ProductCode(4),
    "pq4": lambda: ProductCode(3, bits=4),
    "opq": lambda: ProductCode(4, bits=4, rotation="opq", iterations=3),
    "svd": lambda: LowRankCode(5),
    "pca int4": lambda: LowRankCode(6, ScalarCode(4), center=True),
    "pca pq": lambda: LowRankCode(6, ProductCode(2, bits=4), center=True),
    "bebr": lambda: RecurrentBinaryCode(32, training=Training(epochs=1, batch=64)),
}
pytestmark = pytest.mark.parametrize("make", CODES.values(), ids=CODES)


@pytest.fixture(scope="module")
def x():
    rng = np.random.default_rng(0)
    z = rng.standard_normal((400, 24)) * np.linspace(2, 0.3, 24)
    return (z / np.linalg.norm(z, axis=1, keepdims=True)).astype(np.float32)


def test_contract(make, x):
    code = make().fit(x)
    codes = code.transform(x[:50])
    assert codes.dtype == np.uint8
    assert codes.shape == (50, code.code_bytes)
    decoded = code.inverse_transform(codes)
    assert decoded.dtype == np.float32
    assert decoded.shape == (50, 24)
    np.testing.assert_allclose(code.norms(codes), np.linalg.norm(decoded, axis=1), rtol=1e-5)
    np.testing.assert_allclose(code.score(x[:7], codes), x[:7] @ decoded.T, atol=1e-5)
    one_by_one = np.vstack([code.transform(row[None]) for row in x[:50]])
    assert (np.unpackbits(one_by_one) != np.unpackbits(codes)).mean() < 1e-3  # products of other shapes round otherwise
    assert code.transform(x[:0]).shape == (0, code.code_bytes)
    assert np.mean((decoded - x[:50]) ** 2) < np.mean(x[:50] ** 2)  # nearer than the zero vector


def test_file_and_fingerprint(make, x, tmp_path):
    code = make().fit(x)
    code.save(tmp_path / "code.safetensors")
    again = Code.load(tmp_path / "code.safetensors")
    assert type(again) is type(code)
    assert again.fingerprint == code.fingerprint
    assert again.overhead_bytes == code.overhead_bytes
    codes = code.transform(x)
    np.testing.assert_array_equal(again.transform(x), codes)
    np.testing.assert_array_equal(again.inverse_transform(codes), code.inverse_transform(codes))
    assert make().fit(x).fingerprint == code.fingerprint  # deterministic
    assert make().fit(x[:300] + np.float32(0.01)).fingerprint != code.fingerprint or isinstance(code, ScalarCode)
    assert Space("m", 24).then(code.fingerprint).chain == (code.fingerprint,)


def test_bad_input(make, x):
    with pytest.raises(NotFitted, match="not fitted yet"):
        make().transform(x)
    with pytest.raises(EmptyInput, match="needs training vectors"):
        make().fit(x[:0])
    code = make().fit(x)
    codes = code.transform(x[:3])
    with pytest.raises(DimensionMismatch, match="24 wide"):
        code.transform(x[:, :5])
    with pytest.raises(DimensionMismatch, match="24 wide"):
        code.score(x[:, :5], codes)
    with pytest.raises(DimensionMismatch, match="must be uint8"):
        code.inverse_transform(np.zeros((3, code.code_bytes + 1), np.uint8))
    with pytest.raises(DimensionMismatch, match="must be uint8"):
        code.score(x, codes.astype(np.int64))
    broken = x[:5].copy()
    broken[2, 1] = np.nan
    with pytest.raises(DimensionMismatch, match="row 2"):
        code.transform(broken)
    with pytest.raises(DimensionMismatch, match="row 2"):
        make().fit(broken)


def test_broken_files(make, x, tmp_path):
    path = tmp_path / "code.safetensors"
    code = make().fit(x)
    code.save(path)
    other = BinaryCode if not isinstance(code, BinaryCode) else ScalarCode
    with pytest.raises(InputError, match=r"load it with Code\.load"):
        other.load(path)
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(CorruptStore, match="broken"):
        Code.load(path)


def test_products_that_leave_float32_are_refused(make, x):
    code = make().fit(x)
    codes = code.transform(x[:3])
    for attempt in (
        lambda: make().fit(x * 1e20),
        lambda: code.transform(x * 1e20),
        lambda: code.score(x * 1e20, codes),
    ):
        with pytest.raises(InputError, match="scale them down"):
            attempt()
    with pytest.raises(InputError, match="scale them up"):
        make().fit(x * 1e-30)
