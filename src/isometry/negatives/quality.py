"""How good a mask of false negatives is, where the truth is known."""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass

from torch import Tensor

from isometry.errors import DataWarning, DimensionMismatch


@dataclass(frozen=True)
class MaskQuality:
    """A mask against the known false negatives; shares between 0 and 1, NaN where there is nothing to divide by.

    Parameters
    ----------
    precision
        Share of what is masked that is a false negative.
    recall
        Share of the false negatives that is masked.
    masked
        Share of all candidates that is masked.
    base_rate
        Share of all candidates that is a false negative: the precision of masking at random.
    rows
        Share of rows with at least one false negative.
    """

    precision: float
    recall: float
    masked: float
    base_rate: float
    rows: float

    def to_dict(self) -> dict[str, float]:
        """Return the figures by name."""
        return asdict(self)


def mask_quality(drop: Tensor, truth: Tensor, own: Tensor) -> MaskQuality:
    """Return precision and recall of a mask against known false negatives.

    Parameters
    ----------
    drop
        bool ``[..., b, m]``: what the mask leaves out; batches may be stacked.
    truth
        bool, same shape: candidates known to be related to the row.
    own
        bool, same shape: entries that do not count, from `own_entries`.

    Raises
    ------
    DimensionMismatch
        If the shapes differ.

    Examples
    --------
    >>> import torch
    >>> drop, truth = torch.tensor([[0, 1, 1]]).bool(), torch.tensor([[1, 1, 0]]).bool()
    >>> mask_quality(drop, truth, torch.tensor([[1, 0, 0]]).bool()).to_dict()
    {'precision': 0.5, 'recall': 1.0, 'masked': 1.0, 'base_rate': 0.5, 'rows': 1.0}
    """
    if not drop.shape == truth.shape == own.shape:
        raise DimensionMismatch(
            f"drop, truth and own must have one shape, got {list(drop.shape)}, {list(truth.shape)}, {list(own.shape)}."
        )
    drop, truth = drop & ~own, truth & ~own
    hits, masked, related = (int(x.sum()) for x in (drop & truth, drop, truth))
    total = int((~own).sum())
    return MaskQuality(
        precision=_share(hits, masked),
        recall=_share(hits, related),
        masked=_share(masked, total),
        base_rate=_share(related, total),
        rows=_share(int(truth.any(-1).sum()), truth[..., 0].numel()),
    )


def top1_accuracy(scores: Tensor, targets: Tensor) -> float:
    """Return the share of rows of ``[b, m]`` scores whose best candidate is the target (accuracy@1)."""
    return float((scores.argmax(1) == targets).double().mean())


def check_guide(student: Tensor, guide: Tensor, targets: Tensor) -> tuple[float, float]:
    """Return accuracy@1 of student and guide on the same rows, warning when the guide is the weaker one.

    Parameters
    ----------
    student, guide
        Scores ``[b, m]`` on held-out rows, before training.
    targets
        int64 ``[b]``: columns of the positives.

    Warns
    -----
    DataWarning
        If the guide is weaker: it would mask informative negatives.
    """
    own, guided = top1_accuracy(student, targets), top1_accuracy(guide, targets)
    if guided < own:
        warnings.warn(
            f"The guide finds {guided:.1%} of held-out positives and the student {own:.1%} before training; "
            "a weaker guide masks informative negatives, so choose a stronger one or train unguided.",
            DataWarning,
            stacklevel=2,
        )
    return own, guided


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
