"""Search over learned codes: flat scan, inverted lists, rerank, refusals."""

import numpy as np
import pytest

from isometry.codes import RecurrentBinaryCode
from isometry.codes.recurrent_binary import CodeSearch, Training, search
from isometry.errors import DimensionMismatch, EmptyInput, InputError, SpaceMismatch

UNTRAINED = Training(epochs=0)


@pytest.fixture(scope="module")
def x():
    rng = np.random.default_rng(0)
    z = rng.standard_normal((900, 8)) @ rng.standard_normal((8, 32)) + 0.7 * rng.standard_normal((900, 32))
    return (z / np.linalg.norm(z, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def code(x):
    return RecurrentBinaryCode(32, 1, training=UNTRAINED).fit(x)


@pytest.fixture(scope="module")
def index(x, code):
    return CodeSearch().add(code, code.transform(x))


def brute_force(code, queries, codes, k):
    scores = code.score_codes(queries, codes)
    rows = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return rows, np.take_along_axis(scores, rows, axis=1)


@pytest.mark.parametrize("block", [64, 16384])
@pytest.mark.parametrize("k", [1, 10, 900, 2000])
def test_flat_search_is_brute_force(x, code, index, monkeypatch, block, k):
    monkeypatch.setattr(search, "_ROWS", block)
    queries = code.transform(x[:30])
    rows, scores = index.search(code, queries, k)
    expected = brute_force(code, queries, index.codes, k)
    np.testing.assert_array_equal(rows, expected[0])
    np.testing.assert_array_equal(scores, expected[1])


def test_all_lists_are_the_flat_search(x, code, index):
    queries = code.transform(x[:25])
    index.build_lists(code, 12)
    flat, probed = index.search(code, queries, 10), index.search(code, queries, 10, probes=12)
    np.testing.assert_array_equal(flat[0], probed[0])
    np.testing.assert_allclose(flat[1], probed[1], rtol=1e-6)
    shares = [
        np.mean([len(set(a) & set(b)) / 10 for a, b in zip(flat[0], index.search(code, queries, 10, probes=p)[0])])  # noqa: B905
        for p in (1, 3, 12)
    ]
    assert shares == sorted(shares)
    assert shares[0] > 0.15
    few = index.search(code, queries, 800, probes=1)
    assert (few[0] == -1).any()
    assert np.isneginf(few[1][few[0] == -1]).all()


def test_rerank_is_exact_on_a_full_shortlist_and_better_on_a_short_one(x, code, index):
    queries = code.transform(x[:40])
    best = np.argsort(-(x[:40] @ x.T), axis=1, kind="stable")[:, :10]

    def recall(**options):
        rows, _ = index.search(code, queries, 10, **options)
        return np.mean([len(set(a) & set(b)) / 10 for a, b in zip(best, rows, strict=True)])

    assert recall(rerank=(x[:40], x), shortlist=900) == 1.0
    assert 1.0 > recall(rerank=(x[:40], x), shortlist=40) > recall()


def test_refresh_step_by_step(x, code):
    new = RecurrentBinaryCode(32, 1, training=Training(epochs=1, batch=64), seed=3)
    new.fit_pairs(x, old=code, old_documents=x)
    index = CodeSearch().add(code, code.transform(x))
    mixed = index.replace(new, slice(0, 400), new.transform(x[:400]))
    assert mixed.encoders == {code.fingerprint: 500, new.fingerprint: 400}
    np.testing.assert_array_equal(mixed.codes[400:], index.codes[400:])
    with pytest.raises(SpaceMismatch):
        mixed.search(code, code.transform(x[:2]), 3)  # old queries do not know the new codes
    whole = mixed.replace(new, slice(400, 900), new.transform(x[400:]))
    assert whole.encoders == {new.fingerprint: 900}
    np.testing.assert_array_equal(whole.codes, new.transform(x))
    both = CodeSearch().add(code, code.transform(x[:5])).add(new, new.transform(x[5:9]))
    assert len(both) == 9


def test_refusals(x, code, index):
    stranger = RecurrentBinaryCode(32, 1, training=UNTRAINED, seed=9).fit(x)
    wide = RecurrentBinaryCode(64, 0, training=UNTRAINED).fit(x)  # as many bytes, other bits and rounds
    for other in (stranger, wide):
        with pytest.raises(SpaceMismatch, match="does not declare"):
            CodeSearch().add(code, index.codes).add(other, other.transform(x))
        with pytest.raises(SpaceMismatch, match="compatible"):
            index.search(other, other.transform(x[:1]), 1)
        with pytest.raises(SpaceMismatch, match="does not declare"):
            index.replace(other, slice(0, 5), other.transform(x[:5]))


def test_bad_input(x, code, index):
    with pytest.raises(EmptyInput):
        CodeSearch().search(code, code.transform(x[:1]), 1)
    with pytest.raises(EmptyInput):
        index.search(code, code.transform(x[:1]), 0)
    with pytest.raises(InputError, match="inverted lists"):
        CodeSearch().add(code, index.codes).search(code, code.transform(x[:1]), 1, probes=2)
    with pytest.raises(InputError, match="lists must be"):
        CodeSearch().add(code, index.codes[:5]).build_lists(code, 6)
    with pytest.raises(DimensionMismatch):
        index.search(code, np.zeros((1, 3), np.uint8), 1)
    with pytest.raises(DimensionMismatch, match="1 queries and 900 rows"):
        index.search(code, code.transform(x[:1]), 1, rerank=(x[:1], x[:9]))
