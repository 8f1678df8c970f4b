"""Training token vectors for MaxSim, with or without a reducer inside the loss (CRISP, arXiv:2505.11471).

Train on your own pairs::

    model = LateInteraction.of("minilm", dim=96)
    first = train_late_interaction(model, queries, documents, pairs)                 # every token
    small = train_late_interaction(first.model, queries, documents, pairs,
                                   settings=MaxSimTraining(reducer="C4x8"))           # 4 and 8 vectors a text
    small.model.save("my-model")

``queries`` and ``documents`` are texts by id, ``pairs`` the ``(query id, document id)`` that belong together. As in the
paper a reduced model begins from one trained without reducer. With ``layers=0`` the transformer stays as it is and runs
once over every text; training the head then takes seconds to minutes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from isometry.encoders.late_interaction import LateInteraction, Reducers
from isometry.encoders.token_batches import TokenBatch, TokenRow
from isometry.errors import InputError
from isometry.modules.token_projection import TokenProjection
from isometry.modules.token_reduction import Identity, Reducer, padded, reducers
from isometry.objectives.maxsim import MaxSimInfoNCE
from isometry.training.loop import train
from isometry.types import Embeddings, Role
from isometry.types.progress import Progress

Source = Callable[[Role, Sequence[str]], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class MaxSimTraining:
    """How to train.

    Parameters
    ----------
    reducer
        Applied inside the loss: one reducer, one by role, a name such as ``"C4x8"``; None: every token.
    steps, batch_size, lr
        Updates, pairs in a batch, highest learning rate (1e-3 suits a head; 2e-5 to 1e-4 with layers).
    temperature, learn_temperature
        Divisor of MaxSim per query vector, and whether to learn it.
    seed
        Order of pairs, seeds of clusters, dropout.
    """

    reducer: Reducers | None = None
    steps: int = 300
    batch_size: int = 32
    lr: float = 1e-3
    temperature: float = 0.05
    learn_temperature: bool = False
    seed: int = 0

    def by_role(self) -> dict[Role, Reducer]:
        """Return the reducers by role."""
        given = reducers(self.reducer) if isinstance(self.reducer, str) else self.reducer
        if isinstance(given, Mapping):
            return {"query": given.get("query", Identity()), "document": given.get("document", Identity())}
        return {"query": given or Identity(), "document": given or Identity()}


@dataclass(frozen=True)
class TrainedHead:
    """A trained head, the loss of every step, the last temperature."""

    head: TokenProjection
    losses: Sequence[float] = field(repr=False)
    temperature: float


@dataclass(frozen=True)
class TrainedModel:
    """A trained late-interaction model, the loss of every step, the last temperature."""

    model: LateInteraction
    losses: Sequence[float] = field(repr=False)
    temperature: float


@dataclass(frozen=True)
class PairBatch:
    """Query ids ``[b]``; document ids ``[m]``, the positives first; bool ``[b, m]``: judged relevant besides."""

    queries: Sequence[str]
    documents: Sequence[str]
    drop: Tensor


class PairBatches:
    """Pairs in shuffled batches, the same for a seed; a document relevant to a query is never its negative.

    Parameters
    ----------
    pairs
        ``(query id, document id)`` that belong together.
    negatives
        By query id, documents that do not: one of them, drawn, joins the batch for each query that has some.
    """

    def __init__(
        self,
        pairs: Sequence[tuple[str, str]],
        batch_size: int,
        *,
        negatives: Mapping[str, Sequence[str]] | None = None,
        seed: int = 0,
    ) -> None:
        if batch_size < 2 or len(pairs) < 2:
            raise InputError(
                f"In-batch negatives need two pairs or more in a batch, got {len(pairs)} pairs and "
                f"batch_size={batch_size}."
            )
        self.pairs, self.negatives, self.seed, self.epoch = list(pairs), negatives or {}, seed, 0
        self.batch_size, self.relevant = min(batch_size, len(pairs)), set(pairs)

    def set_epoch(self, epoch: int) -> None:
        """Say which pass begins; each has an order of its own."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[PairBatch]:
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(len(self.pairs))
        for start in range(0, len(order) - self.batch_size + 1, self.batch_size):
            chosen = [self.pairs[i] for i in order[start : start + self.batch_size]]
            queries, documents = [q for q, _ in chosen], [d for _, d in chosen]
            known = [self.negatives[q] for q in queries if self.negatives.get(q)]
            documents += [str(some[int(rng.integers(len(some)))]) for some in known]
            drop = torch.tensor([[(q, d) in self.relevant for d in documents] for q in queries])
            yield PairBatch(queries, documents, drop)


class _Trainee(nn.Module):
    """What the loop trains: head, loss, and the transformer where its layers are trained."""

    def __init__(self, head: nn.Module, settings: MaxSimTraining, source: Source, backbone: nn.Module | None) -> None:
        super().__init__()
        self.head, self.backbone, self.source = head, backbone, source
        self.loss = MaxSimInfoNCE(settings.temperature, learn=settings.learn_temperature)
        self.reducers = settings.by_role()
        self.generator = torch.Generator().manual_seed(settings.seed)

    def vectors(self, role: Role, ids: Sequence[str]) -> tuple[Tensor, Tensor]:
        states, mask = self.source(role, ids)
        return self.reducers[role].reduce(self.head(states), mask, generator=self.generator)

    def forward(self, batch: PairBatch) -> Tensor:
        q, d = self.vectors("query", batch.queries), self.vectors("document", batch.documents)
        value: Tensor = self.loss(q, d, drop=batch.drop.to(q[0].device))
        return value


def train_head(
    queries: Embeddings,
    documents: Embeddings,
    pairs: Sequence[tuple[str, str]],
    *,
    head: TokenProjection | int = 96,
    settings: MaxSimTraining | None = None,
    negatives: Mapping[str, Sequence[str]] | None = None,
    progress: Progress | None = None,
) -> TrainedHead:
    """Train a linear head on token states that are already computed, for MaxSim by InfoNCE with in-batch negatives.

    Parameters
    ----------
    queries, documents
        States of the frozen transformer: multi-vector embeddings of ``LateInteraction.of(name, normalize=False)``.
    pairs
        ``(query id, document id)`` that belong together.
    head
        Where to begin: a trained head (which stays as it is), or the width of a new one.
    negatives
        Hard negatives: document ids by query id.
    progress
        Called with (steps done, steps).

    Raises
    ------
    InputError
        If a pair names an unknown id, there are too few pairs, or the loss is no longer finite.
    SpaceMismatch
        If queries and documents are of two spaces.

    Examples
    --------
    A user's own head, ready to encode with: ``model.replace(head=train_head(...).head, normalize=True)``.
    """
    queries.space.check(documents.space)
    settings = settings or MaxSimTraining()
    start = TokenProjection(queries.space.dim, head, seed=settings.seed) if isinstance(head, int) else head
    if start.in_dim != queries.space.dim:
        raise InputError(f"The head takes states of width {start.in_dim}, but these are {queries.space.dim} wide.")
    sides: dict[Role, tuple[Embeddings, dict[str, int]]] = {
        "query": (queries, {str(i): row for row, i in enumerate(queries.ids)}),
        "document": (documents, {str(i): row for row, i in enumerate(documents.ids)}),
    }
    _check_ids(pairs, negatives, sides["query"][1], sides["document"][1])

    def source(role: Role, ids: Sequence[str]) -> tuple[Tensor, Tensor]:
        embeddings, rows = sides[role]
        return padded(embeddings, [rows[i] for i in ids])

    trainee = _Trainee(copy.deepcopy(start), settings, source, None)
    losses = _run(trainee, pairs, negatives, settings, progress)
    return TrainedHead(trainee.head.eval(), losses, trainee.loss.temperature)  # type: ignore[arg-type]


def train_late_interaction(
    model: LateInteraction,
    queries: Mapping[str, str],
    documents: Mapping[str, str],
    pairs: Sequence[tuple[str, str]],
    *,
    layers: int = 0,
    settings: MaxSimTraining | None = None,
    negatives: Mapping[str, Sequence[str]] | None = None,
    progress: Progress | None = None,
) -> TrainedModel:
    """Train a late-interaction model on pairs of texts: its head, and its transformer's last layers if asked.

    Parameters
    ----------
    model
        Where to begin, e.g. a model trained without reducer; it stays as it is.
    queries, documents
        Texts by id. Texts beyond the window are cut.
    pairs
        ``(query id, document id)`` that belong together.
    layers
        How many of the transformer's last layers to train with the head. 0: its states are computed once.
    settings
        See `MaxSimTraining`; its reducer becomes the model's.
    negatives, progress
        As in `train_head`.

    Raises
    ------
    InputError
        If there is nothing to train (no head and no layers), a pair names an unknown id, or the loss is no longer
        finite.
    """
    settings = settings or MaxSimTraining()
    if model.head is None and not layers:
        raise InputError("There is nothing to train: give the model a head (dim=96), or train layers of it.")
    _check_ids(pairs, negatives, queries, documents)
    used = sorted({d for _, d in pairs} | {d for some in (negatives or {}).values() for d in some})
    asked = sorted({q for q, _ in pairs})
    texts: dict[Role, dict[str, str]] = {
        "query": {q: queries[q] for q in asked},
        "document": {d: documents[d] for d in used},
    }
    if not layers and model.head is not None:
        bare = model.replace(head=None, normalize=False, reducer=None)
        asked_states, used_states = (
            bare.embed(list(some.values()), list(some), role=role, on_truncate="ignore") for role, some in texts.items()
        )
        head = copy.deepcopy(model.head)
        head.normalize = head.normalize or model.normalize
        found = train_head(
            asked_states, used_states, pairs,
            head=head.cpu(), settings=settings, negatives=negatives, progress=progress,
        )  # fmt: skip
        return TrainedModel(model.replace(head=found.head, reducer=settings.by_role()), found.losses, found.temperature)
    return _train_layers(model, texts, pairs, layers, settings, negatives, progress)


def _train_layers(
    model: LateInteraction,
    texts: Mapping[Role, Mapping[str, str]],
    pairs: Sequence[tuple[str, str]],
    layers: int,
    settings: MaxSimTraining,
    negatives: Mapping[str, Sequence[str]] | None,
    progress: Progress | None,
) -> TrainedModel:
    backbone = copy.deepcopy(model.backbone).requires_grad_(False)
    for layer in _stack(backbone)[-layers:]:
        layer.requires_grad_(True)
    pupil = model.replace(backbone=backbone, head=copy.deepcopy(model.head))
    rows: dict[Role, dict[str, TokenRow]] = {
        role: dict(zip(some, pupil.reader.read(list(some.values()), role), strict=True)) for role, some in texts.items()
    }

    def source(role: Role, ids: Sequence[str]) -> tuple[Tensor, Tensor]:
        batch = TokenBatch.of([rows[role][i] for i in ids], device=pupil.device)
        return pupil.project(pupil.states(batch)), batch.keep

    trainee = _Trainee(
        nn.Identity(), settings, source, nn.ModuleList(part for part in (backbone, pupil.head) if part is not None)
    )
    losses = _run(trainee, pairs, negatives, settings, progress)
    backbone.requires_grad_(True)
    return TrainedModel(pupil.replace(reducer=settings.by_role()), losses, trainee.loss.temperature)


def _stack(backbone: nn.Module) -> Any:
    """Return the list of a transformer's layers."""
    depth = getattr(getattr(backbone, "config", None), "num_hidden_layers", None)
    stacks = [m for m in backbone.modules() if isinstance(m, nn.ModuleList) and len(m) == depth]
    if len(stacks) != 1:
        raise InputError(f"The layers of {type(backbone).__name__} cannot be told apart; train its head alone.")
    return stacks[0]


def _run(
    trainee: _Trainee,
    pairs: Sequence[tuple[str, str]],
    negatives: Mapping[str, Sequence[str]] | None,
    settings: MaxSimTraining,
    progress: Progress | None,
) -> list[float]:
    batches = PairBatches(pairs, settings.batch_size, negatives=negatives, seed=settings.seed)
    return train(
        trainee,
        batches,
        lambda module, batch: module(batch),
        steps=settings.steps,
        lr=settings.lr,
        seed=settings.seed,
        progress=progress,
    )


def _check_ids(
    pairs: Sequence[tuple[str, str]],
    negatives: Mapping[str, Sequence[str]] | None,
    queries: Mapping[str, Any],
    documents: Mapping[str, Any],
) -> None:
    for query, document in pairs:
        if query not in queries or document not in documents:
            raise InputError(f"The pair ({query!r}, {document!r}) names an id without text; give both texts.")
    for query, some in (negatives or {}).items():
        if unknown := next((d for d in some if d not in documents), None):
            raise InputError(f"The negatives of {query!r} name {unknown!r}, which is no document; give its text.")
