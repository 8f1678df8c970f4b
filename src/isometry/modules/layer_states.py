"""The states of a transformer after each of its blocks, collected in one pass.

Everywhere index 0 is the embedding layer and index n what n blocks make of it, so a model of N blocks has N + 1 states.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from isometry.errors import InputError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

FINAL_NORMS = ("norm", "final_norm", "final_layer_norm", "final_layernorm", "ln_f")  # beside the stack of blocks


def block_stack(backbone: nn.Module) -> tuple[str, nn.ModuleList]:
    """Return the qualified name and the list of a transformer's blocks.

    Raises
    ------
    InputError
        If no list in the module has ``config.num_hidden_layers`` entries.
    """
    depth = getattr(getattr(backbone, "config", None), "num_hidden_layers", None)
    stacks = [(n, m) for n, m in backbone.named_modules() if isinstance(m, nn.ModuleList) and len(m) == depth]
    if not stacks:
        raise InputError(
            f"{type(backbone).__name__} has no list of {depth} blocks (config.num_hidden_layers); "
            "give the transformer itself, e.g. model[0].auto_model of a SentenceTransformer."
        )
    return min(stacks, key=lambda named: named[0].count("."))


def final_norm(backbone: nn.Module) -> nn.Module:
    """Return the norm a transformer puts after its last block (decoders, ModernBERT), or the identity (BERT)."""
    parent = backbone.get_submodule(block_stack(backbone)[0].rpartition(".")[0])
    found = (getattr(parent, name, None) for name in FINAL_NORMS)
    return next((norm for norm in found if isinstance(norm, nn.Module)), nn.Identity())


@contextmanager
def collecting(backbone: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the block states of every pass a transformer makes within the block, in order, with gradient."""
    stack, states = block_stack(backbone)[1], list[Tensor]()

    def first(_: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        states.append(args[0] if args else kwargs["hidden_states"])

    def after(_: nn.Module, __: Any, output: Any) -> None:
        states.append(output if isinstance(output, Tensor) else output[0])

    handles = [stack[0].register_forward_pre_hook(first, with_kwargs=True)]
    handles += [block.register_forward_hook(after) for block in stack]
    try:
        yield states
    finally:
        for handle in handles:
            handle.remove()


def layer_states(
    backbone: nn.Module, *, input_ids: Tensor | None = None, attention_mask: Tensor, **more: Any
) -> tuple[Tensor, ...]:
    """Return the hidden states ``[b, t, d]`` after each block of a transformer, from one pass, with gradient.

    Index 0 holds the token embeddings, index n the states after n blocks, *before* any final norm: `layer_readouts`
    applies that norm.

    Parameters
    ----------
    backbone
        A transformer of the ``transformers`` library: BERT, Llama, a causal language model, ...
    input_ids, attention_mask, more
        What its ``forward`` takes; ``inputs_embeds`` may replace ``input_ids``.

    Raises
    ------
    InputError
        If its blocks cannot be found.
    """
    given = more if input_ids is None else {"input_ids": input_ids, **more}
    with collecting(backbone) as states:
        backbone(attention_mask=attention_mask, **given)
    return tuple(states)


def layer_readouts(
    backbone: nn.Module, *, input_ids: Tensor | None = None, attention_mask: Tensor, **more: Any
) -> tuple[Tensor, ...]:
    """Return what a transformer cut to n blocks would give as its last hidden states, for every n, ``[b, t, d]``.

    `layer_states` with the final norm, where there is one, applied to every entry; a cut model applies it too.
    """
    states = layer_states(backbone, input_ids=input_ids, attention_mask=attention_mask, **more)
    norm = final_norm(backbone)
    return tuple(norm(state) for state in states)


def layer_embeddings(model: SentenceTransformer, features: Mapping[str, Any]) -> tuple[Tensor, ...]:
    """Return a text's embedding from every depth of a ``SentenceTransformer``, each ``[b, d]``, from one pass.

    Entry n is what the model cut to n blocks (`isometry.modules.layer_cut.cut_layers`) would give, before any final
    normalisation to unit length, so that prefixes of it are prefixes of the pooled state. Entry 0 reads the token
    embeddings.

    Parameters
    ----------
    model
        Its first module is a transformer; the others (pooling, dense layers) are applied to every depth.
    features
        What the model's ``preprocess`` or ``tokenize`` gives; left as it is.

    Raises
    ------
    InputError
        If the first module is no transformer with a known stack of blocks, its final norm is of an unknown kind, or
        the first token of a causal model is pooled.
    """
    backbone = getattr(model[0], "auto_model", None)
    if not isinstance(backbone, nn.Module):
        raise InputError(f"Layer embeddings need a transformer as the first module, got {type(model[0]).__name__}.")
    _check_pooling(model, backbone)
    with collecting(backbone) as states:
        whole = model[0](dict(features))
    norm = final_norm(backbone)
    readouts = [norm(state) for state in states]
    if not torch.allclose(readouts[-1], whole["token_embeddings"], atol=1e-5):
        raise InputError(f"{type(backbone).__name__} changes its last states in a way unknown to layer_embeddings.")
    embeddings = []
    for readout in readouts:
        column = {**whole, "token_embeddings": readout}
        for module in list(model)[1:]:
            if type(module).__name__ != "Normalize":
                column = module(column)
        embeddings.append(column["sentence_embedding"])
    return tuple(embeddings)


def _check_pooling(model: SentenceTransformer, backbone: nn.Module) -> None:
    """Refuse a causal transformer whose first token is pooled: at every depth it has seen nothing but itself."""
    causal = any(getattr(module, "is_causal", False) is True for module in backbone.modules())
    both_ways = getattr(model[0], "attention", "causal") != "causal"
    for module in list(model)[1:]:
        mode = getattr(module, "pooling_mode", ())
        if causal and not both_ways and "cls" in (mode if isinstance(mode, tuple | list) else (mode,)):
            raise InputError("The first token of a causal model has seen no other; pool the last token or the mean.")
