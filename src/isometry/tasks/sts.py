"""Semantic textual similarity: correlation of cosines with human scores, as per-pair rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from isometry.errors import EmptyInput, InputError
from isometry.tasks.encoding import encode_pairs, row_similarity, system_name
from isometry.types import Role, Scores


def pearson_units(x: ArrayLike, y: ArrayLike) -> NDArray[np.float64]:
    """Products of standardised values, ``z(x_i) z(y_i)``: their mean is Pearson's correlation.

    Parameters
    ----------
    x, y
        Values ``[n]``.

    Returns
    -------
    numpy.ndarray
        float64 ``[n]``; a single product may lie outside [-1, 1].

    Raises
    ------
    InputError
        If the lengths differ or one side is constant or not finite (the correlation is then undefined).

    Examples
    --------
    >>> float(pearson_units([1, 2, 3], [2, 4, 6]).mean().round(12))
    1.0
    """
    a, b = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if a.ndim != 1 or a.shape != b.shape:
        raise InputError(f"A correlation needs two lists of one length, got shapes {a.shape} and {b.shape}.")
    return _standardised(a, "first") * _standardised(b, "second")


def spearman_units(x: ArrayLike, y: ArrayLike) -> NDArray[np.float64]:
    """Products of standardised ranks (ties share their mean rank): their mean is Spearman's correlation.

    See `pearson_units`.

    Examples
    --------
    >>> float(spearman_units([1, 2, 3, 9], [1, 2, 2, 80]).mean().round(4))
    0.9487
    """
    from scipy.stats import rankdata

    a, b = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise InputError("A correlation needs finite values; leave out pairs with NaN or infinity.")
    return pearson_units(rankdata(a), rankdata(b))


def _standardised(values: NDArray[np.float64], side: str) -> NDArray[np.float64]:
    if not len(values):
        raise EmptyInput("A correlation needs at least two pairs, got none.")
    if not np.isfinite(values).all():
        raise InputError("A correlation needs finite values; leave out pairs with NaN or infinity.")
    if (values == values[0]).all():
        raise InputError(f"The {side} list is constant ({values[0]:g}), so its correlation with anything is undefined.")
    standard: NDArray[np.float64] = (values - values.mean()) / values.std()
    return standard


@dataclass(frozen=True, eq=False)
class STSTask:
    """Semantic textual similarity: Spearman and Pearson correlation of cosine with gold scores.

    The unit is the pair and its value its share of the coefficient (see `spearman_units`), so means over pairs are the
    published figures and two systems are compared pair by pair.

    Parameters
    ----------
    left, right
        Texts ``[n]``.
    scores
        Gold similarity ``[n]``, any scale.
    name
        Name of the task in the scores.
    role
        Role both sides are encoded in: the query's, the convention of models that know prompts for queries and
        documents only.
    """

    left: Sequence[str]
    right: Sequence[str]
    scores: Sequence[float]
    name: str = "sts"
    role: Role = "query"

    def __post_init__(self) -> None:
        if not len(self.left) == len(self.right) == len(self.scores):
            sizes = (len(self.left), len(self.right), len(self.scores))
            raise InputError(f"{self.name!r} needs as many left as right texts as scores, got {sizes}.")

    def score(self, system: Any, seed: int = 0) -> Scores:
        """Score an encoder on every pair."""
        cosine = row_similarity(*encode_pairs(system, self.left, self.right, self.role), "cosine")
        metrics = {"spearman": spearman_units(cosine, self.scores), "pearson": pearson_units(cosine, self.scores)}
        rows = {metric: {str(i): v for i, v in enumerate(values.tolist())} for metric, values in metrics.items()}
        return Scores.of(self.name, system_name(system), rows, seed=seed)
