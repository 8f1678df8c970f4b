"""Pooling over the last layers of a transformer: their states side by side, or their mean (DSE, arXiv:1908.05161)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from isometry.errors import InputError, UnknownName
from isometry.modules.pooling.head import PoolingHead
from isometry.modules.pooling.plain import max_pool, mean_pool

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Joining = Literal["concat", "mean"]
Over = Literal["mean", "max", "sum_sqrt"]


def without_first(attention_mask: Tensor) -> Tensor:
    """Return the mask ``[b, t]`` of real tokens but the first (CLS), padded on either side.

    >>> without_first(torch.tensor([[1, 1, 1, 0], [0, 1, 1, 1]])).int().tolist()
    [[0, 1, 1, 0], [0, 0, 1, 1]]
    """
    real = attention_mask.bool()
    return real & (real.cumsum(1) > 1)


def top_layers_pool(
    states: Sequence[Tensor], mask: Tensor, *, last: int = 4, join: Joining = "concat", over: Over = "mean"
) -> Tensor:
    """Pool the states of the last layers to one vector per text.

    Parameters
    ----------
    states
        Of all layers, each ``[b, t, d]``, the last one last.
    mask
        Tokens to pool, ``[b, t]``; `without_first` leaves CLS out.
    last
        How many layers to look at.
    join
        ``"concat"``: layers side by side, ``[b, last * d]``; ``"mean"``: their mean, ``[b, d]``.
    over
        Tokens: ``"mean"``, ``"max"``, or ``"sum_sqrt"``, the sum over the root of their number.

    Raises
    ------
    InputError
        If there are not ``last`` layers, or a text has no token to pool.
    """
    if not 1 <= last <= len(states):
        raise InputError(f"last must be between 1 and the {len(states)} layers there are, got {last}.")
    chosen = states[len(states) - last :]
    if join not in ("concat", "mean"):
        raise UnknownName("way to join layers", str(join), ("concat", "mean"))
    joined = torch.cat(list(chosen), -1) if join == "concat" else torch.stack(list(chosen)).mean(0)
    if over == "max":
        return max_pool(joined, mask)
    if over not in ("mean", "sum_sqrt"):
        raise UnknownName("pooling over tokens", str(over), ("mean", "max", "sum_sqrt"))
    mean = mean_pool(joined, mask)
    return mean if over == "mean" else mean * mask.bool().sum(1, keepdim=True).to(mean.dtype).sqrt()


class TopLayerPooling(PoolingHead):
    """Top-layer pooling as a module of sentence-transformers; CLS is left out.

    Parameters
    ----------
    dim
        Width of a hidden state.
    last, join, over
        As in `top_layers_pool`.
    """

    config_keys = ("hidden", "last", "join", "over")

    def __init__(self, hidden: int, *, last: int = 4, join: Joining = "concat", over: Over = "mean") -> None:
        super().__init__()
        self.hidden, self.last, self.join, self.over = hidden, last, join, over
        self.dim = hidden * (last if join == "concat" else 1)

    def pool_features(self, features: dict[str, Any], mask: Tensor) -> Tensor:
        """Pool ``all_layer_embeddings`` of a feature dict."""
        if "all_layer_embeddings" not in features:
            raise InputError("Top-layer pooling needs the states of all layers; build the model by with_top_layers.")
        layers = features["all_layer_embeddings"][1:]
        mask = mask & without_first(features["attention_mask"])
        return top_layers_pool(layers, mask, last=self.last, join=self.join, over=self.over)


def with_top_layers(
    encoder: SentenceTransformer, *, last: int = 4, join: Joining = "concat", over: Over = "mean"
) -> SentenceTransformer:
    """Return a copy of an encoder whose pooling looks at its last layers; see `top_layers_pool`."""
    from sentence_transformers import SentenceTransformer

    body = copy.deepcopy(encoder[0])
    body.auto_model.config.output_hidden_states = True
    head = TopLayerPooling(int(body.get_embedding_dimension()), last=last, join=join, over=over)
    return SentenceTransformer(modules=[body, head], device=str(encoder.device))
