"""Cutting a transformer after n of its blocks: a smaller model on its own, not a hook into the large one."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

from torch import nn

from isometry.errors import InputError
from isometry.modules.layer_states import block_stack

Model = TypeVar("Model", bound=nn.Module)


def cut_layers(model: Model, layers: int) -> Model:
    """Return a copy of a transformer with its first ``layers`` blocks only (layer-cut export).

    Its last hidden states are those of `isometry.modules.layer_states.layer_readouts` of the whole model at index
    ``layers``, exactly, also after saving and loading, since its configuration says how deep it is.

    Parameters
    ----------
    model
        A transformer of the ``transformers`` library (BERT, Llama, a causal language model ...), or a
        ``SentenceTransformer`` whose first module is one. Left as it is; the copy shares no memory with it.
    layers
        Blocks to keep, from 1 to all.

    Raises
    ------
    InputError
        If the blocks cannot be found or there are fewer.
    """
    whole = _backbone(model)
    depth = len(block_stack(whole)[1])
    if not 1 <= layers <= depth:
        raise InputError(f"A model of {depth} blocks can be cut to 1..{depth} of them, got {layers}.")
    dropped = list(block_stack(whole)[1])[layers:]
    result = copy.deepcopy(model, {id(block): None for block in dropped})  # blocks mapped to None are not copied
    body = _backbone(result)
    name, stack = block_stack(body)
    parent = body.get_submodule(name.rpartition(".")[0])
    setattr(parent, name.rpartition(".")[2], nn.ModuleList(list(stack)[:layers]))
    configs = (getattr(module, "config", None) for module in body.modules())
    for config in {id(config): config for config in configs}.values():  # a causal model shares one with its body
        _shorten(config, depth, layers)
    return result


def _backbone(model: nn.Module) -> nn.Module:
    """Return the transformer inside a ``SentenceTransformer``, or the model itself."""
    first = getattr(model[0], "auto_model", None) if isinstance(model, nn.Sequential) and len(model) else None
    return first if isinstance(first, nn.Module) else model


def _shorten(config: Any, depth: int, layers: int) -> None:
    """Set the depth in a configuration, and cut its lists that hold one entry for each block."""
    if getattr(config, "num_hidden_layers", None) != depth:
        return
    per_block = {k: v[:layers] for k, v in vars(config).items() if isinstance(v, list) and len(v) == depth}
    config.num_hidden_layers = layers
    for name, values in per_block.items():
        setattr(config, name, values)
