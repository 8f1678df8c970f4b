"""Training on a dictionary: definitions are drawn to frozen vectors of the entries they define (DefSent+, 2405.16153).

The matrix of entries comes from the encoder itself: the mean of an entry's definitions, so that any phrase can be one.
Training is progressive and separate: the better encoder of one round makes the next round's matrix, but every round
trains the starting encoder anew.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
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

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from isometry.data.dictionaries import Dictionary

ACTIVATIONS = {"tanh": nn.Tanh, "gelu": nn.GELU}
PROMPT = 'This sentence : "{text}" means [MASK] .'


@dataclass(frozen=True)
class DefinitionTraining:
    """How to train on definitions.

    Parameters
    ----------
    steps
        Updates per round.
    rounds
        Matrices of entries made in turn, the first by the starting encoder.
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
    lr: float = 2e-5
    rounds: int = 1
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


def encode(model: SentenceTransformer, texts: Sequence[str], *, batch_size: int = 64) -> FloatArray:
    """Return a model's vectors, float32 ``[n, d]``, as long as they are, without dropout."""
    vectors = model.encode(list(texts), batch_size=batch_size, show_progress_bar=False, convert_to_numpy=True)
    return np.asarray(vectors, np.float32)


def train_definitions(
    start: SentenceTransformer,
    dictionary: Dictionary,
    settings: DefinitionTraining,
    *,
    entries: FloatArray | None = None,
    seed: int = 0,
    progress: Callable[[int, int | None], None] | None = None,
) -> DefinitionRun:
    """Train copies of ``start`` on a dictionary, round by round, and return the last.

    Parameters
    ----------
    start
        The encoder every round starts from; it is not changed.
    entries
        The first round's matrix ``[E, d]`` where it is not to be made of definitions: token embeddings give DefSent
        (Tsukagoshi et al. 2021).
    """
    encoder, losses = start, list[list[float]]()
    head: nn.Module = nn.Identity()
    matrix = np.zeros((0, 0), np.float32)
    for done in range(settings.rounds):
        if done or entries is None:
            matrix = entry_vectors(encode(encoder, dictionary.definitions), dictionary.owners, len(dictionary.entries))
        else:
            matrix = entries
        if done >= settings.rounds - settings.ica_rounds:
            matrix = isotropic_entries(matrix, scale=settings.ica_scale)
        encoder = copy.deepcopy(start)
        head = pooler(encoder, settings.activation, seed=seed)
        losses.append(_round(encoder, head, matrix, dictionary, settings, seed + done, progress))
    return DefinitionRun(encoder.eval(), head.eval(), matrix, tuple(losses))


def pooler(model: SentenceTransformer, activation: str = "tanh", *, seed: int = 0) -> nn.Sequential:
    """Return a dense layer and its activation: BERT's own pooler where the model has one, else new weights."""
    body: Any = model[0].auto_model
    width = int(body.config.hidden_size)
    with seeded(seed):
        dense = nn.Linear(width, width)
    own = getattr(getattr(body, "pooler", None), "dense", None)
    if own is not None:
        dense.load_state_dict(own.state_dict())
    return nn.Sequential(dense, ACTIVATIONS[activation]())


def _round(
    model: SentenceTransformer, head: nn.Module, matrix: FloatArray, dictionary: Dictionary,
    settings: DefinitionTraining, seed: int, progress: Callable[[int, int | None], None] | None,
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

    return train(objective, batches, loss, steps=settings.steps, lr=settings.lr, warmup=0.0, seed=seed,
                 progress=progress)  # fmt: skip


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
