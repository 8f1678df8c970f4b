"""Smaller vectors for a collection: try codes on a sample, judge them, and search by the one that is worth it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from isometry.errors import EmptyInput, InputError
from isometry.types import Embeddings, Queries, Scores
from isometry.types.progress import NamedProgress

if TYPE_CHECKING:
    from isometry.codes import Code
    from isometry.encoders import TextEncoder
    from isometry.indexes import Coded, Exact
    from isometry.store import Collection

ASKED: Final = 200  # held-out vectors that stand for queries where a collection has no judged ones
SAMPLE: Final = 20_000
K: Final = 10
ENOUGH: Final = 0.99  # recall, with the originals behind the codes, from which a code is worth recommending
LEAST: Final = 2 * ASKED  # documents below which nothing can be measured

Interval = tuple[float, float]


@dataclass(frozen=True)
class Trial:
    """What one code does on the sample.

    Parameters
    ----------
    name
        What it is, e.g. ``"4 bits"``.
    bytes_per_vector, total_bytes
        Of all documents of the collection, what the code itself needs included.
    recall, rescored
        Recall@10 against exact search: by codes alone, and with the ``4 * 10`` best ranked by the original vectors.
    ndcg
        nDCG@10 of rescored search on the judged queries, None where there are none.
    ndcg_loss
        Its difference to exact search, with a 95 % interval.
    qps
        Queries a second of the sample, one after the other, originals not counted.
    """

    name: str
    bytes_per_vector: float
    total_bytes: int
    recall: float
    rescored: float
    rescored_ci95: Interval
    qps: float
    ndcg: float | None = None
    ndcg_ci95: Interval | None = None
    ndcg_loss: float | None = None
    ndcg_loss_ci95: Interval | None = None
    code: Code | None = field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form; stable keys."""
        return {key: value for key, value in asdict(self.__class__(**{**self.__dict__, "code": None})).items()
                if key != "code"}  # fmt: skip


@dataclass(frozen=True)
class Shrinking:
    """All trials, the exact search they are measured against first, and the one recommended."""

    trials: Sequence[Trial]
    sample: int
    documents: int
    queries: int
    judged: bool
    recommended: Trial | None


def candidates(
    dim: int, *, bits: int | None = None, parts: int | None = None, dims: int | None = None
) -> dict[str, Code]:
    """Unfitted codes by name: those asked for, or one of every kind.

    Raises
    ------
    InputError
        If a number does not fit the vectors.
    """
    from isometry.codes import LowRankCode, ProductCode, RotatedCode, ScalarCode

    if bits is not None and bits not in (1, 2, 4, 8):
        raise InputError(f"--bits must be 1, 2, 4 or 8 per dimension, got {bits}.")
    if dims is not None and not 1 <= dims <= dim:
        raise InputError(f"--dims must be between 1 and {dim}, the width of the vectors, got {dims}.")
    if parts is not None and (parts < 1 or dim % parts):
        fitting = [m for m in range(1, dim + 1) if dim % m == 0]
        raise InputError(f"--pq must divide the {dim} dimensions, got {parts}; for example {fitting[-3]}.")
    everything = bits is parts is dims is None
    found: dict[str, Code] = {}
    for b in (8, 4, 2, 1) if everything else (bits,) if bits is not None else ():
        found[f"{b} bit{'s' if b > 1 else ''}"] = (
            ScalarCode(2, ranges="dimension") if b == 2 else RotatedCode(1 if b == 1 else 4 if b == 4 else 8)
        )
    for m in [m for m in (dim // 4, dim // 8) if m and dim % m == 0] if everything else (parts,) if parts else ():
        found[f"product, {m} parts"] = ProductCode(m)
    for r in (dim // 2, dim // 4) if everything else (dims,) if dims is not None else ():
        if r:
            found[f"{r} dimensions, 8 bits"] = LowRankCode(r, ScalarCode(8))
    return found


def try_codes(
    collection: Collection, codes: Mapping[str, Code], *, budget: int | None = None, encoder: TextEncoder | None = None,
    sample: int = SAMPLE, seed: int = 0, progress: NamedProgress | None = None,
) -> Shrinking:  # fmt: skip
    """Fit each code on a sample of the collection and measure it there.

    Parameters
    ----------
    budget
        Most bytes that the vectors of all documents may take.
    encoder
        Encodes the judged queries, where there are any; None: held-out documents are the queries.

    Raises
    ------
    EmptyInput
        If there are too few documents to measure anything.
    InputError
        If no code fits the budget.
    """
    n = collection.count()
    if n < LEAST:
        raise EmptyInput(
            f"The collection {collection.name!r} has {n} documents; measuring codes takes at least {LEAST}, "
            "and so few need no shrinking."
        )
    base, queries, qrels = _sampled(collection, encoder, sample, seed)
    from isometry.indexes import Exact

    exact = Exact.of(base)
    judge = _Judge(exact, queries, qrels)
    trials = [judge.trial("float32 (exact)", exact, exact, 4 * base.space.dim, n, None)]
    fitted = {}
    for i, (name, code) in enumerate(codes.items()):
        if progress:
            progress("trying codes", i, len(codes))
        fitted[name] = code.fit(base.vectors)
    fits = {m: c for m, c in fitted.items() if budget is None or c.code_bytes * n + c.overhead_bytes <= budget}
    if not fits:
        needed, name = min((code.code_bytes * n + code.overhead_bytes, name) for name, code in fitted.items())
        raise InputError(
            f"{n:,} vectors do not fit {budget:,} bytes: the smallest of these codes ({name}) takes {needed:,}; "
            "raise --budget or ask for a smaller code."
        )
    for name, code in fits.items():
        trials.append(judge.coded(name, code, n))
    return Shrinking(trials, len(base), n, len(queries), qrels is not None, _recommended(trials[1:]))


def _sampled(
    collection: Collection, encoder: TextEncoder | None, sample: int, seed: int
) -> tuple[Embeddings, Embeddings, Mapping[str, Mapping[str, int]] | None]:
    """Documents to search, queries, and judgments: judged documents are always in the sample."""
    ids = np.asarray(collection.ids(), object)
    mixed = ids[np.random.default_rng(seed).permutation(len(ids))]
    kept = collection.meta.get("judgments")
    if isinstance(kept, dict) and encoder is not None:
        qrels = kept["qrels"]
        judged = {d for row in qrels.values() for d in row}
        rest = [i for i in mixed.tolist() if i not in judged]
        chosen = [i for i in mixed.tolist() if i in judged] + rest[: max(0, sample - len(judged))]
        asked = Queries.of({q: kept["queries"][q] for q in qrels})
        vectors = encoder.encode_query(list(asked.texts))
        return collection.embeddings(ids=chosen), Embeddings(vectors, asked.ids, encoder.space), qrels
    held_out, base = mixed[:ASKED].tolist(), mixed[ASKED : ASKED + sample].tolist()
    return collection.embeddings(ids=base), collection.embeddings(ids=held_out), None


class _Judge:
    """Measures an index against exact search over the same documents."""

    def __init__(self, exact: Exact, queries: Embeddings, qrels: Mapping[str, Mapping[str, int]] | None) -> None:
        self.exact, self.queries, self.qrels = exact, queries, qrels
        self.baseline = self._ndcg(exact)

    def coded(self, name: str, code: Code, n: int) -> Trial:
        """Try one fitted code."""
        from isometry.indexes import Coded

        base = Embeddings(self.exact.vectors(self.exact.ids.tolist()), self.exact.ids, self.exact.space)
        alone, rescored = Coded(base.space, code), Coded(base.space, code, source=self.exact.vectors)
        alone.add(base)
        rescored.add(base)
        return self.trial(name, alone, rescored, code.code_bytes + code.overhead_bytes / n, n, code)

    def trial(
        self, name: str, alone: Exact | Coded, rescored: Exact | Coded, size: float, n: int, code: Code | None
    ) -> Trial:
        """Recall, nDCG and speed of one way to keep the vectors."""
        from isometry.indexes import check_recall
        from isometry.stats import bootstrap_mean_ci, compare

        recall = check_recall(alone, self.exact, self.queries, K)
        again = check_recall(rescored, self.exact, self.queries, K)
        values = list(again.by_unit(f"recall@{K}").values())
        scores = None if alone is self.exact else self._ndcg(rescored)
        judged: dict[str, Any] = {}
        if shown := scores or self.baseline:
            per_query = list(shown.by_unit(f"ndcg@{K}").values())
            judged = {"ndcg": shown.mean(f"ndcg@{K}"), "ndcg_ci95": bootstrap_mean_ci(per_query)}
        if scores and self.baseline:
            loss = compare(scores, self.baseline, f"ndcg@{K}")
            judged |= {"ndcg_loss": loss.delta, "ndcg_loss_ci95": loss.ci95}
        return Trial(
            name, size, round(size * n), recall.mean(f"recall@{K}"), float(np.mean(values)),
            bootstrap_mean_ci(values), self._speed(alone), code=code, **judged,
        )  # fmt: skip

    def _ndcg(self, index: Any) -> Scores | None:
        from isometry.tasks import evaluate_run

        if self.qrels is None:
            return None
        return evaluate_run(self.qrels, index.search(self.queries, K), metrics=(f"ndcg@{K}",))

    def _speed(self, index: Any) -> float:
        """Queries a second, one call each; the median of at most 50."""
        times = []
        for i in range(min(50, len(self.queries))):
            one = self.queries.take([i])
            started = time.perf_counter()
            index.search(one, K)
            times.append(time.perf_counter() - started)
        return float(1 / np.median(times))


def _recommended(trials: Iterable[Trial]) -> Trial | None:
    """The smallest that loses nothing worth speaking of: recall .99 with rescoring, and no proven loss of nDCG."""

    def harmless(trial: Trial) -> bool:
        loss = trial.ndcg_loss_ci95
        return trial.rescored >= ENOUGH and (loss is None or loss[1] >= 0)

    return min((t for t in trials if harmless(t)), key=lambda t: t.total_bytes, default=None)


def parse_size(text: str) -> int:
    """Bytes of a size such as ``200MB``.

    Raises
    ------
    InputError
        If it is none.

    >>> parse_size("1.5 kB"), parse_size("200MB"), parse_size("12")
    (1500, 200000000, 12)
    """
    units = {"": 1, "b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
    number = text.strip().rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    unit = text.strip()[len(number) :].lower()
    try:
        size = int(float(number) * units[unit])
    except (ValueError, KeyError, OverflowError):
        size = 0
    if size < 1:
        raise InputError(f"{text!r} is no size; write a number with B, kB, MB or GB, for example 200MB.")
    return size
