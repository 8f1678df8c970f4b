"""Guided selection of in-batch negatives (GISTEmbed, Solatorio 2024, arXiv:2402.16829).

A frozen guide embeds the same batch as the model in training. Any candidate that the guide finds closer to a row than
the row's labelled positive is taken for an unlabelled positive and left out of the denominator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from isometry.errors import EmptyInput, InputError
from isometry.objectives.info_nce import Candidates, InfoNCE, Masks, score_blocks, settle
from isometry.protocols import Encoder
from isometry.types import FloatArray, Role, check_vectors


def guided_mask(scores: Masks, targets: Tensor, *, margin: float = 0.0, relative: bool = False) -> dict[str, Tensor]:
    """Mask candidates that a guide scores strictly above the row's positive (GISTEmbed).

    Parameters
    ----------
    scores
        The guide's similarities by block, from `score_blocks`; ``qd`` holds the positives' own scores t, the
        thresholds of every block.
    targets
        int64 ``[b]``: columns of the positives in ``qd``.
    margin, relative
        Mask above ``t - margin``, or above ``t - |t| * margin``. A larger margin masks a superset.

    Returns
    -------
    dict
        By block, bool of the scores' shape: True: leave out. The positive never is; a row's meeting with itself in
        the other blocks always is, whatever rounding makes of a similarity of 1.

    Examples
    --------
    >>> scores = {"qd": torch.tensor([[0.8, 0.9], [0.1, 0.7]])}
    >>> guided_mask(scores, torch.arange(2))["qd"].tolist()
    [[False, True], [False, False]]
    """
    if "qd" not in scores:
        raise InputError(f"A guided mask takes its thresholds from block 'qd'; got {sorted(scores)}.")
    t = scores["qd"].gather(1, targets[:, None])
    limit = t - (t.abs() if relative else 1.0) * margin
    return settle({block: s > limit for block, s in scores.items()}, targets)


class Guide:
    """A frozen encoder that embeds raw texts with its own tokenizer, without gradient, each text once.

    Parameters
    ----------
    encoder
        Anything with ``encode_query`` and ``encode_document``, e.g. a ``SentenceTransformer``. It must not be the
        model in training, whose vectors change.
    keep
        Vectors remembered; the oldest are forgotten first.
    """

    def __init__(self, encoder: Encoder, *, keep: int = 200_000) -> None:
        self.encoder, self.keep = encoder, keep
        self._known: dict[tuple[Role, str], FloatArray] = {}

    def __call__(self, texts: Sequence[str], role: Role = "document") -> Tensor:
        """Return float32 ``[n, d]``."""
        if not texts:
            raise EmptyInput("The guide was given no text.")
        wanted = [(role, text) for text in texts]
        missing = list(dict.fromkeys(key for key in wanted if key not in self._known))
        found = {key: self._known[key] for key in wanted if key in self._known}
        if missing:
            encode = self.encoder.encode_query if role == "query" else self.encoder.encode_document
            with torch.no_grad():
                vectors = check_vectors(encode([text for _, text in missing]), what="the guide's vectors")
            found |= dict(zip(missing, vectors, strict=True))
            self._known |= {key: found[key] for key in missing[-self.keep :]}
            while len(self._known) > self.keep:
                del self._known[next(iter(self._known))]
        return torch.from_numpy(np.stack([found[key] for key in wanted]))

    def __repr__(self) -> str:
        return f"Guide({type(self.encoder).__name__})"


@dataclass(frozen=True)
class Guided:
    """Mask source: drop what a frozen guide finds closer to a row than its positive (GISTEmbed).

    With ``hard`` only hard negatives are left: those that the model in training, against the guide's word, finds closer
    to the row than its positive.
    """

    guide: Guide
    margin: float = 0.0
    relative: bool = False
    hard: bool = False
    citation: ClassVar[str] = """@article{solatorio2024gistembed,
  title = {GISTEmbed: Guided In-sample Selection of Training Negatives for Text Embedding Fine-tuning},
  author = {Solatorio, Aivin V.},
  journal = {arXiv preprint arXiv:2402.16829},
  year = {2024}
}"""

    def __call__(self, candidates: Candidates) -> Masks:
        """Return masks by block."""
        if candidates.texts is None:
            raise InputError("A guide reads texts; pass them to the loss, or put them in the features with keep_texts.")
        queries, docs = candidates.texts
        targets = candidates.targets
        q, d = (self.guide(queries, "query").to(targets.device), self.guide(docs).to(targets.device))
        scores = score_blocks(q, d, targets=targets, blocks=tuple(candidates.scores))
        drop = guided_mask(scores, targets, margin=self.margin, relative=self.relative)
        if not self.hard:
            return drop
        own = candidates.scores["qd"].gather(1, targets[:, None])
        return settle({block: mask | (candidates.scores[block] <= own) for block, mask in drop.items()}, targets)


def gist_loss(
    model: nn.Module | None = None,
    guide: Encoder | None = None,
    *,
    temperature: float = 0.01,
    margin: float = 0.0,
    relative: bool = False,
    hard: bool = False,
    contrast_queries: bool = True,
    contrast_positives: bool = True,
) -> InfoNCE:
    """Return the GISTEmbed loss: InfoNCE over query-document, query-query and positive-positive pairs, guided.

    Parameters
    ----------
    model
        The model in training, or None when only embeddings are given.
    guide
        A frozen encoder; None gives the unguided baseline (the same blocks, nothing masked but self-pairs).
    temperature, margin, relative, hard
        As in `info_nce`, `guided_mask` and `Guided`.
    contrast_queries, contrast_positives
        Whether queries are pushed from queries, and positives from positives (the latter can hurt retrieval).

    Raises
    ------
    InputError
        If the guide is the model in training.
    """
    if guide is not None and id(guide) == id(model):
        raise InputError("The guide must stay frozen: pass another model, or copy.deepcopy of the one in training.")
    blocks = ("qd", *["qq"] * contrast_queries, *["pp"] * contrast_positives)
    mask = None if guide is None else Guided(Guide(guide), margin, relative, hard)
    return InfoNCE(model, temperature=temperature, blocks=blocks, mask=mask)


def doubtful_negatives(
    guide: Guide,
    queries: Sequence[str],
    positives: Sequence[str],
    negatives: Sequence[str],
    *,
    margin: float = 0.0,
    relative: bool = False,
) -> list[int]:
    """Return the rows of a triplet set whose hard negative the guide finds closer to the query than the positive.

    These rows would be masked in training; they are worth reading, since label noise gathers there.
    """
    if not len(queries) == len(positives) == len(negatives):
        raise InputError(f"Triplets need equal columns, got {len(queries)}, {len(positives)} and {len(negatives)}.")
    if not queries:
        return []
    q = guide(queries, "query")
    pairs = torch.stack([cosine_similarity(q, guide(side)) for side in (positives, negatives)], dim=1)
    first = torch.zeros(len(queries), dtype=torch.int64)
    mask = guided_mask({"qd": pairs}, first, margin=margin, relative=relative)["qd"]
    return [int(row) for row in mask[:, 1].nonzero()]
