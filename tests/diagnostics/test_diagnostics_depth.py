"""Statistical depth: closed form, invariances, roles of points and reference, selection."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cosine
from scipy.stats import ortho_group

from isometry.diagnostics import angular_depth, cluster_depth, cosine_depth, depth_profile, select_deepest
from isometry.diagnostics.sphere import DIAMETER
from isometry.errors import DimensionMismatch, EmptyInput, InputError, UnknownName

DISTANCES = ["cosine", "chord", "arc"]
RNG = np.random.default_rng(0)
F = RNG.normal(0.4, 1, (60, 9))
G = RNG.normal(0.1, 1, (60, 9))  # as many as F on purpose: roles must not follow from shapes


def slow_depth(point, others, distance):
    def d(a, b):
        c = cosine(a, b)
        return {"cosine": c, "chord": np.sqrt(2 * max(c, 0)), "arc": np.arccos(np.clip(1 - c, -1, 1))}[distance]

    return DIAMETER[distance] - np.mean([d(point, h) for h in others])


@pytest.mark.parametrize("distance", DISTANCES)
def test_new_points_equal_brute_force_with_as_many_points_as_reference(distance):
    expected = [slow_depth(g, F, distance) for g in G]
    np.testing.assert_allclose(angular_depth(G, F, in_sample=False, distance=distance), expected, atol=1e-6)


@pytest.mark.parametrize("distance", DISTANCES)
def test_in_sample_points_are_left_out_of_their_own_mean(distance):
    expected = [slow_depth(f, np.delete(F, i, axis=0), distance) for i, f in enumerate(F)]
    np.testing.assert_allclose(angular_depth(F, F, in_sample=True, distance=distance), expected, atol=1e-6)


@pytest.mark.parametrize("distance", DISTANCES)
def test_the_reference_as_new_points_is_not_corrected(distance):
    inside = angular_depth(F, F, in_sample=True, distance=distance)
    outside = angular_depth(F, F, in_sample=False, distance=distance)
    sup = DIAMETER[distance]
    np.testing.assert_allclose(sup - outside, (sup - inside) * 59 / 60, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(2, 30), m=st.integers(1, 30), d=st.integers(1, 6), seed=st.integers(0, 999))
def test_depth_lies_between_zero_and_the_diameter(n, m, d, seed):
    rng = np.random.default_rng(seed)
    f, g = rng.normal(size=(n, d)), rng.normal(size=(m, d))
    for distance in DISTANCES:
        for points, own in ((f, True), (g, False)):
            found = angular_depth(points, f, in_sample=own, distance=distance)
            assert (found >= 0).all()
            assert (found <= DIAMETER[distance] + 1e-12).all()


@pytest.mark.parametrize("distance", DISTANCES)
def test_rotation_and_length_change_nothing(distance):
    rotation = ortho_group.rvs(9, random_state=1)
    scale = RNG.uniform(0.1, 10, (60, 1))
    np.testing.assert_allclose(
        angular_depth(G @ rotation * scale, F @ rotation, in_sample=False, distance=distance),
        angular_depth(G, F, in_sample=False, distance=distance),
        atol=1e-7,
    )


@pytest.mark.parametrize("distance", DISTANCES)
def test_a_copy_of_the_corpus_leaves_new_depths_alone_and_duplicates_are_equally_deep(distance):
    twice = np.concatenate([F, F])
    np.testing.assert_allclose(
        angular_depth(G, twice, in_sample=False, distance=distance),
        angular_depth(G, F, in_sample=False, distance=distance),
        atol=1e-9,
    )
    inside = angular_depth(twice, twice, in_sample=True, distance=distance)
    np.testing.assert_allclose(inside[:60], inside[60:], atol=1e-7)


def test_blocks_agree_with_one_piece(monkeypatch):
    whole = angular_depth(G, F, in_sample=False, distance="arc")
    monkeypatch.setattr("isometry.diagnostics.sphere._BLOCK_VALUES", 130)
    np.testing.assert_allclose(angular_depth(G, F, in_sample=False, distance="arc"), whole, atol=1e-12)


def test_cosine_order_is_that_of_the_mean_direction():
    unit = F / np.linalg.norm(F, axis=1, keepdims=True)
    profile = depth_profile(F)
    np.testing.assert_array_equal(profile.order, np.argsort(-(unit @ unit.mean(0)), kind="stable"))


def test_profile_ranks_median_outliers_and_contours():
    x = np.column_stack([np.ones(5), [0.0, 0.1, 0.2, 3, -2]])
    profile = depth_profile(x)
    assert profile.median in (0, 1)
    assert profile.outliers(2).tolist() == [3, 4] or profile.outliers(2).tolist() == [4, 3]
    assert sorted(profile.ranks) == [1, 2, 3, 4, 5]
    assert profile.ranks[profile.median] == 1
    assert (profile.depths >= profile.contour(0.6)).sum() == 3
    assert profile.contour(1.0) == profile.depths.min()
    with pytest.raises(InputError, match="share"):
        profile.contour(0)


@pytest.mark.parametrize("bad", ["manhattan", "Cosine"])
def test_unknown_distance(bad):
    with pytest.raises(UnknownName, match="distance"):
        angular_depth(F, F, in_sample=True, distance=bad)


def test_bad_roles_and_rows_are_refused():
    with pytest.raises(InputError, match="in_sample=True needs"):
        cosine_depth(G, F, in_sample=True)
    with pytest.raises(InputError, match="at least two"):
        cosine_depth(F[:1], F[:1], in_sample=True)
    with pytest.raises(InputError, match="rows 2"):
        cosine_depth(np.eye(3) * [1, 1, 0], F[:, :3], in_sample=False)
    with pytest.raises(DimensionMismatch, match="9 wide"):
        cosine_depth(np.eye(3), F, in_sample=False)
    with pytest.raises(DimensionMismatch, match="row 1"):
        cosine_depth([[1.0, 2], [np.nan, 1]], [[1.0, 1]], in_sample=False)
    with pytest.raises(EmptyInput):
        cosine_depth(F, F[:0], in_sample=False)
    assert angular_depth(F.astype(np.float16), F, in_sample=False).shape == (60,)


def test_deep_texts_of_a_bimodal_corpus_lie_between_but_cluster_depth_does_not():
    rng = np.random.default_rng(2)
    modes = [[1.0, 0, 0], [0, 1.0, 0]]
    x = np.concatenate([rng.normal(m, 0.05, (50, 3)) for m in modes] + [[[0.7, 0.7, 0.0]]])
    labels = [0] * 50 + [1] * 50 + [2]
    assert depth_profile(x).median == 100
    within = cluster_depth(x, labels)
    assert np.isnan(within[100])
    expected = cosine_depth(x[:50], x[:50], in_sample=True)
    np.testing.assert_allclose(within[:50], expected, atol=1e-12)


@pytest.mark.parametrize("distance", DISTANCES)
def test_select_deepest_takes_each_class_own_deepest(distance):
    labels = np.asarray(["b", "a", "b"] * 20)
    chosen = select_deepest(F, labels, 4, distance)
    assert list(chosen) == ["b", "a"]
    for label, rows in chosen.items():
        members = np.flatnonzero(labels == label)
        order = np.argsort(-angular_depth(F[members], F[members], in_sample=True, distance=distance))
        assert rows.tolist() == members[order[:4]].tolist()


def test_select_deepest_edge_cases():
    chosen = select_deepest(F[:4], [0, 0, 0, 1], 2)
    assert len(chosen[0]) == 2
    assert chosen[1].tolist() == [3]
    assert len(select_deepest(F[:3], [0, 0, 0], 10)[0]) == 3
    with pytest.raises(InputError, match="k must"):
        select_deepest(F, [0] * 60, 0)
    with pytest.raises(InputError, match="60 vectors need 60 labels"):
        select_deepest(F, [0] * 59, 1)
