"""Small students for controlled experiments: frozen early-layer features and a head to train on them."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from isometry.errors import InputError
from isometry.training.loop import seeded
from isometry.types import FloatArray
from isometry.types.progress import Progress

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


def layer_features(
    model: SentenceTransformer,
    texts: Sequence[str],
    *,
    layer: int,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> FloatArray:
    """Return the mean of a frozen transformer's hidden states after ``layer`` of its layers, float32 ``[n, d]``.

    Parameters
    ----------
    model
        A ``SentenceTransformer`` whose first module is a transformer.
    texts
        Cut to the model's window.
    layer
        0: the token embeddings; the number of layers: the last hidden states.
    progress
        Called with (texts done, texts).

    Raises
    ------
    InputError
        If the model has no such layer.
    """
    backbone: Any = getattr(model[0], "auto_model", None)
    depth = getattr(getattr(backbone, "config", None), "num_hidden_layers", None)
    if depth is None or not 0 <= layer <= depth:
        raise InputError(
            f"layer must be in 0..{depth} of a transformer, got layer {layer} of {type(model[0]).__name__}."
        )
    order = np.argsort([len(text) for text in texts], kind="stable")
    out = np.empty((len(texts), backbone.config.hidden_size), np.float32)
    backbone.eval()
    for start in range(0, len(texts), batch_size):
        rows = order[start : start + batch_size]
        features = model.preprocess([texts[row] for row in rows])
        inputs = {
            k: v.to(model.device) for k, v in features.items() if k in ("input_ids", "attention_mask", "token_type_ids")
        }
        hidden = _hidden(backbone, inputs, layer, depth)
        weight = inputs["attention_mask"][..., None].to(hidden.dtype)
        out[rows] = ((hidden * weight).sum(1) / weight.sum(1)).float().cpu().numpy()
        if progress is not None:
            progress(min(start + batch_size, len(texts)), len(texts))
    return out


class _Reached(Exception):
    """The wanted layer has its input: the layers above need not run."""


def _hidden(backbone: Any, inputs: Mapping[str, Tensor], layer: int, depth: int) -> Tensor:
    """Return the hidden states ``[b, t, d]`` after ``layer`` layers, running no more of them than these."""
    found: list[Tensor] = []

    def stop(_: nn.Module, args: tuple[Tensor, ...], kwargs: Mapping[str, Tensor]) -> None:
        found.append(args[0] if args else kwargs["hidden_states"])
        raise _Reached

    with torch.no_grad():
        stacks = [m for m in backbone.modules() if isinstance(m, nn.ModuleList) and len(m) == depth]
        if layer == depth or len(stacks) != 1:
            states: Tensor = backbone(**inputs, output_hidden_states=True).hidden_states[layer]
            return states
        handle = stacks[0][layer].register_forward_pre_hook(stop, with_kwargs=True)
        with contextlib.suppress(_Reached):
            try:
                backbone(**inputs)
            finally:
                handle.remove()
        return found[0]


def mlp_head(widths: Sequence[int], *, seed: int = 0) -> nn.Sequential:
    """Return a multilayer perceptron with ReLU between its layers, e.g. ``widths=(384, 384, 128)``.

    >>> [tuple(p.shape) for p in mlp_head((4, 8, 2)).parameters()]
    [(8, 4), (8,), (2, 8), (2,)]
    """
    if len(widths) < 2 or min(widths) < 1:
        raise InputError(f"A head needs at least two positive widths, got {tuple(widths)}.")
    with seeded(seed):
        layers = [part for pair in pairwise(widths) for part in (nn.Linear(*pair), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def apply_head(head: nn.Module, features: FloatArray) -> FloatArray:
    """Return a head's outputs for features ``[n, d]``, normalised, float32 ``[n, k]``, without gradient."""
    was_training = head.training
    head.eval()
    with torch.no_grad():
        out: Tensor = nn.functional.normalize(head(torch.from_numpy(features)), dim=-1)
    head.train(was_training)
    vectors: FloatArray = out.numpy()
    return vectors
