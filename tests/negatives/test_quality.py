"""Quality of masks and the check of a guide."""

import math
import warnings

import pytest
import torch
from sklearn.metrics import precision_score, recall_score

from isometry.errors import DataWarning, DimensionMismatch
from isometry.negatives.quality import check_guide, mask_quality, top1_accuracy


def test_equals_scikit_learn_over_stacked_batches() -> None:
    rng = torch.Generator().manual_seed(0)
    drop, truth = (torch.rand(3, 8, 8, generator=rng) < 0.3 for _ in range(2))
    own = torch.eye(8).bool().expand(3, 8, 8)
    found = mask_quality(drop, truth, own)
    d, t = drop[~own].numpy(), truth[~own].numpy()
    assert found.precision == pytest.approx(precision_score(t, d))
    assert found.recall == pytest.approx(recall_score(t, d))
    assert found.masked == pytest.approx(d.mean())
    assert found.base_rate == pytest.approx(t.mean())
    assert found.rows == pytest.approx(float((truth & ~own).any(-1).double().mean()))


def test_own_entries_never_count() -> None:
    own = torch.eye(4).bool()
    found = mask_quality(own, own, own)
    assert math.isnan(found.precision)
    assert math.isnan(found.recall)
    assert found.masked == found.base_rate == found.rows == 0.0


def test_shapes_must_agree() -> None:
    with pytest.raises(DimensionMismatch, match="one shape"):
        mask_quality(torch.zeros(2, 2).bool(), torch.zeros(2, 3).bool(), torch.zeros(2, 2).bool())


def test_weaker_guide_warns_and_stronger_does_not() -> None:
    good, bad = torch.eye(4), 1 - torch.eye(4)
    targets = torch.arange(4)
    assert top1_accuracy(good, targets) == 1.0
    with pytest.warns(DataWarning, match=r"0\.0% .* 100\.0%"):
        assert check_guide(good, bad, targets) == (1.0, 0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert check_guide(bad, good, targets) == (0.0, 1.0)
