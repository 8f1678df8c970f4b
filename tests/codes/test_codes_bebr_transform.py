"""The learned binary code: bytes, determinism, identity, backward compatibility."""

import numpy as np
import pytest
import torch

from isometry.codes import Code, RecurrentBinaryCode
from isometry.codes.distances import METHODS, plane_dots
from isometry.codes.recurrent_binary import CodeSearch, Training
from isometry.errors import CorruptStore, InputError, SpaceMismatch

QUICK = Training(epochs=1, batch=64)


@pytest.fixture(scope="module")
def x():
    rng = np.random.default_rng(0)
    z = rng.standard_normal((700, 10)) @ rng.standard_normal((10, 32)) + 0.5 * rng.standard_normal((700, 32))
    return (z / np.linalg.norm(z, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def code(x):
    return RecurrentBinaryCode(64, 1, training=QUICK).fit(x)


@pytest.mark.parametrize("rounds", [0, 1, 2, 3])
def test_memory_and_lossless_packing(x, rounds):
    code = RecurrentBinaryCode(40, rounds, training=Training(epochs=0), hidden=16).fit(x[:100])
    codes = code.transform(x)
    assert codes.nbytes == 700 * 40 * (rounds + 1) / 8 + 4 * 700
    with torch.no_grad():
        b = code.network_(torch.from_numpy(x)).numpy()
    assert (code.values(codes) != b).mean() < 1e-3  # all but products that round to the other side of zero
    norms = 1 / codes[:, -4:].copy().view("<f4").ravel()
    np.testing.assert_allclose(norms, np.linalg.norm(code.values(codes), axis=1), rtol=1e-6)


def test_codes_do_not_depend_on_the_batch(x, code):
    codes = code.transform(x)
    order = np.random.default_rng(1).permutation(len(x))
    np.testing.assert_array_equal(code.transform(x[order]), codes[order])
    np.testing.assert_array_equal(np.vstack([code.transform(row[None]) for row in x[:100]]), codes[:100])
    np.testing.assert_array_equal(code.transform(x[3:130]), codes[3:130])
    np.testing.assert_array_equal(code.transform(4 * x), codes)  # directions only; a power of two rounds nothing


def test_symmetric_scores_are_cosines_by_every_method(x, code):
    a, b = code.transform(x[:20]), code.transform(x[20:300])
    left, right = code.values(a).astype(np.float64), code.values(b).astype(np.float64)
    exact = (left @ right.T) / np.linalg.norm(left, axis=1)[:, None] / np.linalg.norm(right, axis=1)
    np.testing.assert_allclose(code.score_codes(a, b), exact, atol=1e-6)
    for method in METHODS:
        dots = plane_dots(a[:, :-4], b[:, :-4], 1, method)
        np.testing.assert_array_equal(dots, (left @ right.T).astype(np.float32))


def test_raw_products_rank_otherwise_than_cosines(x, code):
    codes = code.transform(x)
    cosines, raw = code.score_codes(codes[:50], codes), plane_dots(codes[:50, :-4], codes[:, :-4], 1)
    differ = np.argsort(-cosines, kind="stable")[:, :10] != np.argsort(-raw, kind="stable")[:, :10]
    assert differ.mean() > 0.05
    flat = RecurrentBinaryCode(64, 0, training=Training(epochs=0)).fit(x)
    lengths = np.linalg.norm(flat.values(flat.transform(x)), axis=1)
    np.testing.assert_allclose(lengths, 8.0)  # without rounds every code is as long


def test_rows_without_direction_are_named(x, code):
    broken = x[:9].copy()
    broken[[2, 5]] = 0
    with pytest.raises(InputError, match=r"2 zero rows \(\[2, 5\]\)"):
        code.transform(broken)
    with pytest.raises(InputError, match="zero rows"):
        RecurrentBinaryCode(32, training=QUICK).fit(broken)


def test_new_codes_search_an_old_index(x, tmp_path):
    turn = np.linalg.qr(np.random.default_rng(5).standard_normal((32, 32)))[0].astype(np.float32)
    moved = x @ turn  # the new model's space: the same vectors, turned
    train, base = slice(0, 500), slice(500, 700)
    old = RecurrentBinaryCode(64, 1, training=QUICK, seed=1).fit(x[train])
    settings = Training(epochs=30, batch=64, lr=2e-3)
    new = RecurrentBinaryCode(64, 1, training=settings).fit_pairs(moved[train], old=old, old_documents=x[train])
    alone = RecurrentBinaryCode(64, 1, training=settings).fit(moved[train])
    codes = old.transform(x[base])
    index = CodeSearch().add(old, codes)

    def found(code):
        return (code.score_codes(code.transform(moved[base]), codes).argmax(axis=1) == np.arange(200)).mean()

    assert found(alone) < 0.05
    assert found(new) > 0.5
    np.testing.assert_array_equal(index.search(new, new.transform(moved[base]), 1)[0].ravel(),
                                  new.score_codes(new.transform(moved[base]), codes).argmax(axis=1))  # fmt: skip
    with pytest.raises(SpaceMismatch, match="does not declare itself compatible"):
        index.search(alone, alone.transform(moved[base]), 1)
    new.save(tmp_path / "new.safetensors")
    again = Code.load(tmp_path / "new.safetensors")
    assert again.accepts(old.fingerprint)
    assert again.fingerprint == new.fingerprint
    assert not old.accepts(new.fingerprint)
    assert not again.accepts(alone.fingerprint)


def test_bad_compatibility(x, code):
    other = RecurrentBinaryCode(32, 1, training=QUICK)
    with pytest.raises(SpaceMismatch, match="64 bits and 1 rounds"):
        other.fit_pairs(x, old=code, old_documents=x)
    with pytest.raises(InputError, match="only one was given"):
        other.fit_pairs(x, old=code)
    with pytest.raises(InputError, match="as many of every kind"):
        RecurrentBinaryCode(64, 1, training=QUICK).fit_pairs(x, old=code, old_documents=x[:9])
    with pytest.raises(InputError, match="multiple of 8"):
        RecurrentBinaryCode(20)
    with pytest.raises(InputError, match="objective"):
        RecurrentBinaryCode(training={"objective": "luck"})


def test_a_file_of_another_network_is_broken(code, tmp_path):
    from safetensors.numpy import load_file, save_file

    path = tmp_path / "code.safetensors"
    code.save(path)
    arrays = load_file(path)
    import json

    header = json.dumps(code.header() | {"dim": 31})
    save_file(arrays, path, metadata={"isometry.code": header})
    with pytest.raises(CorruptStore, match="weights where the network has"):
        Code.load(path)
