"""Shrinking a collection: what is measured, what is recommended, what is refused; and the command over it."""

import numpy as np
import pytest

from isometry.codes import RotatedCode
from isometry.errors import EmptyInput, InputError
from isometry.store import Collection
from isometry.types import Document, Embeddings, Space, id_array
from isometry.workbench.shrinking import candidates, parse_size, try_codes

SPACE = Space("toy", 128)


@pytest.fixture
def collection(tmp_path):
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((30, 128))
    x = centres[rng.integers(30, size=1500)] + 0.8 * rng.standard_normal((1500, 128))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    with Collection.create(tmp_path / "c", SPACE) as made:
        items = [Document(f"d{i}", f"text {i}") for i in range(1500)]
        made.upsert(items, Embeddings(x.astype(np.float32), id_array(d.id for d in items), SPACE))
        yield made


def test_trials_say_what_the_codes_do(collection):
    found = try_codes(collection, candidates(128))
    exact, *trials = found.trials
    assert (exact.recall, exact.rescored, exact.total_bytes) == (1.0, 1.0, 1500 * 512)
    assert found.queries == 200
    assert not found.judged
    by_name = {t.name: t for t in trials}
    bits = [by_name[name] for name in ("1 bit", "2 bits", "4 bits", "8 bits")]
    assert [t.recall for t in bits] == sorted(t.recall for t in bits)
    assert [t.total_bytes for t in bits] == sorted(t.total_bytes for t in bits)
    for trial in trials:
        assert trial.code.code_bytes * 1500 <= trial.total_bytes
        assert trial.recall <= trial.rescored + 1e-9
        low, high = trial.rescored_ci95
        assert low <= trial.rescored <= high
        assert "code" not in trial.to_dict()
    best = found.recommended
    assert best.rescored >= 0.99
    assert all(t.total_bytes >= best.total_bytes for t in trials if t.rescored >= 0.99)


def test_a_budget_keeps_what_fits(collection):
    found = try_codes(collection, candidates(128), budget=200_000)
    assert all(t.total_bytes <= 200_000 for t in found.trials[1:])
    with pytest.raises(InputError, match=r"smallest of these codes \(1 bit\)"):
        try_codes(collection, candidates(128), budget=1400)


def test_judged_queries_give_ndcg_with_intervals(collection):
    class Encoder:
        space = SPACE

        def encode_query(self, texts):
            return collection.embeddings(ids=[t.removeprefix("like ") for t in texts]).vectors

    qrels = {f"q{i}": {f"d{i}": 1} for i in range(40)}
    collection.set_meta(
        {"judgments": {"name": "t", "queries": {f"q{i}": f"like d{i}" for i in range(40)}, "qrels": qrels}}
    )
    found = try_codes(collection, candidates(128, bits=4), encoder=Encoder(), sample=1000)
    assert (found.judged, found.queries, found.sample) == (True, 40, 1000)
    assert found.trials[1].ndcg == pytest.approx(1, abs=0.01)
    assert found.trials[1].ndcg_loss == pytest.approx(0, abs=0.01)


def test_what_is_asked_for_is_tried_and_what_does_not_fit_refused():
    assert list(candidates(64, bits=4, dims=16)) == ["4 bits", "16 dimensions, 8 bits"]
    for bad, word in (
        ({"bits": 3}, "--bits"),
        ({"parts": 7}, "--pq"),
        ({"dims": 65}, "--dims"),
        ({"dims": 0}, "--dims"),
    ):
        with pytest.raises(InputError, match=word):
            candidates(64, **bad)


def test_sizes():
    assert [parse_size(t) for t in ("200MB", "1 GiB", "0.5kb", "7")] == [200_000_000, 2**30, 500, 7]
    for bad in ("", "MB", "-3MB", "0", "3 bananas"):
        with pytest.raises(InputError, match="size"):
            parse_size(bad)


def test_too_few_documents(tmp_path):
    with Collection.create(tmp_path / "few", SPACE) as few, pytest.raises(EmptyInput, match="at least 400"):
        try_codes(few, {"4 bits": RotatedCode(4)})
