"""Where a training loop was: weights, optimizer, random numbers and losses, so that it goes on as if never stopped."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from isometry.errors import InputError
from isometry.files import make_folder

_WEIGHTS, _STATE = "weights.safetensors", "state.json"


def same_run(folder: Path, wanted: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Raise an `InputError` that names what differs, unless the run kept in a folder is the one that is wanted."""
    if differ := sorted(key for key in wanted.keys() | found.keys() if wanted.get(key) != found.get(key)):
        raise InputError(
            f"{folder} holds an unfinished run with other {', '.join(differ)}; repeat the earlier command to go on "
            "with it, choose another folder, or start over with --fresh."
        )


class Checkpoints:
    """A folder that keeps the newest state of one training run.

    Parameters
    ----------
    folder
        Made when the first state is kept.
    every
        Steps between two states.
    about
        What makes the run this run, JSON: a state of another one is refused.
    """

    def __init__(self, folder: Path, *, every: int = 50, about: Mapping[str, Any] | None = None) -> None:
        if every < 1:
            raise InputError(f"every must be >= 1, got {every}.")
        self.folder, self.every, self.about = folder, every, json.loads(json.dumps(dict(about or {})))

    def save(self, module: nn.Module, optimizer: torch.optim.Optimizer, losses: list[float]) -> None:
        """Keep the state after ``len(losses)`` steps; the one before it stays until this one is whole."""
        make_folder(self.folder)
        part = Path(mkdtemp(prefix="part-", dir=self.folder))
        tensors = {f"weight.{name}": p.detach() for name, p in _trained(module).items()}
        for i, p in enumerate(_trained(module).values()):
            tensors |= {f"optimizer.{i}.{key}": value for key, value in optimizer.state[p].items()}
        tensors["random"] = torch.get_rng_state()
        save_file({name: tensor.cpu().contiguous().clone() for name, tensor in tensors.items()}, part / _WEIGHTS)
        (part / _STATE).write_text(json.dumps({"losses": losses, "about": self.about}))
        old = self._states()
        part.rename(self.folder / f"step-{len(losses)}")
        for path in old:
            shutil.rmtree(path)

    def restore(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> list[float]:
        """Put the newest whole state back and return its losses; none where there is no state.

        Raises
        ------
        InputError
            If it is the state of another run.
        """
        for part in self.folder.glob("part-*"):
            shutil.rmtree(part)
        for path in reversed(self._states()):
            try:
                state = json.loads((path / _STATE).read_text())
                tensors = load_file(path / _WEIGHTS)
            except (OSError, ValueError, SafetensorError):
                shutil.rmtree(path)
                continue
            same_run(self.folder, self.about, state["about"])
            _load(module, optimizer, tensors)
            losses: list[float] = state["losses"]
            return losses
        return []

    def clear(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _states(self) -> list[Path]:
        return sorted(self.folder.glob("step-*"), key=lambda path: int(path.name.removeprefix("step-")))


def _trained(module: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


def _load(module: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for i, (name, p) in enumerate(_trained(module).items()):
            p.copy_(tensors[f"weight.{name}"])
            prefix = f"optimizer.{i}."
            optimizer.state[p] = {
                key.removeprefix(prefix): value if value.ndim == 0 else value.to(p.device)
                for key, value in tensors.items()
                if key.startswith(prefix)
            }
    torch.set_rng_state(tensors["random"])
