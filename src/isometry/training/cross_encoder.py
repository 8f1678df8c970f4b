"""Training a cross-encoder: from the body of an encoder, on pairs with targets or on lists of candidates."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn import functional as F

from isometry.errors import EmptyInput, InputError, UnknownName
from isometry.objectives.ranking import list_mle, list_net, p_list_mle, ranknet
from isometry.training.checkpoints import Checkpoints
from isometry.training.length_batches import LengthBatches
from isometry.training.loop import seeded, train
from isometry.types.progress import Progress

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder, SentenceTransformer

Pointwise = Literal["bce", "mse", "ce"]
Listwise = Literal["ranknet", "list_net", "list_mle", "p_list_mle", "ce"]
ListLoss = Callable[[Tensor, Tensor, Tensor], Tensor]


def cross_encoder(
    encoder: SentenceTransformer,
    *,
    labels: int = 1,
    pooling: Literal["cls", "mean", "lasttoken"] = "cls",
    seed: int = 0,
) -> CrossEncoder:
    """Cross-encoder over a copy of an encoder's transformer: ``[CLS] A [SEP] B [SEP]``, pooling, a linear map.

    Parameters
    ----------
    encoder
        Its first module is the transformer; later modules are left behind. Cut it first to have fewer layers.
    labels
        Logits per pair: 1 for a score or a yes/no, more for classes.
    pooling
        Which state is read; ``"cls"`` as usual, ``"lasttoken"`` for decoders.
    seed
        Of the linear map's random start.
    """
    from sentence_transformers import CrossEncoder
    from sentence_transformers.base.modules import Dense
    from sentence_transformers.sentence_transformer.modules import Pooling

    if labels < 1:
        raise InputError(f"A cross-encoder gives at least one logit per pair, got labels={labels}.")
    body = copy.deepcopy(encoder[0])
    dim = int(body.get_embedding_dimension())
    with seeded(seed):
        head = Dense(dim, labels, activation_function=nn.Identity(), module_output_name="scores")
        nn.init.normal_(head.linear.weight, std=0.02)
        nn.init.zeros_(head.linear.bias)
    return CrossEncoder(modules=[body, Pooling(dim, pooling), head], device=str(encoder.device))


def pair_logits(model: CrossEncoder, pairs: Sequence[tuple[str, str]]) -> Tensor:
    """Logits ``[n, labels]`` of pairs, with gradient."""
    features = model.preprocess(list(pairs))
    moved = {k: v.to(model.device) if isinstance(v, Tensor) else v for k, v in features.items()}
    logits: Tensor = model(moved)["scores"]
    return logits if logits.ndim == 2 else logits[:, None]


def pointwise_loss(logits: Tensor, targets: Tensor, kind: Pointwise | str) -> Tensor:
    """Loss of logits ``[b, C]`` per pair.

    ``"bce"``: log loss of a yes/no, targets in 0..1; ``"mse"``: squared error, targets ``[b]`` or ``[b, C]``;
    ``"ce"``: cross-entropy of classes, int64 targets ``[b]``.
    """
    if kind == "ce":
        return F.cross_entropy(logits, targets.long())
    targets = targets.to(logits.dtype).reshape(logits.shape)
    if kind == "bce":
        return F.binary_cross_entropy_with_logits(logits, targets)
    if kind == "mse":
        return F.mse_loss(logits, targets)
    raise UnknownName("pointwise loss", str(kind), get_args(Pointwise))


def batches_of(n: int, batch_size: int, seed: int) -> Iterator[list[int]]:
    """Endless batches of row numbers, each row once per pass, in an order that ``seed`` decides.

    Raises
    ------
    EmptyInput
        If there is no row.
    """
    if n < 1 or batch_size < 1:
        raise EmptyInput(f"Training needs at least one row and a batch of one, got {n} rows, batch {batch_size}.")
    rng = np.random.default_rng(seed)
    waiting: list[int] = []
    while True:
        while len(waiting) < min(batch_size, n):
            waiting += rng.permutation(n).tolist()
        yield waiting[:batch_size]
        waiting = waiting[batch_size:]


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train: AdamW with linear warm-up and decay (see `isometry.training.train`)."""

    steps: int
    batch_size: int = 32
    lr: float = 2e-5
    warmup: float = 0.1
    seed: int = 0
    weight_decay: float = 0.0

    def options(self) -> dict[str, Any]:
        """Return what `isometry.training.train` takes of it."""
        return {name: getattr(self, name) for name in ("steps", "lr", "warmup", "seed", "weight_decay")}


def train_cross_encoder(
    model: CrossEncoder,
    pairs: Sequence[tuple[str, str]],
    targets: ArrayLike,
    schedule: Schedule,
    *,
    loss: Pointwise | str = "bce",
    progress: Progress | None = None,
    keep: Checkpoints | None = None,
) -> list[float]:
    """Train a cross-encoder in place on pairs with one target each; return the loss of every step.

    Parameters
    ----------
    pairs
        ``n`` pairs of texts; those of like length share a batch.
    targets
        ``[n]``, or ``[n, labels]`` under ``"mse"`` (e.g. another model's logits).
    loss
        See `pointwise_loss`.

    Raises
    ------
    InputError
        If the numbers of pairs and targets differ, or targets are out of the loss's range.
    """
    wanted = torch.as_tensor(np.asarray(targets, np.float32))
    if len(pairs) != len(wanted):
        raise InputError(f"{len(pairs)} pairs need as many targets, got {len(wanted)}.")
    if loss not in get_args(Pointwise):
        raise UnknownName("pointwise loss", str(loss), get_args(Pointwise))
    highest = {"bce": 1.0, "ce": model.num_labels - 1.0, "mse": float("inf")}[loss]
    if not torch.isfinite(wanted).all() or (
        loss != "mse" and not 0 <= float(wanted.min()) <= float(wanted.max()) <= highest
    ):
        raise InputError(f"Targets of {loss!r} must be finite{'' if loss == 'mse' else f' and in 0..{highest:g}'}.")

    def step(module: nn.Module, rows: list[int]) -> Tensor:
        return pointwise_loss(pair_logits(model, [pairs[r] for r in rows]), wanted[rows].to(model.device), loss)

    batches = LengthBatches([len(a) + len(b) for a, b in pairs], schedule.batch_size, seed=schedule.seed)
    return _train(model, batches, step, schedule, progress, keep)


def train_cross_encoder_listwise(
    model: CrossEncoder,
    queries: Sequence[str],
    slates: Sequence[Sequence[str]],
    relevance: Sequence[ArrayLike],
    schedule: Schedule,
    *,
    loss: Listwise | ListLoss = "list_net",
    progress: Progress | None = None,
    keep: Checkpoints | None = None,
) -> list[float]:
    """Train a cross-encoder in place on lists of candidates; return the loss of every step.

    Parameters
    ----------
    queries, slates, relevance
        A query, its candidates, and how relevant each is (higher is better), per row. Slates may differ in length:
        shorter ones are padded and masked, never filled with copies.
    schedule
        ``batch_size`` counts queries.
    loss
        A name, or a function of scores ``[b, k]``, relevance ``[b, k]`` and ``keep`` (bool ``[b, k]``, False: padding).

    Raises
    ------
    InputError
        If rows do not fit, a slate has fewer than two candidates, or the model has more than one label.
    """
    if model.num_labels != 1:
        raise InputError(f"Listwise training needs one logit per pair, the model has {model.num_labels} labels.")
    grades = [np.asarray(row, np.float32) for row in relevance]
    if not len(queries) == len(slates) == len(grades):
        raise InputError(f"Rows differ: {len(queries)} queries, {len(slates)} slates, {len(grades)} relevances.")
    for row, (slate, grade) in enumerate(zip(slates, grades, strict=True)):
        if len(slate) < 2 or grade.shape != (len(slate),):
            raise InputError(f"Slate {row} needs two candidates and a relevance each, got {len(slate)}, {grade.shape}.")
    measure = list_loss(loss) if isinstance(loss, str) else loss

    def step(module: nn.Module, rows: list[int]) -> Tensor:
        flat = pair_logits(model, [(queries[r], text) for r in rows for text in slates[r]])[:, 0]
        scores, grade, keep = pad_slates(flat, [grades[r] for r in rows])
        return measure(scores, grade, keep)

    batches = batches_of(len(queries), schedule.batch_size, schedule.seed)
    return _train(model, batches, step, schedule, progress, keep)


def pad_slates(flat: Tensor, grades: Sequence[np.ndarray[Any, Any]]) -> tuple[Tensor, Tensor, Tensor]:
    """Scores ``[sum k_i]`` of slates to ``[b, k]`` with relevance ``[b, k]`` and a mask of what is no padding.

    >>> scores, grade, keep = pad_slates(torch.arange(3.0), [np.ones(1), np.zeros(2)])
    >>> scores.tolist(), keep.tolist()
    ([[0.0, 0.0], [1.0, 2.0]], [[True, False], [True, True]])
    """
    sizes = torch.tensor([len(g) for g in grades], device=flat.device)
    keep = torch.arange(int(sizes.max()), device=flat.device)[None, :] < sizes[:, None]
    scores = torch.zeros(keep.shape, dtype=flat.dtype, device=flat.device).masked_scatter(keep, flat)
    known = torch.as_tensor(np.concatenate(grades), dtype=flat.dtype, device=flat.device)
    return scores, torch.zeros_like(scores).masked_scatter(keep, known), keep


def competition_ranks(relevance: Tensor, keep: Tensor | None = None) -> Tensor:
    """Ranks ``[b, k]``, 1 for the most relevant; equal relevance shares a rank.

    >>> competition_ranks(torch.tensor([[0.0, 2.0, 2.0, 1.0]])).tolist()
    [[4, 1, 1, 3]]
    """
    known = torch.ones_like(relevance, dtype=torch.bool) if keep is None else keep
    better = (relevance[:, None, :] > relevance[:, :, None]) & known[:, None, :]
    ranks: Tensor = better.sum(-1) + 1
    return ranks


def list_loss(name: Listwise | str) -> ListLoss:
    """Return a listwise loss by name as a function of scores, relevance and mask, each ``[b, k]``."""
    known: dict[str, ListLoss] = {
        "ranknet": lambda s, r, keep: ranknet(s, competition_ranks(r, keep), scale=1.0, keep=keep),
        "list_net": lambda s, r, keep: list_net(s, r, keep=keep),
        "list_mle": lambda s, r, keep: list_mle(s, r, keep=keep),
        "p_list_mle": lambda s, r, keep: p_list_mle(s, r, keep=keep),
        "ce": lambda s, r, keep: F.cross_entropy(s.masked_fill(~keep, -torch.inf), r.masked_fill(~keep, -1).argmax(1)),
    }
    if name not in known:
        raise UnknownName("listwise loss", str(name), known)
    return known[name]


def _train(
    model: nn.Module, batches: Iterable[list[int]], step: Callable[[nn.Module, list[int]], Tensor], plan: Schedule,
    progress: Progress | None, keep: Checkpoints | None,
) -> list[float]:  # fmt: skip
    return train(model, batches, step, **plan.options(), progress=progress, keep=keep)
