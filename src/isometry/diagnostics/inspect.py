"""Look at a set of vectors from all sides at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isometry.diagnostics.depth import cosine_depth
from isometry.diagnostics.duplicates import exact_duplicates, near_duplicates
from isometry.diagnostics.hubness import k_occurrence_of
from isometry.diagnostics.inspect_recall import forecast_recall
from isometry.diagnostics.inspection import Inspection, Item, findings_of
from isometry.diagnostics.intrinsic_dimension import lid_of_distances, mle_dimension, two_nn_of_distances
from isometry.diagnostics.isotropy import (
    effective_rank_of,
    isoscore_of,
    mean_cosine,
    participation_ratio_of,
    partition_isotropy,
    spectrum,
)
from isometry.diagnostics.length import length_effect, word_counts
from isometry.diagnostics.neighbours import knn
from isometry.diagnostics.sphere import Array, unit_rows
from isometry.errors import DimensionMismatch, EmptyInput, InputError
from isometry.types import IntArray

_NEAR = 0.95  # cosine of paraphrases and boilerplate under common sentence encoders
_NEIGHBOURS, _HUB_K = 20, 10
_SHOWN = 10  # items listed at either end
_EXCERPT = 160  # characters of a text that are kept


def inspect_vectors(
    vectors: Any,
    *,
    ids: Sequence[str] | None = None,
    texts: Sequence[str] | None = None,
    sample: int = 5000,
    seed: int = 0,
) -> Inspection:
    """Every diagnosis of a set of vectors, with findings in plain language.

    Bad rows (NaN, infinity, zero) are counted, named and left out, not refused. Figures that need all pairs are taken
    on a sample of rows, which the result states.

    Parameters
    ----------
    vectors
        ``[n, d]`` of any float type.
    ids
        Names of the rows; row numbers where not given.
    texts
        What was embedded: adds the effect of length and excerpts.
    sample
        Rows beyond which pairwise figures are taken on a random sample of that size, at least 100.
    seed
        Draws the sample.

    Raises
    ------
    EmptyInput
        If there is no usable row.
    InputError
        If ids or texts differ from the vectors in number.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> seen = inspect_vectors(rng.normal(0.5, 1, (300, 16)))
    >>> seen.size, seen.dim, seen.sampled
    (300, 16, False)
    """
    values, names = _checked(vectors, ids, texts, sample)
    finite, norms = _norms(values)
    rows = np.flatnonzero(norms > 0)
    if not len(rows):
        raise EmptyInput("none of the vectors is usable: all hold NaN, infinity or zeros.")
    unit = unit_rows(values[rows])
    depths = cosine_depth(unit, unit, in_sample=True) if len(rows) > 1 else np.full(1, 2.0)
    order = np.argsort(-depths, kind="stable")
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(len(rows), sample, replace=False)) if len(rows) > sample else np.arange(len(rows))
    lengths = None if texts is None else word_counts([texts[i] for i in rows[chosen]])

    def items(positions: IntArray) -> tuple[Item, ...]:
        return tuple(_item(int(rows[p]), float(depths[p]), names, texts) for p in positions[:_SHOWN])

    figures, series = _on_sample(unit[chosen], values[rows[chosen]].astype(np.float64), lengths, seed)
    if figures["lid"] is not None:
        figures["recall_forecast"] = forecast_recall(figures["lid"], len(rows))
    seen = Inspection(
        size=len(values),
        dim=values.shape[1],
        dtype=str(values.dtype),
        usable=len(rows),
        nan_rows=int((~finite).sum()),
        zero_rows=int((finite & (norms == 0)).sum()),
        bad_ids=tuple(names(int(row)) for row in np.flatnonzero(norms == 0)[:_SHOWN]),
        norm_mean=float(norms[rows].mean()),
        norm_min=float(norms[rows].min()),
        norm_max=float(norms[rows].max()),
        exact_duplicates=exact_duplicates(values[rows]).extra,
        sample=len(chosen),
        seed=seed,
        mean_cosine=mean_cosine(unit) if len(rows) > 1 else None,
        central=items(order),
        outliers=items(order[::-1]),
        outlier_count=_far_below(depths),
        series={"rows": rows[chosen], "norms": norms[rows], "depths": depths[chosen], **series},
        **figures,
    )
    return replace(seen, findings=findings_of(seen))


def _checked(
    vectors: Any, ids: Sequence[str] | None, texts: Sequence[str] | None, sample: int
) -> tuple[NDArray[Any], Callable[[int], str]]:
    values = np.asarray(vectors)
    if values.ndim != 2 or values.dtype.kind not in "fiu":
        raise DimensionMismatch(
            f"vectors must be a matrix [n, d] of numbers, got shape {values.shape} and type {values.dtype}."
        )
    if not values.size:
        raise EmptyInput("there are no vectors to inspect.")
    for name, given in (("ids", ids), ("texts", texts)):
        if given is not None and len(given) != len(values):
            raise InputError(f"{len(values)} vectors need {len(values)} {name}, got {len(given)}.")
    if sample < 100:
        raise InputError(f"sample must be at least 100 rows, got {sample}.")
    return values, (str if ids is None else lambda row: str(ids[row]))


def _norms(values: NDArray[Any]) -> tuple[NDArray[np.bool_], Array]:
    """Which rows are finite, and the norm of each: 0 for those that are not."""
    finite = np.isfinite(values).all(axis=1)
    norms = np.zeros(len(values))
    norms[finite] = np.linalg.norm(values[finite].astype(np.float64), axis=1)
    return finite, norms


def _item(row: int, depth: float, names: Callable[[int], str], texts: Sequence[str] | None) -> Item:
    return Item(row, names(row), depth, None if texts is None else texts[row][:_EXCERPT])


def _on_sample(
    unit: Array, raw: Array, lengths: Array | None, seed: int
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Figures that need pairs or a decomposition, and the arrays behind them."""
    n = len(unit)
    k = min(_NEIGHBOURS, n - 1)
    enough = n >= 8  # fewer rows have no shape to speak of
    distances, neighbours = knn(unit, k) if enough else (np.zeros((n, 0)), np.zeros((n, 0), np.int64))
    hubs = k_occurrence_of(neighbours[:, : min(_HUB_K, k)]) if enough else None
    eigenvalues = spectrum(raw) if enough else np.zeros(0)
    # Rounding leaves a speck of variance in copies of one vector.
    varied = bool(enough and eigenvalues.sum() > 1e-12 * (raw**2).sum() / n)
    length = None if lengths is None or not enough else length_effect(unit, lengths, seed=seed)
    told = length is not None and not np.isnan([length.rho, *length.ci95, length.pair_rho]).any()
    local = lid_of_distances(distances) if enough else np.zeros(0)
    spread = local[np.isfinite(local)]
    figures: dict[str, Any] = {
        "near_duplicates": near_duplicates(unit, _NEAR).extra,
        "near_threshold": _NEAR,
        "effective_rank": effective_rank_of(eigenvalues) if varied else None,
        "participation_ratio": participation_ratio_of(eigenvalues) if varied else None,
        "dims95": _dims(eigenvalues, 0.95) if varied else None,
        "isoscore": isoscore_of(eigenvalues, raw.shape[1]) if varied and raw.shape[1] > 1 else None,
        "partition_isotropy": partition_isotropy(unit) if enough else None,
        "lid": _or_none(lambda: mle_dimension(local)) if enough else None,
        "lid_quartiles": tuple(np.quantile(spread, [0.25, 0.5, 0.75]).tolist()) if len(spread) else None,
        "recall_forecast": (),
        "two_nn": _or_none(lambda: two_nn_of_distances(distances)) if enough else None,
        "hub_k": hubs.k if hubs else None,
        "hub_skewness": hubs.skewness if hubs else None,
        "hub_max": int(hubs.counts.max()) if hubs else None,
        "anti_hub_share": len(hubs.anti_hubs) / n if hubs else None,
        "length_rho": length.rho if length and told else None,
        "length_ci95": length.ci95 if length and told else None,
        "length_rho_pairs": length.pair_rho if length and told else None,
    }
    left, right = np.random.default_rng(seed).integers(n, size=(2, 20_000))
    cosines = np.einsum("ij,ij->i", unit[left[left != right]], unit[right[left != right]])
    occurrences = hubs.counts if hubs else np.zeros(0, np.int64)
    return figures, {"spectrum": eigenvalues, "cosines": cosines, "occurrences": occurrences}


def _or_none(measure: Callable[[], float]) -> float | None:
    """None where the rows do not vary enough to tell."""
    try:
        value = measure()
    except InputError:
        return None
    return value if np.isfinite(value) else None


def _dims(eigenvalues: Array, share: float) -> int:
    return int(np.searchsorted(np.cumsum(eigenvalues) / eigenvalues.sum(), share - 1e-12)) + 1


def _far_below(depths: Array) -> int:
    """Rows whose depth is more than five robust standard deviations below the median.

    For a normal law that is one row in three million; depths of texts have a longer tail, of which this keeps the end.
    """
    middle = np.median(depths)
    spread = 1.4826 * float(np.median(np.abs(depths - middle)))
    return int((depths < middle - 5.0 * spread).sum()) if spread > 1e-9 else 0
