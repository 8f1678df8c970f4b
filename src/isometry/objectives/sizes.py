"""Sizes of an encoder that can be cut in two directions, and which of them a training step looks at.

A size is (layers, dims): the embedding after that many blocks, its first so many coordinates. Every two-dimensional
Matryoshka method is one weighting of sizes by step; each is a `Schedule` here, and
`isometry.objectives.matryoshka.SizedLoss` adds up what it names.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from isometry.errors import InputError


class Size(NamedTuple):
    """One size: blocks to run and coordinates to keep."""

    layers: int
    dims: int


@dataclass(frozen=True)
class Terms:
    """What one step adds up.

    Parameters
    ----------
    losses
        Weight of the base loss by size.
    aligned
        Weight of the alignment term by size.
    """

    losses: Mapping[Size, float]
    aligned: Mapping[Size, float] = field(default_factory=dict)


Schedule = Callable[[int], Terms]


def size_menu(layers: int, dims: int, *, sizes: int = 6) -> tuple[Size, ...]:
    """Return a diagonal menu of sizes from small to full (Starbucks, arXiv:2410.13230).

    Layers are spread evenly; dims halve downwards from ``dims``, rounded up to powers of two.

    Raises
    ------
    InputError
        If there are not that many different sizes.

    Examples
    --------
    >>> [tuple(size) for size in size_menu(12, 768)]
    [(2, 32), (4, 64), (6, 128), (8, 256), (10, 512), (12, 768)]
    """
    if sizes < 1:
        raise InputError(f"A menu needs at least one size, got {sizes}.")
    depths = [round((i + 1) * layers / sizes) for i in range(sizes)]
    widths = [min(dims, 1 << math.ceil(math.log2(max(1.0, dims / 2 ** (sizes - 1 - i))))) for i in range(sizes)]
    return check_menu([Size(*size) for size in zip(depths, widths, strict=True)], layers, dims)


def check_menu(menu: Sequence[tuple[int, int]], layers: int, dims: int) -> tuple[Size, ...]:
    """Return a menu whose sizes grow in both directions up to the full one, or say what is wrong with it.

    Raises
    ------
    InputError
        If it is empty, does not grow strictly in layers and in dims, or does not end with ``(layers, dims)``.
    """
    found = tuple(Size(*size) for size in menu)
    grows = all(a.layers < b.layers and a.dims < b.dims for a, b in pairwise(found))
    if not found or not grows or found[0].layers < 1 or found[0].dims < 1 or found[-1] != (layers, dims):
        raise InputError(
            f"A menu of sizes (layers, dims) must grow in both up to the full size ({layers}, {dims}); "
            f"got {[tuple(size) for size in found]}."
        )
    return found


def draw_size(layers: Sequence[int], dims: Sequence[int], *, seed: int, step: int) -> Size:
    """Return the size of one step, drawn uniformly; the same for the same seed and step.

    >>> draw_size((1, 2, 3), (8, 16), seed=0, step=5) == draw_size((1, 2, 3), (8, 16), seed=0, step=5)
    True
    """
    if not layers or not dims:
        raise InputError(f"A size is drawn from at least one depth and one width, got {list(layers)} and {list(dims)}.")
    rng = np.random.default_rng((seed, step))
    return Size(int(rng.choice(layers)), int(rng.choice(dims)))


@dataclass(frozen=True)
class FullOnly:
    """The full size alone: plain training, the baseline of the others."""

    full: Size

    def __call__(self, step: int) -> Terms:
        """Return the terms of a step."""
        return Terms({self.full: 1.0})


@dataclass(frozen=True)
class Menu:
    """Every size of a menu at every step (Starbucks representation learning, arXiv:2410.13230).

    ``L = l(full) + sum over the smaller sizes of [ l(size) + align_weight * alignment(size) ]``

    Parameters
    ----------
    menu
        From `size_menu`; the full size last.
    align_weight
        Weight of the alignment of each smaller size: 0.3 is the authors' for sentence similarity, 1 for retrieval.
    """

    menu: tuple[Size, ...]
    align_weight: float = 0.3

    def __call__(self, step: int) -> Terms:
        """Return the terms of a step."""
        return Terms(dict.fromkeys(self.menu, 1.0), dict.fromkeys(self.menu[:-1], self.align_weight))


@dataclass(frozen=True)
class Sampled:
    """One random inner layer n and one random width d each step (2DMSE, arXiv:2402.14776).

    ``L = l(N, D) + l(N, d) + layer_weight(n) * (l(n, D) + l(n, d)) + align_weight * alignment(n, D)``

    Parameters
    ----------
    full
        (N, D).
    dims
        Widths to draw from.
    layers
        Depths to draw from; default 1 .. N - 1.
    align_weight
        Weight of the alignment with the full size.
    seed
        Of the draws.
    """

    full: Size
    dims: tuple[int, ...]
    layers: tuple[int, ...] = ()
    align_weight: float = 1.0
    seed: int = 0

    @property
    def depths(self) -> tuple[int, ...]:
        """Depths drawn from."""
        return self.layers or tuple(range(1, self.full.layers))

    def __call__(self, step: int) -> Terms:
        """Return the terms of a step."""
        return self.at(draw_size(self.depths, self.dims, seed=self.seed, step=step))

    def at(self, size: Size) -> Terms:
        """Return the terms of a step that drew this size."""
        deep, thin = self.full, Size(size.layers, self.full.dims)
        wanted = [deep, Size(deep.layers, size.dims), thin, size]
        return Terms({s: float(wanted.count(s)) for s in wanted}, {thin: self.align_weight})


@dataclass(frozen=True)
class SampledWeighted:
    """Random layers weighted by depth, one random width each (the form of sentence-transformers' Matryoshka2dLoss).

    ``L = last * l(N, d) + sum over drawn n of [ prior * l(n, d_n) / (n |S|) + align_weight * alignment(n, D) ]``

    Parameters
    ----------
    full
        (N, D).
    dims
        Widths to draw from; the full one among them.
    layers_per_step
        |S|: how many inner layers a step draws; 0 takes all.
    last, prior, align_weight
        Weights of the last layer, of the layers before, and of their alignment.
    favour_shallow
        Divide a layer's weight by its depth, as that library does; False weighs all alike.
    seed
        Of the draws.
    """

    full: Size
    dims: tuple[int, ...]
    layers_per_step: int = 1
    last: float = 1.0
    prior: float = 1.0
    align_weight: float = 0.3
    favour_shallow: bool = True
    seed: int = 0

    def __call__(self, step: int) -> Terms:
        """Return the terms of a step."""
        rng = np.random.default_rng((self.seed, step))
        inner = np.arange(1, self.full.layers)
        if 0 < self.layers_per_step < len(inner):
            inner = np.sort(rng.choice(inner, self.layers_per_step, replace=False))
        losses = {Size(self.full.layers, int(rng.choice(self.dims))): self.last}
        aligned = {}
        for layer in map(int, inner):
            depth = layer if self.favour_shallow else 1
            losses[Size(layer, int(rng.choice(self.dims)))] = self.prior / (depth * len(inner))
            aligned[Size(layer, self.full.dims)] = self.align_weight
        return Terms(losses, aligned)


@dataclass(frozen=True)
class EveryLayer:
    """Every layer at one compressed width, weighted ``1 / (1 + ln n)`` (ESE, the later form of arXiv:2402.14776).

    ``L = l(N, D) + l(N, k) + alignment(N, k) + mean over n < N of [ l(n, k) + alignment(n, k) ] / (1 + ln n)``

    Parameters
    ----------
    full
        (N, D).
    dims
        The compressed width k; below D.
    align_weight
        Factor of the alignment terms; 0 leaves them out.
    """

    full: Size
    dims: int
    align_weight: float = 1.0

    def __call__(self, step: int) -> Terms:
        """Return the terms of a step."""
        inner = range(1, self.full.layers)
        parts = {Size(n, self.dims): 1.0 / (1.0 + math.log(n)) / len(inner) for n in inner}
        parts[Size(self.full.layers, self.dims)] = 1.0
        return Terms({self.full: 1.0, **parts}, {s: self.align_weight * w for s, w in parts.items()})
