"""Sign codes: Hamming against faiss, the angle law, ITQ's descent."""

import faiss
import numpy as np
import pytest

from isometry.codes import BinaryCode
from isometry.codes.distances import hamming
from isometry.errors import InputError


@pytest.fixture(scope="module")
def x():
    z = np.random.default_rng(3).standard_normal((600, 48)) * np.linspace(2, 0.2, 48)
    return (z / np.linalg.norm(z, axis=1, keepdims=True)).astype(np.float32)


def test_hamming_is_that_of_faiss(x):
    code = BinaryCode(96, rotation="random").fit(x)
    codes = code.transform(x)
    index = faiss.IndexBinaryFlat(96)
    index.add(codes)
    distances, _ = index.search(codes[:20], 600)
    np.testing.assert_array_equal(np.sort(hamming(codes[:20], codes), axis=1), distances)


def test_signs_are_those_of_the_centred_vectors(x):
    code = BinaryCode().fit(x)
    expected = np.packbits(x - x.mean(axis=0) >= 0, axis=1, bitorder="little")
    np.testing.assert_array_equal(code.transform(x), expected)
    raw = BinaryCode(center=False).fit(x)
    np.testing.assert_array_equal(raw.transform(x), np.packbits(x >= 0, axis=1, bitorder="little"))
    assert raw.transform(np.zeros((1, 48))).tolist() == [[255] * 6]  # sgn(0) is +1


def test_share_of_differing_bits_is_the_angle(x):
    code = BinaryCode(48 * 40, rotation="random", center=False, seed=5).fit(x)
    codes = code.transform(x[:60])
    angle = np.arccos(np.clip(x[:60] @ x[:60].T, -1, 1)) / np.pi
    share = hamming(codes, codes) / code.width
    assert np.abs(share - angle).max() < 5 * 0.5 / np.sqrt(code.width)


def test_rotation_blocks_are_orthogonal():
    code = BinaryCode(20, rotation="random").fit(np.eye(8, dtype=np.float32))
    for start in (0, 8):
        block = code.rotation_[:, start : start + 8]
        np.testing.assert_allclose(block.T @ block, np.eye(8), atol=1e-6)


def test_reconstruction_length_is_least_squares(x):
    code = BinaryCode().fit(x)
    error = float(np.sum((x - code.inverse_transform(code.transform(x))) ** 2))
    for factor in (0.95, 1.05):
        other = BinaryCode().fit(x)
        other.length_ = code.length_ * np.float32(factor)
        assert np.sum((x - other.inverse_transform(other.transform(x))) ** 2) > error


def test_learned_rotation_reconstructs_better_than_principal_axes(x):
    itq = BinaryCode(32, rotation="itq").fit(x)
    assert np.abs(itq.rotation_.T @ itq.rotation_ - np.eye(32)).max() < 1e-4
    _, axes = np.linalg.eigh(np.cov(x.T))
    z = (x - x.mean(axis=0)) @ axes[:, ::-1][:, :32]
    signs = np.sign(z)
    plain = np.sum((z - signs * (z * signs).sum() / signs.size) ** 2)
    w = (x - itq.mean_) @ itq.rotation_
    learned = np.sum((w - np.sign(w) * np.abs(w).sum() / w.size) ** 2)
    assert learned < plain


def test_bad_parameters(x):
    with pytest.raises(InputError, match="at least one byte"):
        BinaryCode(7)
    with pytest.raises(InputError, match="at least one byte"):
        BinaryCode().fit(x[:, :7])
    with pytest.raises(InputError, match="need rotation='random'"):
        BinaryCode(64).fit(x)
    with pytest.raises(InputError, match="'none', 'random' or 'itq'"):
        BinaryCode(rotation="pca")
