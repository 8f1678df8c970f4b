"""Isotropy measures against closed forms, definitions and invariances."""

import numpy as np
import pytest
from scipy.stats import ortho_group

from isometry.diagnostics import (
    effective_rank,
    isoscore,
    mean_cosine,
    participation_ratio,
    partition_isotropy,
    spectrum,
)
from isometry.diagnostics.isotropy import effective_rank_of, participation_ratio_of
from isometry.errors import InputError

RNG = np.random.default_rng(0)
CLOUD = RNG.normal(size=(300, 12)) * np.linspace(0.2, 2, 12) + 0.5


def test_mean_cosine_equals_all_pairs():
    unit = CLOUD / np.linalg.norm(CLOUD, axis=1, keepdims=True)
    cosines = unit @ unit.T
    assert mean_cosine(CLOUD) == pytest.approx(cosines[~np.eye(300, dtype=bool)].mean(), abs=1e-12)


@pytest.mark.parametrize("shape", [(300, 12), (8, 12)])
@pytest.mark.parametrize("center", [True, False])
def test_spectrum_equals_singular_values(shape, center):
    values = CLOUD[: shape[0]]
    shifted = values - values.mean(0) if center else values
    expected = np.linalg.svd(shifted, compute_uv=False) ** 2 / len(values)
    np.testing.assert_allclose(spectrum(values, center=center), expected, atol=1e-10)


@pytest.mark.parametrize("measure", [effective_rank_of, participation_ratio_of])
def test_ranks_count_equal_directions_and_ignore_scale(measure):
    assert measure([3.0] * 7 + [0.0] * 5) == pytest.approx(7)
    assert measure(np.asarray([3.0, 1.0]) * 1e-200) == pytest.approx(measure([3.0, 1.0]))
    assert 1 < measure([3.0, 1.0]) < 2


def test_participation_ratio_equals_the_traces_of_the_covariance():
    covariance = np.cov(CLOUD.T)
    expected = np.trace(covariance) ** 2 / np.trace(covariance @ covariance)
    assert participation_ratio(CLOUD) == pytest.approx(expected)


def test_isoscore_is_one_for_equal_variances_and_zero_for_a_line():
    axes = np.concatenate([np.eye(6), -np.eye(6)])
    assert isoscore(axes) == pytest.approx(1)
    assert isoscore(np.outer(np.linspace(-1, 1, 20), np.ones(6))) == pytest.approx(0, abs=1e-9)


def test_isoscore_grows_with_the_number_of_equal_directions_by_its_formula():
    # with k of d equal directions the score is (k - 1) / (d - 1) (Rudman et al.)
    for k in (1, 2, 5, 10):
        axes = np.concatenate([np.eye(10)[:k], -np.eye(10)[:k]])
        assert isoscore(axes) == pytest.approx((k - 1) / 9, abs=1e-9)


def test_partition_isotropy_equals_its_definition():
    directions = np.linalg.eigh(CLOUD.T @ CLOUD)[1]
    z = np.concatenate([np.exp(CLOUD @ c).sum() * np.ones(1) for c in [*directions.T, *-directions.T]])
    assert partition_isotropy(CLOUD) == pytest.approx(z.min() / z.max())
    assert partition_isotropy(np.concatenate([np.eye(4), -np.eye(4)])) == pytest.approx(1)
    assert partition_isotropy(CLOUD * 1e4) == 0.0  # no overflow


@pytest.mark.parametrize(
    "measure",
    [mean_cosine, isoscore, partition_isotropy, effective_rank, participation_ratio],
)
def test_rotation_changes_nothing(measure):
    rotation = ortho_group.rvs(12, random_state=1)
    assert measure(CLOUD @ rotation) == pytest.approx(measure(CLOUD), abs=1e-8)


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(InputError, match="two vectors"):
        mean_cosine([[1.0, 2.0]])
    with pytest.raises(InputError, match="vary"):
        isoscore(np.ones((5, 3)))
    with pytest.raises(InputError, match="two dimensions"):
        isoscore(np.ones((5, 1)))
    with pytest.raises(InputError, match="spectrum"):
        effective_rank_of([-1.0, 3.0])
    with pytest.raises(InputError, match="two vectors"):
        spectrum([[1.0]])
