"""Fixed dimensional encodings: one vector per set of token vectors, whose dot products estimate MaxSim."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray

from isometry.errors import DataWarning, InputError, NotFitted
from isometry.types import Embeddings, FloatArray, IntArray, Role, Space, check_reach
from isometry.types.progress import Progress

CELLS: Final = 1 << 18  # numbers pooled at once: a megabyte, which stays in the cache
ROWS: Final = 1 << 13  # token rows multiplied with the hyperplanes at once
SPREAD: Final = 1.05  # largest norm over smallest, beyond which the error bound of the encoding is void


@dataclass(frozen=True, eq=False)
class Draws:
    """The random maps of an encoding, shared by queries and documents.

    Parameters
    ----------
    hyperplanes
        float32 ``[R, d, k_sim]``.
    thresholds
        float32 ``[R, k_sim]``: a token is on the positive side when its product is above.
    projections
        float32 ``[R, d, d_proj]``, or None for the identity.
    targets, signs
        int64 and float32 ``[R * 2^k_sim * d_proj]``: the final count sketch, or None.
    """

    hyperplanes: FloatArray
    thresholds: FloatArray
    projections: FloatArray | None = None
    targets: IntArray | None = None
    signs: FloatArray | None = None

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays there are, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(eq=False)
class FDE:
    """Fixed dimensional encoding of multi-vector embeddings (MUVERA: Dhulipala et al. 2024, arXiv:2405.19504).

    Each of R repetitions cuts the space into ``2^k_sim`` buckets by random hyperplanes (SimHash). A query's block of a
    bucket is the sum of its tokens there, a document's the mean; the dot product of two encodings then estimates
    ``MaxSim(Q, D) = sum_q max_d <q, d>``, mostly from below.

    Parameters
    ----------
    repetitions, k_sim
        R independent partitions by ``k_sim`` hyperplanes each, 0 to 30.
    d_proj
        Width of a random projection inside each bucket; None keeps the token's; ``"auto"`` is ``max(16, d // 8)``.
    projection
        ``"dense"``: random signs over the square root of ``d_proj`` (the paper). ``"count_sketch"``: one random sign
        per input number at a random place (the authors' code). Both keep dot products in expectation.
    d_final
        Width of a count sketch over the whole encoding; None keeps all ``R * 2^k_sim * d_proj`` numbers.
    fill_empty
        Give a document's empty bucket the token with the nearest bits (fewest differing hyperplanes).
    calibrated
        Divide queries by R, so that scores are on the scale of MaxSim.
    center
        Partition around the mean token of the embeddings given to `fit`.
    seed
        Hyperplanes, projections and the sketch draw from independent streams of it.
    reference_compatible
        Seed hyperplanes and projection of repetition r alike with ``seed + r``, and do not calibrate.
    max_bytes
        Largest result that `transform` agrees to allocate.

    Notes
    -----
    Transform documents with `transform` and queries with `transform_query`; both results live in one space, whose
    chain carries the fingerprint of configuration and random maps. The error bound (theorem 2.1) is for unit tokens.

    Examples
    --------
    >>> from isometry.types import id_array
    >>> tokens = np.eye(4, dtype=np.float32)
    >>> emb = Embeddings(tokens, id_array("ab"), Space("toy", 4, similarity="maxsim"), offsets=np.array([0, 3, 4]))
    >>> fde = FDE(repetitions=10, k_sim=2, d_proj=None).fit(emb)
    >>> fde.dim, fde.transform(emb).vectors.shape
    (160, (2, 160))
    >>> float((fde.transform_query(emb).vectors @ fde.transform(emb).vectors.T)[1, 1].round(4))
    1.0
    """

    repetitions: int = 20
    k_sim: int = 4
    d_proj: int | Literal["auto"] | None = "auto"
    projection: Literal["dense", "count_sketch"] = "dense"
    d_final: int | None = None
    fill_empty: bool = True
    calibrated: bool = True
    center: bool = False
    seed: int = 0
    reference_compatible: bool = False
    max_bytes: int = 4 << 30

    def __post_init__(self) -> None:
        whole = isinstance(self.repetitions, int) and isinstance(self.k_sim, int)
        if not whole or self.repetitions < 1 or not 0 <= self.k_sim <= 30:
            raise InputError(
                "An encoding needs whole numbers repetitions >= 1 and 0 <= k_sim <= 30, "
                f"got repetitions={self.repetitions} and k_sim={self.k_sim}."
            )
        for name in ("d_proj", "d_final"):
            if (value := getattr(self, name)) not in (None, "auto") and not (isinstance(value, int) and value >= 1):
                raise InputError(f"{name} must be a whole number of at least 1 or None, got {value!r}.")
        if self.projection not in ("dense", "count_sketch"):
            raise InputError(f"projection must be 'dense' or 'count_sketch', got {self.projection!r}.")
        if self.reference_compatible and self.center:
            raise InputError("The reference does not centre: set center=False or reference_compatible=False.")
        self._draws: Draws | None = None
        self._source: Space | None = None
        self._target: Space | None = None

    @property
    def buckets(self) -> int:
        """Buckets per repetition, ``2^k_sim``."""
        return 1 << self.k_sim

    @property
    def fitted(self) -> bool:
        """Whether it has its random maps."""
        return self._draws is not None

    @property
    def source(self) -> Space:
        """Space of the token vectors it was fitted to."""
        if self._source is None:
            raise NotFitted("This encoding has no random maps yet; call fit with the token embeddings first.")
        return self._source

    @property
    def space(self) -> Space:
        """Space of the encodings: compared by dot product; queries and documents share it."""
        if self._target is None:
            raise NotFitted("This encoding has no random maps yet; call fit with the token embeddings first.")
        return self._target

    @property
    def draws(self) -> Draws:
        """The random maps."""
        if self._draws is None:
            raise NotFitted("This encoding has no random maps yet; call fit with the token embeddings first.")
        return self._draws

    @property
    def block(self) -> int:
        """Width of one bucket's block."""
        projections = self.draws.projections
        return self.source.dim if projections is None else projections.shape[2]

    @property
    def dim(self) -> int:
        """Width of an encoding."""
        return self.d_final or self.repetitions * self.buckets * self.block

    def width(self, dim: int) -> int:
        """Width of an encoding of tokens ``dim`` wide, before anything is drawn."""
        return self.d_final or self.repetitions * self.buckets * (self._projected(dim) or dim)

    def _projected(self, dim: int) -> int | None:
        return min(dim, max(16, dim // 8)) if self.d_proj == "auto" else self.d_proj

    def fit(self, emb: Embeddings) -> Self:
        """Draw the random maps for the embeddings' space; only centring looks at their vectors.

        Raises
        ------
        InputError
            If the maps themselves need more than ``max_bytes``.
        """
        d = emb.space.dim
        self._check_memory(1, d, "the random maps and one item")
        draws = self._draw(d)
        if self.center and len(emb.vectors):
            mean = emb.vectors.mean(axis=0, dtype=np.float64)
            draws = replace(draws, thresholds=np.einsum("d,rdk->rk", mean, draws.hyperplanes).astype(np.float32))
        return self.use(emb.space, draws)

    def use(self, space: Space, draws: Draws) -> Self:
        """Take random maps drawn elsewhere (the reference's, or another process's) for tokens of ``space``.

        Raises
        ------
        InputError
            If a shape does not fit the configuration.
        """
        r, d, k = self.repetitions, space.dim, self.k_sim
        width = self._projected(d)
        total = r * self.buckets * (width or d)
        expected: dict[str, Any] = {"hyperplanes": (r, d, k), "thresholds": (r, k)}
        expected |= {} if width is None else {"projections": (r, d, width)}
        expected |= {} if self.d_final is None else {"targets": (total,), "signs": (total,)}
        found = {name: value.shape for name, value in draws.arrays().items()}
        if found != expected:
            raise InputError(f"The random maps have shapes {found}, this configuration needs {expected}.")
        if draws.targets is not None and not 0 <= draws.targets.min() <= draws.targets.max() < (self.d_final or 0):
            raise InputError(f"The targets of the final sketch must lie in [0, {self.d_final}).")
        self._draws, self._source = draws, space
        step = f"fde:{self._fingerprint(draws)}"
        self._target = space.then(step, dim=self.dim, similarity="dot", normalized=False)
        return self

    def config(self) -> dict[str, Any]:
        """The parameters, JSON-able."""
        return asdict(self)

    def _fingerprint(self, draws: Draws) -> str:
        facts = {name: value for name, value in self.config().items() if name != "max_bytes"}
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
        for name, value in sorted(draws.arrays().items()):
            digest.update(name.encode() + np.ascontiguousarray(value).tobytes())
        return digest.hexdigest()[:16]

    def _draw(self, d: int) -> Draws:
        width, r = self._projected(d), self.repetitions
        if self.reference_compatible:
            seeds: list[Any] = [self.seed + i for i in range(r)] * 2 + [self.seed]
        else:
            seeds = list(np.random.SeedSequence(self.seed).spawn(2 * r + 1))
        streams = [np.random.default_rng(seed) for seed in seeds]
        planes = np.stack([s.standard_normal((d, self.k_sim), dtype=np.float32) for s in streams[:r]])
        thresholds = np.zeros((r, self.k_sim), np.float32)
        inner = None if width is None else np.stack([self._projection(s, d, width) for s in streams[r : 2 * r]])
        if self.d_final is None:
            return Draws(planes, thresholds, inner)
        total = r * self.buckets * (width or d)
        targets = streams[-1].integers(0, self.d_final, total)
        return Draws(planes, thresholds, inner, targets, _signs(streams[-1], total))

    def _projection(self, stream: np.random.Generator, d: int, width: int) -> FloatArray:
        """One inner projection ``[d, width]`` with ``E <psi x, psi y> = <x, y>``."""
        if self.projection == "dense":
            return np.asarray(_signs(stream, (d, width)) / np.sqrt(np.float32(width)), np.float32)
        matrix = np.zeros((d, width), np.float32)
        matrix[np.arange(d), stream.integers(0, width, d)] = _signs(stream, d)
        return matrix

    def estimate_bytes(self, items: int, dim: int | None = None) -> int:
        """Bytes that encodings of so many items take in float32, with the random maps and the working memory."""
        d = self.source.dim if dim is None else dim
        block = self._projected(d) or d
        maps = 4 * self.repetitions * d * (self.k_sim + (self._projected(d) or 0))
        maps += 0 if self.d_final is None else 12 * self.repetitions * self.buckets * block
        return 4 * items * self.width(d) + maps + 4 * max(CELLS, self.buckets * d)

    def _check_memory(self, items: int, d: int, what: str) -> None:
        if (need := self.estimate_bytes(items, d)) > self.max_bytes:
            raise InputError(
                f"The encoding is {self.width(d):,} numbers wide, so {what} would take {need / 2**30:.1f} GiB, more "
                f"than max_bytes={self.max_bytes / 2**30:.1f} GiB; set d_proj or d_final (10240 is usual), lower "
                "k_sim, encode in parts with shards(), or raise max_bytes."
            )

    def transform(self, emb: Embeddings, progress: Progress | None = None) -> Embeddings:
        """Encode documents: single-vector embeddings ``[n, dim]`` of `space`.

        Raises
        ------
        InputError
            If an item has no token, the embeddings are queries, or the result would exceed ``max_bytes``.
        SpaceMismatch
            If the tokens are of another space than those it was fitted to.
        """
        return self._encode(emb, "document", progress)

    def transform_query(self, emb: Embeddings, progress: Progress | None = None) -> Embeddings:
        """Encode queries; like `transform` in every other respect."""
        return self._encode(emb, "query", progress)

    def fit_transform(self, emb: Embeddings) -> Embeddings:
        """`fit`, then `transform`."""
        return self.fit(emb).transform(emb)

    def shards(self, emb: Embeddings, size: int) -> Iterator[Embeddings]:
        """Encodings of documents, ``size`` items at a time, for collections whose encodings exceed the memory."""
        for start in range(0, len(emb), max(1, size)):
            yield self.transform(emb.take(np.arange(start, min(start + size, len(emb)))))

    def _encode(self, emb: Embeddings, role: Role, progress: Progress | None) -> Embeddings:
        offsets = self._check(emb, role)
        out = np.zeros((len(emb), self.dim), np.float32)
        done = 0
        while done < len(emb):
            room = max(1, CELLS // (self.buckets * self.block))
            last = int(np.searchsorted(offsets, offsets[done] + ROWS, side="right")) - 1
            stop = min(len(emb), done + room, max(done + 1, last))
            rows = emb.vectors[offsets[done] : offsets[stop]]
            self._shard(rows, offsets[done : stop + 1] - offsets[done], role, out[done:stop])
            done = stop
            if progress is not None:
                progress(done, len(emb))
        if role == "query" and self.calibrated and not self.reference_compatible:
            out /= self.repetitions
        return Embeddings(out, emb.ids, self.space, role=role)

    def _shard(self, tokens: FloatArray, offsets: IntArray, role: Role, out: FloatArray) -> None:
        """Encode a few items into zeroed ``out``, one repetition after the other."""
        from isometry.spaces.fde_kernels import bucket_numbers, pool, sketch

        draws, n, b = self.draws, len(offsets) - 1, self.buckets
        planes = np.ascontiguousarray(draws.hyperplanes.transpose(1, 0, 2)).reshape(tokens.shape[1], -1)
        numbers = bucket_numbers(tokens @ planes, draws.thresholds.reshape(-1), self.repetitions, self.k_sim)
        # Projection is linear, so it may come before pooling or after it: whichever has fewer rows to multiply.
        late = n * b < len(tokens)
        for r in range(self.repetitions):
            psi = None if draws.projections is None else draws.projections[r]
            rows = tokens if late or psi is None else tokens @ psi
            block = np.empty((n, b, rows.shape[1]), np.float32)
            pool(rows, numbers[r], offsets, role == "document", role == "document" and self.fill_empty, block)
            if late and psi is not None:
                block = (block.reshape(n * b, -1) @ psi).reshape(n, b, -1)
            part = slice(r * b * self.block, (r + 1) * b * self.block)
            if draws.targets is None or draws.signs is None:
                out[:, part] = block.reshape(n, -1)
            else:
                sketch(block.reshape(n, -1), draws.targets[part], draws.signs[part], out)

    def _check(self, emb: Embeddings, role: Role) -> IntArray:
        """Check what is to be encoded and return its offsets."""
        self.source.check(emb.space)
        if emb.offsets is None:
            raise InputError("An encoding is made of multi-vector embeddings; these hold one vector per id.")
        if emb.role not in (None, role):
            other = "transform_query" if emb.role == "query" else "transform"
            raise InputError(f"These embeddings are of role {emb.role!r}: encode them with {other}().")
        if len(empty := np.flatnonzero(np.diff(emb.offsets) == 0)):
            raise InputError(
                f"Item {emb.ids[empty[0]]!r} has no token vector ({len(empty)} such); leave it out, "
                "for its all-zero encoding would rank above negative scores."
            )
        self._check_memory(len(emb), emb.space.dim, f"{len(emb):,} items")
        check_reach(emb.vectors, "tokens")
        norms = np.sqrt(np.einsum("td,td->t", emb.vectors, emb.vectors))
        if len(norms) and norms.max() > SPREAD * norms.min():
            warnings.warn(
                f"Token norms vary from {norms.min():.3g} to {norms.max():.3g}: the partitions ignore norms, so the "
                "error bound of the encoding does not hold; normalise the tokens, and mask padding.",
                DataWarning,
                stacklevel=3,
            )
        return emb.offsets

    def state(self) -> dict[str, NDArray[Any]]:
        """The random maps by name, for saving beside `config` and the source space; read by `restore`."""
        return self.draws.arrays()

    @classmethod
    def restore(cls, config: Mapping[str, Any], space: Space, state: Mapping[str, NDArray[Any]]) -> Self:
        """Inverse of `config`, `source` and `state`."""
        return cls(**config).use(space, Draws(**state))


def _signs(stream: np.random.Generator, shape: int | tuple[int, ...]) -> FloatArray:
    return (2 * stream.integers(0, 2, shape) - 1).astype(np.float32)
