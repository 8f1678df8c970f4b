"""Angle optimisation in complex space (AnglE, Li & Li 2023, arXiv:2309.12871)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from isometry.errors import DimensionMismatch
from isometry.objectives.cosent import cosent
from isometry.objectives.info_nce import info_nce
from isometry.objectives.loss import ScoredPairLoss


def angle_similarity(left: Tensor, right: Tensor) -> Tensor:
    """Similarity of rows by their angle in complex space, ``[b]``: it does not flatten out where the cosine does.

    The first half of a vector is read as the real, the second as the imaginary part; the pair is divided as complex
    vectors and scaled by their lengths; the absolute sum of all parts is the similarity.

    Parameters
    ----------
    left, right
        ``[b, d]`` with even d.

    Examples
    --------
    >>> import torch
    >>> x = torch.tensor([[3.0, 4.0]])
    >>> round(float(angle_similarity(x, 2 * x)), 4)    # the same direction
    1.0
    """
    if left.shape != right.shape or left.ndim != 2 or left.shape[1] % 2:
        raise DimensionMismatch(
            f"An angle needs two equal shapes [b, d] with even d, got {list(left.shape)} and {list(right.shape)}."
        )
    (a, b), (c, d) = left.chunk(2, dim=1), right.chunk(2, dim=1)
    lengths = (left.norm(dim=1) * right.norm(dim=1)).clamp_min(1e-12)
    real, imaginary = (a * c + b * d).sum(1), (b * c - a * d).sum(1)
    similarity: Tensor = (real + imaginary).abs() / lengths
    return similarity


class AnglE(ScoredPairLoss):
    """AnglE as a loss object: CoSENT by cosine, CoSENT by angle and in-batch contrast (arXiv:2309.12871).

    ``cosine * cosent(cosines) + angle * cosent(angle similarities) + in_batch * InfoNCE of the pairs that are alike``

    Parameters
    ----------
    model
        The model in training, or None when only embeddings are given.
    cosine, angle, in_batch
        Weights of the three terms.
    scale
        Inverse temperature of all three.
    alike
        Gold score from which a pair counts as positive for the contrast.
    """

    def __init__(
        self,
        model: nn.Module | None = None,
        *,
        cosine: float = 1.0,
        angle: float = 1.0,
        in_batch: float = 1.0,
        scale: float = 20.0,
        alike: float = 0.8,
    ) -> None:
        super().__init__(model)
        self.cosine, self.angle, self.in_batch, self.scale, self.alike = cosine, angle, in_batch, scale, alike

    def of_pairs(self, left: Tensor, right: Tensor, gold: Tensor) -> Tensor:
        """Return the weighted sum of the three terms."""
        value = self.cosine * cosent(cosine_similarity(left, right), gold, scale=self.scale)
        if self.angle:
            value = value + self.angle * cosent(angle_similarity(left, right), gold, scale=self.scale)
        if self.in_batch and bool((gold >= self.alike).any()):
            rows = info_nce(left, right, temperature=1 / self.scale, blocks=("qd", "qq"), reduction="none")
            value = value + self.in_batch * rows[gold >= self.alike].mean()
        return value
