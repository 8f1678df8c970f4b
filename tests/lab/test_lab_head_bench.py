"""The bench of heads: what it reads, how it judges, and that four fine-tunes share one start."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from isometry.data.schemas import STS, Labelled
from isometry.errors import RecipeError
from isometry.lab import runner
from isometry.lab.head_bench import Classes, HeadBench, Rows, fit, four_fine_tunes, prepare, usual
from isometry.training.cross_encoder import Schedule
from isometry.training.students import apply_head


def classes(n=80, kinds=4, seed=0):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(kinds, 6))
    labels = np.arange(n) % kinds
    features = (centres[labels] + 0.5 * rng.normal(size=(n, 6))).astype(np.float32)
    cut = 3 * n // 4
    return Classes([f"t{i}" for i in range(cut)], features[:cut], labels[:cut], features[cut:], labels[cut:], cut)


def similar(n=40, seed=1):
    rng = np.random.default_rng(seed)
    left = rng.normal(size=(n, 6)).astype(np.float32)
    right = (left + 0.3 * rng.normal(size=(n, 6))).astype(np.float32)
    return Rows((left, right), ([f"l{i}" for i in range(n)], [f"r{i}" for i in range(n)]))


def graded(n=30):
    rows = similar(n, seed=2)
    return (*rows.columns, np.random.default_rng(3).random(n))


@pytest.mark.parametrize("chosen", [None, [0, 2]])
def test_pairs_of_classes(chosen):
    data = classes()
    rows = data.rows(0, chosen)
    wanted = {i for i, label in enumerate(data.labels) if chosen is None or label in chosen}
    assert sorted(rows.texts[0]) == sorted(f"t{i}" for i in wanted)  # every text once as an anchor, once as a partner
    assert sorted(rows.texts[1]) == sorted(rows.texts[0])
    for a, b, label in zip(*rows.texts, rows.labels, strict=True):
        assert a != b
        assert data.labels[int(a[1:])] == data.labels[int(b[1:])] == label
    np.testing.assert_array_equal(rows.columns[0], data.features[[int(t[1:]) for t in rows.texts[0]]])
    few = data.only(2)
    assert set(few.labels) == set(few.test_labels) == {0, 1}
    assert len(few.texts) == len(few.features) == len(few.labels)


def test_judging():
    bench = HeadBench(similar(), graded(), classes())
    head = bench.head(0)
    left, right = (apply_head(head, side) for side in bench.graded[:2])
    found = bench.judge(head)
    assert found["similarity"] == pytest.approx(spearmanr((left * right).sum(1), bench.graded[2]).statistic)
    queries, pool = (apply_head(head, side) for side in (bench.classes.test, bench.classes.features))
    nearest = np.argsort(-(queries @ pool.T), axis=1)[:, :10]
    expected = (bench.classes.labels[nearest] == bench.classes.test_labels[:, None]).mean()
    assert found["classes"] == pytest.approx(expected)
    assert bench.tasks == list(found) == ["similarity", "classes"]


def test_fine_tunes_share_a_start_and_differ():
    bench = HeadBench(similar(), graded(), classes())
    start, copies = four_fine_tunes(bench, 1, start=5, tune=5, batch=8)
    again, _ = four_fine_tunes(bench, 1, start=5, tune=5, batch=8)
    for one, other in zip(start.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
    assert len(copies) == 4
    vectors = [apply_head(head, bench.classes.test) for head in (start, *copies)]
    assert all(np.abs(a - b).max() > 1e-4 for i, a in enumerate(vectors) for b in vectors[:i])
    for only in (HeadBench(similar(), graded(), None), HeadBench(None, None, classes())):
        assert len(four_fine_tunes(only, 0, start=2, tune=2, batch=8)[1]) == 4
        assert only.judge(only.head(0)).keys() == set(only.tasks)


def test_training_lowers_the_loss():
    rows = classes().rows(0)
    bench = HeadBench(None, None, classes())
    head = bench.head(0)
    batch = list(range(len(rows)))
    before = rows.loss(head, usual(rows), batch).item()
    fit(head, [rows], usual, Schedule(40, 16, 1e-3))
    assert rows.loss(head, usual(rows), batch).item() < before


@pytest.fixture
def lab(monkeypatch, tmp_path, minilm):
    lab = runner.lab_for("llama-embed-nemotron", "smoke", user_data=tmp_path)
    monkeypatch.setattr(lab, "encoder", lambda: minilm)
    return lab


def refuse(*_):
    raise RecipeError("not of this kind")


def test_user_data_of_either_kind(lab, monkeypatch):
    words = ["sea", "tide", "wave", "oven", "bread", "yeast", "court", "judge", "oath"]
    n = 60
    texts = [f"{words[i % 9]} number {i}" for i in range(n)]
    scored = STS(texts, [t.replace("number", "no") for t in texts], np.linspace(0, 5, n))
    monkeypatch.setattr(lab, "sts", lambda *_: STS(scored.left * 3, scored.right * 3, np.tile(scored.scores, 3)))
    bench = prepare(lab)
    assert bench.tasks == ["similarity"]
    assert len(bench.graded[2]) == 54
    monkeypatch.setattr(lab, "sts", lambda *_: scored)
    with pytest.raises(RecipeError, match="needs 16 similar pairs"):
        prepare(lab)
    monkeypatch.setattr(lab, "sts", refuse)
    monkeypatch.setattr(lab, "labelled", lambda *_: Labelled(texts, [str(i % 3) for i in range(n)]))
    bench = prepare(lab)
    assert bench.tasks == ["classes"]
    assert (len(bench.classes.texts), len(bench.classes.test)) == (42, 18)
    monkeypatch.setattr(lab, "labelled", lambda *_: Labelled(texts, ["one"] * n))
    with pytest.raises(RecipeError, match="two classes"):
        prepare(lab)
