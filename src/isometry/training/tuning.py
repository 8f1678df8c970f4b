"""What a technique changes when a model is tuned: the loss, the batches, how many runs are averaged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from torch import nn

from isometry.errors import InputError
from isometry.negatives import AnyOf, same_label, same_text
from isometry.objectives import CosineRegression, InfoNCE

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

RowKind = Literal["pairs", "triplets", "labelled", "sts"]
ROW_KINDS: tuple[RowKind, ...] = get_args(RowKind)


@dataclass(frozen=True)
class Tuning:
    """What a technique may look at before it makes a `Plan`.

    Parameters
    ----------
    model
        The model in training.
    start
        A frozen copy of it as it began: a guide, or a teacher.
    kind
        What the rows are. ``pairs``: query and positive. ``triplets``: anchor, positive, negative. ``labelled``: a text
        and another of its class, with class numbers ``[b]``. ``sts``: two texts, with similarities ``[b]`` in 0..1.
    seed
        Of everything random.
    """

    model: SentenceTransformer
    start: SentenceTransformer
    kind: RowKind
    seed: int = 0


@dataclass(frozen=True)
class Plan:
    """How a technique tunes a model.

    Parameters
    ----------
    loss
        Called with (features of each column, labels), returns a scalar; every feature dict holds its raw ``"text"``.
    runs
        Models to train with different seeds, whose weights are then averaged.
    same_class_batches
        Whether a batch may hold several rows of one class; by default classes in a batch are distinct while there are
        enough of them.
    note
        What a model card should say besides the technique's name.
    """

    loss: nn.Module
    runs: int = 1
    same_class_batches: bool = False
    note: str = ""

    def __post_init__(self) -> None:
        if self.runs < 1:
            raise InputError(f"A plan needs at least one run, got {self.runs}.")


def default_loss(model: nn.Module | None, kind: RowKind, *, temperature: float = 0.05) -> nn.Module:
    """Return the plain loss for a kind of rows: masked InfoNCE, or regression of cosines where similarities are graded.

    Candidates with the row's own text are never negatives, nor are those of its own class.
    """
    if kind == "sts":
        return CosineRegression(model)
    mask = AnyOf((same_text, same_label)) if kind == "labelled" else same_text
    return InfoNCE(model, temperature=temperature, mask=mask)


def default_plan(tuning: Tuning) -> Plan:
    """Return the plan without any technique: `default_loss` and nothing else."""
    return Plan(default_loss(tuning.model, tuning.kind))
