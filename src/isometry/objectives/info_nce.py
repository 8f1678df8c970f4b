"""InfoNCE with score blocks, masks and weights (van den Oord et al. 2018, arXiv:1807.03748).

Most contrastive losses in use are this one with another set of candidates and another mask. Candidates come in
*blocks* named by two letters: the row's side (``q`` its query, ``p`` its positive) and the candidates' side
(``d`` all documents, ``q`` all queries, ``p`` all positives).

====== ===================================== ==============================================
block  scores                                also known as
====== ===================================== ==============================================
``qd`` query i against every document        InfoNCE, in-batch negatives; always there
``qq`` query i against the other queries     same-tower negatives
``pq`` positive i against the other queries  the symmetric direction, in one denominator
``pp`` positive i against other positives    same-tower negatives, hard negatives left out
``pd`` positive i against other documents    same-tower negatives, hard negatives included
====== ===================================== ==============================================
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize, one_hot

from isometry.errors import DimensionMismatch, InputError, UnknownName
from isometry.objectives.loss import EmbeddingLoss

BLOCKS = ("qd", "qq", "pq", "pp", "pd")

Masks = Mapping[str, Tensor]
Weights = Mapping[str, Tensor | float]


@dataclass(frozen=True)
class Candidates:
    """What a mask source may look at: one batch of b queries and m documents.

    Parameters
    ----------
    scores
        Cosine similarities of the model in training by block, ``[b, m]`` or ``[b, b]``, without gradient.
    targets
        int64 ``[b]``: the column of each row's positive among the documents.
    texts
        The raw texts of queries ``[b]`` and documents ``[m]``, where they are known.
    labels
        Class numbers of queries ``[b]`` and documents ``[m]``, where they are known; negative: unknown.
    """

    scores: Mapping[str, Tensor]
    targets: Tensor
    texts: tuple[Sequence[str], Sequence[str]] | None = None
    labels: tuple[Tensor, Tensor] | None = None


MaskSource = Callable[[Candidates], Masks]


def score_blocks(q: Tensor, docs: Tensor, *, targets: Tensor | None = None, blocks: Sequence[str] = ("qd",)) -> Masks:
    """Return cosine similarities by block, at least float32: ``[b, m]`` for documents, else ``[b, b]``.

    Parameters
    ----------
    q, docs
        Queries ``[b, d]`` and documents ``[m, d]``, of any length.
    targets
        int64 ``[b]``; default: row i's positive is document i.
    blocks
        Names from the table above, ``"qd"`` first.
    """
    targets = _check(q, docs, targets, blocks)
    dtype = torch.promote_types(q.dtype, torch.float32)
    q, docs = normalize(q.to(dtype), dim=-1), normalize(docs.to(dtype), dim=-1)
    sides = {"q": q, "d": docs, "p": docs[targets]}
    return {block: sides[block[0]] @ sides[block[1]].T for block in blocks}


def own_entries(block: str, targets: Tensor, m: int) -> Tensor:
    """Return bool ``[b, m or b]``: the entries where a row meets itself or its own positive.

    In ``qd`` that is the positive's column; in every other block, what must never count as a negative.
    """
    if block[1] == "d":
        return one_hot(targets, m).bool()
    if block == "qq":
        return torch.eye(len(targets), dtype=torch.bool, device=targets.device)
    return targets[:, None] == targets[None, :]


def settle(drop: Masks, targets: Tensor) -> dict[str, Tensor]:
    """Make masks safe: the positive's column is never dropped, a row's meeting with itself always.

    Both are set explicitly. Left to a comparison of scores, rounding would decide them: a dropped positive makes the
    loss NaN, and a query equal to its positive would become its own negative.
    """
    own = {block: own_entries(block, targets, mask.shape[1]) for block, mask in drop.items()}
    return {block: mask & ~own[block] if block == "qd" else mask | own[block] for block, mask in drop.items()}


def info_nce(
    q: Tensor,
    docs: Tensor,
    *,
    temperature: float | Tensor = 0.05,
    targets: Tensor | None = None,
    drop: Tensor | Masks | None = None,
    weights: Tensor | Weights | None = None,
    blocks: Sequence[str] = ("qd",),
    extra: Tensor | None = None,
    reduction: Literal["mean", "none"] = "mean",
) -> Tensor:
    """InfoNCE: cross-entropy of each query's positive among its candidates, by cosine similarity.

    ``-log(e^{s+/t} / (e^{s+/t} + sum_j w_j e^{s_j/t}))`` over all candidates j of all blocks that are not dropped.

    Parameters
    ----------
    q, docs
        Queries ``[b, d]`` and documents ``[m, d]``; normalised here.
    temperature
        The divisor t of similarities; a tensor may be learned.
    targets
        int64 ``[b]``: column of each row's positive; default ``0 .. b - 1``.
    drop
        True: leave this candidate out. bool ``[b, m]`` for ``qd``, or a mapping by block.
    weights
        Factors >= 0 in the denominator: ``[b, m]`` for ``qd``, or by block a tensor or one number (0 switches a block
        off). The positive keeps weight 1. Detach them unless they should be learned.
    blocks
        Sets of candidates, ``"qd"`` first.
    extra
        ``[b, k, d]``: k more negatives for each row alone, such as `isometry.negatives.Mixer` makes; a vector of zeros
        does not count.
    reduction
        ``"mean"`` over rows, or ``"none"`` for the losses ``[b]``.

    Raises
    ------
    DimensionMismatch
        If shapes do not fit.
    InputError
        If temperature, targets, a mask or weights are out of range.
    UnknownName
        If a block has no meaning.

    Examples
    --------
    >>> q = torch.eye(2)
    >>> round(float(info_nce(q, q, temperature=1.0)), 4)    # log(1 + 1/e)
    0.3133
    >>> everything = torch.ones(2, 2, dtype=torch.bool)
    >>> float(info_nce(q, q, drop=everything)) == 0.0       # the positive is never dropped
    True
    """
    if not torch.as_tensor(temperature).gt(0).all():
        raise InputError(f"temperature must be > 0, got {temperature}.")
    targets = _check(q, docs, targets, blocks)
    drops, factors = _by_block(drop, blocks, "drop"), _by_block(weights, blocks, "weights")
    logits = []
    for block, scores in score_blocks(q, docs, targets=targets, blocks=blocks).items():
        mask = drops.get(block, torch.zeros_like(scores, dtype=torch.bool))
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.shape != scores.shape:
            raise DimensionMismatch(f"drop of block {block!r} must be bool {list(scores.shape)}, got {_shape(mask)}.")
        logit = scores / temperature
        if block in factors:
            own = own_entries(block, targets, scores.shape[1])
            logit = logit + torch.where(own, 1.0, _factor(factors[block], scores, block)).log()
        logits.append(logit.masked_fill(settle({block: mask}, targets)[block], -torch.inf))
    if extra is not None:
        logits.append(_extra_scores(q, extra) / temperature)
    return cross_entropy(torch.cat(logits, dim=1), targets, reduction=reduction)


class InfoNCE(EmbeddingLoss):
    """InfoNCE as a loss object: for sentence-transformers' trainer, or for any loop over embeddings.

    Parameters
    ----------
    model
        The model in training (a ``SentenceTransformer``); None when only embeddings are given.
    temperature, blocks
        As in `info_nce`.
    mask
        Which candidates to leave out: called with `Candidates`, returns masks by block. See `isometry.negatives`.
    weights
        Factors by block, or a function of `Candidates` that returns them.
    row_weights
        Called with the losses ``[b]``, returns a factor for each row: `isometry.objectives.Focal`, say.
    mix
        Called with queries, documents, targets and the mask of ``qd``; returns more negatives ``[b, k, d]`` for each
        row alone: `isometry.negatives.Mixer`, say.
    learn
        Learn the logarithm of the temperature, beginning there; it is then a parameter of the loss to be trained.
    both_ways
        The mean of two losses, as CLIP has it: from queries to documents and from positives to queries.

    Notes
    -----
    Columns are (query, positive, negative, negative ...). A mask that reads texts finds them in each feature dict under
    ``"text"``; `isometry.training.keep_texts` puts them there.

    Examples
    --------
    >>> loss = InfoNCE(temperature=1.0, blocks=("qd", "qq"))
    >>> q = torch.eye(2)
    >>> round(float(loss.compute_loss_from_embeddings([q, q])), 4)      # log(1 + 2/e)
    0.5514
    """

    def __init__(
        self,
        model: nn.Module | None = None,
        *,
        temperature: float = 0.05,
        blocks: Sequence[str] = ("qd",),
        mask: MaskSource | None = None,
        weights: Weights | Callable[[Candidates], Weights] | None = None,
        row_weights: Callable[[Tensor], Tensor] | None = None,
        mix: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] | None = None,
        learn: bool = False,
        both_ways: bool = False,
    ) -> None:
        super().__init__(model)
        if not temperature > 0:
            raise InputError(f"temperature must be > 0, got {temperature}.")
        self._fixed = temperature
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature))) if learn else None
        self.blocks, self.mask, self.weights = tuple(blocks), mask, weights
        self.row_weights, self.mix, self.both_ways = row_weights, mix, both_ways

    @property
    def temperature(self) -> float:
        """The divisor of similarities as it is now."""
        return self._fixed if self.log_temperature is None else float(self.log_temperature.detach().exp())

    def compute_loss_from_embeddings(
        self,
        embeddings: Sequence[Tensor],
        labels: Tensor | None = None,
        texts: Sequence[Sequence[str]] | None = None,
    ) -> Tensor:
        """Return the loss of columns of embeddings, each ``[b, d]``: query, positive, negatives.

        Parameters
        ----------
        labels
            ``[b]``: the class of each row's query and positive, for masks that read labels.
        texts
            The raw texts of each column, for masks that read texts.
        """
        if len(embeddings) < 2:
            raise InputError(f"InfoNCE needs a column of queries and one of positives, got {len(embeddings)} column.")
        q, docs = embeddings[0], torch.cat(list(embeddings[1:]))
        drop, weights, targets = None, self.weights, torch.arange(len(q), device=q.device)
        if self.mask is not None or callable(weights):
            batch = self._candidates(q.detach(), docs.detach(), labels, texts)
            drop = None if self.mask is None else self.mask(batch)
            weights = weights(batch) if callable(weights) else weights
        dropped = (drop or {}).get("qd", torch.zeros(len(q), len(docs), dtype=torch.bool, device=q.device))
        temperature = self._fixed if self.log_temperature is None else self.log_temperature.exp()
        extra = None if self.mix is None else self.mix(q, docs, targets, dropped)
        reduction: Literal["mean", "none"] = "mean" if self.row_weights is None else "none"
        losses = info_nce(
            q, docs, temperature=temperature, drop=drop, weights=weights, blocks=self.blocks, extra=extra,
            reduction=reduction,
        )  # fmt: skip
        if self.both_ways:
            back = dropped[:, : len(q)].T
            losses = losses + info_nce(docs[: len(q)], q, temperature=temperature, drop=back, reduction=reduction)
            losses = losses / 2
        return losses if self.row_weights is None else (losses * self.row_weights(losses)).mean()

    def _candidates(
        self, q: Tensor, docs: Tensor, labels: Tensor | None, texts: Sequence[Sequence[str]] | None
    ) -> Candidates:
        flat = None if texts is None else (texts[0], [text for column in texts[1:] for text in column])
        classes = None
        if labels is not None and labels.ndim == 1 and not labels.is_floating_point():
            unknown = labels.new_full((len(docs) - len(labels),), -1)  # a negative's class is not the row's
            classes = (labels, torch.cat([labels, unknown]))
        scores = score_blocks(q, docs, blocks=self.blocks)
        return Candidates(scores, torch.arange(len(q), device=q.device), flat, classes)

    def get_config_dict(self) -> dict[str, Any]:
        """Return what a model card should say about this loss."""
        named = {"mask": self.mask, "weights": self.weights, "row_weights": self.row_weights, "mix": self.mix}
        config = {"temperature": self.temperature, "blocks": list(self.blocks)}
        config |= {"both_ways": True} if self.both_ways else {}
        return config | {key: getattr(value, "__name__", repr(value)) for key, value in named.items() if value}

    @property
    def citation(self) -> str:
        """BibTeX of the loss and of its mask."""
        return "\n".join([_CITATION, getattr(self.mask, "citation", "")]).strip()


_CITATION = """@article{oord2018cpc,
  title = {Representation Learning with Contrastive Predictive Coding},
  author = {van den Oord, Aaron and Li, Yazhe and Vinyals, Oriol},
  journal = {arXiv preprint arXiv:1807.03748},
  year = {2018}
}"""


def _check(q: Tensor, docs: Tensor, targets: Tensor | None, blocks: Sequence[str]) -> Tensor:
    if q.ndim != 2 or docs.ndim != 2 or q.shape[1] != docs.shape[1] or not len(q):
        raise DimensionMismatch(
            f"q and docs must be matrices [b, d] and [m, d] with b >= 1, got {list(q.shape)} and {list(docs.shape)}."
        )
    for block in blocks:
        if block not in BLOCKS:
            raise UnknownName("score block", block, BLOCKS)
    if blocks[:1] not in (("qd",), ["qd"]) or len(set(blocks)) < len(blocks):
        raise InputError(f"blocks must begin with 'qd', which holds the positives, and not repeat; got {list(blocks)}.")
    targets = torch.arange(len(q), device=q.device) if targets is None else targets
    if targets.shape != (len(q),) or not 0 <= int(targets.min()) <= int(targets.max()) < len(docs):
        raise InputError(f"targets must name one of the {len(docs)} documents for each of the {len(q)} queries.")
    return targets


def _by_block(given: Tensor | Mapping[str, Any] | None, blocks: Sequence[str], what: str) -> Mapping[str, Any]:
    by_block = given if isinstance(given, Mapping) else {} if given is None else {"qd": given}
    if unknown := by_block.keys() - set(blocks):
        raise InputError(f"{what} has entries for blocks {sorted(unknown)}, which are not among {list(blocks)}.")
    return by_block


def _factor(weight: Tensor | float, scores: Tensor, block: str) -> Tensor:
    factor = torch.as_tensor(weight, dtype=scores.dtype, device=scores.device)
    if factor.ndim and factor.shape != scores.shape:
        raise DimensionMismatch(
            f"weights of block {block!r} must be a number or {list(scores.shape)}, got {_shape(factor)}."
        )
    if not (factor >= 0).all():
        raise InputError(f"weights of block {block!r} must be >= 0, got {float(factor.min())}.")
    return factor


def _extra_scores(q: Tensor, extra: Tensor) -> Tensor:
    """Return cosines of each query with its own further negatives ``[b, k]``; -inf for a vector of zeros."""
    if extra.ndim != 3 or extra.shape[::2] != q.shape:
        raise DimensionMismatch(f"extra must be [{len(q)}, k, {q.shape[1]}], got {list(extra.shape)}.")
    dtype = torch.promote_types(q.dtype, torch.float32)
    q, extra = normalize(q.to(dtype), dim=-1), normalize(extra.to(dtype), dim=-1)
    return (extra @ q[:, :, None]).squeeze(-1).masked_fill((extra == 0).all(-1), -torch.inf)


def _shape(value: object) -> str:
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
