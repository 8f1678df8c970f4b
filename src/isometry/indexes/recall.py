"""How much of what exact search finds another index finds."""

from __future__ import annotations

from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from isometry.errors import EmptyInput, InputError
from isometry.indexes.exact import Exact
from isometry.protocols import Mask
from isometry.types import Embeddings, Hits, Scores, Space

TIE = 1e-6  # single-precision rounding of a score around 1


class Searchable(Protocol):
    """As much of an `isometry.protocols.Index` as judging it takes."""

    exact: ClassVar[bool]

    @property
    def ids(self) -> NDArray[np.object_]:
        """Ids held, ``[n]``."""
        ...

    def search(self, queries: Embeddings, k: int, where: Mask | None = None) -> Hits:
        """Return the k nearest of each query."""
        ...

    def __len__(self) -> int: ...


class Checkable(Searchable, Protocol):
    """An index that can also be searched without shortcuts."""

    space: Space

    def exhaustive(self, queries: Embeddings, k: int, where: Mask | None = None) -> Hits:
        """Return the k nearest of each query by all that is kept of every row."""
        ...


class Approximate:
    """Base of the indexes that may miss neighbours: they can say how many they find."""

    exact: ClassVar[bool] = False

    def check(self: Checkable, queries: Embeddings, vectors: Embeddings | None = None, k: int = 10) -> Scores:
        """Recall@k of `search` for these queries: the share of the true neighbours that it finds.

        Parameters
        ----------
        queries
            Questions as they will be asked. Vectors of the index will do, but each finds itself, which flatters.
        vectors
            The original vectors of every row held (others are left aside); true neighbours are then the exact ones.
            None: those of an exhaustive scan of what the index keeps, which leaves out what its codes lost.
        k
            Depth, at least 1.

        Returns
        -------
        Scores
            ``recall@k`` in [0, 1] per query id, as `check_recall` defines it.

        Raises
        ------
        EmptyInput
            If there are no queries, or the index holds nothing.
        InputError
            If ``vectors`` lack a row of the index.
        SpaceMismatch
            If queries or vectors are of another space.
        """
        if not len(queries) or not len(self):
            raise EmptyInput(f"A check needs queries and rows; there are {len(queries)} queries and {len(self)} rows.")
        if vectors is None:
            return check_recall(self, _Exhaustive(self), queries, k)
        self.space.check(vectors.space)
        held = set(self.ids.tolist())
        mine = np.asarray([identity in held for identity in vectors.ids.tolist()], bool)
        return check_recall(self, Exact.of(vectors if mine.all() else vectors.take(np.flatnonzero(mine))), queries, k)


class _Exhaustive:
    """The exhaustive search of an index, as an oracle."""

    exact: ClassVar[bool] = True

    def __init__(self, index: Checkable) -> None:
        self.ids, self.search = index.ids, index.exhaustive

    def __len__(self) -> int:
        return len(self.ids)


def check_recall(index: Searchable, oracle: Searchable, queries: Embeddings, k: int) -> Scores:
    """Recall@k of an index against an exact one, per query.

    A row found counts if the oracle's score of it is at least the k-th exact score minus 1e-6, so that the choice
    between ties costs nothing (Aumueller et al., ANN-Benchmarks, arXiv:1807.05614, section 2.1).

    Parameters
    ----------
    index
        The index to judge.
    oracle
        An index with ``exact = True`` over the same ids.
    queries
        n queries.
    k
        Depth, at least 1.

    Returns
    -------
    Scores
        ``recall@k`` in [0, 1] per query id.

    Raises
    ------
    InputError
        If the oracle is not exact or holds other ids.
    """
    if not oracle.exact:
        raise InputError(f"The oracle must be an exact index, {type(oracle).__name__} is not.")
    if len(index) != len(oracle) or set(index.ids.tolist()) != set(oracle.ids.tolist()):
        raise InputError("The index and its oracle hold different ids; add the same embeddings to both.")
    best, found = oracle.search(queries, k), index.search(queries, k)
    recall = {}
    for i, query in enumerate(queries.ids.tolist()):
        exact = best.scores[best.span(i)]
        if not len(exact):
            continue
        # Judged by the oracle's scores, not by the index's own, which may be those of coarser codes.
        answers = np.isin(oracle.ids, found.ids[found.span(i)])
        judged = oracle.search(queries.take([i]), k, answers).scores if answers.any() else np.empty(0, np.float32)
        recall[query] = float((judged >= exact[-1] - TIE).sum() / len(exact))
    name = f"recall@{k}"
    return Scores.of("nearest neighbours", type(index).__name__, {name: recall}, n=len(index))
