"""Scored pairs and one encoder, trained by several schedules of sizes and judged at every size."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from isometry.data import scored_rows
from isometry.errors import RecipeError
from isometry.lab.bench import Lab
from isometry.lab.outcome import Outcome
from isometry.modules import cut_layers
from isometry.modules.quiet import quiet
from isometry.objectives import AnglE, CoSENT, FullOnly, SampledWeighted, Size, SizedLoss, align_coordinates
from isometry.objectives.matryoshka import AlignTerm
from isometry.objectives.sizes import Schedule
from isometry.tasks.size_grid import layer_vectors, sts_by_size
from isometry.training.fine_tuning import Settings
from isometry.training.rows import Rows
from isometry.training.sizes import embed_layers, tune_in_memory
from isometry.types import FloatArray, Scores
from isometry.types.progress import Progress

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Units = Mapping[Size, NDArray[np.float64]]
INNER = {"cosent": CoSENT, "angle": AnglE}


def full_size(model: SentenceTransformer) -> Size:
    """Return the full size of a model."""
    config: Any = model[0].auto_model.config
    return Size(config.num_hidden_layers, config.hidden_size)


@dataclass
class SizeStudy:
    """One experiment over the sizes of an encoder.

    Its units are test pairs, each the mean over seeds, as the authors compare: a rank correlation has one value a seed,
    and three or five of these bound no mean. How far seeds differ is reported beside every claim.

    Parameters
    ----------
    lab
        Its configuration names ``steps, batch, lr``, ``loss`` (a key of `INNER`) and its ``scale``, ``rows, pairs`` (0:
        all), ``train_words`` (whether token embeddings are trained), perhaps ``backbone`` and its ``pooling``, a
        transformer to use instead of the lab's model, and perhaps ``nli``, labelled pairs to train on.
    found, losses, seconds, models
        By name of a system: what was measured and the losses of each seed, processor time, the last seed's model.

    Raises
    ------
    RecipeError
        If there are too few scored pairs.
    """

    lab: Lab
    found: dict[str, list[Units]] = field(default_factory=dict)
    losses: dict[str, list[list[float]]] = field(default_factory=dict)
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
            found = [(list(data.left), list(data.right), data.scores) for data in sets]
            if name := self.lab.config.get("nli"):
                pairs = scored_rows(self.lab.pairs(name, "train"))
                left, right = [row.text for row in pairs], [row.positives[0] for row in pairs]
                found[0] = left, right, np.array([row.score for row in pairs])
            return found
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
            from sentence_transformers.base.modules import Transformer
            from sentence_transformers.sentence_transformer.modules import Pooling

            first = Transformer(backbone)
            pooling = Pooling(first.get_embedding_dimension(), self.lab.config["pooling"])
            return SentenceTransformer(modules=[first, pooling])
        return self.lab.encoder().model

    @cached_property
    def full(self) -> Size:
        """The full size of the model."""
        return full_size(self.start)

    def train(
        self, name: str, schedule: Callable[[int], Schedule], sizes: Iterable[Size], *,
        align: AlignTerm = align_coordinates, start: Callable[[int], SentenceTransformer] | None = None, **other: Any,
    ) -> None:  # fmt: skip
        """Train a model once a seed, judge it at every size, and keep what was found under a name.

        Parameters
        ----------
        schedule
            From a seed to what is trained.
        sizes
            Sizes to judge at.
        start
            From a seed to the model to train; by default a copy of `start`.
        other
            Settings that differ from the lab's, such as ``steps`` or ``lr``.
        """
        config = {**self.lab.config, **other}
        self.found[name], self.losses[name], self.seconds[name] = [], [], 0.0
        for seed in self.lab.seeds:
            began = time.process_time()
            model = copy.deepcopy(self.start) if start is None else start(seed)
            model[0].auto_model.get_input_embeddings().requires_grad_(bool(config["train_words"]))
            loss = SizedLoss(
                model, embed_layers, INNER[config["loss"]](scale=config["scale"]), schedule(seed),
                full=full_size(model), align=align,
            )  # fmt: skip
            settings = Settings(config["steps"], config["batch"], config["lr"], seed=seed, max_tokens=75)
            self.losses[name].append(tune_in_memory(model, self.rows, loss, settings, progress=self._report(name)))
            self.seconds[name] += time.process_time() - began
            self.found[name].append(self.judge(model, sizes))
            self.models[name] = model

    def untrained(self, sizes: Iterable[Size]) -> None:
        """Judge the model before training."""
        self.found["untrained"] = [self.judge(self.start, sizes)]

    def full_only(self, sizes: Iterable[Size]) -> None:
        """Train the full size alone: the common baseline."""
        self.train("full only", lambda seed: FullOnly(self.full), sizes)

    def sampling(self, widths: tuple[int, ...], sizes: Iterable[Size]) -> None:
        """Train by 2DMSE as sentence-transformers has it, one random layer and width a step, alignment tempered."""
        align = partial(align_coordinates, temperature=0.3)
        self.train("2DMSE", lambda seed: SampledWeighted(self.full, widths, seed=seed), sizes, align=align)

    def separate(self, name: str, sizes: Iterable[Size]) -> None:
        """Cut the model to each size and train it for that size alone; keep what all of them found under one name."""
        by_size: list[list[Units]] = []
        losses, seconds = list[list[float]](), 0.0
        for size in sizes:
            self.train(name, partial(_alone, size), [size], start=partial(self._cut, size.layers))
            by_size.append(self.found[name])
            losses, seconds = losses + self.losses[name], seconds + self.seconds[name]
        self.found[name] = [{s: v for units in runs for s, v in units.items()} for runs in zip(*by_size, strict=True)]
        self.losses[name], self.seconds[name] = losses, seconds

    def mean(self, name: str) -> Units:
        """Return the test pairs' shares of the rank correlation by size, mean over seeds."""
        runs = self.found[name]
        return {size: np.mean([units[size] for units in runs], axis=0) for size in runs[0]}

    def curve(self, name: str) -> dict[Size, float]:
        """Return the rank correlation by size, mean over seeds."""
        return {size: float(units.mean()) for size, units in self.mean(name).items()}

    def scores(self, name: str, sizes: Iterable[Size]) -> Scores:
        """Return each pair's share of the rank correlation, mean over some sizes and all seeds."""
        units = self.mean(name)
        mean = np.mean([units[size] for size in sizes], axis=0)
        return Scores.of(self.task, name, {"spearman": {str(i): float(v) for i, v in enumerate(mean)}})

    def compare(self, outcome: Outcome, key: str, method: str, baseline: str, sizes: Sequence[Size]) -> None:
        """Report a claim about the mean over some sizes, and the difference of each seed beside it."""
        outcome.compare(key, self.scores(method, sizes), self.scores(baseline, sizes))
        runs = zip(self.found[method], self.found[baseline], strict=True)
        gains = [round(float(np.mean([one[size] - two[size] for size in sizes])), 4) for one, two in runs]
        outcome.fact(f"difference by seed, {key}", gains)

    def report_training(self, outcome: Outcome) -> None:
        """Report how long each training took, and its loss in the first and the last tenth of the steps."""
        outcome.fact("processor seconds of training", {name: round(value, 1) for name, value in self.seconds.items()})
        ends = {}
        for name, runs in self.losses.items():
            tenth = max(1, len(runs[0]) // 10)
            ends[name] = [round(float(np.mean([run[part] for run in runs])), 3)
                          for part in (slice(tenth), slice(-tenth, None))]  # fmt: skip
        outcome.fact("loss, first and last tenth of the steps", ends)

    def judge(self, model: SentenceTransformer, sizes: Iterable[Size]) -> dict[Size, NDArray[np.float64]]:
        """Return the test pairs' shares of the rank correlation by size."""
        left, right = (layer_vectors(model, texts) for texts in (self.left, self.right))
        return {Size(*size): units for size, units in sts_by_size(left, right, self.gold, sizes).items()}

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

    def _cut(self, layers: int, seed: int) -> SentenceTransformer:
        return cut_layers(self.start, layers)

    def _report(self, name: str) -> Progress:
        return partial(self.lab.progress, name)


def _alone(size: Size, seed: int) -> Schedule:
    return FullOnly(size)
