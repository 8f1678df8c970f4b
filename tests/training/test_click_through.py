"""Training click models on compressed tables: metrics, splits, stages, early stopping."""

import numpy as np
import pytest
import torch

from isometry.errors import EmptyInput, InputError
from isometry.modules.click_models import DLRM
from isometry.modules.embedding_tables import METHODS, FullEmbedding, compressed_table
from isometry.training.click_through import (
    ClickLog,
    ClickTrainer,
    area_under_curve,
    click_scores,
    log_loss,
    train_click_model,
)

FIELDS = {"user": 60, "item": 120}


def log(n=4000, seed=0):
    """Clicks that follow a hidden inclination of each user and item."""
    rng = np.random.default_rng(seed)
    ids = np.stack([rng.integers(size, size=n) for size in FIELDS.values()], 1)
    user, item = rng.standard_normal(60), rng.standard_normal(120)
    logits = 2 * (user[ids[:, 0]] + item[ids[:, 1]])
    return ClickLog(ids, (rng.random(n) < 1 / (1 + np.exp(-logits))).astype(np.float32), FIELDS)


def trainer(**options):
    settings = {"batch": 256, "lr": 1e-2, "epochs": 8, "evaluations": 2, "patience": 4, **options}
    return ClickTrainer(lambda table: DLRM(table, 2, 8, hidden=(16,)), **settings)


def made(method, budget=0.7):
    options = {"dhe": {"hashes": 16}, "optembed": {"generations": 1}, "dedup": {"block_rows": 4}}.get(method, {})
    budget = 1.0 if method == "full" else budget
    return compressed_table(method, 180, 8, budget, fields=FIELDS, freq=log().split()[0].frequencies(), **options)


def test_auc_and_log_loss_equal_the_reference():
    from sklearn.metrics import log_loss as reference_loss
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    labels, logits = rng.integers(0, 2, 500).astype(np.float32), rng.standard_normal(500).round(1)
    assert area_under_curve(labels, logits) == pytest.approx(roc_auc_score(labels, logits))
    assert log_loss(labels, logits) == pytest.approx(reference_loss(labels, 1 / (1 + np.exp(-logits))))
    assert np.isfinite(log_loss(np.array([0.0, 1.0], np.float32), np.array([800.0, -800.0])))
    with pytest.raises(InputError, match="both classes"):
        area_under_curve([1, 1], [0.2, 0.3])


def test_splits_are_disjoint_and_frequencies_count_the_part():
    everything = log()
    everything = ClickLog(everything.ids, everything.labels, FIELDS, np.arange(4000, dtype=np.float32)[:, None])
    parts = everything.split(seed=3)
    assert [len(p) for p in parts] == [3200, 400, 400]
    assert sorted(np.concatenate([p.dense[:, 0] for p in parts])) == list(range(4000))
    counts = parts[0].frequencies()
    assert counts[:60].sum() == counts[60:].sum() == 3200
    assert counts[60 + 7] == (parts[0].ids[:, 1] == 7).sum()


def test_logs_check_themselves():
    with pytest.raises(EmptyInput, match="at least one row"):
        ClickLog(np.zeros((0, 2), np.int64), np.zeros(0, np.float32), FIELDS)
    with pytest.raises(InputError, match="cannot have ids"):
        ClickLog(np.zeros((3, 1), np.int64), np.zeros(3, np.float32), FIELDS)
    with pytest.raises(InputError, match="0 or 1"):
        ClickLog(np.zeros((3, 2), np.int64), np.full(3, 0.5, np.float32), FIELDS)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_trains_through_its_stages_and_learns(method):
    table = made(method)
    stages = [stage.name for stage in table.train_hooks if stage.trains]
    model, run = train_click_model(trainer(), table, log().split())
    assert table.final
    assert run.auc > (0.55 if method in ("dhe", "compoemb", "hash", "pep") else 0.6)
    assert list(run.validation) == stages
    assert run.inference_bytes == table.n_bytes()
    assert run.ratio <= 1.0 if method in ("full", "robe") else run.ratio <= 0.7 + 4 / (4 * 180 * 8)
    assert run.training_bytes > 0
    test = log().split()[2]
    assert area_under_curve(test.labels, click_scores(model, test)) == run.auc


def test_training_is_the_same_for_a_seed():
    one, two, other = (train_click_model(trainer(seed=s), made("mgqe"), log().split())[1] for s in (1, 1, 2))
    assert one.auc == two.auc
    assert one.validation == two.validation
    assert one.validation != other.validation


def test_the_best_evaluation_is_kept_and_patience_ends_a_stage():
    parts = log(1500).split()
    model, run = train_click_model(trainer(epochs=60, patience=2, evaluations=1), made("full"), parts)
    history = run.validation["train"]
    assert len(history) < 60
    assert len(history) - 1 - int(np.argmax(history)) == 2
    assert area_under_curve(parts[1].labels, click_scores(model, parts[1])) == pytest.approx(max(history))


def test_a_fresh_stage_starts_the_network_anew():
    networks = []

    def make(table):
        networks.append(DLRM(table, 2, 8, hidden=(16,)))
        return networks[-1]

    tabled = made("pep")
    ClickTrainer(make, batch=256, epochs=1, evaluations=1).fit(tabled, *log().split()[:2])
    assert len(networks) == 2
    assert networks[0] is not networks[1]


def test_an_untrained_model_is_at_chance_and_a_diverging_loss_is_named():
    torch.manual_seed(0)
    model = DLRM(FullEmbedding(180, 8, fields=FIELDS), 2, 8)
    assert abs(area_under_curve(log().labels, click_scores(model, log())) - 0.5) < 0.1
    broken = made("full")
    with torch.no_grad():
        broken.table.fill_(float("nan"))
    with pytest.raises(InputError, match="The loss is nan: lower lr"):
        train_click_model(trainer(), broken, log().split())
