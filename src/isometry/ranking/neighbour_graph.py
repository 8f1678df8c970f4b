"""A graph over items: nearest neighbours, typed links of the user's, or both, as sparse matrices."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from isometry.errors import DataFormatError, EmptyInput, InputError, UnknownName
from isometry.types import Document, Embeddings, Hits, IntArray, id_array

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Array = NDArray[np.float64]
Normalise = Literal["row", "symmetric"]
_COLUMNS = ["source", "target", "type", "weight"]


class Edge(NamedTuple):
    """A typed link from one item to another."""

    source: str
    target: str
    type: str = "link"
    weight: float = 1.0


@dataclass(frozen=True, eq=False)
class NeighbourGraph:
    """A weighted directed graph over items.

    Parameters
    ----------
    ids
        object array of ``str`` ``[n]``.
    weights
        Sparse ``[n, n]``: entry (i, j) is the weight of the edge from i to j, above 0.
    unknown
        How many edges named an item that is not among the ids and were left out.
    """

    ids: NDArray[np.object_]
    weights: csr_array
    unknown: int = 0

    @classmethod
    def of(
        cls,
        ids: Iterable[str],
        edges: Iterable[Edge] = (),
        *,
        types: Mapping[str, float] | None = None,
        reverse: float = 1.0,
        near: csr_array | None = None,
    ) -> NeighbourGraph:
        """Build from typed edges, nearest neighbours, or both.

        Parameters
        ----------
        ids
            The items.
        edges
            Links; of several between the same two items, the heaviest counts. Loops are left out.
        types
            Factor by type of edge, 0 to leave it out; default 1.
        reverse
            Factor of the way back from target to source; 0: links lead one way.
        near
            Weights of `knn_edges` over the same ids in the same order; where both link two items they add up.

        Raises
        ------
        InputError
            If ids repeat, a factor or weight is negative or not finite, or ``near`` has another size.
        """
        from scipy.sparse import coo_array, csr_array

        names = id_array(ids)
        place = {identity: i for i, identity in enumerate(names.tolist())}
        if len(place) < len(names):
            raise InputError("Two items of a graph have the same id; give each its own.")
        if near is not None and near.shape != (len(names), len(names)):
            raise InputError(f"The neighbours must be a matrix of {len(names)} items, got {near.shape}.")
        best: dict[tuple[int, int], float] = {}
        unknown = 0
        for edge in edges:
            weight = edge.weight * (types or {}).get(edge.type, 1.0)
            if not (np.isfinite(weight) and weight >= 0) or not (np.isfinite(reverse) and reverse >= 0):
                raise InputError(f"Weights of edges must be finite and at least 0, got {weight!r} for {edge}.")
            if edge.source not in place or edge.target not in place:
                unknown += 1
                continue
            i, j = place[edge.source], place[edge.target]
            for pair, value in (((i, j), weight), ((j, i), weight * reverse)):
                if i != j and value > 0:
                    best[pair] = max(best.get(pair, 0.0), value)
        rows, columns = np.asarray(list(best), np.int64).reshape(-1, 2).T
        links = coo_array((np.fromiter(best.values(), np.float64, len(best)), (rows, columns)), (len(names),) * 2)
        return cls(names, csr_array(links if near is None else links + near), unknown)

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def place(self) -> Mapping[str, int]:
        """Row of each id."""
        return {identity: i for i, identity in enumerate(self.ids.tolist())}

    def transition(self, normalise: Normalise = "row") -> csr_array:
        """Transition probabilities: rows sum to 1, or to 0 where an item has no edge out.

        ``"row"`` divides by a row's sum; ``"symmetric"`` first divides each weight by the square root of both ends'
        degrees, D_out^-1/2 W D_in^-1/2, so that hubs, which many items point to, take less of the mass.
        """
        if normalise not in get_args(Normalise):
            raise UnknownName("normalisation", str(normalise), get_args(Normalise))
        return self._symmetric if normalise == "symmetric" else self._row

    @cached_property
    def _row(self) -> csr_array:
        return _rows_to_one(self.weights)

    @cached_property
    def _symmetric(self) -> csr_array:
        from scipy.sparse import diags_array

        left, right = (_inverse_root(self.weights.sum(axis=axis)) for axis in (1, 0))
        return _rows_to_one((diags_array(left) @ self.weights @ diags_array(right)).tocsr())

    def top_in_degree(self, count: int = 10) -> list[tuple[str, float]]:
        """The hubs: ids with the greatest sum of weights in, greatest first, ties by id."""
        degree = np.asarray(self.weights.sum(axis=0)).ravel()
        ranked = sorted(zip(self.ids.tolist(), degree.tolist(), strict=True), key=lambda pair: (-pair[1], pair[0]))
        return ranked[:count]


def _inverse_root(degree: Any) -> Array:
    d = np.asarray(degree, np.float64).ravel()
    return np.asarray(np.divide(1.0, np.sqrt(d), out=np.zeros_like(d), where=d > 0), np.float64)


def _rows_to_one(weights: Any) -> csr_array:
    from scipy.sparse import csr_array, diags_array

    total = np.asarray(weights.sum(axis=1), np.float64).ravel()
    scale = np.divide(1.0, total, out=np.zeros_like(total), where=total > 0)
    return csr_array(diags_array(scale) @ weights)


def knn_edges(emb: Embeddings, k: int = 10, *, index: Any = None, mutual: bool = False) -> csr_array:
    """Edges between nearest neighbours, weighted by max(0, cosine): sparse and symmetric ``[n, n]``.

    Parameters
    ----------
    emb
        One vector an item.
    k
        Neighbours of each item.
    index
        Anything with ``search(embeddings, k)`` that holds them; default an exact one.
    mutual
        Keep an edge only where both are among the other's neighbours, which breaks up hubs; else where either is.
    """
    from scipy.sparse import coo_array

    if emb.multi:
        raise InputError("A neighbour graph needs one vector per item; pool multi-vector embeddings first.")
    if k < 1:
        raise InputError(f"A neighbour graph needs at least 1 neighbour per item, got {k}.")
    if index is None:
        from isometry.indexes import Exact

        index = Exact.of(emb)
    found = index.search(emb, k + 1)
    place = {identity: i for i, identity in enumerate(emb.ids.tolist())}
    source = np.repeat(np.arange(len(emb)), np.diff(found.offsets))
    target = np.fromiter((place.get(identity, -1) for identity in found.ids.tolist()), np.int64, len(found.ids))
    keep = (target != source) & (target >= 0)
    source, target = source[keep], target[keep]
    nth = np.arange(len(source)) - np.searchsorted(source, source)  # an item may not be among its own k + 1 nearest
    source, target = source[nth < k], target[nth < k]
    near = coo_array((_cosines(emb, source, target), (source, target)), (len(emb),) * 2).tocsr()
    return (near.minimum(near.T) if mutual else near.maximum(near.T)).tocsr()


class Surroundings:
    """The neighbour graph around a few items, made by asking an index instead of comparing everything.

    Calling it with ids searches the k neighbours of each, those of what was found, and so on, ``hops`` times, and
    returns the graph of all that were met.

    Parameters
    ----------
    embeddings
        ``ids -> Embeddings``.
    search
        ``(embeddings, k) -> Hits``, e.g. ``index.search``.
    k, hops
        Neighbours of each item; how many times.
    """

    def __init__(
        self, embeddings: Callable[[list[str]], Embeddings], search: Callable[[Embeddings, int], Hits],
        *, k: int = 10, hops: int = 2,
    ) -> None:  # fmt: skip
        if k < 1 or hops < 1:
            raise InputError(f"Surroundings need at least 1 neighbour and 1 hop, got {k} and {hops}.")
        self.embeddings, self.search, self.k, self.hops = embeddings, search, k, hops

    def __call__(self, ids: Sequence[str]) -> NeighbourGraph:
        """The graph around these items."""
        known, edges = dict.fromkeys(ids), []
        frontier = list(known)
        for _ in range(self.hops):
            if not frontier:
                break
            found = self.search(self.embeddings(frontier), self.k + 1)
            met: dict[str, None] = {}
            for source, row in found:
                others = [(target, score) for target, score in row if target != source][: self.k]
                edges += [Edge(source, target, "near", max(0.0, score)) for target, score in others]
                met |= {target: None for target, _ in others if target not in known}
            known |= met
            frontier = list(met)
        return NeighbourGraph.of(known, edges)


def _cosines(emb: Embeddings, source: IntArray, target: IntArray) -> Array:
    x = emb.vectors.astype(np.float64)
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    x = np.divide(x, norms, out=np.zeros_like(x), where=norms > 0)
    blocks = np.array_split(np.arange(len(source)), max(1, len(source) // 65_536))
    found = np.concatenate([np.einsum("ij,ij->i", x[source[b]], x[target[b]]) for b in blocks])
    return np.asarray(np.maximum(found, 0.0), np.float64)


def read_edges(path: str | Path) -> list[Edge]:
    r"""Read links from ``source<TAB>target[<TAB>type[<TAB>weight]]`` (TSV, CSV) or JSON Lines with these keys.

    A first line that names the columns is a header.

    Raises
    ------
    DataFormatError
        If a line lacks a source or target, or its weight is no number of at least 0.
    EmptyInput
        If there is no edge.
    """
    from isometry.data.formats.folders import LIMITS, first_line
    from isometry.data.readers.records import read_records, table_format

    path = Path(path)
    if not path.is_file():
        raise InputError(f"The file of edges {path} does not exist; give lines of source<TAB>target.")
    columns = None
    if (suffix := table_format(path)) in (".tsv", ".csv"):
        first = first_line(path).split("\t" if suffix == ".tsv" else ",")
        columns = None if [name.strip() for name in first[:2]] == _COLUMNS[:2] else _COLUMNS[: len(first)]
    elif suffix not in (".jsonl", ".ndjson"):
        raise InputError(
            f"The file of edges {path} must be .tsv, .csv or .jsonl: source, target, perhaps type, weight."
        )
    edges = [_edge(path, line, record) for line, record in read_records(path, LIMITS, columns=columns)]
    if not edges:
        raise EmptyInput(f"{path} holds no edges; give lines of source<TAB>target.")
    return edges


def _edge(path: Path, line: int, record: Mapping[str, Any]) -> Edge:
    source, target = (record.get(name) for name in _COLUMNS[:2])
    if source in (None, "") or target in (None, ""):
        raise DataFormatError(path, line, "an edge needs a source and a target, separated by a tab.")
    try:
        weight = float(record.get("weight") or 1.0) if record.get("weight") != 0 else 0.0
    except (TypeError, ValueError):
        weight = -1.0
    if not 0 <= weight < float("inf"):
        raise DataFormatError(path, line, f"the weight {record['weight']!r} of an edge must be a number of at least 0.")
    return Edge(str(source), str(target), str(record.get("type") or "link"), weight)


def links_of(documents: Iterable[Document], field: str = "links") -> list[Edge]:
    """Links that documents hold in a payload field: an id, a list of ids, or a text of ids separated by commas."""
    edges = []
    for document in documents:
        value = document.payload.get(field)
        targets = value if isinstance(value, list) else [] if value is None else str(value).split(",")
        names = [str(target).strip() for target in targets]
        edges += [Edge(document.id, name, field) for name in names if name]
    return edges
