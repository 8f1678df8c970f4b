"""The joint loss of E2Rank: contrastive on plain queries, RankNet on listwise prompts (arXiv:2510.22733)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn.functional import normalize

from isometry.errors import DimensionMismatch, InputError
from isometry.objectives.info_nce import info_nce
from isometry.objectives.ranking import ranknet
from isometry.training.cross_encoder import Schedule, batches_of
from isometry.training.loop import train
from isometry.types.progress import Progress

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


def slate_scores(enhanced: Tensor, docs: Tensor) -> Tensor:
    """Cosines ``[b, k]`` of each row's prompt vector ``[b, d]`` with its candidates ``[b, k, d]``."""
    scores: Tensor = (normalize(docs, dim=-1) @ normalize(enhanced, dim=-1)[..., None]).squeeze(-1)
    return scores


def e2rank_loss(
    plain: Tensor | None,
    enhanced: Tensor,
    docs: Tensor,
    ranks: Tensor,
    *,
    keep: Tensor | None = None,
    temperature: float = 0.03,
    scale: float = 10.0,
    weight: float = 2.0,
) -> Tensor:
    """``InfoNCE(plain, documents of all rows) + weight RankNet(cos(enhanced, own candidates))``.

    Parameters
    ----------
    plain, enhanced
        Vectors ``[b, d]`` of the bare queries and of the listwise prompts; None leaves the contrastive part out.
    docs
        Vectors ``[b, k, d]`` of each row's candidates.
    ranks
        The teacher's ranking ``[b, k]``, 1 for the best; the contrastive positive is the candidate ranked best.
    keep
        bool ``[b, k]``: candidates that are there; the rest is padding, and a negative to nobody.
    temperature, scale, weight
        The authors' values.

    Raises
    ------
    DimensionMismatch
        If shapes do not fit.
    InputError
        If a rank is below 1 or a row keeps no candidate.
    """
    b, k = ranks.shape
    if docs.shape[:2] != (b, k) or enhanced.shape != (b, docs.shape[-1]):
        raise DimensionMismatch(
            f"Expected vectors [b, d], [b, k, d] and ranks [b, k]; got {list(enhanced.shape)}, {list(docs.shape)} and "
            f"{list(ranks.shape)}."
        )
    there = torch.ones_like(ranks, dtype=torch.bool) if keep is None else keep
    if not there.any(1).all() or int(ranks[there].min()) < 1:
        raise InputError("Every row needs a candidate, and ranks count from 1.")
    loss = weight * ranknet(slate_scores(enhanced, docs), ranks, scale=scale, keep=there)
    if plain is None:
        return loss
    best = ranks.masked_fill(~there, int(ranks.max()) + 1).argmin(1)
    targets = torch.arange(b, device=ranks.device) * k + best
    drop = (~there).reshape(1, b * k).expand(b, -1)
    return loss + info_nce(plain, docs.reshape(b * k, -1), temperature=temperature, targets=targets, drop=drop)


def train_listwise_embedder(
    model: SentenceTransformer,
    queries: Sequence[str],
    slates: Sequence[Sequence[str]],
    ranks: Sequence[ArrayLike],
    schedule: Schedule,
    *,
    write: Callable[[str, Sequence[str]], str],
    ask: Callable[[str], str] = str,
    progress: Progress | None = None,
) -> list[float]:
    """Train an embedding model in place to rank candidates too (E2Rank, stage II); return the loss of every step.

    Parameters
    ----------
    queries, slates, ranks
        A query, its candidates, and the teacher's rank of each, 1 for the best. Slates may differ in length: shorter
        ones are padded and masked, never filled with copies.
    schedule
        ``batch_size`` counts queries.
    write
        Makes the prompt of a query and its candidates: `isometry.ranking.ListwisePrompt.text`, or its ``fit`` where
        they are long, for a prompt cut on its right would lose the query.
    ask
        Makes the text of a query alone, such as its instruction and the query.

    Raises
    ------
    InputError
        If rows do not fit together, or a slate has fewer than two candidates.
    """
    if not len(queries) == len(slates) == len(ranks):
        raise InputError(f"Rows differ: {len(queries)} queries, {len(slates)} slates, {len(ranks)} rankings.")
    given = [torch.as_tensor(row, dtype=torch.long) for row in ranks]
    for row, (slate, rank) in enumerate(zip(slates, given, strict=True)):
        if len(slate) < 2 or rank.shape != (len(slate),):
            raise InputError(f"Slate {row} needs two candidates and a rank each, got {len(slate)}, {list(rank.shape)}.")

    def embed(texts: Sequence[str]) -> Tensor:
        features = {k: v.to(model.device) for k, v in model.preprocess(list(texts)).items() if isinstance(v, Tensor)}
        vectors: Tensor = model(features)["sentence_embedding"]
        return vectors

    def step(module: nn.Module, rows: list[int]) -> Tensor:
        flat = embed([text for r in rows for text in slates[r]])
        parts = flat.split([len(slates[r]) for r in rows])  # type: ignore[no-untyped-call]
        docs = nn.utils.rnn.pad_sequence(list(parts), batch_first=True)
        rank = nn.utils.rnn.pad_sequence([given[r] for r in rows], batch_first=True).to(docs.device)
        enhanced = embed([write(queries[r], slates[r]) for r in rows])
        return e2rank_loss(embed([ask(queries[r]) for r in rows]), enhanced, docs, rank, keep=rank > 0)

    batches = batches_of(len(queries), schedule.batch_size, schedule.seed)
    return train(model, batches, step, **schedule.options(), progress=progress)
