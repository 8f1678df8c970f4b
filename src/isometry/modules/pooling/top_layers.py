"""Pooling over the last layers of a transformer: their states side by side, or their mean (DSE, arXiv:1908.05161)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor, nn

from isometry.errors import InputError, UnknownName
from isometry.modules.pooling.head import PoolingHead
from isometry.modules.pooling.plain import cls_pool, max_pool, mean_pool

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Joining = Literal["concat", "mean"]
Over = Literal["mean", "max", "sum_sqrt", "first"]


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
        Tokens: ``"mean"``, ``"max"``, ``"sum_sqrt"``, the sum over the root of their number, or the ``"first"`` alone.

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
    if over in ("max", "first"):
        return max_pool(joined, mask) if over == "max" else cls_pool(joined, mask)
    if over not in ("mean", "sum_sqrt"):
        raise UnknownName("pooling over tokens", str(over), get_args(Over))
    mean = mean_pool(joined, mask)
    return mean if over == "mean" else mean * mask.bool().sum(1, keepdim=True).to(mean.dtype).sqrt()


class TopLayerPooling(PoolingHead):
    """Top-layer pooling as a module of sentence-transformers.

    Parameters
    ----------
    hidden
        Width of a hidden state.
    last, join, over
        As in `top_layers_pool`.
    cls
        Whether CLS is one of the tokens pooled; with ``over="first"`` it is the only one.
    """

    config_keys = ("hidden", "last", "join", "over", "cls")

    def __init__(
        self, hidden: int, *, last: int = 4, join: Joining = "concat", over: Over = "mean", cls: bool = False
    ) -> None:
        super().__init__()
        self.hidden, self.last, self.join, self.over, self.cls = hidden, last, join, over, cls
        self.dim = hidden * (last if join == "concat" else 1)

    def pool_features(self, features: dict[str, Any], mask: Tensor) -> Tensor:
        """Pool ``all_layer_embeddings`` of a feature dict."""
        if "all_layer_embeddings" not in features:
            raise InputError("Top-layer pooling needs the states of all layers; build the model by with_top_layers.")
        layers = features["all_layer_embeddings"][1:]
        mask = mask if self.cls else mask & without_first(features["attention_mask"])
        return top_layers_pool(layers, mask, last=self.last, join=self.join, over=self.over)


def with_top_layers(
    encoder: SentenceTransformer,
    *,
    last: int = 4,
    join: Joining = "concat",
    over: Over = "mean",
    cls: bool = False,
    width: int = 0,
) -> SentenceTransformer:
    """Return a copy of an encoder whose pooling looks at its last layers; see `TopLayerPooling`.

    ``width`` above 0 adds a linear layer, untrained, to that many dimensions.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Dense

    body = copy.deepcopy(encoder[0])
    body.auto_model.config.output_hidden_states = True
    head = TopLayerPooling(int(body.get_embedding_dimension()), last=last, join=join, over=over, cls=cls)
    linear = [Dense(head.dim, width, activation_function=nn.Identity())] if width else []
    return SentenceTransformer(modules=[body, head, *linear], device=str(encoder.device))
