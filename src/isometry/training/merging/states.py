"""Merging of state dicts, tensor by tensor, computed in float64 and returned in the tensors' own type."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from isometry.errors import EmptyInput, InputError

State = Mapping[str, Tensor]
SMALLEST_ANGLE = 1e-4  # radians; nearer to parallel (or opposite), the great circle is replaced by the straight line


def average(states: Sequence[State], weights: Sequence[float] | None = None) -> dict[str, Tensor]:
    """Average weights elementwise (model soup, Wortsman et al. 2022, arXiv:2203.05482).

    Parameters
    ----------
    states
        State dicts of one architecture, trained from one start. Tensors of whole numbers and booleans (positions,
        counters) are taken from the first; tensors that share their memory in every state share it in the result.
        Running statistics of batch normalisation are averaged too and mean nothing before they are computed anew.
    weights
        One factor >= 0 for each state, scaled to sum to 1; default: all equal.

    Raises
    ------
    EmptyInput
        If there is no state.
    InputError
        If keys, shapes, types or ties differ (the first such tensor is named), a value is NaN or infinite, adapters
        have not been merged into the weights, or the factors cannot be used.

    Examples
    --------
    >>> a, b = {"w": torch.tensor([0.0, 2.0])}, {"w": torch.tensor([4.0, 2.0])}
    >>> average([a, b], weights=[3, 1])["w"].tolist()
    [1.0, 2.0]
    """
    factors = [1.0] * len(states) if weights is None else [float(w) for w in weights]
    usable = len(factors) == len(states) and all(math.isfinite(w) and w >= 0 for w in factors)
    if states and not (usable and sum(factors) > 0):
        raise InputError(f"weights must hold {len(states)} numbers >= 0, not all 0; got {factors}.")
    return combine(states, lambda tensors: _weighted(tensors, factors) / sum(factors))


def slerp(a: State, b: State, t: float) -> dict[str, Tensor]:
    """Interpolate two state dicts spherically, one angle for each tensor (Shoemake 1985; Qwen3-Embedding's merging).

    ``w = sin((1 - t) theta) / sin(theta) u + sin(t theta) / sin(theta) v`` with theta the angle between the flattened
    tensors u and v; linear where the angle is undefined or within 1e-4 of 0 or pi, and for single numbers.

    Parameters
    ----------
    t
        In 0..1: 0 gives ``a``, 1 gives ``b``.

    Raises
    ------
    InputError
        As `average`, or if ``t`` lies outside 0..1.

    Examples
    --------
    >>> halfway = slerp({"w": torch.tensor([1.0, 0.0])}, {"w": torch.tensor([0.0, 1.0])}, 0.5)["w"]
    >>> [round(x, 4) for x in halfway.tolist()]             # the norm stays 1
    [0.7071, 0.7071]
    """
    if not 0 <= t <= 1:
        raise InputError(f"t must lie in 0..1, got {t}.")
    return combine([a, b], lambda tensors: _arc(tensors[0], tensors[1], t))


def merge_by_slerp(states: Sequence[State]) -> dict[str, Tensor]:
    """Merge any number of state dicts by `slerp`, one after the other: the k-th enters with t = 1/k.

    Unlike the average, the result of more than two depends on their order.
    """

    def fold(tensors: list[Tensor]) -> Tensor:
        merged = tensors[0]
        for k, tensor in enumerate(tensors[1:], start=2):
            merged = _arc(merged, tensor, 1 / k)
        return merged

    return combine(states, fold)


def task_arithmetic(base: State, states: Sequence[State], weights: float | Sequence[float] = 1.0) -> dict[str, Tensor]:
    """Add task vectors to their common start: ``base + sum_i w_i (state_i - base)`` (Ilharco et al. 2023).

    Parameters
    ----------
    base
        What every state was trained from.
    weights
        A factor for each state, or one for all; negative ones forget. Factors 1/K give the average.

    Examples
    --------
    >>> base, tuned = {"w": torch.tensor([1.0])}, {"w": torch.tensor([3.0])}
    >>> task_arithmetic(base, [tuned], -0.5)["w"].tolist()
    [0.0]
    """
    factors = [float(weights)] * len(states) if isinstance(weights, (int, float)) else [float(w) for w in weights]
    if not states or len(factors) != len(states) or not all(map(math.isfinite, factors)):
        raise InputError(
            f"Task arithmetic needs one finite weight for each of the {len(states)} states, got {factors}."
        )
    return combine([base, *states], lambda x: x[0] + _weighted([tuned - x[0] for tuned in x[1:]], factors))


def combine(states: Sequence[State], rule: Callable[[list[Tensor]], Tensor]) -> dict[str, Tensor]:
    """Apply a rule to each tensor of floating-point numbers (handed over in float64) after checking the states."""
    check_states(states)
    done: dict[tuple[object, ...], Tensor] = {}
    merged = {}
    for key, first in states[0].items():
        memory = tuple(_memory(state[key]) for state in states)
        if memory not in done and first.is_floating_point():
            done[memory] = rule([state[key].double() for state in states]).to(first.dtype)
        merged[key] = done[memory] if first.is_floating_point() else first.clone()
    return merged


def check_states(states: Sequence[State]) -> None:
    """Raise an `InputError` that names the first tensor in which state dicts differ too much to be merged."""
    if not states:
        raise EmptyInput("There is no state dict to merge.")
    first = states[0]
    if adapter := next((key for key in first if "lora_" in key), None):
        raise InputError(
            f"{adapter!r} is a factor of an adapter, and the average of factors is not that of their product; "
            "merge adapters into the weights first (merge_and_unload)."
        )
    for i, state in enumerate(states):
        if odd := sorted(state.keys() ^ first.keys()):
            here, there = (i, 0) if odd[0] in state else (0, i)
            raise InputError(f"State {here} has {odd[0]!r} ({len(odd)} keys differ), state {there} does not.")
        for key, tensor in state.items():
            kinds = [f"{t.dtype} {list(t.shape)}" for t in (first[key], tensor)]
            if kinds[0] != kinds[1]:
                raise InputError(f"{key!r} is {kinds[0]} in state 0 and {kinds[1]} in state {i}.")
            if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                raise InputError(f"{key!r} of state {i} holds NaN or infinity.")
            if not tensor.is_floating_point() and tensor.numel() > 1 and not torch.equal(first[key], tensor):
                raise InputError(
                    f"{key!r} holds {tensor.dtype} that differ between states 0 and {i} and cannot be merged; "
                    "turn quantized weights back into floating-point numbers first."
                )
    groups = [_ties(state) for state in states]
    for (i, one), (j, other) in pairwise(enumerate(groups)):
        if odd := sorted(key for key in one if one[key] != other[key]):
            raise InputError(
                f"{odd[0]!r} is tied to other tensors in state {i} than in state {j}; tie both or neither."
            )


def _ties(state: State) -> dict[str, str]:
    """Each tensor's first name."""
    names: dict[tuple[object, ...], str] = {}
    return {key: names.setdefault(_memory(state[key]), key) for key in sorted(state) if state[key].numel()}


def _memory(tensor: Tensor) -> tuple[object, ...]:
    return tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride()


def _weighted(tensors: Sequence[Tensor], factors: Sequence[float]) -> Tensor:
    total = torch.zeros_like(tensors[0])
    for tensor, factor in zip(tensors, factors, strict=True):
        total += factor * tensor
    return total


def _arc(u: Tensor, v: Tensor, t: float) -> Tensor:
    """Return the point at ``t`` of the arc from u to v, both float64."""
    norms = float(u.norm() * v.norm())
    if u.numel() < 2 or norms == 0:
        return (1 - t) * u + t * v
    angle = math.acos(max(-1.0, min(1.0, float((u * v).sum()) / norms)))
    if min(angle, math.pi - angle) < SMALLEST_ANGLE:
        return (1 - t) * u + t * v
    return (math.sin((1 - t) * angle) * u + math.sin(t * angle) * v) / math.sin(angle)
