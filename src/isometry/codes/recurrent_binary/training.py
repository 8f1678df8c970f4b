"""Embedding-to-embedding training of the binariser: pairs or copies, a momentum queue, and backward compatibility."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from isometry.codes.recurrent_binary.losses import both_ways, similarity_distillation
from isometry.codes.recurrent_binary.network import Binariser
from isometry.errors import InputError
from isometry.types import FloatArray, IntArray
from isometry.types.progress import Progress

_CHUNK = 4096  # rows among which a near neighbour is looked for

Triple = tuple[FloatArray, FloatArray, IntArray]


@dataclass(frozen=True)
class Training:
    """How a binariser is trained; `Training.paper` gives the published settings.

    Parameters
    ----------
    objective
        ``"distill"``: keep the cosines of the vectors; ``"nce"``: bring pairs together.
    epochs, batch, optimizer, lr, weight_decay, clip
        Passes, rows per step, ``"adam"`` or ``"sgd"`` (momentum 0.9), its rates, the largest gradient norm. The
        learning rate falls to a tenth after 60 % of the steps. 0 epochs: no training.
    temperature, hard
        Divisor of cosines, and negatives kept per row (``"nce"``).
    queue, momentum
        Earlier codes kept as negatives, made by a copy that follows the network at this rate (``"nce"``).
    copies
        Positives where no pairs are given: the nearest ``"neighbour"`` among 4096 random rows, or a ``"noise"`` copy.
    noise
        Length of the noise next to a unit vector.
    """

    objective: Literal["distill", "nce"] = "distill"
    epochs: int = 4
    batch: int = 384
    optimizer: Literal["adam", "sgd"] = "adam"
    lr: float = 2e-4
    weight_decay: float = 0.0
    clip: float = 5.0
    temperature: float = 0.05
    hard: int = 5
    queue: int = 0
    momentum: float = 0.999
    copies: Literal["neighbour", "noise"] = "neighbour"
    noise: float = 0.3

    def __post_init__(self) -> None:
        named = (("objective", ("distill", "nce")), ("optimizer", ("adam", "sgd")), ("copies", ("neighbour", "noise")))
        for name, allowed in named:
            if getattr(self, name) not in allowed:
                raise InputError(f"{name} must be one of {', '.join(allowed)}; got {getattr(self, name)!r}.")
        if self.epochs < 0 or self.batch < 2 or self.queue < 0 or not 0 <= self.momentum <= 1 or self.lr <= 0:
            raise InputError(
                "Training needs epochs >= 0, batch >= 2 (batch statistics of one row do not exist), queue >= 0, "
                f"momentum in [0, 1] and lr > 0; got {self}."
            )

    @classmethod
    def paper(cls, epochs: int = 10) -> Training:
        """Batches of 128 pairs, SGD at 0.08, weight decay 1e-3, five hard negatives."""
        return cls("nce", epochs, 128, "sgd", 0.08, 1e-3)


@dataclass(frozen=True)
class Old:
    """Codes of another, frozen binariser for the same documents, to stay searchable with.

    ``codes`` are its values b, float32 ``[n, m]``, row by row those of the training documents.
    """

    codes: FloatArray


class CodeQueue:
    """First-in first-out queue of code pairs with ids, filled by a slowly following copy of the network (MoCo).

    He et al., CVPR 2020. Pushing more rows than fit keeps the last ones.
    """

    def __init__(self, network: Binariser, size: int, momentum: float) -> None:
        self.follower, self.size, self.momentum = copy.deepcopy(network), size, momentum
        self.codes = torch.zeros(0, network.bits), torch.zeros(0, network.bits)
        self.ids = torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long)

    @torch.no_grad()
    def push(self, network: Binariser, sides: tuple[Tensor, Tensor], ids: tuple[Tensor, Tensor]) -> None:
        """Let the copy follow ``network``, then keep its codes of ``sides``, each ``[n, d]``."""
        for slow, fast in zip(self.follower.parameters(), network.parameters(), strict=True):
            slow.lerp_(fast, 1 - self.momentum)
        for own, new in zip(self.follower.buffers(), network.buffers(), strict=True):
            own.copy_(new)
        self.follower.eval()
        (q, d), (q_ids, d_ids) = self.codes, self.ids
        self.codes = self._last(q, self.follower(sides[0])), self._last(d, self.follower(sides[1]))
        self.ids = self._last(q_ids, ids[0]), self._last(d_ids, ids[1])

    def _last(self, kept: Tensor, new: Tensor) -> Tensor:
        return torch.cat([kept, new])[-self.size :]


def train_binariser(
    network: Binariser,
    queries: FloatArray,
    documents: FloatArray | None = None,
    *,
    settings: Training,
    ids: IntArray | None = None,
    old: Old | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[float]:
    """Train in place on unit vectors; return the mean loss of each epoch and leave the network in eval mode.

    Parameters
    ----------
    queries, documents
        float32 ``[n, d]``, row by row positive pairs; without documents, rows are their own documents (``"distill"``)
        or get copies (``"nce"``).
    ids
        int64 ``[n]``: pairs of one id are never each other's negatives; default: all different.
    old
        Backward-compatible training: adds the bidirectional InfoNCE of the new codes of the queries with the old codes
        of the documents.

    Raises
    ------
    InputError
        If there are fewer than two rows, row counts differ, or the loss is not finite.
    """
    n = len(queries)
    counts = [n, *(len(part) for part in (documents, ids, None if old is None else old.codes) if part is not None)]
    if n < 2 or len(set(counts)) > 1:
        raise InputError(f"Training needs at least two rows, as many of every kind; got {counts}.")
    batch = min(settings.batch, n)
    total, rng, history = settings.epochs * (n // batch), np.random.default_rng(seed), list[float]()
    optimizer = _optimizer(network, settings)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [max(1, round(0.6 * total))], 0.1)
    queue = CodeQueue(network, settings.queue, settings.momentum) if settings.queue else None
    names = np.arange(n) if ids is None else np.asarray(ids, np.int64)
    for epoch in range(settings.epochs):
        losses = []
        network.train()
        right, right_ids = _documents(queries, documents, names, settings, rng)
        for rows in _batches(n, batch, rng):
            sides = torch.from_numpy(queries[rows]), None if right is None else torch.from_numpy(right[rows])
            tags = torch.from_numpy(names[rows]), torch.from_numpy(right_ids[rows])
            before = None if old is None else torch.from_numpy(old.codes[rows])
            losses.append(_step(network, sides, tags, before, settings, queue, optimizer))
            schedule.step()
            if progress is not None:
                progress(epoch * (n // batch) + len(losses), total)
        history.append(float(np.mean(losses)))
    network.eval()
    return history


def _step(
    network: Binariser,
    sides: tuple[Tensor, Tensor | None],
    ids: tuple[Tensor, Tensor],
    old: Tensor | None,
    settings: Training,
    queue: CodeQueue | None,
    optimizer: torch.optim.Optimizer,
) -> float:
    loss = batch_loss(network, sides, ids, old, settings, queue)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    value = float(loss.detach())
    norm = torch.nn.utils.clip_grad_norm_(network.parameters(), settings.clip)
    if not np.isfinite(value + float(norm)):  # signs hide what is not finite from the loss, the gradients show it
        raise InputError(
            f"The loss is {value}, its gradient {float(norm)} long: lower lr ({settings.lr}) or mend the vectors."
        )
    optimizer.step()
    if queue is not None and sides[1] is not None:
        queue.push(network, (sides[0], sides[1]), ids)
    return value


def batch_loss(
    network: Binariser,
    sides: tuple[Tensor, Tensor | None],
    ids: tuple[Tensor, Tensor],
    old: Tensor | None,
    settings: Training,
    queue: CodeQueue | None = None,
) -> Tensor:
    """Loss of one batch of (queries, documents or None): plain, plus the backward-compatible term with ``old`` codes.

    With the old codes equal to the new documents' own, the InfoNCE loss is twice the plain one.
    """
    x, y = sides
    q = network(x)
    d = None if y is None else network(y)
    if settings.objective == "distill":
        loss = similarity_distillation(q, x @ (x if y is None else y).T, d, temperature=settings.temperature)
    else:
        loss = both_ways(
            q, q if d is None else d, temperature=settings.temperature, hard=settings.hard, ids=ids,
            queues=None if queue is None else queue.codes, queue_ids=None if queue is None else queue.ids,
        )  # fmt: skip
    if old is None:
        return loss
    return loss + both_ways(q, old, temperature=settings.temperature, hard=settings.hard, ids=ids)


def _documents(
    queries: FloatArray, documents: FloatArray | None, names: IntArray, settings: Training, rng: np.random.Generator
) -> tuple[FloatArray | None, IntArray]:
    """The positives of one epoch, with their ids."""
    if documents is not None or settings.objective == "distill":
        return documents, names
    if settings.copies == "noise":
        step = rng.standard_normal(queries.shape, dtype=np.float32)
        noisy = queries + settings.noise * step / np.linalg.norm(step, axis=1, keepdims=True)
        return noisy / np.linalg.norm(noisy, axis=1, keepdims=True), names
    nearest = near_neighbours(queries, rng)
    return queries[nearest], names[nearest]


def near_neighbours(x: FloatArray, rng: np.random.Generator, chunk: int = _CHUNK) -> IntArray:
    """Return for each unit row the most similar other row of its random chunk: int64 ``[n]``."""
    out = np.empty(len(x), np.int64)
    order = rng.permutation(len(x))
    for rows in np.array_split(order, max(1, len(x) // chunk)):
        cosines = x[rows] @ x[rows].T
        np.fill_diagonal(cosines, -np.inf)
        out[rows] = rows[cosines.argmax(axis=1)]
    return out


def _batches(n: int, batch: int, rng: np.random.Generator) -> Iterator[IntArray]:
    """Random full batches: a rest of one row would have no batch statistics."""
    order = rng.permutation(n)
    for start in range(0, n - batch + 1, batch):
        yield order[start : start + batch]


def _optimizer(network: Binariser, settings: Training) -> torch.optim.Optimizer:
    if settings.optimizer == "adam":
        return torch.optim.AdamW(network.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    return torch.optim.SGD(network.parameters(), lr=settings.lr, momentum=0.9, weight_decay=settings.weight_decay)
