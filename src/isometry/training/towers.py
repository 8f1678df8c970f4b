"""Encoders in training behind one face, drawn or tokenized text, and their alignment on pairs (Pixel Linguist)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn

from isometry.encoders.pixels import PixelEncoder
from isometry.objectives.views import symmetric_info_nce
from isometry.training.length_batches import LengthBatches
from isometry.training.loop import seeded, train
from isometry.training.masked_language import sentence_model
from isometry.types import FloatArray

if TYPE_CHECKING:
    from isometry.modules import PixelTransformer, TextRenderer

Pairs = tuple[list[str], list[str]]


@dataclass(frozen=True, eq=False)
class Tower:
    """An encoder in training: its module, and what makes vectors ``[n, width]`` of texts.

    Parameters
    ----------
    module
        What is trained.
    width
        Of a vector.
    embed, encode
        From texts to vectors: with gradient, and of norm 1 without.
    """

    module: nn.Module
    width: int
    embed: Callable[[list[str]], Tensor]
    encode: Callable[[Sequence[str]], FloatArray]


def pixel_tower(renderer: TextRenderer, model: PixelTransformer) -> Tower:
    """Return a tower that draws texts and looks at the pictures."""
    pixels = PixelEncoder(renderer, model, warn=False)

    def embed(texts: list[str]) -> Tensor:
        vectors: Tensor = model(*pixels.inputs(texts))
        return vectors

    return Tower(model, model.config.dim, embed, pixels.encode)


def subword_tower(tokenizer: Any, body: Any, *, max_tokens: int = 128) -> Tower:
    """Return a tower of a transformers body over tokens, mean-pooled."""
    model = sentence_model(body, tokenizer, max_tokens=max_tokens)

    def embed(texts: list[str]) -> Tensor:
        vectors: Tensor = model(model.preprocess(texts))["sentence_embedding"]
        return vectors

    def encode(texts: Sequence[str]) -> FloatArray:
        vectors = model.encode(list(texts), batch_size=64, normalize_embeddings=True, show_progress_bar=False)
        return np.asarray(vectors, np.float32)

    return Tower(model, int(body.config.hidden_size), embed, encode)


def align(
    tower: Tower,
    pairs: Callable[[list[int], int], Pairs],
    lengths: Sequence[int],
    *,
    steps: int,
    batch_size: int,
    lr: float,
    temperature: float = 0.05,
    seed: int = 0,
) -> list[float]:
    """Train a tower in place by symmetric InfoNCE of pairs of texts; return the loss of every step.

    Vectors meet through layer normalisation and a small network, which are left out afterwards.

    Parameters
    ----------
    pairs
        From row numbers and the number of the step to texts and their positives, which may be drawn anew every time.
    lengths
        Of each row, in any unit: rows of like length share a batch.
    """
    width = tower.width
    with seeded(seed):
        head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
    step = iter(range(steps))

    def loss(_: nn.Module, rows: list[int]) -> Tensor:
        left, right = (head(tower.embed(side)) for side in pairs(rows, next(step)))
        return symmetric_info_nce(left, right, temperature=temperature)

    batches = LengthBatches(lengths, batch_size, seed=seed, drop_last=True)
    losses = train(nn.ModuleList([tower.module, head]), batches, loss, steps=steps, lr=lr, seed=seed)
    tower.module.eval()
    return losses
