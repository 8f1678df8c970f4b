"""How good an encoder is at every size it can be cut to: layers by dims."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from isometry.errors import DimensionMismatch
from isometry.modules import layer_embeddings
from isometry.tasks.sts import spearman_units
from isometry.types import FloatArray

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


def layer_vectors(model: SentenceTransformer, texts: Sequence[str], *, batch_size: int = 32) -> FloatArray:
    """Return the vectors of texts at every depth of a model, float32 ``[N + 1, n, d]``, without gradient.

    Index n is what the model cut to n layers gives before normalisation; each text goes through the model once.
    """
    order = np.argsort([len(text) for text in texts], kind="stable")
    found: list[FloatArray] = []
    was_training = model.training
    model.eval()
    with torch.no_grad():
        for start in range(0, len(texts), batch_size):
            features = model.preprocess([texts[row] for row in order[start : start + batch_size]])
            moved = {k: v.to(model.device) if isinstance(v, torch.Tensor) else v for k, v in features.items()}
            found.append(torch.stack(layer_embeddings(model, moved)).float().cpu().numpy())
    model.train(was_training)
    vectors = np.concatenate(found, axis=1)
    out = np.empty_like(vectors)
    out[:, order] = vectors
    return out


def sts_by_size(
    left: FloatArray, right: FloatArray, gold: ArrayLike, sizes: Iterable[tuple[int, int]]
) -> dict[tuple[int, int], NDArray[np.float64]]:
    """Return each pair's share of the rank correlation with people, float64 ``[n]``, at every size (layers, dims).

    Parameters
    ----------
    left, right
        Vectors by layer ``[N + 1, n, d]``, from `layer_vectors`; cosines are taken of prefixes.
    gold
        ``[n]``: what people said.
    sizes
        (layers, dims).

    Raises
    ------
    DimensionMismatch
        If the vectors do not fit each other or hold no such size.
    """
    if left.shape != right.shape or left.ndim != 3:
        raise DimensionMismatch(f"Both sides need one shape [layers, n, d], got {left.shape} and {right.shape}.")
    units = {}
    for layers, dims in sizes:
        if not (0 <= layers < len(left) and 1 <= dims <= left.shape[2]):
            raise DimensionMismatch(f"Vectors of {len(left) - 1} layers and {left.shape[2]} dims hold no size "
                                    f"({layers}, {dims}).")  # fmt: skip
        a, b = left[layers, :, :dims].astype(np.float64), right[layers, :, :dims].astype(np.float64)
        lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        dots = np.einsum("nd,nd->n", a, b)
        cosine = np.divide(dots, lengths, out=np.zeros_like(dots), where=lengths > 0)
        units[layers, dims] = spearman_units(cosine, gold)
    return units
