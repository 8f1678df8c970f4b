"""Codes of whole tables: Dedup, pruning, tensor trains, norm groups."""

from itertools import pairwise

import numpy as np
import pytest

from isometry.codes import DedupCode, MagnitudeCode, PrunedCode, TensorTrainCode
from isometry.codes.magnitude import norm_groups
from isometry.errors import DimensionMismatch, EmptyInput, InputError, NotFitted
from isometry.modules.embedding_tables import TensorTrainEmbedding
from isometry.numerics.budget import BudgetInfeasible


def table(n=1200, d=24, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((n, d)) * np.exp(0.7 * rng.standard_normal((n, 1)))).astype(np.float32)


MAKERS = {
    "dedup": lambda: DedupCode(10),
    "pruned": lambda: PrunedCode(0.2),
    "tensor train": lambda: TensorTrainCode(0.3),
    "MagPQ": lambda: MagnitudeCode(0.5),
    "MagSVD": lambda: MagnitudeCode(0.5, kind="svd", groups=3),
}


@pytest.mark.parametrize("name", MAKERS)
def test_rows_are_rows_of_the_table_and_bytes_are_counted(name):
    code = MAKERS[name]().fit(table())
    everything = code.inverse_transform()
    assert everything.shape == (1200, 24)
    assert everything.dtype == np.float32
    rows = np.array([7, 0, 1199, 7])
    np.testing.assert_allclose(code.inverse_transform(rows), everything[rows], atol=1e-5)
    assert code.inverse_transform([]).shape == (0, 24)
    assert code.n_bytes == sum(a.nbytes for a in code.arrays().values())
    assert code.ratio == pytest.approx(code.n_bytes / (4 * 1200 * 24))
    if name != "dedup":
        assert code.ratio <= code.budget
        assert np.square(everything - table()).sum() < np.square(table()).sum()


@pytest.mark.parametrize("name", MAKERS)
def test_bad_input_is_refused(name):
    code = MAKERS[name]()
    with pytest.raises(NotFitted, match="not fitted"):
        code.inverse_transform()
    with pytest.raises(DimensionMismatch, match="NaN"):
        code.fit(np.full((5, 4), np.nan))
    with pytest.raises(EmptyInput, match="needs a table"):
        code.fit(np.zeros((0, 4)))
    with pytest.raises(InputError, match=r"Rows must lie in \[0, 1200\)"):
        code.fit(table()).inverse_transform([-1])


def test_bad_parameters_are_refused():
    for make in (PrunedCode, TensorTrainCode, MagnitudeCode):
        with pytest.raises(InputError, match="budget must lie"):
            make(1.5)
        with pytest.raises(BudgetInfeasible, match="feasible: "):
            make(1e-6).fit(table())
    with pytest.raises(InputError, match="rank"):
        TensorTrainCode(rank=0)
    with pytest.raises(InputError, match="kind must be"):
        MagnitudeCode(0.5, kind="cubic")
    with pytest.raises(InputError, match="Dedup code needs"):
        DedupCode(0)
    with pytest.raises(InputError, match="16 rows in every group"):
        MagnitudeCode(0.9, groups=5).fit(table(20))


def test_dedup_saves_repeated_blocks_and_nothing_on_dense_vectors():
    twice = np.tile(table(100), (2, 1))
    code = DedupCode(10).fit(twice)
    np.testing.assert_array_equal(code.inverse_transform(), twice)
    assert code.ratio < 0.51
    dense = DedupCode(10).fit(table(105))
    np.testing.assert_array_equal(dense.inverse_transform(), table(105))
    assert dense.ratio == 1 + 4 * 11 / (4 * 105 * 24)


def test_pruning_has_the_least_error_of_any_such_mask():
    x = table(200)
    pruned = PrunedCode(0.2).fit(x).inverse_transform()
    kept = pruned != 0
    np.testing.assert_array_equal(pruned[kept], x[kept])
    assert np.abs(x[kept]).min() >= np.abs(x[~kept]).max()


def test_tensor_train_agrees_with_the_table_of_the_same_name():
    x = table(300)
    ours, module = TensorTrainCode(0.3).fit(x), TensorTrainEmbedding(300, 24, 0.3).compress(x)
    assert ours.n_bytes == module.n_bytes()
    np.testing.assert_allclose(ours.inverse_transform(), module.decompress(), atol=1e-5)
    np.testing.assert_allclose(TensorTrainCode(rank=10**6).fit(x).inverse_transform(), x, atol=1e-4)


def test_groups_carry_equal_mass_and_the_longest_rows_come_first():
    x = table()
    groups = norm_groups(x, 4)
    assert np.array_equal(np.sort(np.concatenate(groups)), np.arange(len(x)))
    mass = np.array([np.square(x[g]).sum() for g in groups])
    assert np.abs(mass / mass.sum() - 0.25).max() < 0.05
    norms = np.linalg.norm(x, axis=1)
    assert all(norms[a].min() >= norms[b].max() for a, b in pairwise(groups))


@pytest.mark.parametrize("kind", ["pq", "svd"])
def test_the_group_of_the_longest_rows_is_coded_more_finely(kind):
    code = MagnitudeCode(0.5, kind=kind).fit(table())
    widths = [packed.shape[1] for packed in code.packed_]
    assert widths[0] > widths[1]


def test_one_group_is_the_plain_code():
    x = table()
    code = MagnitudeCode(0.4, kind="svd", groups=1).fit(x)
    rank = code.packed_[0].shape[1] // 4
    values = np.linalg.svd(x.astype(np.float64), compute_uv=False)
    assert np.square(code.inverse_transform() - x).sum() == pytest.approx((values[rank:] ** 2).sum(), rel=1e-4)
