"""Contrastive losses of large embedders as one InfoNCE: which candidates there are, and which are masked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import nn

from isometry.errors import InputError, UnknownName
from isometry.negatives.masks import AnyOf, OwnScores, other_rows, same_text
from isometry.objectives.info_nce import Candidates, InfoNCE, Masks, MaskSource, settle

NegativeSet = Literal["own", "batch", "same tower", "masked"]
NEGATIVE_SETS: tuple[NegativeSet, ...] = get_args(NegativeSet)


def others_hard_negatives(candidates: Candidates) -> Masks:
    """Drop the hard negatives of other rows; own ones, and other rows' positives, stay.

    Columns come as the loss lays them out: the positives of the b rows, then their first negatives, and so on.
    """
    targets, masks = candidates.targets, {}
    for block, scores in candidates.scores.items():
        b, m = scores.shape
        if block[1] == "d" and m % b:
            raise InputError(f"Columns of {b} rows hold a multiple of {b} documents, got {m}.")
        columns = torch.arange(m, device=targets.device)
        masks[block] = (columns >= b)[None, :] & (columns[None, :] % b != targets[:, None] % b)
    return settle(masks, targets)


@dataclass(frozen=True)
class SelfMask:
    """Drop what the model itself scores above the positive by more than ``margin``, and what has the positive's text.

    The factor m of Qwen3-Embedding (arXiv:2506.05176, equation 1). Where texts are not known, scores alone decide.
    """

    margin: float = 0.1

    def __call__(self, candidates: Candidates) -> Masks:
        """Return masks by block."""
        sources: tuple[MaskSource, ...] = (OwnScores(self.margin),)
        return AnyOf(sources if candidates.texts is None else (*sources, same_text))(candidates)


def five_term_loss(
    model: nn.Module | None = None,
    *,
    temperature: float = 0.01,
    margin: float = 0.1,
    all_documents: bool = False,
) -> InfoNCE:
    """Return the loss of Qwen3-Embedding: five terms in the denominator, false negatives masked (equation 1).

    The positive, the row's own hard negatives, other queries, the positive against other positives, the query against
    other documents.

    Parameters
    ----------
    model
        The model in training, or None when only embeddings are given.
    temperature
        The divisor of similarities.
    margin
        Mask what scores above the row's positive by more, in cosine; infinity masks only equal texts.
    all_documents
        Whether other rows' hard negatives count among the other documents; the paper does not say, the default is no.
    """
    if not margin >= 0:
        raise InputError(f"margin must be >= 0, got {margin}.")
    sources: tuple[MaskSource, ...] = (SelfMask(margin),)
    mask = sources[0] if all_documents else AnyOf((*sources, others_hard_negatives))
    return InfoNCE(model, temperature=temperature, blocks=("qd", "qq", "pp"), mask=mask)


def hard_negative_loss(
    model: nn.Module | None = None,
    *,
    negatives: NegativeSet = "own",
    temperature: float = 0.02,
    margin: float = 0.1,
) -> InfoNCE:
    """Return one of the four losses that Llama-Embed-Nemotron compares (arXiv:2511.07025).

    Parameters
    ----------
    model
        The model in training, or None when only embeddings are given.
    negatives
        ``"own"``: the row's hard negatives alone, which that model is trained with. ``"batch"``: and everything of
        other rows. ``"same tower"``: and other queries, equal texts masked. ``"masked"``: and documents against
        documents, masked as in `five_term_loss`.
    temperature
        The divisor of similarities.
    margin
        Of ``"masked"``.
    """
    if negatives == "masked":
        return five_term_loss(model, temperature=temperature, margin=margin, all_documents=True)
    if negatives not in NEGATIVE_SETS:
        raise UnknownName("set of negatives", negatives, NEGATIVE_SETS)
    if negatives == "same tower":
        return InfoNCE(model, temperature=temperature, blocks=("qd", "qq"), mask=_equal_texts)
    return InfoNCE(model, temperature=temperature, mask=other_rows if negatives == "own" else None)


def _equal_texts(candidates: Candidates) -> Masks:
    return {} if candidates.texts is None else same_text(candidates)
