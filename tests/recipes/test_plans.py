"""Every technique that tunes a model works on every kind of rows, or says in one sentence why it does not."""

from __future__ import annotations

import copy
from functools import cache

import pytest
import torch

from isometry.errors import InputError
from isometry.training import Tuning
from isometry.training.collate import keep_texts
from isometry.training.fine_tuning import Settings, fine_tune
from isometry.training.rows import Rows
from isometry.training.tuning import ROW_KINDS
from isometry.workbench.tuning import plan_of, techniques
from small_models import ANIMALS, WORDS, save_small_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_small_model(tmp_path_factory.mktemp("model") / "small", layers=3)


@cache
def _rows(kind: str, n: int = 32) -> Rows:
    left = [f"the {WORDS[i % 10]} {ANIMALS[i % 8]} number {i}" for i in range(n)]
    right = [f"a {ANIMALS[i % 8]} {i} was seen near the gate" for i in range(n)]
    far = [f"the {ANIMALS[(i + 3) % 8]} of number {i + 40}" for i in range(n)]
    labels = {"labelled": [float(i % 8) for i in range(n)], "sts": [i % 6 / 5 for i in range(n)]}
    return Rows(kind, (left, right, far) if kind == "triplets" else (left, right), labels.get(kind))


def _model(folder):
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu")


@pytest.mark.parametrize("slug", techniques())
def test_plan_fits_or_says_why_not(slug, folder, tmp_path):
    used, refused = [], []
    for kind in ROW_KINDS:
        model = _model(folder)
        start = copy.deepcopy(model).eval().requires_grad_(False)
        before = {name: tensor.clone() for name, tensor in start.state_dict().items()}
        try:
            plan = plan_of(slug)(Tuning(model, start, kind, seed=1))
        except InputError as error:
            refused.append(str(error))
            continue
        used.append(kind)
        rows, batch = _rows(kind), list(range(16))
        model.train()
        features = [keep_texts(model.preprocess)([column[r] for r in batch]) for column in rows.columns]
        labels = None
        if rows.labels is not None:
            labels = torch.tensor([rows.labels[r] for r in batch])
            labels = labels.long() if kind == "labelled" else labels
        loss = plan.loss(features, labels)
        assert loss.ndim == 0
        assert torch.isfinite(loss)
        loss.backward()
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
        assert all(torch.equal(before[name], tensor) for name, tensor in start.state_dict().items())
    assert used, "the technique fits nothing"
    assert all(sentence.endswith(".") for sentence in refused)
    model = _model(folder)
    start = copy.deepcopy(model).eval().requires_grad_(False)
    plan = plan_of(slug)(Tuning(model, start, used[0]))
    settings = Settings(steps=2, batch_size=16, lr=1e-4, checkpoints=1)
    history = fine_tune(model, _rows(used[0]), plan.loss, settings, folder=tmp_path, same_class=plan.same_class_batches)
    assert len(history.losses) == 2
