"""What each compression method is by itself: closed forms, bounds, statistics, search and schedules."""

import itertools

import numpy as np
import pytest
import torch

from isometry.errors import InputError
from isometry.modules.embedding_tables import (
    AdaptiveEmbedding,
    AutoDimensionEmbedding,
    AutoSrhEmbedding,
    CompressedEmbedding,
    DedupEmbedding,
    DeepHashEmbedding,
    DeepLightEmbedding,
    FullEmbedding,
    IntegerEmbedding,
    LearnedScaleEmbedding,
    MixedDimensionEmbedding,
    MultiGranularEmbedding,
    OptEmbedding,
    ProductEmbedding,
    QuotientRemainderEmbedding,
    ROBEEmbedding,
    SoftThresholdEmbedding,
    SplitEmbedding,
    StageContext,
    TensorTrainEmbedding,
    evolve,
    stochastic_round,
    universal_hash,
)
from isometry.modules.embedding_tables.auto_dimension import choose_widths
from isometry.modules.embedding_tables.bit_codes import pack_bits, packed_width, unpack_bits
from isometry.modules.embedding_tables.deep_light import pruned_share
from isometry.modules.embedding_tables.opt_embed import step_through
from isometry.modules.embedding_tables.universal import PRIME, coefficients
from isometry.numerics.budget import BudgetInfeasible


def matrix(n=300, d=8, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


# Hashing


def test_universal_hash_is_exact_for_large_ids_and_spreads():
    a, b = coefficients(50, seed=1)
    keys = torch.tensor([0, 1, 12345, 2**31 - 2])
    expected = [[(int(x) * int(k) + int(y)) % PRIME % 97 for k in keys] for x, y in zip(a, b, strict=True)]
    assert universal_hash(keys, a[:, None], b[:, None], 97).tolist() == expected
    hashed = universal_hash(torch.arange(1000), a[:, None], b[:, None], 64)
    assert int(hashed.min()) >= 0
    collisions = [(row[:, None] == row[None, :]).float().mean().item() for row in hashed]
    assert np.mean(collisions) == pytest.approx(1 / 64, rel=0.15)


def test_quotient_remainder_has_about_two_root_n_rows_at_least_and_distinct_vectors():
    with pytest.raises(BudgetInfeasible) as caught:
        QuotientRemainderEmbedding(10_000, 4, 0.001)
    assert caught.value.least == pytest.approx(200 / 10_000)
    made = QuotientRemainderEmbedding(1000, 4, 0.1, seed=1).finalize()
    assert len(np.unique(made.decompress().round(7), axis=0)) == 1000
    assert made.decompress().std() == pytest.approx(0.05, rel=0.2)  # not the product of two values near 0


@pytest.mark.parametrize("combine", ["product", "sum"])
def test_quotient_remainder_recovers_tables_of_its_own_form(combine):
    rng = np.random.default_rng(0)
    left, right = rng.uniform(1, 2, (50, 1, 4)), rng.uniform(1, 2, (1, 20, 4))
    table = (left * right if combine == "product" else left + right).reshape(1000, 4)[:990].astype(np.float32)
    made = QuotientRemainderEmbedding(990, 4, 0.0717, combine=combine)
    assert made.config["collision"] == 20
    np.testing.assert_allclose(made.compress(table).decompress(), table, rtol=1e-3)


def test_robe_is_unbiased_over_its_hashes():
    """Inner products of two different rows average to 0 over the draw of hashes and signs."""
    products, own = [], []
    for seed in range(400):
        made = ROBEEmbedding(50, 8, 0.2, seed=seed)
        with torch.no_grad():
            made.array.copy_(torch.linspace(0.5, 1.5, len(made.array)))  # far from zero mean
            rows = made(torch.tensor([3, 41]))
        products.append(float(rows[0] @ rows[1]))
        own.append(float(rows[0] @ rows[0]))
    assert abs(np.mean(products)) < 4 * np.std(products) / 20
    assert np.mean(own) > 5


def test_robe_blocks_lie_side_by_side():
    made = ROBEEmbedding(20, 8, 0.5, block=4)
    place, _ = made.places(torch.arange(20))
    steps = (place[:, 1:] - place[:, :-1]) % made.config["size"]
    assert (steps[:, [0, 1, 2, 4, 5, 6]] == 1).all()
    with pytest.raises(InputError, match="block must lie"):
        ROBEEmbedding(20, 8, 0.5, block=9)


def test_robe_tells_fields_apart():
    one = ROBEEmbedding(40, 8, 0.5, fields={"a": 20, "b": 20})
    other = ROBEEmbedding(40, 8, 0.5)
    assert not torch.equal(one.places(torch.tensor([30]))[0], other.places(torch.tensor([30]))[0])


def test_deep_hash_folds_normalisation_and_codes_are_spread():
    made = DeepHashEmbedding(500, 8, 0.9, hashes=64, seed=2).train()
    for step in range(5):
        made(torch.arange(step * 50, step * 50 + 80)).sum().backward()
    made.eval()
    before = made(torch.arange(500)).detach()
    torch.testing.assert_close(made.finalize()(torch.arange(500)), before, atol=1e-5, rtol=1e-4)
    for encoding, std in (("uniform", 3**-0.5), ("gaussian", 1.0)):
        codes = DeepHashEmbedding(500, 8, 0.9, hashes=64, encoding=encoding).encode(torch.arange(500))
        assert abs(codes.mean()) < 0.05
        assert codes.std() == pytest.approx(std, rel=0.05)
        assert len(torch.unique(codes, dim=0)) == 500
    with pytest.raises(InputError, match="hashes even"):
        DeepHashEmbedding(500, 8, 0.9, hashes=3)


def test_adaptive_gives_frequent_ids_their_own_rows():
    freq = np.arange(100)
    made = AdaptiveEmbedding(100, 4, 0.3, freq=freq)
    hot, table = made.config["hot"], matrix(100, 4)
    made.compress(table)
    assert made.store["ids"].tolist() == list(range(100 - hot, 100))
    np.testing.assert_array_equal(made.decode(np.arange(100 - hot, 100)), table[-hot:])
    shared = made.config["shared"]
    np.testing.assert_allclose(made.decode([1])[0], table[1 : 100 - hot : shared].mean(0), atol=1e-6)


# Factorisation


def test_tensor_train_at_full_rank_reproduces_any_table():
    table = matrix(200, 12)
    made = TensorTrainEmbedding(200, 12, rank=10_000).compress(table)
    np.testing.assert_allclose(made.decompress(), table, atol=1e-5)


def test_tensor_train_starts_with_the_target_deviation():
    stds = [float(TensorTrainEmbedding(1000, 16, 0.3, seed=s).finalize().decompress().std()) for s in range(5)]
    assert np.mean(stds) == pytest.approx(0.05, rel=0.15)


def test_more_rank_means_less_error():
    table = matrix(200, 12)
    errors = [np.square(TensorTrainEmbedding(200, 12, rank=r).compress(table).decompress() - table).sum() for r in
              (1, 4, 8, 16, 32)]  # fmt: skip
    assert errors == sorted(errors, reverse=True)


# Quantisation


@pytest.mark.parametrize(("parts", "bits"), [(1, 1), (3, 5), (4, 8), (7, 3), (16, 2)])
def test_bits_come_back(parts, bits):
    codes = torch.from_numpy(np.random.default_rng(0).integers(0, 2**bits, (50, parts)))
    packed = pack_bits(codes, bits)
    assert packed.shape == (50, packed_width(parts, bits))
    assert torch.equal(unpack_bits(packed, parts, bits), codes)


def test_stochastic_rounding_is_unbiased_and_off_by_less_than_a_step():
    generator = torch.Generator().manual_seed(0)
    for value in (-1.7, -0.1, 0.25, 3.999):
        x = torch.full((100_000,), value, dtype=torch.float64)
        rounded = stochastic_round(x, generator)
        assert float((rounded - x).abs().max()) < 1
        assert abs(float(rounded.mean()) - value) < 4 * float(rounded.std()) / 100_000**0.5 + 1e-12


@pytest.mark.parametrize("bits", [8, 16])
def test_integers_are_within_a_step_and_unbiased(bits):
    table = matrix()
    decoded = np.stack(
        [IntegerEmbedding(300, 8, 0.5, bits=bits, seed=s).compress(table).decompress() for s in range(50)]
    )
    step = np.abs(table).max() / (2 ** (bits - 1) - 1)
    error = decoded - table
    assert np.abs(error).max() <= step * 1.001
    assert abs(error.mean()) < 4 * step / np.sqrt(error.size)


@pytest.mark.parametrize("kind", [IntegerEmbedding, LearnedScaleEmbedding])
def test_updates_smaller_than_half_a_step_still_move_the_table(kind):
    made = kind(2000, 8, 0.4, seed=0)
    before = made.table.detach().clone()
    step = 0.01
    for _ in range(40):
        with torch.no_grad():
            made.table.add_(0.02 * step)
        made.after_step()
    moved = float((made.table.detach() - before).mean())
    assert moved == pytest.approx(0.8 * step, rel=0.1)


def test_learned_scales_learn_by_their_factor():
    made = LearnedScaleEmbedding(50, 8, 0.4, seed=0)
    made.begin_stage(made.train_hooks[0], StageContext(10, 32, lambda: 0.0))
    assert made.slow == pytest.approx((32 * 8 * 127) ** -0.5)
    with torch.no_grad():
        made.table.add_(0.003)
    ids, weight = torch.arange(50), torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    (made(ids) * weight).sum().backward()
    v = (made.table / made.scales).detach()
    inside = (v.abs() <= 127).float()
    expected = ((v.clamp(-127, 127).round() - v * inside) * weight).sum(1, keepdim=True) * made.slow
    torch.testing.assert_close(made.scales.grad, expected, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(made.table.grad, weight * inside)


def test_product_codes_of_as_many_centroids_as_rows_are_exact():
    table = matrix(16, 8)
    made = ProductEmbedding(16, 8, 100.0, parts=2, bits=4, seed=1)
    np.testing.assert_allclose(made.compress(table).decompress(), table, atol=1e-6)


@pytest.mark.parametrize("learn", ["gradient", "ema"])
def test_product_gradients_pass_straight_through(learn):
    made = ProductEmbedding(200, 8, 0.6, learn=learn, seed=0).train()
    ids, weight = torch.arange(0, 200, 2), torch.randn(100, 8)
    (made(ids) * weight).sum().backward()
    torch.testing.assert_close(made.table.grad[ids], weight)
    assert float(made.table.grad[1::2].abs().sum()) == 0
    before = made.codebooks.detach().clone()
    made(ids)
    if learn == "gradient":
        chosen, x = made._last
        made.penalty().backward()
        assert float(made.codebooks.grad.abs().sum()) > 0
        assert chosen.shape == x.shape
        assert made.penalty() is None
    else:
        assert not torch.equal(before, made.codebooks)


def test_rare_rows_of_mgqe_use_the_first_quarter_of_the_centroids():
    freq = np.arange(400)
    made = MultiGranularEmbedding(400, 8, 0.6, freq=freq, seed=0)
    for form in (made, MultiGranularEmbedding(400, 8, 0.6, freq=freq, seed=0)):
        if form is not made:
            form.compress(matrix(400, 8))
        else:
            form.finalize()
        count = 2 ** form.config["bits"]
        assert form.store["hot"].tolist() == list(range(360, 400))
        cold = unpack_bits(form.store["codes"], form.config["parts"], form.config["bits"] - 2)
        assert len(cold) == 360
        assert int(cold.max()) < count // 4
        hot = unpack_bits(form.store["hot_codes"], form.config["parts"], form.config["bits"])
        assert len(hot) == 40


# Dimensions


def test_svd_is_the_best_of_its_rank():
    table = matrix(300, 16)
    made = MixedDimensionEmbedding(300, 16, 0.3).compress(table)
    width = made.config["dims"][0]
    values = np.linalg.svd(table.astype(np.float64), compute_uv=False)
    error = np.square(made.decompress() - table).sum()
    assert error == pytest.approx((values[width:] ** 2).sum(), rel=1e-4)
    other = np.linalg.qr(np.random.default_rng(1).standard_normal((16, width)))[0]
    assert error <= np.square(table @ other @ other.T - table).sum()


def test_mixed_dimensions_fall_with_the_size_of_the_field():
    fields = {"a": 20, "b": 100, "c": 5000}
    made = MixedDimensionEmbedding(5120, 16, 0.2, fields=fields)
    dims = made.config["dims"]
    assert dims == sorted(dims, reverse=True)
    assert dims[0] == 16
    assert all(d & (d - 1) == 0 for d in dims)
    assert made.ratio() <= 0.2


def test_widths_are_chosen_by_gain_within_the_budget():
    gains = torch.tensor([[0.0, 1.0, 3.0], [0.0, 5.0, 5.5]])
    costs = torch.tensor([[1.0, 2.0, 4.0], [1.0, 2.0, 4.0]])
    assert choose_widths(gains, costs, 100) == [2, 2]
    assert choose_widths(gains, costs, 1.5) is None
    for limit in range(2, 9):
        chosen = choose_widths(gains, costs, limit)
        best = max(sum(float(gains[f, c]) for f, c in enumerate(pair)) for pair in itertools.product(range(3), repeat=2)
                   if sum(float(costs[f, c]) for f, c in enumerate(pair)) <= limit)  # fmt: skip
        assert sum(float(costs[f, c]) for f, c in enumerate(chosen)) <= limit
        assert sum(float(gains[f, c]) for f, c in enumerate(chosen)) >= best - 2.5


def test_auto_dimension_keeps_the_preferred_widths_that_fit():
    made = AutoDimensionEmbedding(300, 8, 0.9, fields={"a": 100, "b": 200})
    with torch.no_grad():
        made.alphas[0, made.widths.index(8)] = 5
        made.alphas[1, made.widths.index(2)] = 5
    assert 0.01 <= made.temperature <= 1
    made.begin_stage(made.train_hooks[1], StageContext(10, 32, lambda: 0.0))
    assert made.config["dims"] == [8, 2]
    assert made.second_parameters() == []
    assert made.ratio() == pytest.approx((800 + 400 + 16) / 2400)


def test_opt_embed_searches_on_quality_within_the_budget():
    made = OptEmbedding(300, 8, 0.4, fields={"a": 100, "b": 200}, generations=5)
    supernet, search, retrain = made.train_hooks
    made.begin_stage(supernet, StageContext(10, 32, lambda: 0.0))
    assert made.penalty().item() == pytest.approx(2e-5)
    asked = []

    def quality():
        asked.append(made.widths)
        return made.widths[0] - 0.1 * abs(made.widths[1] - 2)

    made.eval()
    made.begin_stage(search, StageContext(10, 32, quality))
    made.begin_stage(retrain, StageContext(10, 32, quality))
    assert tuple(made.config["widths"]) == max(asked, key=lambda w: w[0] - 0.1 * abs(w[1] - 2))
    assert made.ratio() <= 0.4
    assert made.penalty() is None
    gone = np.setdiff1d(np.arange(300), made.kept.numpy())
    made.finalize()
    assert not made.decode(gone).any()


def test_step_through_steps_and_has_a_long_tailed_gradient():
    margin = torch.tensor([-2.0, -0.5, -0.1, 0.1, 0.7, 3.0], requires_grad=True)
    out = step_through(margin)
    assert out.tolist() == [0, 0, 0, 1, 1, 1]
    out.sum().backward()
    torch.testing.assert_close(margin.grad, torch.tensor([0, 0.4, 1.6, 1.6, 0.4, 0]))


def test_evolution_never_forgets_its_best_nor_alters_a_parent():
    scored = {}

    def score(candidate):
        assert candidate not in scored  # each is scored once
        scored[candidate] = -sum((c - 5) ** 2 for c in candidate)
        return scored[candidate]

    start = [(1, 1, 1), (2, 9, 4)]
    best, history = evolve(start, score, lambda c: sum(c) <= 13, [range(10)] * 3, generations=40, seed=1)
    assert start == [(1, 1, 1), (2, 9, 4)]
    assert history == sorted(history)
    assert all(sum(c) <= 13 for c in scored)
    assert scored[best] == max(scored.values()) == history[-1]
    optimum = max(-sum((c - 5) ** 2 for c in t) for t in itertools.product(range(10), repeat=3) if sum(t) <= 13)
    assert scored[best] == optimum


# Pruning


@pytest.mark.parametrize("kind", [DeepLightEmbedding, AutoSrhEmbedding, SoftThresholdEmbedding])
@pytest.mark.parametrize("budget", [0.9, 0.3, 0.02])
def test_pruning_keeps_exactly_the_largest_entries(kind, budget):
    table = matrix()
    decoded = kind(300, 8, budget).compress(table).decompress()
    kept = decoded != 0
    assert np.array_equal(decoded[kept], table[kept])
    assert np.abs(table[kept]).min() >= np.abs(table[~kept]).max(initial=0)


def test_pruning_schedule_reaches_its_target_and_settles():
    assert pruned_share(0, 0.9) == 0
    assert 0.9 - pruned_share(68_800, 0.9) < 1e-3
    made = DeepLightEmbedding(300, 8, 0.2)
    made.begin_stage(made.train_hooks[0], StageContext(1000, 32, lambda: 0.0))
    shares = []
    for _ in range(1000):
        made.after_step()
        shares.append(float((made.table == 0).float().mean()))
        assert made.settled == ("mask" in dict(made.named_buffers()))
    assert made.settled
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(made.target)
    assert made.n_bytes() <= 0.2 * 4 * 300 * 8


def test_gates_belong_to_frequency_groups():
    made = AutoSrhEmbedding(60, 4, 0.5, freq=np.arange(60))
    groups = made.group.long()
    assert torch.bincount(groups).tolist() == [10] * 6
    assert groups[-1] == 0
    assert groups[0] == 5
    with torch.no_grad():
        made.gates[0] = 7.0
        made.gates[5] = -1.0
    made.after_step()
    assert float(made.gates.detach().max()) == 1
    assert float(made.effective()[:10].abs().max()) == 0
    made.begin_stage(made.train_hooks[1], StageContext(10, 32, lambda: 0.0))
    assert not made.finalize().decode(np.arange(10)).any()


def test_soft_thresholds_shrink_towards_zero():
    made = SoftThresholdEmbedding(60, 4, 0.5, start=-3.5)
    threshold, raw = torch.sigmoid(torch.tensor(-3.5)), made.table.detach()
    expected = torch.sign(raw) * torch.clamp(raw.abs() - threshold, min=0)
    torch.testing.assert_close(made.effective(), expected)


# Sharing blocks, and fields


def test_dedup_finds_blocks_that_are_there_twice():
    table = np.repeat(matrix(20, 8), 5, axis=0)[np.r_[0:100, 0:100]]
    made = DedupEmbedding(200, 8, 0.6, block_rows=5).compress(table)
    np.testing.assert_array_equal(made.decompress(), table)
    assert made.ratio() <= 0.6


def test_dedup_meets_its_budget_by_widening_what_counts_as_equal():
    tight = DedupEmbedding(200, 8, 0.8, block_rows=5).compress(matrix(200))
    loose = DedupEmbedding(200, 8, 0.3, block_rows=5).compress(matrix(200))
    assert tight.ratio() <= 0.8
    assert loose.ratio() <= 0.3
    assert tight.config["closeness"] <= loose.config["closeness"]


def test_dedup_fine_tunes_what_it_shared():
    made = DedupEmbedding(200, 8, 0.3, block_rows=5)
    made.begin_stage(made.train_hooks[0], StageContext(10, 32, lambda: 0.0))
    assert made.training_bytes() == 16 * 200 * 8
    made.begin_stage(made.train_hooks[1], StageContext(10, 32, lambda: 0.0))
    assert made.ratio() <= 0.3
    made(torch.arange(200)).sum().backward()
    assert float(made.blocks.grad.sum()) == 200 * 8


def test_small_fields_stay_full_and_the_whole_meets_the_budget(tmp_path):
    fields = {"day": 7, "item": 900, "hour": 24, "user": 400}
    made = SplitEmbedding(1331, 8, 0.3, fields=fields, method="mgqe", freq=np.ones(1331))
    assert made.ratio() <= 0.3
    table = matrix(1331)
    made.compress(table)
    small = np.r_[0:7, 907:931]
    np.testing.assert_array_equal(made.decode(small), table[small])
    large = np.setdiff1d(np.arange(1331), small)
    assert np.abs(made.decode(large) - table[large]).max() > 0.01
    made.save(tmp_path / "split.safetensors")
    read = CompressedEmbedding.load(tmp_path / "split.safetensors")
    np.testing.assert_array_equal(read.decompress(), made.decompress())
    with pytest.raises(BudgetInfeasible, match="31 rows in full"):
        SplitEmbedding(1331, 8, 0.01, fields=fields, method="hash")
    with pytest.raises(InputError, match="No field has more than 1000 rows"):
        SplitEmbedding(1331, 8, 0.5, fields=fields, threshold=1000)


def test_split_trains_as_its_method_does():
    made = SplitEmbedding(600, 8, 0.9, fields={"a": 20, "b": 580}, method="alpt")
    assert made.train_hooks[0].second == "train"
    assert [p.shape for p in made.second_parameters()] == [(580, 1)]
    assert made.second_lr == 2e-5
    made.begin_stage(made.train_hooks[0], StageContext(10, 32, lambda: 0.0))
    made(torch.tensor([[3, 40], [19, 579]])).sum().backward()
    made.after_step()
    assert made.small.grad is not None
    assert made.settled
    assert sum(len(g["params"]) for g in made.parameter_groups(0.1)) == 2


def test_full_needs_the_full_budget():
    with pytest.raises(BudgetInfeasible, match="begin at 1"):
        FullEmbedding(10, 4, 0.99)
