"""A bench for training techniques: a small head on frozen layer features, trained and judged on several tasks.

It is cheap enough to repeat with many seeds, and its tasks pull in different directions: sentence similarity (rank
correlation with people) and classes of texts (precision among neighbours). User data that hold only one of both are
judged by that one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from isometry.data.schemas import STS
from isometry.errors import RecipeError
from isometry.lab.bench import Lab
from isometry.negatives import AnyOf, same_label, same_text
from isometry.negatives.five_term import five_term_loss
from isometry.objectives import InfoNCE
from isometry.training.cross_encoder import Schedule, batches_of
from isometry.training.loop import train
from isometry.training.students import apply_head, layer_features, mlp_head
from isometry.types import FloatArray, IntArray

State = Mapping[str, Tensor]


class Loss(Protocol):
    """Any loss of `isometry.objectives`."""

    def compute_loss_from_embeddings(
        self, embeddings: Sequence[Tensor], labels: Tensor | None = None, texts: Sequence[Sequence[str]] | None = None
    ) -> Tensor:
        """Return the loss of columns of embeddings."""
        ...


@dataclass(frozen=True)
class Rows:
    """Rows to train on: columns of features ``[n, d]`` and their texts, and a class number a row where there is one."""

    columns: tuple[FloatArray, ...]
    texts: tuple[Sequence[str], ...]
    labels: IntArray | None = None

    def __len__(self) -> int:
        return len(self.columns[0])

    def loss(self, head: nn.Module, loss: Loss, rows: Sequence[int]) -> Tensor:
        """Return the loss of a batch of rows under a head."""
        embeddings = [head(torch.from_numpy(column[list(rows)])) for column in self.columns]
        labels = None if self.labels is None else torch.from_numpy(self.labels[list(rows)])
        return loss.compute_loss_from_embeddings(embeddings, labels, [[t[i] for i in rows] for t in self.texts])


@dataclass(frozen=True, eq=False)
class Classes:
    """Texts with class numbers: what is drawn from to train on, and queries and a pool to judge by."""

    texts: Sequence[str]
    features: FloatArray
    labels: IntArray
    test: FloatArray
    test_labels: IntArray
    pool: int

    def rows(self, seed: int, chosen: Sequence[int] | None = None) -> Rows:
        """Pair each text of the chosen classes with another one of its class."""
        rng = np.random.default_rng(seed)
        labels = np.unique(self.labels) if chosen is None else np.asarray(chosen)
        rings = [rng.permutation(np.flatnonzero(self.labels == label)) for label in labels]
        rings = [ring for ring in rings if len(ring) > 1]
        left, right = np.concatenate(rings), np.concatenate([np.roll(ring, 1) for ring in rings])
        texts = tuple([self.texts[i] for i in side] for side in (left, right))
        return Rows((self.features[left], self.features[right]), texts, self.labels[left])

    def only(self, count: int) -> Classes:
        """Return the first so many classes alone."""
        own, judged = self.labels < count, self.test_labels < count
        texts = [text for text, keep in zip(self.texts, own, strict=True) if keep]
        parts = self.features[own], self.labels[own], self.test[judged], self.test_labels[judged]
        return Classes(texts, *parts, self.pool)


@dataclass(frozen=True, eq=False)
class HeadBench:
    """What a head can be trained on and judged by; at least one of both tasks.

    Parameters
    ----------
    similar
        Pairs that people find similar, to train on.
    graded
        Features of both sides, and the similarities people gave, to judge by.
    classes
        See `Classes`.
    """

    similar: Rows | None
    graded: tuple[FloatArray, FloatArray, np.ndarray[Any, Any]] | None
    classes: Classes | None

    @property
    def width(self) -> int:
        """Width of the features."""
        return int(self.rows(0)[0].columns[0].shape[1])

    @property
    def tasks(self) -> list[str]:
        """What a head is judged by."""
        return [name for name, data in (("similarity", self.similar), ("classes", self.classes)) if data is not None]

    def rows(self, seed: int) -> list[Rows]:
        """Return one set of rows to train on for each task."""
        parts = [] if self.similar is None else [self.similar]
        return parts if self.classes is None else [*parts, self.classes.rows(seed)]

    def head(self, seed: int = 0, state: State | None = None) -> nn.Sequential:
        """Return a new head, 128 wide, with these weights where they are given."""
        head = mlp_head((self.width, 384, 128), seed=seed)
        if state is not None:
            head.load_state_dict(dict(state))
        return head

    def judge(self, head: nn.Module) -> dict[str, float]:
        """Return the head's value in every task: Spearman's correlation, precision of 10 neighbours."""
        from isometry.tasks.class_separation import neighbour_precision

        found = {}
        if self.graded is not None:
            left, right = (apply_head(head, side) for side in self.graded[:2])
            found["similarity"] = float(spearmanr((left * right).sum(1), self.graded[2]).statistic)
        if self.classes is not None:
            data = self.classes
            pool = apply_head(head, data.features[: data.pool])
            k = min(10, len(pool))
            values = neighbour_precision(
                apply_head(head, data.test), data.test_labels, pool, data.labels[: data.pool], k=k
            )
            found["classes"] = float(values.mean())
        return found


def prepare(lab: Lab, *, layer: int = 2, rows: int = 0, classes: int = 0, test: int = 1000) -> HeadBench:
    """Embed STS-B and Banking77, or what the user's data hold of their kinds.

    Parameters
    ----------
    layer
        Of the lab's encoder, whose mean states are the features.
    rows, classes
        At most so many pairs to train on, and classes; 0: all.
    test
        At most so many texts to judge classes by, twice as many in the pool of neighbours, four times to train on.

    Raises
    ------
    RecipeError
        If the user's data hold neither scored pairs nor labelled texts.
    """

    def features(texts: Sequence[str]) -> FloatArray:
        return layer_features(lab.encoder().model, texts, layer=layer)

    if lab.user_data is None:
        scored = lab.sts("sts/stsb", "train"), lab.sts("sts/stsb", "test")
        return HeadBench(*_similar(*scored, features, rows), _classes(lab, features, classes, test))
    try:
        own = lab.sts("sts/stsb")
    except RecipeError:
        return HeadBench(None, None, _classes(lab, features, classes, test))
    return HeadBench(*_similar(own, own, features, rows), None)


def fit(
    head: nn.Module,
    rows: Sequence[Rows],
    loss: Callable[[Rows], Loss],
    schedule: Schedule,
) -> nn.Module:
    """Train a head in place, its batches taken from each set of rows in turn, and return it.

    Parameters
    ----------
    loss
        A set of rows to its loss.
    """
    losses = [loss(part) for part in rows]
    streams = [batches_of(len(part), schedule.batch_size, schedule.seed + i) for i, part in enumerate(rows)]

    def turns() -> Any:
        while True:
            for i, stream in enumerate(streams):
                yield i, next(stream)

    def step(module: nn.Module, batch: tuple[int, list[int]]) -> Tensor:
        return rows[batch[0]].loss(module, losses[batch[0]], batch[1])

    train(head, turns(), step, steps=schedule.steps, lr=schedule.lr, warmup=schedule.warmup, seed=schedule.seed)
    return head


def usual(rows: Rows) -> InfoNCE:
    """InfoNCE in which no negative has the row's text or class."""
    return InfoNCE(mask=same_text if rows.labels is None else AnyOf((same_text, same_label)))


def four_fine_tunes(
    bench: HeadBench, seed: int, *, start: int, tune: int, batch: int, lr: float = 1e-3
) -> tuple[nn.Module, list[nn.Module]]:
    """Train a head on all tasks, then four copies of it further on different data; what merging begins with.

    Two copies learn similarity, one of them with a loss masked by its own scores; two learn different 40 percent of the
    classes. Where there is one task only, all four learn that.

    Parameters
    ----------
    start, tune
        Steps before and after the ways part.
    """
    first = fit(bench.head(seed), bench.rows(seed), usual, Schedule(start, batch, lr, seed=seed))
    mixes: list[tuple[Rows, Callable[[Rows], Loss]]] = []
    if bench.similar is not None:
        mixes += [(bench.similar, usual), (bench.similar, _self_masked)] * (1 if bench.classes is not None else 2)
    if bench.classes is not None:
        numbers, rng = np.unique(bench.classes.labels), np.random.default_rng(seed)
        size = max(2, round(0.4 * len(numbers)))
        while len(mixes) < 4:
            chosen = rng.permutation(numbers)[:size].tolist()
            mixes.append((bench.classes.rows(seed + len(mixes), chosen), usual))
    copies = [
        fit(copy.deepcopy(first), [rows], loss, Schedule(tune, batch, lr, seed=100 * seed + i))
        for i, (rows, loss) in enumerate(mixes)
    ]
    return first, copies


def _self_masked(_: Rows) -> InfoNCE:
    return five_term_loss(temperature=0.05)


def _similar(
    first: STS, second: STS, features: Callable[[Sequence[str]], FloatArray], most: int
) -> tuple[Rows, tuple[FloatArray, FloatArray, np.ndarray[Any, Any]]]:
    order = np.random.default_rng(0).permutation(len(first.left))
    cut = round(0.7 * len(order)) if first is second else len(order)
    train_rows = order[:cut][first.scores[order[:cut]] >= 0.8 * first.scores.max()]
    test_rows = order[cut:] if first is second else np.arange(len(second.left))
    if most:
        train_rows, test_rows = train_rows[:most], test_rows[: 2 * most]
    if len(train_rows) < 16 or len(test_rows) < 10:
        raise RecipeError(
            f"Training needs 16 similar pairs and judging 10 more, got {len(train_rows)}, {len(test_rows)}."
        )
    texts = [[side[i] for i in train_rows] for side in (first.left, first.right)]
    judged = [features([side[i] for i in test_rows]) for side in (second.left, second.right)]
    similar = Rows((features(texts[0]), features(texts[1])), (texts[0], texts[1]))
    return similar, (judged[0], judged[1], second.scores[test_rows])


def _classes(lab: Lab, features: Callable[[Sequence[str]], FloatArray], most: int, test: int) -> Classes:
    first = lab.labelled("cls/banking77", "train")
    second = first if lab.user_data is not None else lab.labelled("cls/banking77", "test")
    names = sorted(set(first.labels) & set(second.labels))[: most or None]
    numbers = {name: i for i, name in enumerate(names)}
    rng = np.random.default_rng(0)
    order = [i for i in rng.permutation(len(first.texts)).tolist() if first.labels[i] in numbers]
    judged = [i for i in rng.permutation(len(second.texts)).tolist() if second.labels[i] in numbers]
    if first is second:
        cut = round(0.7 * len(order))
        order, judged = order[:cut], order[cut:]
    order, judged = order[: 4 * test], judged[:test]
    texts = [first.texts[i] for i in order]
    labels = np.array([numbers[first.labels[i]] for i in order], np.int64)
    if len(np.unique(labels)) < 2 or len(judged) < 10 or np.bincount(labels).max() < 2:
        raise RecipeError(f"Judging needs two classes and 10 texts, got {len(names)} classes, {len(judged)} texts.")
    test_labels = np.array([numbers[second.labels[i]] for i in judged], np.int64)
    return Classes(texts, features(texts), labels, features([second.texts[i] for i in judged]), test_labels, 2 * test)
