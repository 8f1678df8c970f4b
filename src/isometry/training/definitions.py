"""Training on a dictionary: definitions are drawn to frozen vectors of the entries they define (DefSent+, 2405.16153).

The matrix of entries comes from the encoder itself: the mean of an entry's definitions, so that any phrase can be one.
Training is progressive and separate: the better encoder of one round makes the next round's matrix, but every round
trains the starting encoder anew.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from isometry.errors import InputError, UnknownName
from isometry.objectives.definitions import EntryCrossEntropy
from isometry.spaces.whitening import ICA
from isometry.training.length_batches import LengthBatches
from isometry.training.loop import seeded, train
from isometry.types import FloatArray, IntArray, check_vectors
from isometry.types.progress import Progress

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from isometry.data.dictionaries import Dictionary

Pooled = Literal["cls", "mean"]
ACTIVATIONS = {"tanh": nn.Tanh, "gelu": nn.GELU}
PROMPT = 'This sentence : "{text}" means [MASK] .'


@dataclass(frozen=True)
class DefinitionTraining:
    """How to train on definitions.

    Parameters
    ----------
    steps
        Updates per round.
    lr
        Highest learning rate, or one for each round; further rounds take the last.
    rounds
        Matrices of entries made in turn, the first by the starting encoder.
    targets
        How definitions are encoded for the matrix: pooled by ``"cls"`` or ``"mean"``; None: as the model does.
        Sentences are pooled as the model does.
    ica_rounds
        In so many of the last rounds the matrix is made isotropic by ICA.
    ica_scale
        Its factor, an inverse temperature of the softmax.
    activation
        Of the pooler, ``"tanh"`` (BERT) or ``"gelu"`` (RoBERTa).
    sampled
        Competitors drawn per step; None: all entries.
    """

    steps: int
    batch_size: int = 32
    lr: float | tuple[float, ...] = 2e-5
    rounds: int = 1
    targets: Pooled | None = None
    ica_rounds: int = 0
    ica_scale: float = 100.0
    activation: Literal["tanh", "gelu"] = "tanh"
    sampled: int | None = None

    def __post_init__(self) -> None:
        if min(self.steps, self.batch_size, self.rounds) < 1 or not 0 <= self.ica_rounds <= self.rounds:
            raise InputError(
                "Definition training needs steps, batch_size and rounds >= 1 and 0 <= ica_rounds <= rounds; got "
                f"{self.steps}, {self.batch_size}, {self.rounds} and {self.ica_rounds}."
            )
        if self.activation not in ACTIVATIONS:
            raise UnknownName("activation", self.activation, ACTIVATIONS)
        if isinstance(self.lr, tuple) and not self.lr:
            raise InputError("lr needs a learning rate for the first round at least.")

    def rate(self, done: int) -> float:
        """Return the learning rate after so many rounds.

        >>> [DefinitionTraining(steps=1, lr=(2e-5, 5e-6)).rate(done) for done in range(3)]
        [2e-05, 5e-06, 5e-06]
        """
        return self.lr[min(done, len(self.lr) - 1)] if isinstance(self.lr, tuple) else self.lr


@dataclass(frozen=True, eq=False)
class DefinitionRun:
    """What training left: the encoder, its pooler, the last matrix of entries, losses by round."""

    model: SentenceTransformer
    head: nn.Module
    entries: FloatArray
    losses: tuple[list[float], ...]

    def project(self, vectors: FloatArray) -> FloatArray:
        """Return sentence vectors ``[n, d]`` as they meet the entries: through the pooler."""
        with torch.no_grad():
            out: FloatArray = self.head(torch.from_numpy(vectors)).numpy()
        return out


def entry_vectors(vectors: Any, owners: Sequence[Sequence[int]], count: int) -> FloatArray:
    """Return the mean vector of each entry's definitions, float32 ``[count, d]``.

    Parameters
    ----------
    vectors
        Of definitions, ``[n, d]``.
    owners
        By definition, the entries it defines.

    Raises
    ------
    InputError
        If an entry has no definition.

    Examples
    --------
    >>> entry_vectors([[2.0, 0.0], [0.0, 2.0]], [[0], [0, 1]], 2).tolist()
    [[1.0, 1.0], [0.0, 2.0]]
    """
    x = check_vectors(vectors)
    rows = np.repeat(np.arange(len(owners)), [len(own) for own in owners])
    columns: IntArray = np.array([entry for own in owners for entry in own], np.int64)
    counts = np.bincount(columns, minlength=count)
    if len(owners) != len(x) or len(counts) > count or not counts.all():
        raise InputError(f"Each of the {count} entries needs a definition, and each of the {len(x)} vectors an entry.")
    sums = np.zeros((count, x.shape[1]))
    np.add.at(sums, columns, x[rows])
    return np.asarray(sums / counts[:, None], np.float32)


def isotropic_entries(matrix: FloatArray, *, scale: float = 100.0) -> FloatArray:
    """Return the independent components of a matrix of entries, float32 ``[E, d]``, in the first columns.

    Where the entries vary in fewer than d directions, the other columns are 0 and have no part in the logits.
    """
    parts = ICA(scale=scale).fit_transform(matrix)
    return np.pad(parts, ((0, 0), (0, matrix.shape[1] - parts.shape[1])))


def encode(
    model: SentenceTransformer, texts: Sequence[str], *, batch_size: int = 64, pooling: Pooled | None = None
) -> FloatArray:
    """Return vectors, float32 ``[n, d]``, as long as they are, without dropout; ``pooling`` replaces the model's."""
    if pooling is not None:
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer.modules import Pooling

        head = Pooling(model[0].get_embedding_dimension(), pooling)
        model = SentenceTransformer(modules=[model[0], head], device=str(model.device)).eval()
    vectors = model.encode(list(texts), batch_size=batch_size, show_progress_bar=False, convert_to_numpy=True)
    return np.asarray(vectors, np.float32)


def train_definitions(
    start: SentenceTransformer,
    dictionary: Dictionary,
    settings: DefinitionTraining,
    *,
    entries: FloatArray | None = None,
    dense: nn.Linear | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> DefinitionRun:
    """Train copies of ``start`` on a dictionary, round by round, and return the last.

    Parameters
    ----------
    start
        The encoder every round starts from; it is not changed.
    entries
        The first round's matrix ``[E, d]`` where it is not to be made of definitions: token embeddings give DefSent
        (Tsukagoshi et al. 2021).
    dense
        Weights that the pooler begins with; see `pooler`.
    """
    encoder, losses = start, list[list[float]]()
    head: nn.Module = nn.Identity()
    matrix = np.zeros((0, 0), np.float32)
    for done in range(settings.rounds):
        if done or entries is None:
            vectors = encode(encoder, dictionary.definitions, pooling=settings.targets)
            matrix = entry_vectors(vectors, dictionary.owners, len(dictionary.entries))
        else:
            matrix = entries
        if done >= settings.rounds - settings.ica_rounds:
            matrix = isotropic_entries(matrix, scale=settings.ica_scale)
        encoder = copy.deepcopy(start)
        head = pooler(encoder, settings.activation, dense=dense, seed=seed)
        losses.append(_round(encoder, head, matrix, dictionary, settings, done, seed + done, progress))
    return DefinitionRun(encoder.eval(), head.eval(), matrix, tuple(losses))


def pooler(
    model: SentenceTransformer, activation: str = "tanh", *, dense: nn.Linear | None = None, seed: int = 0
) -> nn.Sequential:
    """Return a dense layer and its activation, which training alone uses.

    Parameters
    ----------
    dense
        Weights to begin with: RoBERTa, which was not pre-trained with a pooler, takes those of its prediction head
        (`isometry.modules.PredictionHead.dense`, with ``"gelu"``). None: BERT's own pooler where the model has one,
        else new weights.
    """
    body: Any = model[0].auto_model
    width = int(body.config.hidden_size)
    with seeded(seed):
        layer = nn.Linear(width, width)
    own = getattr(getattr(body, "pooler", None), "dense", None) if dense is None else dense
    if own is not None:
        layer.load_state_dict(own.state_dict())
    return nn.Sequential(layer, ACTIVATIONS[activation]())


def _round(
    model: SentenceTransformer, head: nn.Module, matrix: FloatArray, dictionary: Dictionary,
    settings: DefinitionTraining, done: int, seed: int, progress: Progress | None,
) -> list[float]:  # fmt: skip
    objective = EntryCrossEntropy(model, entries=torch.from_numpy(matrix), head=head, sampled=settings.sampled)
    pairs = [(i, owner) for i, own in enumerate(dictionary.owners) for owner in own]
    most = max(len(own) for own in dictionary.owners)
    batches = LengthBatches([len(dictionary.definitions[i]) for i, _ in pairs], settings.batch_size, seed=seed)

    def loss(module: nn.Module, rows: list[int]) -> Tensor:
        chosen = [pairs[row] for row in rows]
        labels = torch.full((len(rows), 1 + most), -1)
        for row, (i, owner) in enumerate(chosen):
            labels[row, 0] = owner
            labels[row, 1 : 1 + len(dictionary.owners[i])] = torch.tensor(dictionary.owners[i])
        features = model.preprocess([dictionary.definitions[i] for i, _ in chosen])
        value: Tensor = module([features], labels)
        return value

    return train(objective, batches, loss, steps=settings.steps, lr=settings.rate(done), warmup=0.0, eps=1e-6,
                 clip=1.0, seed=seed, progress=progress)  # fmt: skip


def prompt_vectors(model: SentenceTransformer, texts: Sequence[str], *, template: str = PROMPT) -> FloatArray:
    """Return the state of the mask token in a prompt around each text, float32 ``[n, d]`` (Jiang et al. 2022).

    Raises
    ------
    InputError
        If the tokenizer has no mask token, the template no ``{text}`` and one ``[MASK]``, or a prompt is cut before it.
    """
    mask = getattr(model.tokenizer, "mask_token", None)
    if mask is None or template.count("{text}") != 1 or template.count("[MASK]") != 1:
        raise InputError("Prompted vectors need a tokenizer with a mask token, and a template with {text} and [MASK].")
    vectors = list[Tensor]()
    for text in texts:
        features = model.preprocess([template.replace("[MASK]", mask).replace("{text}", text)])
        inputs = {name: features[name] for name in ("input_ids", "attention_mask")}
        places = (inputs["input_ids"][0] == model.tokenizer.mask_token_id).nonzero()
        if not len(places):
            raise InputError(f"The prompt around {text[:40]!r} is too long for the model's window; shorten the text.")
        with torch.no_grad():
            vectors.append(model[0].auto_model(**inputs).last_hidden_state[0, places[-1, 0]])
    return np.asarray(torch.stack(vectors), np.float32)
