"""The forecast is that of its measurements, falls with dimension, and meets a graph built anew."""

from itertools import pairwise

import numpy as np
import pytest

from isometry.diagnostics import inspect_vectors, lid, mle_dimension
from isometry.diagnostics.inspect_recall import EFS, forecast_recall, measure_recall
from isometry.diagnostics.subspace import subspace_cloud
from isometry.errors import InputError


def test_forecast_falls_with_dimension_and_size_and_rises_with_ef():
    for size in (100, 5000, 20_000, 40_000, 10**6):
        for dimension in (1.0, 8.0, 15.0, 25.0, 60.0):
            found = forecast_recall(dimension, size)
            assert [f.ef for f in found] == list(EFS)
            assert all(0 < f.low <= f.high <= 1 for f in found)
            assert all(a.low <= b.low and a.high <= b.high for a, b in pairwise(found))
            harder = forecast_recall(dimension + 5, size)
            assert all(h.low <= f.low for h, f in zip(harder, found, strict=True))
    assert forecast_recall(20.0, 20_000)[0].low < forecast_recall(20.0, 5000)[0].low


@pytest.mark.parametrize("intrinsic", [6, 24, 48])
def test_a_graph_built_anew_meets_the_forecast(intrinsic):
    """Other data, another seed: recall must lie in the interval, give or take the noise of 400 queries."""
    x = subspace_cloud(5400, 64, intrinsic, seed=99)
    local = mle_dimension(lid(x[:5000], 20))
    measured = measure_recall(x, most=5000, queries=400)
    for forecast in forecast_recall(local, 5000):
        assert forecast.low - 0.04 <= measured[forecast.ef] <= forecast.high + 0.04, forecast


def test_measured_on_usable_rows_only():
    x = subspace_cloud(300, 16, 4, seed=0)
    x[:20] = 0
    x[20] = np.nan
    measured = measure_recall(x)
    assert list(measured) == list(EFS)
    assert measured[256] == pytest.approx(1)
    x[21:] *= 5  # length is no matter
    assert measure_recall(x) == pytest.approx(measured, abs=0.02)
    with pytest.raises(InputError, match="at least 100 usable"):
        measure_recall(x[:100])


def test_an_inspection_carries_both():
    seen = inspect_vectors(subspace_cloud(800, 64, 40, seed=1))
    local = lid(subspace_cloud(800, 64, 40, seed=1), 20)
    assert seen.lid_quartiles == pytest.approx(np.quantile(local, [0.25, 0.5, 0.75]))
    assert seen.recall_forecast == forecast_recall(seen.lid, 800)
    assert "Expected at ef 64" in " ".join(f.text for f in seen.findings)
    assert inspect_vectors(np.ones((20, 3))).recall_forecast == ()


def test_bad_input():
    with pytest.raises(InputError, match="positive"):
        forecast_recall(0.0, 10)
