"""Low-rank adapters (LoRA, arXiv:2106.09685): put into a model's linear layers, trained alone, merged back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from torch import nn

from isometry.errors import InputError, MissingExtra
from isometry.training.loop import seeded

Model = TypeVar("Model", bound=nn.Module)


def add_lora(
    model: Model,
    *,
    r: int = 16,
    alpha: float = 32,
    dropout: float = 0.1,
    targets: Sequence[str] | None = None,
    seed: int = 0,
) -> Model:
    """Freeze a model and put a trainable low-rank update ``alpha / r * B A`` beside its linear layers, in place.

    The model's outputs are unchanged until training begins, for ``B`` starts at 0.

    Parameters
    ----------
    model
        Any torch module, a ``SentenceTransformer`` included.
    r, alpha, dropout
        Rank, scale and the dropout before the update.
    targets
        Names of linear layers, or how they end (``"q_proj"``); default: every linear layer inside the transformer's
        blocks.
    seed
        Initial ``A``.

    Returns
    -------
    Model
        The same object.

    Raises
    ------
    MissingExtra
        If peft is not installed.
    InputError
        If no linear layer has such a name, or the model has adapters already.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise MissingExtra("peft", "decoder", "train low-rank adapters") from error
    if r < 1 or not 0 <= dropout < 1:
        raise InputError(f"Low-rank adapters need r >= 1 and 0 <= dropout < 1, got r={r} and dropout={dropout}.")
    if any("lora_" in name for name, _ in model.named_parameters()):
        raise InputError("This model has low-rank adapters already; merge them first.")
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    chosen = [name for name in linear if _wanted(name, targets)]
    if not chosen:
        wanted = "inside a list of blocks" if targets is None else f"named {list(targets)}"
        raise InputError(f"{type(model).__name__} has no linear layer {wanted}; its linear layers: {linear[:8]}.")
    config = LoraConfig(r=r, lora_alpha=alpha, lora_dropout=dropout, target_modules=chosen)
    with seeded(seed):
        inject_adapter_in_model(config, model)
    return model


def merge_lora(model: Model) -> Model:
    """Add low-rank updates to the weights they belong to and take the adapters out, in place.

    Every parameter can be trained again afterwards; the model computes what it did with its adapters.
    """
    from peft.tuners.lora import LoraLayer

    adapters = [(name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer)]
    if not adapters:
        raise InputError(f"{type(model).__name__} has no low-rank adapters to merge.")
    for name, module in adapters:
        module.merge()
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, module.get_base_layer())
    return model.requires_grad_(True)


def _wanted(name: str, targets: Sequence[str] | None) -> bool:
    if targets is None:  # inside blocks: part of the path is a position in a ModuleList, e.g. layers.3.
        return any(part.isdigit() for part in name.split(".")[1:])
    return any(name == target or name.endswith(f".{target}") for target in targets)
