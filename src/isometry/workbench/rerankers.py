"""The kinds of reranker to train and to use: a cross-encoder, and a language model that answers yes or no."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from isometry.errors import InputError, UnknownName
from isometry.types.progress import Progress

if TYPE_CHECKING:
    from isometry.training import Checkpoints
    from isometry.training.cross_encoder import Schedule

MAX_TOKENS = 128  # of query and document together, in training and in use
ASKED = "yes-no:"  # what stands before the name of a language model that was never trained to rerank
PROMPT_TOKENS = 128  # what the question itself may take
RANK = 16


@dataclass(frozen=True)
class Slates:
    """Queries with their candidates, the positive first."""

    queries: list[str]
    texts: list[list[str]]

    @property
    def relevance(self) -> list[np.ndarray[Any, Any]]:
        """1 for the positive, 0 for the others."""
        return [np.eye(1, len(row), dtype=np.float32)[0] for row in self.texts]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Every query with each of its candidates, in order."""
        return [(query, text) for query, row in zip(self.queries, self.texts, strict=True) for text in row]


class Reranker(Protocol):
    """A reranker in training."""

    kind: ClassVar[str]
    lr: ClassVar[float]
    batch_size: ClassVar[int]
    base: str
    identity: str

    @property
    def scorer(self) -> Any:
        """What `isometry.ranking.Rerank` asks: ``predict(pairs) -> [n]``, ``save(folder)``."""
        ...

    def units(self, slates: Slates) -> int:
        """How many rows a pass over the slates has."""
        ...

    def train(
        self, slates: Slates, schedule: Schedule, *, keep: Checkpoints | None = None,
        progress: Progress | None = None,
    ) -> object:  # fmt: skip
        """Train in place."""
        ...


class CrossEncoderReranker:
    """Query and document read together by an encoder's transformer, trained on whole slates."""

    kind: ClassVar[str] = "cross-encoder"
    lr: ClassVar[float] = 3e-5
    batch_size: ClassVar[int] = 8

    def __init__(self, base: str, seed: int) -> None:
        from isometry.encoders import load
        from isometry.training.cross_encoder import cross_encoder

        body = load(base, engine="torch")
        self.base, self.identity = base, body.space.id
        self.model = cross_encoder(body.model, pooling="mean", seed=seed)
        self.model.max_seq_length = min(MAX_TOKENS, self.model.max_seq_length or MAX_TOKENS)

    @property
    def scorer(self) -> Any:
        """See `Reranker`."""
        from isometry.ranking.cross_encoder import CrossEncoderScorer

        return CrossEncoderScorer(self.model)

    def units(self, slates: Slates) -> int:
        """Slates."""
        return len(slates.queries)

    def train(
        self, slates: Slates, schedule: Schedule, *, keep: Checkpoints | None = None,
        progress: Progress | None = None,
    ) -> object:  # fmt: skip
        """See `Reranker`."""
        from isometry.training.cross_encoder import train_cross_encoder_listwise

        return train_cross_encoder_listwise(
            self.model, slates.queries, slates.texts, slates.relevance, schedule, keep=keep, progress=progress
        )


class YesNoReranker:
    """A causal language model asked whether a document answers the query, tuned by low-rank adapters."""

    kind: ClassVar[str] = "yes-no"
    lr: ClassVar[float] = 2e-4
    batch_size: ClassVar[int] = 8

    def __init__(self, base: str, seed: int) -> None:
        self.scorer = asked(base)
        self.base, self.identity = base, f"{self.kind} {base}"

    def units(self, slates: Slates) -> int:
        """Pairs of a query and a candidate."""
        return len(slates.pairs)

    def train(
        self, slates: Slates, schedule: Schedule, *, keep: Checkpoints | None = None,
        progress: Progress | None = None,
    ) -> object:  # fmt: skip
        """See `Reranker`."""
        from isometry.training.yes_no import train_yes_no

        labels = [bool(value) for row in slates.relevance for value in row]
        return train_yes_no(self.scorer, slates.pairs, labels, schedule, rank=RANK, keep=keep, progress=progress)


KINDS: dict[str, Callable[[str, int], Reranker]] = {made.kind: made for made in (CrossEncoderReranker, YesNoReranker)}
BASES = {CrossEncoderReranker.kind: "minilm", YesNoReranker.kind: "smollm2"}


def new_reranker(kind: str, base: str | None, seed: int) -> Reranker:
    """Return an untrained reranker of a kind, from its usual base unless another is named.

    Raises
    ------
    UnknownName
        If there is no such kind.
    """
    if kind not in KINDS:
        raise UnknownName("kind of reranker", kind, KINDS)
    return KINDS[kind](base or BASES[kind], seed)


def asked(name: str) -> Any:
    """Return a language model as a yes/no scorer of pairs."""
    from isometry.encoders.backbones import load_decoder
    from isometry.modules.yes_no import YesNoModel

    decoder = load_decoder(name)
    return YesNoModel(decoder.lm, decoder.tokenizer, max_tokens=MAX_TOKENS + PROMPT_TOKENS)


def load_reranker(name: str) -> Any:
    """Return the scorer a name stands for: a trained folder of either kind, a hub name, or ``yes-no:LANGUAGE-MODEL``.

    Raises
    ------
    InputError
        If nothing of that name scores pairs.
    """
    from isometry.modules.yes_no import CONFIG, YesNoModel
    from isometry.ranking.cross_encoder import CrossEncoderScorer

    if name.startswith(ASKED):
        return asked(name.removeprefix(ASKED))
    folder = Path(name).expanduser()
    if (folder / CONFIG).is_file():
        return YesNoModel.load(folder)
    if not name.strip() or (folder.parent != Path() and folder.parent.is_dir() and not folder.exists()):
        raise InputError(
            f"There is no reranker {name!r}; give a folder of isometry rerank, a hub name, or {ASKED}MODEL."
        )
    return CrossEncoderScorer.load(folder if folder.exists() else name)
