"""The values that travel through the library: small frozen dataclasses over numpy, with Arrow at the edge.

Space       which model, width, similarity and transforms a set of vectors belongs to
Embeddings  vectors with ids and their space: single ``[n, d]`` or multi-vector ``[t, d]`` with offsets
Document    a piece of text with an id, a source one can go to, and a payload
Queries     questions: ids and texts, optionally with their embeddings
Hits        ranked answers, columnar, one run of rows per query
Scores      one measured value per unit (query, pair, triple ...): never only a mean
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from isometry.errors import DataFormatError, DimensionMismatch, InputError, SpaceMismatch

if TYPE_CHECKING:
    import pyarrow as pa

Role = Literal["query", "document"]
Similarity = Literal["cosine", "dot", "euclidean", "hamming", "maxsim"]
FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]
Json = Any

_SPACE_KEY = b"isometry.space"
_ROLE_KEY = b"isometry.role"


@dataclass(frozen=True)
class Space:
    """What vectors mean: two vectors may be compared if and only if their spaces are equal.

    Parameters
    ----------
    model
        Name of the encoder, e.g. ``"minilm"``.
    dim
        Width of a vector.
    revision
        Content hash or version of the model's files.
    similarity
        How two vectors are compared.
    normalized
        Whether every vector has norm 1.
    prompts
        Text put before an input, by role or task name.
    chain
        Fingerprints of the transforms applied after the encoder, in order.
    """

    model: str
    dim: int
    revision: str = ""
    similarity: Similarity = "cosine"
    normalized: bool = True
    prompts: Mapping[str, str] = field(default_factory=dict)
    chain: tuple[str, ...] = ()

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no white space."""
        record = {name: getattr(self, name) for name in self.__dataclass_fields__}
        record["prompts"], record["chain"] = dict(self.prompts), list(self.chain)
        return json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Space:
        """Inverse of `to_json`."""
        record = json.loads(text)
        return cls(**{**record, "chain": tuple(record["chain"])})

    @cached_property
    def id(self) -> str:
        """Sixteen hexadecimal digits that name this space."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    @property
    def name(self) -> str:
        """A short name for people: model, width and transforms."""
        return " > ".join((f"{self.model} ({self.dim}-d)", *self.chain))

    def then(self, step: str, **changes: Any) -> Space:
        """Return the space after one more transform named ``step``."""
        return replace(self, chain=(*self.chain, step), **changes)

    def check(self, other: Space) -> None:
        """Raise `SpaceMismatch` unless ``other`` is this space."""
        if self.id != other.id:
            raise SpaceMismatch(
                f"Vectors of {other.name} [{other.id}] cannot be compared with vectors of {self.name} [{self.id}]; "
                "embed both with the same model, prompts and transforms."
            )

    def __hash__(self) -> int:
        return hash(self.id)


def check_vectors(vectors: Any, *, dim: int | None = None, what: str = "vectors") -> FloatArray:
    """Return ``vectors`` as contiguous float32 ``[n, d]``.

    Raises
    ------
    DimensionMismatch
        If the array is not two-dimensional, is not ``dim`` wide, or holds NaN or infinity.
    """
    array = np.ascontiguousarray(vectors, dtype=np.float32)
    if array.ndim != 2:
        raise DimensionMismatch(f"{what} must be a matrix [n, d], got an array of shape {array.shape}.")
    if dim is not None and array.shape[1] != dim:
        raise DimensionMismatch(f"{what} must be {dim} wide, got {array.shape[1]}.")
    if not np.isfinite(array.sum(dtype=np.float64)) and not np.isfinite(array).all():
        row = int(np.flatnonzero(~np.isfinite(array).all(axis=1))[0])
        raise DimensionMismatch(f"{what} hold NaN or infinity (first in row {row}); remove or repair these rows.")
    return array


def id_array(ids: Iterable[str]) -> NDArray[np.object_]:
    """Return ids as an object array of ``str``."""
    values = [str(i) for i in ids]
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Vectors with their ids and space.

    Parameters
    ----------
    vectors
        float32 ``[n, d]``; for multi-vector embeddings ``[t, d]``, the rows of all items one after the other.
    ids
        object array of ``str`` ``[n]``.
    space
        What the vectors mean.
    role
        ``"query"``, ``"document"`` or None when the encoder makes no difference.
    offsets
        int64 ``[n + 1]`` for multi-vector embeddings: item i owns rows ``offsets[i]:offsets[i + 1]``.
    cut_tokens
        int64 ``[n]``: tokens of each item that did not fit the encoder's window.
    """

    vectors: FloatArray
    ids: NDArray[np.object_]
    space: Space
    role: Role | None = None
    offsets: IntArray | None = None
    cut_tokens: IntArray | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "vectors", check_vectors(self.vectors, dim=self.space.dim))
        if not (isinstance(self.ids, np.ndarray) and self.ids.dtype == object):
            object.__setattr__(self, "ids", id_array(self.ids))
        n = len(self.vectors) if self.offsets is None else len(self.offsets) - 1
        if len(self.ids) != n:
            raise InputError(f"{n} embeddings need {n} ids, got {len(self.ids)}.")
        if self.offsets is not None and (
            self.offsets[0] != 0 or self.offsets[-1] != len(self.vectors) or (np.diff(self.offsets) < 0).any()
        ):
            raise InputError(f"offsets must rise from 0 to {len(self.vectors)}, the number of rows.")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def multi(self) -> bool:
        """Whether an item has several vectors."""
        return self.offsets is not None

    def item(self, i: int) -> FloatArray:
        """Vectors of item i: ``[d]``, or ``[t_i, d]`` for multi-vector embeddings."""
        if self.offsets is None:
            return cast(FloatArray, self.vectors[i])
        return self.vectors[self.offsets[i] : self.offsets[i + 1]]

    def take(self, rows: Sequence[int] | NDArray[Any]) -> Embeddings:
        """Return the items at ``rows`` (positions or a boolean mask), in that order."""
        index = np.asarray(rows)
        index = np.flatnonzero(index) if index.dtype == bool else index.astype(np.int64)
        cut = None if self.cut_tokens is None else self.cut_tokens[index]
        if self.offsets is None:
            return replace(self, vectors=self.vectors[index], ids=self.ids[index], cut_tokens=cut)
        parts = [self.item(int(i)) for i in index]
        offsets = np.concatenate([[0], np.cumsum([len(p) for p in parts])]).astype(np.int64)
        vectors = np.concatenate(parts) if parts else self.vectors[:0]
        return replace(self, vectors=vectors, ids=self.ids[index], cut_tokens=cut, offsets=offsets)

    def to_arrow(self) -> pa.Table:
        """Return a table ``id, vector[, cut_tokens]`` whose schema metadata carries the space and role."""
        import pyarrow as pa

        flat = pa.FixedSizeListArray.from_arrays(pa.array(self.vectors.reshape(-1)), self.space.dim)
        vector: pa.Array = flat
        if self.offsets is not None:
            vector = pa.LargeListArray.from_arrays(pa.array(self.offsets), flat)
        columns: dict[str, Any] = {"id": pa.array(self.ids.tolist(), pa.string()), "vector": vector}
        if self.cut_tokens is not None:
            columns["cut_tokens"] = pa.array(self.cut_tokens)
        metadata = {_SPACE_KEY: self.space.to_json().encode()}
        if self.role is not None:
            metadata[_ROLE_KEY] = self.role.encode()
        return pa.table(columns).replace_schema_metadata(metadata)

    @classmethod
    def from_arrow(cls, table: pa.Table, *, source: str = "the Arrow table") -> Embeddings:
        """Inverse of `to_arrow`.

        Raises
        ------
        DataFormatError
            If the columns ``id`` and ``vector`` or the space in the metadata are missing.
        """
        metadata = table.schema.metadata or {}
        if missing := {"id", "vector"} - set(table.column_names):
            problem = f"columns {sorted(missing)} are missing; an embeddings file has id and vector."
            raise DataFormatError(source, None, problem)
        if _SPACE_KEY not in metadata:
            problem = "the schema metadata name no space; write the file with Embeddings.to_parquet."
            raise DataFormatError(source, None, problem)
        space = Space.from_json(metadata[_SPACE_KEY].decode())
        import pyarrow.types as pat

        column = table["vector"].combine_chunks()
        offsets = None
        if pat.is_large_list(table.schema.field("vector").type):
            offsets = np.asarray(column.offsets, dtype=np.int64)
            offsets = offsets - offsets[0]
            column = column.flatten()
        values = np.asarray(column.flatten(), dtype=np.float32).reshape(-1, space.dim)
        cut = table["cut_tokens"].to_numpy().astype(np.int64) if "cut_tokens" in table.column_names else None
        role = cast("Role | None", metadata[_ROLE_KEY].decode() if _ROLE_KEY in metadata else None)
        return cls(values, id_array(table["id"].to_pylist()), space, role=role, offsets=offsets, cut_tokens=cut)

    def to_parquet(self, path: str | Path) -> None:
        """Write `to_arrow` to a Parquet file."""
        import pyarrow.parquet as pq

        pq.write_table(self.to_arrow(), str(path))

    @classmethod
    def from_parquet(cls, path: str | Path) -> Embeddings:
        """Read a file written by `to_parquet`."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            table = pq.read_table(str(path))
        except pa.ArrowInvalid as error:
            raise DataFormatError(path, None, f"this is not a readable Parquet file ({error}).") from error
        return cls.from_arrow(table, source=str(path))


@dataclass(frozen=True)
class Document:
    """A piece of text that can be found.

    Parameters
    ----------
    id
        Unique in its collection.
    text
        What is shown.
    title
        Embedded before the text, with a space between (BEIR's convention).
    source
        Where a person finds it, e.g. ``"notes/tax.md:12"`` or ``"law.pdf#page=3"``.
    payload
        JSON-able fields to filter by and to show.
    """

    id: str
    text: str
    title: str = ""
    source: str = ""
    payload: Mapping[str, Json] = field(default_factory=dict)

    @property
    def content(self) -> str:
        """What is embedded: title, a space, text, stripped."""
        return f"{self.title} {self.text}".strip()


@dataclass(frozen=True, eq=False)
class Queries:
    """Questions: ids and texts, and their embeddings once something has made them."""

    ids: NDArray[np.object_]
    texts: Sequence[str]
    embeddings: Embeddings | None = None

    @classmethod
    def of(cls, texts: Mapping[str, str] | Sequence[str]) -> Queries:
        """Build from ``{id: text}`` or from texts alone (ids are then "0", "1", ...)."""
        if isinstance(texts, Mapping):
            return cls(id_array(texts.keys()), list(texts.values()))
        return cls(id_array(str(i) for i in range(len(texts))), list(texts))

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, eq=False)
class Hits:
    """Ranked answers, columnar: query i owns rows ``offsets[i]:offsets[i + 1]``, best first.

    Higher scores are better always. Ties break by id, rising. A query with fewer than k answers has fewer rows,
    never padding.

    Parameters
    ----------
    query_ids
        object array of ``str`` ``[q]``; queries without an answer stay listed.
    offsets
        int64 ``[q + 1]``.
    ids
        object array of ``str`` ``[h]``.
    scores
        float32 ``[h]``.
    contributions
        For explanations: by stage name, what that stage gave each row (float32 ``[h]``, NaN where it gave nothing).
    """

    query_ids: NDArray[np.object_]
    offsets: IntArray
    ids: NDArray[np.object_]
    scores: FloatArray
    contributions: Mapping[str, FloatArray] = field(default_factory=dict)

    @classmethod
    def build(
        cls,
        query_ids: Iterable[str],
        rows: Iterable[Iterable[tuple[str, float]]],
        *,
        k: int | None = None,
    ) -> Hits:
        """Sort each query's ``(id, score)`` rows by falling score, then rising id, and keep the first k."""
        offsets: list[int] = [0]
        ids: list[str] = []
        scores: list[float] = []
        for row in rows:
            ranked = sorted(row, key=lambda pair: (-pair[1], pair[0]))[:k]
            ids.extend(pair[0] for pair in ranked)
            scores.extend(pair[1] for pair in ranked)
            offsets.append(len(ids))
        return cls(id_array(query_ids), np.asarray(offsets, np.int64), id_array(ids), np.asarray(scores, np.float32))

    def __post_init__(self) -> None:
        if len(self.offsets) != len(self.query_ids) + 1 or len(self.ids) != len(self.scores):
            raise InputError(
                f"Hits of {len(self.query_ids)} queries need {len(self.query_ids) + 1} offsets and as many ids as "
                f"scores, got {len(self.offsets)} offsets, {len(self.ids)} ids, {len(self.scores)} scores."
            )

    def __len__(self) -> int:
        return len(self.query_ids)

    def __iter__(self) -> Iterator[tuple[str, list[tuple[str, float]]]]:
        for i, query in enumerate(self.query_ids):
            yield query, self.row(i)

    def span(self, i: int) -> slice:
        """Rows of the i-th query."""
        return slice(int(self.offsets[i]), int(self.offsets[i + 1]))

    def row(self, i: int) -> list[tuple[str, float]]:
        """``(id, score)`` of the i-th query, best first."""
        span = self.span(i)
        return list(zip(self.ids[span].tolist(), self.scores[span].tolist(), strict=True))

    def to_run(self) -> dict[str, dict[str, float]]:
        """Return ``{query: {id: score}}``, the form trec tools read."""
        return {query: dict(row) for query, row in self}

    def to_arrow(self) -> pa.Table:
        """Return a table ``query_id, rank, id, score`` (rank counts from 1)."""
        import pyarrow as pa

        counts = np.diff(self.offsets)
        ranks = np.arange(len(self.ids)) - np.repeat(self.offsets[:-1], counts) + 1
        return pa.table(
            {
                "query_id": pa.array(np.repeat(self.query_ids, counts).tolist(), pa.string()),
                "rank": pa.array(ranks, pa.int64()),
                "id": pa.array(self.ids.tolist(), pa.string()),
                "score": pa.array(self.scores),
            }
        )


@dataclass(frozen=True, eq=False)
class Scores:
    """Measured values, one row per unit (a query, a pair, a cluster run ...): columns of equal length.

    The mean over units of one metric is the figure that is reported; error bars come from `isometry.stats`.

    Parameters
    ----------
    task, system
        What was measured on what.
    units
        object array of ``str`` ``[n]``: the query id, pair number ...
    metrics
        object array of ``str`` ``[n]``, e.g. ``"ndcg@10"``.
    values
        float64 ``[n]``, higher is better unless the metric's name says otherwise.
    seed
        The seed of the run.
    """

    task: str
    system: str
    units: NDArray[np.object_]
    metrics: NDArray[np.object_]
    values: NDArray[np.float64]
    seed: int = 0
    facts: Mapping[str, Json] = field(default_factory=dict)

    @classmethod
    def of(
        cls, task: str, system: str, values: Mapping[str, Mapping[str, float]], *, seed: int = 0, **facts: Json
    ) -> Scores:
        """Build from ``{metric: {unit: value}}``."""
        rows = [(u, m, v) for m, by_unit in values.items() for u, v in by_unit.items()]
        return cls(
            task,
            system,
            id_array(r[0] for r in rows),
            id_array(r[1] for r in rows),
            np.asarray([r[2] for r in rows], np.float64),
            seed=seed,
            facts=facts,
        )

    def __len__(self) -> int:
        return len(self.values)

    @property
    def metric_names(self) -> list[str]:
        """Metrics in order of first appearance."""
        return list(dict.fromkeys(self.metrics.tolist()))

    def by_unit(self, metric: str) -> dict[str, float]:
        """Return ``{unit: value}`` of one metric."""
        mask = self.metrics == metric
        return dict(zip(self.units[mask].tolist(), self.values[mask].tolist(), strict=True))

    def mean(self, metric: str) -> float:
        """Mean of one metric over its units; NaN when there is none."""
        values = self.values[self.metrics == metric]
        return float(values.mean()) if len(values) else float("nan")

    def to_arrow(self) -> pa.Table:
        """Return a table ``task, system, seed, unit, metric, value``."""
        import pyarrow as pa

        n = len(self)
        return pa.table(
            {
                "task": pa.array([self.task] * n, pa.string()),
                "system": pa.array([self.system] * n, pa.string()),
                "seed": pa.array([self.seed] * n, pa.int64()),
                "unit": pa.array(self.units.tolist(), pa.string()),
                "metric": pa.array(self.metrics.tolist(), pa.string()),
                "value": pa.array(self.values),
            }
        )
