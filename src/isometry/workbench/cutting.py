"""Deploy a cut of a model: fewer layers, fewer dimensions, the same module types."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from isometry.errors import InputError
from isometry.stats import compare
from isometry.workbench.model_card import write_card
from isometry.workbench.outputs import check_out, replacing, save_model, working
from isometry.workbench.reports import comparison_dict, verdict_of
from isometry.workbench.tuning_data import tuning_data


def cut(
    name: str, out: Path, *, layers: int | None = None, dims: int | None = None, data: Sequence[str] = (),
    root: Path | None = None, fresh: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Write a model's first ``layers`` layers and first ``dims`` dimensions as a model of its own.

    Its vectors are those of the larger model's readout at that size, scaled to unit length again.

    Raises
    ------
    InputError
        If nothing is cut, or more is asked for than there is.
    """
    from isometry.encoders import load

    started = time.perf_counter()
    check_out(out, fresh=fresh, sources=[name])
    if layers is None and dims is None:
        raise InputError("Say what to cut: --layers, --dims or both.")
    tasks = [(found.test, found.metric) for found in (tuning_data(d, root=root) for d in data)]
    encoder = load(name, engine="torch")  # both on one engine: reduced precision differs by the modules
    small = cut_model(encoder.model, layers=layers, dims=dims)
    with working(out, fresh=fresh), replacing(out) as folder:
        save_model(small, folder)
        part = load(folder, engine="torch")
        found = [compare(task.score(part), task.score(encoder), metric) for task, metric in tasks]
        rows = [comparison_dict(c) for c in found]
        facts = {
            "out": str(out), "model": name, "layers": layers, "dims": dims,
            "seconds": round(time.perf_counter() - started, 1),
            "held_out": rows[0] if rows else None, "elsewhere": rows[1:],
            "verdict": " ".join(verdict_of(c, "the whole model") for c in found)
            or "Not measured: give --data to compare it with the whole model.",
            "warnings": [], "notes": [], "compared": ["whole", "cut"],
        }  # fmt: skip
        write_card(folder, facts, title=out.name)
    return facts


def cut_model(model: Any, *, layers: int | None = None, dims: int | None = None) -> Any:
    """Return a copy of a ``SentenceTransformer`` with its first layers and first dimensions."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Dense, Normalize

    from isometry.modules.layer_cut import cut_layers

    small = copy.deepcopy(model) if layers is None else cut_layers(model, layers)
    width = int(small.get_embedding_dimension())
    if dims is None:
        return small
    if not 1 <= dims <= width:
        raise InputError(f"The model has {width} dimensions, so --dims must be in 1..{width}, got {dims}.")
    head = Dense(width, dims, bias=False, activation_function=torch.nn.Identity())
    with torch.no_grad():
        head.linear.weight.copy_(torch.eye(dims, width))
    return SentenceTransformer(
        modules=[*small, head, Normalize()], device=str(model.device), prompts=dict(model.prompts),
        default_prompt_name=model.default_prompt_name, similarity_fn_name=model.similarity_fn_name,
    )  # fmt: skip
