"""Fine-tuning: resumed exactly, stopped before harm is kept, and every bad row named."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from isometry.errors import EmptyInput, InputError
from isometry.training import default_loss
from isometry.training.feeds import RowFeed, digest, passes
from isometry.training.fine_tuning import (
    Settings,
    TrainingDiverged,
    clear_checkpoints,
    fine_tune,
    seconds_per_step,
    train_encoder,
)
from isometry.training.rows import Rows, batches, distinct, labelled_rows
from small_models import ANIMALS, WORDS, save_small_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_small_model(tmp_path_factory.mktemp("model") / "small")


@pytest.fixture
def model(folder):
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu")


def _rows(n: int = 64) -> Rows:
    things = [f"{WORDS[i % 10]} {ANIMALS[i % 8]} number {i}" for i in range(n)]
    return Rows("pairs", ([f"the {t}" for t in things], [f"a {t} near the gate" for t in things]))


SETTINGS = Settings(steps=8, batch_size=8, lr=1e-3, checkpoints=4)


class _Killed(Exception):
    pass


def test_resumed_run_equals_uninterrupted_one(folder, tmp_path):
    from sentence_transformers import SentenceTransformer

    def run(where, progress=None):
        model = SentenceTransformer(str(folder), device="cpu")
        return model, fine_tune(model, _rows(), default_loss(model, "pairs"), SETTINGS, folder=where, progress=progress)

    def killer(done, total):
        if done == 5:
            raise _Killed

    whole, expected = run(tmp_path / "a")
    with pytest.raises(_Killed):
        run(tmp_path / "b", killer)
    again, found = run(tmp_path / "b")
    assert found.resumed_at == 4
    assert found.losses == pytest.approx(expected.losses, abs=1e-6)
    for a, b in zip(whole.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_what_a_loss_learns_is_kept_and_comes_back(folder, tmp_path):
    from sentence_transformers import SentenceTransformer

    from isometry.objectives import InfoNCE

    def run(where, progress=None):
        model = SentenceTransformer(str(folder), device="cpu")
        loss = InfoNCE(model, temperature=0.1, learn=True)
        (own,) = [p for name, p in loss.named_parameters() if not name.startswith("model.")]
        start = own.item()
        fine_tune(model, _rows(), loss, SETTINGS, folder=where, progress=progress)
        return start, own.item()

    def killer(done, total):
        if done == 5:
            raise _Killed

    start, expected = run(tmp_path / "a")
    assert expected != start
    with pytest.raises(_Killed):
        run(tmp_path / "b", killer)
    assert run(tmp_path / "b") == (start, pytest.approx(expected, abs=1e-6))


def test_training_leaves_everyone_elses_random_numbers_alone(model, tmp_path):
    import random

    import numpy as np

    def drawn():
        return random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002

    random.seed(1), np.random.seed(1), torch.manual_seed(1)  # noqa: NPY002
    expected = drawn()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)  # noqa: NPY002
    fine_tune(model, _rows(), default_loss(model, "pairs"), SETTINGS, folder=tmp_path)
    assert drawn() == expected


def test_without_a_folder_the_same_is_learned_and_nothing_is_kept(folder, tmp_path, monkeypatch):
    from sentence_transformers import SentenceTransformer

    monkeypatch.chdir(tmp_path)
    found = []
    for place in (tmp_path / "kept", None):
        model = SentenceTransformer(str(folder), device="cpu")
        feed = RowFeed(_rows(), SETTINGS.steps, SETTINGS.batch_size)
        found.append(train_encoder(model, feed, default_loss(model, "pairs"), SETTINGS, folder=place).losses)
    assert found[0] == found[1]
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    with pytest.raises(InputError, match="A judge needs a folder"):
        train_encoder(model, feed, default_loss(model, "pairs"), SETTINGS, judge=lambda _: 0.0)


def test_length_aware_batches_train_the_same_model(folder, tmp_path):
    """Dropout off, the parts change nothing but rounding."""
    from sentence_transformers import SentenceTransformer

    found = []
    for aware in (True, False):
        model = SentenceTransformer(str(folder), device="cpu")
        for part in model.modules():
            if isinstance(part, nn.Dropout):
                part.p = 0.0
        settings = Settings(steps=6, batch_size=16, lr=1e-3, length_aware=aware)
        mixed = Rows("pairs", (_rows().columns[0], [t * (1 + i % 5) for i, t in enumerate(_rows().columns[1])]))
        found.append(fine_tune(model, mixed, default_loss(model, "pairs"), settings, folder=tmp_path / str(aware)))
    assert found[0].losses == pytest.approx(found[1].losses, rel=1e-4)


def test_best_state_is_kept(model, tmp_path):
    seen = []

    def judge(model) -> float:
        seen.append(model[0].auto_model.embeddings.word_embeddings.weight.detach().clone())
        return -float(len(seen))  # the first state is the best

    history = fine_tune(model, _rows(), default_loss(model, "pairs"), SETTINGS, folder=tmp_path / "c", judge=judge)
    assert history.kept_step == 2
    assert list(history.judged) == [2, 4, 6, 8]
    assert torch.equal(model[0].auto_model.embeddings.word_embeddings.weight, seen[0])


def test_loss_that_is_no_number_stops_and_names_step_and_rows(model, tmp_path):
    class Broken(nn.Module):
        calls = 0

        def forward(self, features, labels):
            self.calls += 1
            value = sum(model(f)["sentence_embedding"].sum() for f in features)
            return value * (float("nan") if self.calls == 6 else 1.0)

    with pytest.raises(TrainingDiverged, match=r"nan at step 6, on rows \d+"):
        fine_tune(model, _rows(), Broken(), SETTINGS, folder=tmp_path / "d")
    assert (tmp_path / "d" / "checkpoint-4" / "model.safetensors").exists()


def test_a_run_of_other_settings_is_refused(model, tmp_path):
    loss = default_loss(model, "pairs")
    fine_tune(model, _rows(), loss, SETTINGS, folder=tmp_path / "e")
    with pytest.raises(InputError, match="unfinished run with other lr"):
        fine_tune(model, _rows(), loss, Settings(8, 8, lr=2e-3, checkpoints=4), folder=tmp_path / "e")
    clear_checkpoints(tmp_path / "e")
    assert not (tmp_path / "e").exists()


def test_measuring_a_step_changes_nothing(model):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert seconds_per_step(model, _rows(), default_loss(model, "pairs"), SETTINGS) > 0
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("kind", "columns", "labels", "said"),
    [
        ("pairs", (["a"] * 9, ["b"] * 8), None, "equally many"),
        ("pairs", (["a"] * 3, ["b"] * 3), None, "at least 8"),
        ("pairs", (["a"] * 9, [*["b"] * 4, " ", *["b"] * 4]), None, "Row 5 has an empty text"),
        ("pairs", (["a"] * 9, ["b"] * 9), [1] * 9, "no labels"),
        ("triplets", (["a"] * 9, ["b"] * 9), None, "3 columns"),
        ("labelled", (["a"] * 9, ["b"] * 9), None, "class numbers"),
        ("labelled", (["a"] * 9, ["b"] * 9), [1] * 9, "one class"),
        ("sts", (["a"] * 9, ["b"] * 9), [0.5] * 9, "one similarity"),
        ("sts", (["a"] * 9, ["b"] * 9), [0.5] * 8 + [float("nan")], "Row 9 has a label that is no number"),
        ("sts", (["a"] * 9, ["b"] * 9), [0.5] * 8 + [4.0], "0..1"),
    ],
)
def test_bad_rows(kind, columns, labels, said):
    with pytest.raises(InputError, match=said):
        Rows(kind, columns, labels)


def test_repeated_rows_are_left_out_and_counted():
    texts = [f"text {i}" for i in range(10)]
    rows = Rows("pairs", ([*texts, "Text  3", "same"], [*[f"of {t}" for t in texts], "OF text 3", "same"]))
    found = distinct(rows)
    assert len(found) == 10
    assert found.dropped == {"repeated": 1, "both sides equal": 1}
    with pytest.raises(InputError, match="Only 1 of 9 rows are distinct"):
        distinct(Rows("pairs", (["a"] * 9, ["b"] * 9)))


def test_classes_of_one_text_are_left_out_and_partners_are_others():
    texts = [f"{word} {i}" for i, word in enumerate(["cat"] * 5 + ["dog"] * 5 + ["owl"])]
    rows = labelled_rows(texts, [text.split()[0] for text in texts])
    assert rows.dropped == {"of a class with one text": 1}
    for left, right, label in zip(*rows.columns, rows.labels, strict=True):
        assert left != right
        assert left.split()[0] == right.split()[0] == ("cat", "dog")[int(label)]
    with pytest.raises(InputError, match="at least two"):
        labelled_rows(texts[:5], ["cat"] * 5)


def test_batches_are_many_enough_and_hold_no_text_twice():
    rows = _rows(30)
    made = batches(rows, 11, 8, seed=1)
    assert [len(batch) for batch in made] == [8] * 11
    assert made == batches(rows, 11, 8, seed=1) != batches(rows, 11, 8, seed=2)
    assert made[:5] == batches(rows, 5, 8, seed=1)
    clash = Rows("pairs", (["the same question"] * 9, [f"answer {i}" for i in range(9)]))
    with pytest.raises(InputError, match="No batch of 8 rows"):
        batches(clash, 2, 8)


def test_classes_do_not_meet_while_there_are_enough():
    labels = [float(i % 20) for i in range(200)]
    rows = Rows("labelled", ([f"t{i}" for i in range(200)], [f"u{i}" for i in range(200)]), labels)
    assert all(len({labels[r] for r in batch}) == 10 for batch in batches(rows, 6, 10))
    assert any(len({labels[r] for r in batch}) < 10 for batch in batches(rows, 6, 10, same_class=True))


@pytest.mark.parametrize("values", [{"steps": 0}, {"batch_size": 1}, {"lr": 0.0}, {"warmup": 1.0}, {"checkpoints": 0}])
def test_bad_settings(values):
    with pytest.raises(InputError, match="Training needs"):
        Settings(**{"steps": 2, **values})


def test_passes_name_every_batch_and_refuse_nothing():
    class Sampler:
        epoch = None

        def set_epoch(self, epoch):
            self.epoch = epoch

        def __iter__(self):
            yield from ([self.epoch, place] for place in range(3))

    assert passes(Sampler(), 5) == [(e, p, [e, p]) for e, p in ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1))]
    with pytest.raises(EmptyInput, match="no batch"):
        passes([], 1)


def test_rows_are_told_apart_by_texts_and_labels():
    rows = [["a", "b"], ["c", "d"]]
    assert digest(rows) == digest(iter(rows)) != digest(rows, [1.0, 0.0])
    assert digest(rows) != digest([["a", "b"], ["c", "e"]])
