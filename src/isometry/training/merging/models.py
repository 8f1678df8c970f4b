"""Merging of sentence-transformers models."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor, nn

from isometry.errors import EmptyInput, InputError, UnknownName
from isometry.training.merging.states import State, average, merge_by_slerp, task_arithmetic

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Method = Literal["average", "slerp", "task_arithmetic"]


def merge_models(
    models: Sequence[SentenceTransformer],
    method: Method = "average",
    *,
    weights: Sequence[float] | None = None,
    base: SentenceTransformer | None = None,
) -> SentenceTransformer:
    """Merge fine-tuned copies of one model into a new model on the first one's device; the models stay as they are.

    Parameters
    ----------
    models
        Trained from one start, with different data, seeds or settings.
    method
        See `average`, `merge_by_slerp` and `task_arithmetic`.
    weights
        A factor for each model; for ``"average"`` and ``"task_arithmetic"``.
    base
        The common start, for ``"task_arithmetic"``.

    Raises
    ------
    EmptyInput
        If there is no model.
    InputError
        If the models differ in their modules, their vocabulary or a tensor's shape or type, hold running statistics
        (batch normalisation), or the method was given too little or too much.
    """
    if not models:
        raise EmptyInput("There is no model to merge.")
    rules: dict[str, Callable[[list[State]], dict[str, Tensor]]] = {
        "average": lambda states: average(states, weights),
        "slerp": merge_by_slerp,
        "task_arithmetic": lambda states: task_arithmetic(states[0], states[1:], 1.0 if weights is None else weights),
    }
    if method not in rules:
        raise UnknownName("merging method", method, rules)
    if (base is not None) != (method == "task_arithmetic") or (weights is not None and method == "slerp"):
        raise InputError(
            "'task_arithmetic' needs the models' start as base, the others take none, and 'slerp' no weights; "
            f"got method={method!r}, base={'no' if base is None else 'a'} model, weights={weights}."
        )
    together = [*([] if base is None else [base]), *models]
    check_models(together)
    state = rules[method]([_state(model, models[0].device) for model in together])
    merged = copy.deepcopy(models[0])
    merged.load_state_dict(state)
    return merged


def check_models(models: Sequence[SentenceTransformer]) -> None:
    """Raise an `InputError` if models differ in more than their weights."""
    first = models[0]
    for name, module in first.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats:
            raise InputError(
                f"{name!r} holds running statistics, which do not merge: average the state dicts with average() and "
                "recompute them on training data (torch.optim.swa_utils.update_bn)."
            )
    for i, model in enumerate(models[1:], start=1):
        for what, read in (("modules", _modules), ("vocabulary", _vocabulary)):
            one, other = read(first), read(model)
            if one != other:
                odd = next((key for key in [*one, *other] if one.get(key) != other.get(key)), "")
                raise InputError(
                    f"Models 0 and {i} have different {what}: {odd!r} is {one.get(odd)!r} in one and "
                    f"{other.get(odd)!r} in the other; merge copies of one model."
                )


def _state(model: SentenceTransformer, device: Any) -> State:
    state: State = model.state_dict()
    same = all(tensor.device == device for tensor in state.values())  # moving a tensor would untie it from its twins
    return state if same else copy.deepcopy(model).to(device).state_dict()


def _modules(model: SentenceTransformer) -> dict[str, Any]:
    """Kind and settings of each module; what only concerns names and places is left out."""
    found: dict[str, Any] = {}
    for name, module in model.named_children():
        found[name] = type(module).__name__
        settings: dict[str, Any] = getattr(module, "get_config_dict", dict)()
        found |= {f"{name}.{key}": value for key, value in settings.items() if "name" not in key and "path" not in key}
    return found


def _vocabulary(model: SentenceTransformer) -> dict[str, int]:
    read = getattr(model.tokenizer, "get_vocab", dict)
    vocabulary: dict[str, int] = read()
    return vocabulary
