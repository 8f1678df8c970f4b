"""Merging of weights: closed forms, invariances, a trusted peer, what is refused, and the barrier on the line."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import mse_loss

from isometry.errors import EmptyInput, InputError, UnknownName
from isometry.training.merging import average, loss_barrier, merge_by_slerp, merge_models, slerp, task_arithmetic


def states(n, seed=0, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    return [
        {"a": torch.randn(5, 3, generator=g).to(dtype), "b": torch.randn(7, generator=g).to(dtype),
         "one": torch.randn(1, generator=g).to(dtype), "count": torch.tensor(i)}
        for i in range(n)
    ]  # fmt: skip


def close(one, other, atol=1e-6):
    assert one.keys() == other.keys()
    for key in one:
        torch.testing.assert_close(one[key], other[key], atol=atol, rtol=0)


def test_average_is_the_elementwise_mean_and_leaves_whole_numbers_alone():
    some = states(4)
    merged = average(some)
    for key in ("a", "b", "one"):
        torch.testing.assert_close(merged[key], torch.stack([s[key] for s in some]).double().mean(0).float())
    assert merged["count"].item() == 0
    weighted = average(some, [1, 2, 3, 4])
    expected = sum(w * s["a"].double() for w, s in zip((0.1, 0.2, 0.3, 0.4), some, strict=True))
    torch.testing.assert_close(weighted["a"], expected.float())


@given(st.integers(1, 6), st.integers(0, 100), st.randoms(use_true_random=False))
@settings(max_examples=25, deadline=None)
def test_average_of_copies_is_the_model_and_order_is_nothing(n, seed, random):
    one = states(1, seed)[0]
    close(average([one] * n), one, atol=0)
    some = states(n, seed)
    for state in some:
        state["count"] = torch.tensor(0)
    order = random.sample(range(n), n)
    close(average(some), average([some[i] for i in order]), atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_types_are_kept_and_sums_are_exact(dtype):
    one = states(1, dtype=dtype)[0]
    for merged in (average([one] * 3), merge_by_slerp([one] * 3), task_arithmetic(one, [one], 0.7)):
        assert merged["a"].dtype == dtype
        close(merged, one, atol=1e-15 if dtype == torch.float64 else 0)


def test_slerp_ends_norm_and_symmetry():
    u, v = states(2)
    v["count"] = u["count"]
    close(slerp(u, v, 0), u)
    close(slerp(u, v, 1), v)
    for t in (0.1, 0.37, 0.5):
        close(slerp(u, v, t), slerp(v, u, 1 - t))
    unit = [{key: x / x.norm() for key, x in s.items() if x.is_floating_point()} for s in (u, v)]
    for t in (0.2, 0.5, 0.9):
        for key, tensor in slerp(*unit, t).items():
            if key != "one":
                assert tensor.norm().item() == pytest.approx(1, abs=1e-6)
                angle = math.acos(float((unit[0][key] * unit[1][key]).sum()))
                assert math.acos(float((unit[0][key] * tensor).sum())) == pytest.approx(t * angle, abs=1e-3)


@pytest.mark.parametrize(
    ("u", "v"),
    [([1.0, 2.0], [2.0, 4.0]), ([0.0, 0.0], [1.0, 1.0]), ([3.0], [5.0]), ([1.0, 0.0], [-1.0, 0.0]), ([0.0], [0.0])],
)
def test_slerp_is_linear_where_there_is_no_angle(u, v):
    merged = slerp({"w": torch.tensor(u)}, {"w": torch.tensor(v)}, 0.25)["w"]
    torch.testing.assert_close(merged, 0.75 * torch.tensor(u) + 0.25 * torch.tensor(v))


def test_slerp_of_many_is_sequential():
    a, b, c = states(3)
    expected = slerp(slerp(a, b, 1 / 2), c, 1 / 3)
    close(merge_by_slerp([a, b, c]), expected)
    close(merge_by_slerp([a]), a)


def test_slerp_is_mergekits():
    try:
        peer = pytest.importorskip("mergekit.merge_methods.slerp")
    except RuntimeError:  # mergekit cannot be imported beside the newest pydantic
        pytest.skip("mergekit does not work here")
    u, v = states(2, seed=3)
    for key in ("a", "b"):
        for t in (0.0, 0.3, 0.5, 1.0):
            expected = peer.slerp(t, u[key].flatten(), v[key].flatten()).reshape(u[key].shape)
            torch.testing.assert_close(slerp(u, v, t)[key], expected, atol=1e-6, rtol=1e-5)


def test_task_arithmetic():
    base, one, two = states(3)
    close(task_arithmetic(base, [one], 1.0), one | {"count": base["count"]})
    close(task_arithmetic(base, [one, two], 0.5), average([one, two]) | {"count": base["count"]})
    forgotten = task_arithmetic(base, [one, two], [1.0, -0.5])
    torch.testing.assert_close(forgotten["a"], one["a"] - 0.5 * (two["a"] - base["a"]))
    with pytest.raises(InputError, match="finite weight for each of the 2 states"):
        task_arithmetic(base, [one, two], [1.0])


def tied(seed=0, tie=True):
    torch.manual_seed(seed)
    net = nn.ModuleDict({"table": nn.Embedding(6, 4), "head": nn.Linear(4, 6, bias=False)})
    if tie:
        net["head"].weight = net["table"].weight
    return net


def test_tied_weights_stay_tied_and_agree():
    merged = average([tied(0).state_dict(), tied(1).state_dict()])
    assert merged["head.weight"].data_ptr() == merged["table.weight"].data_ptr()
    expected = (tied(0)["head"].weight + tied(1)["head"].weight) / 2
    torch.testing.assert_close(merged["head.weight"], expected.detach())
    with pytest.raises(InputError, match="is tied to other tensors in state 0 than in state 1"):
        average([tied(0).state_dict(), tied(1, tie=False).state_dict()])


def test_what_cannot_be_merged_is_named():
    a, b = states(2)
    with pytest.raises(EmptyInput, match="no state dict"):
        average([])
    with pytest.raises(InputError, match=r"State 0 has 'b' \(1 keys differ\), state 1 does not"):
        average([a, {k: v for k, v in b.items() if k != "b"}])
    with pytest.raises(InputError, match=r"'a' is torch.float32 \[5, 3\] in state 0 and torch.float32 \[6, 3\]"):
        slerp(a, b | {"a": torch.zeros(6, 3)}, 0.5)
    with pytest.raises(InputError, match=r"'a' is torch.float32 .* torch.float16"):
        average([a, b | {"a": b["a"].half()}])
    with pytest.raises(InputError, match="'b' of state 1 holds NaN"):
        average([a, b | {"b": torch.full((7,), torch.nan)}])
    with pytest.raises(InputError, match=r"'q' holds torch.int8 that differ between states 0 and 1"):
        average([{"q": torch.tensor([i, 1], dtype=torch.int8)} for i in range(2)])
    with pytest.raises(InputError, match="factor of an adapter"):
        average([{"q.lora_A.weight": torch.ones(1)}])
    with pytest.raises(InputError, match="t must lie in"):
        slerp(a, b, 1.1)
    for weights in ([1.0], [0.0, 0.0], [1.0, -1.0], [1.0, math.nan]):
        with pytest.raises(InputError, match="weights must hold 2 numbers"):
            average([a, b], weights)


def test_average_of_adapter_factors_is_not_the_average_of_products():
    g = torch.Generator().manual_seed(0)
    a, b = (torch.randn(2, 4, 2, generator=g) for _ in range(2))
    assert not torch.allclose(a.mean(0) @ b.mean(0).T, (a @ b.transpose(1, 2)).mean(0), atol=0.1)


def net(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 1))


def test_barrier_shows_permuted_units():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(200, 2, generator=g)
    one = net(0)
    y = one(x).detach()
    permuted = copy.deepcopy(one)
    order = torch.randperm(16, generator=g)
    with torch.no_grad():
        permuted[0].weight.copy_(one[0].weight[order])
        permuted[0].bias.copy_(one[0].bias[order])
        permuted[2].weight.copy_(one[2].weight[:, order])
    torch.testing.assert_close(permuted(x), y)  # the same function ...

    def loss(state):
        return float(mse_loss(torch.func.functional_call(one, state, x), y))

    barrier = loss_barrier(one.state_dict(), permuted.state_dict(), loss)
    assert barrier.losses[0] == pytest.approx(0, abs=1e-10)
    assert barrier.losses[-1] == pytest.approx(0, abs=1e-10)
    assert barrier.height > 0.005  # ... with a hill between
    with pytest.raises(InputError, match="trained from one start"):
        barrier.check(0.005)
    near = {k: v + 1e-3 for k, v in one.state_dict().items()}
    loss_barrier(one.state_dict(), near, loss).check(1e-3)
    with pytest.raises(InputError, match="at least 3 points"):
        loss_barrier(near, near, loss, points=2)
    with pytest.raises(InputError, match="not finite"):
        loss_barrier(near, near, lambda state: math.nan)


@pytest.fixture(scope="module")
def pair(minilm):
    """The built-in model and a copy with other weights."""
    first, second = (copy.deepcopy(minilm.model) for _ in range(2))
    with torch.no_grad():
        for parameter in second.parameters():
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    return first, second


def test_models_merge_into_a_new_model(pair):
    before = copy.deepcopy(pair[0].state_dict())
    merged = merge_models(pair)
    close(merged.state_dict(), average([m.state_dict() for m in pair]), atol=0)
    close(pair[0].state_dict(), before, atol=0)
    assert merged.encode(["a text"]).shape == (1, 384)
    close(merge_models(pair, "slerp").state_dict(), merge_by_slerp([m.state_dict() for m in pair]), atol=0)
    vector = merge_models(pair[1:], "task_arithmetic", base=pair[0], weights=[0.5])
    close(vector.state_dict(), merged.state_dict())


def test_models_that_do_not_fit_are_refused(pair):
    first = pair[0]
    with pytest.raises(EmptyInput):
        merge_models([])
    with pytest.raises(UnknownName, match="merging method 'mean'"):
        merge_models(pair, "mean")
    with pytest.raises(InputError, match="needs the models' start"):
        merge_models(pair, "task_arithmetic")
    with pytest.raises(InputError, match="'slerp' no weights"):
        merge_models(pair, "slerp", weights=[1, 2])
    other = copy.deepcopy(first)
    other.tokenizer.add_tokens(["brandnewword"])
    with pytest.raises(InputError, match="different vocabulary: 'brandnewword' is None"):
        merge_models([first, other])
    cut = copy.deepcopy(first)
    del cut._modules["2"]
    with pytest.raises(InputError, match="different modules: '2"):
        merge_models([first, cut])
    normed = copy.deepcopy(first)
    normed.add_module("3", nn.BatchNorm1d(384))
    with pytest.raises(InputError, match="'3' holds running statistics"):
        merge_models([normed, normed])
