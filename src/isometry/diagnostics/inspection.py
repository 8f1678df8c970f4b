"""What an inspection of vectors found: figures, and findings in plain language."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from numpy.typing import NDArray

from isometry.diagnostics.inspect_recall import RecallForecast

Level = Literal["problem", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One sentence for a person; ``problem`` must be mended, ``warning`` matters for most uses, ``note`` for some."""

    level: Level
    text: str


@dataclass(frozen=True)
class Item:
    """A row that stands out: its position, id, cosine depth and the beginning of its text, if known."""

    row: int
    id: str
    depth: float
    text: str | None = None


@dataclass(frozen=True, eq=False)
class Inspection:
    """Figures about a set of vectors; None where there are too few rows, or no variation, to tell.

    Parameters
    ----------
    size, dim, dtype
        Rows, width and type of what was given.
    usable
        Rows without NaN, infinity or zero vectors: all figures below are about these.
    nan_rows, zero_rows
        How many rows hold NaN or infinity, are zero.
    bad_ids
        Ids of up to ten of them.
    norm_mean, norm_min, norm_max
        Euclidean norms.
    exact_duplicates
        Rows that repeat an earlier one.
    sample
        Rows that figures from here to ``length_rho_pairs`` were taken on; below ``usable`` they are estimates, and the
        near duplicates are a lower bound.
    near_duplicates
        Rows of the sample that repeat another at a cosine of ``near_threshold`` or more.
    effective_rank, participation_ratio, dims95
        Of the centred spectrum; ``dims95`` is how many principal directions hold 95 % of the variance.
    isoscore, partition_isotropy
        1 is isotropic.
    lid, two_nn
        Intrinsic dimension: harmonic mean of pointwise maximum likelihood, and TwoNN.
    lid_quartiles
        Quartiles of the pointwise dimension: a wide spread means that a search is easy in some places and hard in
        others.
    recall_forecast
        Recall@10 an HNSW graph is expected to have, by the width of its search; see `forecast_recall`.
    hub_skewness, hub_max, anti_hub_share
        Skewness and maximum of the ``hub_k``-occurrence, share of rows that are nobody's neighbour.
    length_rho, length_ci95, length_rho_pairs
        Spearman correlation of text length with similarity; None without texts.
    mean_cosine, central, outliers, outlier_count
        Over all usable rows: mean pairwise cosine, deepest and shallowest rows, and how many lie far below the rest.
    findings
        Plain-language conclusions, most serious first.
    series
        Arrays behind the figures, for drawing; not part of `to_dict`.
    """

    size: int
    dim: int
    dtype: str
    usable: int
    nan_rows: int
    zero_rows: int
    bad_ids: tuple[str, ...]
    norm_mean: float
    norm_min: float
    norm_max: float
    exact_duplicates: int
    sample: int
    seed: int
    near_duplicates: int
    near_threshold: float
    effective_rank: float | None
    participation_ratio: float | None
    dims95: int | None
    isoscore: float | None
    partition_isotropy: float | None
    lid: float | None
    two_nn: float | None
    lid_quartiles: tuple[float, float, float] | None
    recall_forecast: tuple[RecallForecast, ...]
    hub_k: int | None
    hub_skewness: float | None
    hub_max: int | None
    anti_hub_share: float | None
    length_rho: float | None
    length_ci95: tuple[float, float] | None
    length_rho_pairs: float | None
    mean_cosine: float | None
    central: tuple[Item, ...]
    outliers: tuple[Item, ...]
    outlier_count: int
    findings: tuple[Finding, ...] = ()
    series: Mapping[str, NDArray[Any]] = field(default_factory=dict, repr=False)

    @property
    def sampled(self) -> bool:
        """Whether some figures are estimates from a sample."""
        return self.sample < self.usable

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form: every field but ``series``, in a fixed order."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "series"}
        values["sampled"] = self.sampled
        values["bad_ids"] = list(self.bad_ids)
        values["length_ci95"] = None if self.length_ci95 is None else list(self.length_ci95)
        values["lid_quartiles"] = None if self.lid_quartiles is None else list(self.lid_quartiles)
        for name in ("recall_forecast", "central", "outliers", "findings"):
            values[name] = [vars(entry).copy() for entry in getattr(self, name)]
        return values


_LEVELS: tuple[Level, ...] = ("problem", "warning", "note")


def findings_of(seen: Inspection) -> tuple[Finding, ...]:
    """Turn figures into sentences, most serious first."""
    found = [*_rows(seen), *_directions(seen), *_neighbourhood(seen), *_texts(seen)]
    return tuple(sorted(found, key=lambda finding: _LEVELS.index(finding.level)))


def _rows(seen: Inspection) -> list[Finding]:
    found: list[Finding] = []
    if seen.nan_rows:
        text = f"{seen.nan_rows} vectors hold NaN or infinity: remove them, or embed their texts again."
        found.append(Finding("problem", text))
    if seen.zero_rows:
        text = f"{seen.zero_rows} vectors are zero and have no direction: their texts are probably empty; remove them."
        found.append(Finding("problem", text))
    # A float16 vector of norm 1 is off by up to 1e-3.
    if max(abs(seen.norm_min - 1), abs(seen.norm_max - 1)) > 2e-3:
        equal = seen.norm_max - seen.norm_min <= 2e-3 * seen.norm_max
        text = (
            f"All norms are {seen.norm_mean:.3g}, not 1: normalise before reading a dot product as a cosine."
            if equal
            else f"Norms run from {seen.norm_min:.3g} to {seen.norm_max:.3g}: dot product and cosine rank differently; "
            "normalise if the model was trained for cosine."
        )
        found.append(Finding("note", text))
    if seen.exact_duplicates:
        share = seen.exact_duplicates / seen.usable
        text = (
            f"{seen.exact_duplicates} vectors ({share:.1%}) repeat an earlier one: they fill result lists and inflate "
            "counts; deduplicate."
        )
        # One result in ten is then a repetition for one query in ten at 1 %.
        found.append(Finding("warning" if share >= 0.01 else "note", text))
    repeated = seen.near_duplicates / seen.sample
    if repeated >= 0.05:  # with one row in twenty repeated, half of all top-10 lists hold a repetition
        where = "of the sample (more in the whole)" if seen.sampled else "of the vectors"
        text = (
            f"{repeated:.0%} {where} have a near twin (cosine {seen.near_threshold:g} or more): consider grouping them."
        )
        found.append(Finding("warning", text))
    return found


def _directions(seen: Inspection) -> list[Finding]:
    found: list[Finding] = []
    # The shared direction holds sqrt(mean cosine) of every vector's length: more than half from 0.25 on.
    if seen.mean_cosine is not None and seen.mean_cosine >= 0.25:
        text = f"Mean cosine is {seen.mean_cosine:.2f}: centre before thresholding similarities."
        found.append(Finding("warning", text))
    # Halving the width is the least saving worth a projection; n rows span n directions at most, so that fewer than
    # two rows a dimension say nothing about the spectrum's tail.
    if seen.dims95 is not None and seen.dims95 <= seen.dim / 2 and seen.sample >= 2 * seen.dim:
        text = f"95% of the variance lies in {seen.dims95} of {seen.dim} dimensions: the vectors can be shortened."
        found.append(Finding("note", text))
    return found


def _neighbourhood(seen: Inspection) -> list[Finding]:
    found: list[Finding] = []
    # 2 is the skewness of an exponential law: most rows are then found less often than the mean, a few very often.
    if seen.hub_skewness is not None and seen.hub_skewness >= 2:
        text = (
            f"Hubs: one vector is among the {seen.hub_k} nearest of {seen.hub_max} others, and "
            f"{seen.anti_hub_share:.0%} of the vectors are near no other; centring or mutual neighbours help."
        )
        found.append(Finding("warning", text))
    # Graph indexes at usual settings lose recall steeply between dimension 8 and 32.
    if seen.lid is not None and seen.lid >= 20:
        text = f"Intrinsic dimension is about {seen.lid:.0f}: check an approximate index's recall against exact search."
        if at_default := next((f for f in seen.recall_forecast if f.ef == 64), None):
            text += f" Expected at ef 64: {at_default.low:.0%} to {at_default.high:.0%}."
        found.append(Finding("note", text))
    if seen.outlier_count:
        text = f"{seen.outlier_count} vectors lie far from the centre, first {seen.outliers[0].id!r}: read them."
        found.append(Finding("note", text))
    return found


def _texts(seen: Inspection) -> list[Finding]:
    if seen.length_rho is None or seen.length_ci95 is None:
        return []
    low, high = seen.length_ci95
    # Below 0.2 length explains less than 4 % of the ranks.
    if abs(seen.length_rho) < 0.2 or low <= 0 <= high:
        return []
    kind = "Longer" if seen.length_rho > 0 else "Shorter"
    text = (
        f"{kind} texts are more similar to everything (Spearman {seen.length_rho:+.2f} with length, 95% interval "
        f"{low:+.2f} to {high:+.2f}): rankings favour them; chunk to equal lengths."
    )
    return [Finding("warning", text)]
