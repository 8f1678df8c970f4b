"""Scored pairs and one encoder, trained by several schedules of sizes and judged at every size."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from isometry.errors import RecipeError
from isometry.lab.bench import Lab
from isometry.modules import cut_layers
from isometry.objectives import CoSENT, FullOnly, Size, SizedLoss, align_coordinates
from isometry.objectives.matryoshka import AlignTerm
from isometry.objectives.sizes import Schedule
from isometry.tasks.size_grid import layer_vectors, sts_by_size
from isometry.training.fine_tuning import Settings, quiet
from isometry.training.rows import Rows
from isometry.training.sizes import embed_layers, tune_in_memory
from isometry.types import FloatArray, Scores

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Units = Mapping[Size, NDArray[np.float64]]


@dataclass
class SizeStudy:
    """One experiment over the sizes of an encoder; its units are test pairs.

    Parameters
    ----------
    lab
        Its configuration names ``steps, batch, lr, scale, rows, pairs`` and perhaps ``backbone``, a model to use
        instead of the lab's.

    Raises
    ------
    RecipeError
        If there are too few scored pairs.
    """

    lab: Lab
    seconds: dict[str, float] = field(default_factory=dict)
    models: dict[str, SentenceTransformer] = field(default_factory=dict)

    def __post_init__(self) -> None:
        train, test = self._split()
        lowest, highest = float(train[2].min()), float(train[2].max())
        limit, judged = self.lab.config["rows"] or len(train[0]), self.lab.config["pairs"] or len(test[0])
        if min(len(train[0]), limit) < 2 * self.lab.config["batch"] or len(test[0]) < 10 or highest <= lowest:
            raise RecipeError(
                f"This needs at least {2 * self.lab.config['batch']} scored pairs to train on and 10 to judge by, "
                f"with different scores; got {len(train[0])} and {len(test[0])}."
            )
        gold = (train[2] - lowest) / (highest - lowest)
        self.rows = Rows("sts", (train[0][:limit], train[1][:limit]), gold[:limit].tolist())
        self.left, self.right, self.gold = test[0][:judged], test[1][:judged], test[2][:judged]

    def _split(self) -> list[tuple[list[str], list[str], NDArray[np.float64]]]:
        if self.lab.user_data is None:
            sets = [self.lab.sts("sts/stsb", part) for part in ("train", "test")]
            return [(list(data.left), list(data.right), data.scores) for data in sets]
        data = self.lab.sts("sts/stsb")
        order = np.random.default_rng(0).permutation(len(data.left))
        cut = round(0.7 * len(order))
        return [([data.left[i] for i in part], [data.right[i] for i in part], data.scores[part])
                for part in (order[:cut], order[cut:])]  # fmt: skip

    @property
    def task(self) -> str:
        """Name of what is judged."""
        return "sts/stsb" if self.lab.user_data is None else self.lab.user_data.name

    @cached_property
    def start(self) -> SentenceTransformer:
        """The model before training."""
        if backbone := self.lab.config.get("backbone"):
            from sentence_transformers import SentenceTransformer

            return SentenceTransformer(backbone)
        return self.lab.encoder().model

    @cached_property
    def full(self) -> Size:
        """The full size of the model."""
        body: Any = self.start[0].auto_model
        return Size(body.config.num_hidden_layers, body.config.hidden_size)

    def train(
        self, name: str, schedule: Callable[[int], Schedule], sizes: Iterable[Size], *,
        align: AlignTerm = align_coordinates, cut: int | None = None,
    ) -> dict[Size, NDArray[np.float64]]:  # fmt: skip
        """Train once a seed and return the test pairs' shares of the rank correlation by size, mean over seeds.

        Parameters
        ----------
        schedule
            From a seed to what is trained.
        sizes
            Sizes to judge at.
        cut
            Train the model cut to so many layers instead of the whole one.
        """
        config, found = self.lab.config, list[Units]()
        started = time.process_time()
        spent = 0.0
        for seed in self.lab.seeds:
            model = copy.deepcopy(self.start) if cut is None else cut_layers(self.start, cut)
            full = self.full if cut is None else Size(cut, self.full.dims)
            loss = SizedLoss(model, embed_layers, CoSENT(scale=config["scale"]), schedule(seed), full=full, align=align)
            settings = Settings(config["steps"], config["batch"], config["lr"], seed=seed, max_tokens=64)
            tune_in_memory(model, self.rows, loss, settings, progress=self._report(name))
            spent += time.process_time() - started
            found.append(self.judge(model, sizes))
            self.models[name] = model
            started = time.process_time()
        self.seconds[name] = spent
        return {size: np.mean([units[size] for units in found], axis=0) for size in found[0]}

    def full_only(self, sizes: Iterable[Size]) -> dict[Size, NDArray[np.float64]]:
        """Train the full size alone: the common baseline."""
        return self.train("full only", lambda seed: FullOnly(self.full), sizes)

    def judge(self, model: SentenceTransformer, sizes: Iterable[Size]) -> dict[Size, NDArray[np.float64]]:
        """Return the test pairs' shares of the rank correlation by size."""
        left, right = (layer_vectors(model, texts) for texts in (self.left, self.right))
        return {Size(*size): units for size, units in sts_by_size(left, right, self.gold, sizes).items()}

    def scores(self, name: str, units: Units, sizes: Iterable[Size]) -> Scores:
        """Return each pair's mean share over some sizes."""
        mean = np.mean([units[size] for size in sizes], axis=0)
        return Scores.of(self.task, name, {"spearman": {str(i): float(v) for i, v in enumerate(mean)}})

    def cut_error(self, name: str, sizes: Iterable[Size]) -> float:
        """Largest difference between a model's readouts and those of the models cut from it, saved and loaded."""
        from sentence_transformers import SentenceTransformer

        model, worst, texts = self.models[name], 0.0, self.left[:32]
        whole = layer_vectors(model, texts)
        for size in sizes:
            with TemporaryDirectory() as folder:
                with quiet():
                    cut_layers(model, size.layers).save(folder)
                    small = SentenceTransformer(folder, device="cpu", truncate_dim=size.dims)
                vectors: FloatArray = small.encode(texts, normalize_embeddings=True, show_progress_bar=False)
            expected = whole[size.layers, :, : size.dims]
            expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
            worst = max(worst, float(np.abs(vectors - expected).max()))
        return worst

    def _report(self, name: str) -> Callable[[int, int | None], None]:
        return partial(self.lab.progress, name)
