"""Can vectors of d dimensions ever rank these judgments? Bounds, and the best case of trained vectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from isometry.diagnostics.limit.density import QueryGraph, densest_queries, query_graph
from isometry.diagnostics.limit.free_embeddings import Training, train_free_embeddings
from isometry.diagnostics.limit.margins import packing_bound
from isometry.diagnostics.limit.patterns import Relevance
from isometry.diagnostics.limit.sign_rank import RankBounds, bounds_of, lower_bounds, upper_bounds
from isometry.errors import InputError
from isometry.types.progress import Progress

_WIDEST = 4096  # no encoder in use is wider


@dataclass(frozen=True)
class Trial:
    """Vectors of this width trained on the judgments themselves: how many pairs they rank, by what margin."""

    dim: int
    solved: bool
    accuracy: float
    margin: float
    iterations: int


@dataclass(frozen=True)
class Capacity:
    """What width the judgments ask for.

    Parameters
    ----------
    graph
        Statistics of all judgments.
    bounds
        Least dimension in which any vectors rank all judgments without error: an interval.
    studied
        Queries and documents of the part that lower bounds and training looked at: the densest queries.
    trials
        Training by dimension, rising.
    dim
        The width that was asked about, if any.
    """

    graph: QueryGraph
    bounds: RankBounds
    studied: tuple[int, int]
    trials: tuple[Trial, ...]
    dim: int | None = None

    @property
    def trained_dim(self) -> int | None:
        """Least width at which training ranked every studied query strictly; None if it never did."""
        return min((trial.dim for trial in self.trials if trial.solved), default=None)

    @property
    def possible(self) -> bool | None:
        """Whether ``dim`` dimensions can rank the judgments at all; None where the bounds do not tell."""
        if self.dim is None or self.bounds.lower <= self.dim < self.bounds.upper:
            return None
        return self.dim >= self.bounds.upper

    def statements(self) -> list[str]:
        """What this means, in sentences."""
        graph, bounds = self.graph, self.bounds
        part = self.studied[0] < graph.queries
        where = f"the {self.studied[0]} densest queries" if part else "all queries"
        found = [
            f"{graph.queries:,} queries with up to {graph.most_answers} answers each; {graph.density:.2%} of pairs of "
            f"queries share one, mean strength {graph.mean_strength:.1f} (LIMIT: 8.55%, 28.5).",
            f"Some vectors of {bounds.upper} dimensions rank all of them without error ({bounds.because_upper}); none "
            f"of fewer than {bounds.lower} do ({bounds.because_lower}).",
        ]
        if self.dim is not None and self.possible is None:
            found.append(f"Whether {self.dim} dimensions can is not decided by these bounds.")
        elif self.dim is not None:
            can = "can rank them, with margins that may be tiny" if self.possible else "can never rank all of them"
            found.append(f"{self.dim} dimensions {can}.")
        widest = max(self.trials, key=lambda trial: trial.dim)
        if self.trained_dim is None:
            found.append(
                f"Vectors trained on {where} themselves do not reach that in {widest.dim} dimensions: "
                f"{widest.accuracy:.1%} of relevant pairs, margin {widest.margin:+.4f}."
            )
        else:
            best = next(trial for trial in self.trials if trial.dim == self.trained_dim)
            found.append(
                f"Vectors trained on {where} themselves do from {best.dim} dimensions on (margin {best.margin:.4f})."
            )
            if self.dim is not None and self.dim >= best.dim:
                these = "on these " if part else ""
                found.append(
                    f"What {self.dim} dimensions get wrong {these}is then the encoder's doing, not the width's."
                )
        found.append(
            "Where training stops is a property of the optimiser (temperature, rate, float32), not of the geometry; an "
            "encoder, which has only the text, needs more room."
        )
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form; stable keys."""
        return {
            "graph": self.graph.to_dict(),
            "bounds": vars(self.bounds).copy(),
            "studied": list(self.studied),
            "dim": self.dim,
            "possible": self.possible,
            "trained_dim": self.trained_dim,
            "trials": [vars(trial).copy() for trial in self.trials],
            "statements": self.statements(),
        }


def rank_capacity(
    judgments: Relevance | Mapping[str, Mapping[str, int]],
    *,
    dim: int | None = None,
    most_queries: int = 300,
    seed: int = 42,
    training: Training = Training(iterations=3000, patience=500),  # noqa: B008  a tuple cannot change
    progress: Progress | None = None,
) -> Capacity:
    """Say whether single vectors of some width can rank judgments, and what trained ones reach (arXiv:2508.21038).

    Parameters
    ----------
    judgments
        Grade by query and document id, or relevance. Documents that answer no query are left out: one dimension more
        at most puts all of them below the others.
    dim
        The width of the vectors in question: tried too, and judged by `Capacity.possible`.
    most_queries
        Queries, densest first, that are trained on and searched for lower bounds; a lower bound of a part holds for
        the whole, upper bounds are of the whole.
    progress
        Called with (widths tried, None).

    Raises
    ------
    EmptyInput
        If no query has a relevant document.
    InputError
        If ``dim`` or ``most_queries`` is below 1.
    """
    if (dim is not None and dim < 1) or most_queries < 1:
        raise InputError(f"dim and most_queries must be at least 1, got {dim} and {most_queries}.")
    whole = judgments if isinstance(judgments, Relevance) else Relevance.of_qrels(judgments)
    part = whole if whole.shape[0] <= most_queries else whole.take(densest_queries(whole, most_queries))
    lower, upper = lower_bounds(part, seed=seed), upper_bounds(whole)
    tried: dict[int, Trial] = {}

    def solved(width: int) -> bool:
        if width not in tried:
            found = train_free_embeddings(part, width, seed=seed, training=training)
            tried[width] = Trial(width, found.solved, found.accuracy, found.margin, found.iterations)
            if progress is not None:
                progress(len(tried), None)
        return tried[width].solved

    if dim is not None:
        solved(dim)
    low, high = max(lower.values()) - 1, max(lower.values())
    while not solved(high) and high < _WIDEST:
        low, high = high, 2 * high
    while high - low > 1 and solved(high):
        middle = (low + high) // 2
        low, high = (low, middle) if solved(middle) else (middle, high)
    if part is whole and (realised := [width for width, trial in tried.items() if trial.solved]):
        upper["trained vectors"] = min(realised)
    trials = tuple(tried[width] for width in sorted(tried))
    return Capacity(query_graph(whole), bounds_of(lower, upper), part.shape, trials, dim)


def margin_price(relevance: Relevance, margins: tuple[float, ...] = (0.5, 0.1, 0.02, 0.001)) -> dict[float, float]:
    """Least dimension by `packing_bound` for each margin: what it costs to rank with room to spare."""
    return {margin: packing_bound(relevance, margin) for margin in margins}
