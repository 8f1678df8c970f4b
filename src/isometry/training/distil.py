"""Distilling an encoder: a smaller student reproduces its teacher's vectors (LEAF, arXiv:2509.12539).

Texts alone are needed: no pairs, no labels. The student is a plain sentence-transformers model (transformer, pooling,
linear output head, unit length where the teacher has it), whose vectors may be compared with the teacher's own once
`isometry.encoders.record_alignment` has written down that they may.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from isometry.errors import DimensionMismatch, EmptyInput, InputError
from isometry.modules.layer_cut import cut_layers
from isometry.objectives.alignment import Alignment
from isometry.spaces.least_squares import LeastSquaresMap
from isometry.training.cross_encoder import Schedule, batches_of
from isometry.training.feeds import Batch, digest
from isometry.training.fine_tuning import Settings, train_encoder
from isometry.types import FloatArray, check_vectors
from isometry.types.progress import Progress

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


def student_of(
    teacher: SentenceTransformer, *, layers: int | None = None, body: SentenceTransformer | None = None
) -> SentenceTransformer:
    """Build an untrained student: a transformer, its pooling, a linear output head to the teacher's width.

    Parameters
    ----------
    teacher
        Gives width, unit length and prompts, and the transformer unless ``body`` does.
    layers
        Keep the first so many blocks; all by default.
    body
        Another model to take transformer and pooling from.

    Raises
    ------
    InputError
        If the model is no transformer with a pooling that counts prompt tokens.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Dense, Normalize

    source = teacher if body is None else body
    pooling = next((module for module in source if type(module).__name__ == "Pooling"), None)
    if pooling is None or not getattr(pooling, "include_prompt", True):
        raise InputError("Distillation needs a model of a transformer and a pooling that includes prompts.")
    first = copy.deepcopy(source) if layers is None else cut_layers(source, layers)
    wide, dim = int(pooling.get_embedding_dimension()), _width(teacher)
    head = Dense(wide, dim, activation_function=nn.Identity())
    with torch.no_grad():
        head.linear.weight.copy_(torch.eye(dim, wide))
        head.linear.bias.zero_()
    ends = [Normalize()] if normalizes(teacher) else []
    modules = [first[0], copy.deepcopy(pooling), head, *ends]
    student = SentenceTransformer(
        modules=modules, device=str(teacher.device), prompts=dict(teacher.prompts),
        default_prompt_name=teacher.default_prompt_name, similarity_fn_name=teacher.similarity_fn_name,
    )  # fmt: skip
    student.max_seq_length = min(n for n in (teacher.max_seq_length, source.max_seq_length) if n is not None)
    return student.eval()


def normalizes(model: SentenceTransformer) -> bool:
    """Whether a model's vectors have unit length by its last module."""
    return type(model[-1]).__name__ == "Normalize"


def pooled(student: SentenceTransformer, texts: Sequence[str]) -> Tensor:
    """What a student's output head reads: pooled states ``[b, d']``, with gradient where it is on."""
    features: dict[str, Any] = student.preprocess(list(texts))
    column = {k: v.to(student.device) if isinstance(v, Tensor) else v for k, v in features.items()}
    states: Tensor = student[1](student[0](column))["sentence_embedding"]
    return states


def vectors_of(student: SentenceTransformer, texts: Sequence[str]) -> Tensor:
    """A student's vectors ``[b, d]`` with gradient."""
    out: Tensor = student[2]({"sentence_embedding": pooled(student, texts)})["sentence_embedding"]
    return normalize(out, dim=-1) if normalizes(student) else out


def fit_output_head(
    student: SentenceTransformer, texts: Sequence[str], targets: FloatArray, *, ridge: float | Literal["auto"] = "auto"
) -> None:
    """Set the output head in place to the ridge least-squares map from pooled states to ``targets`` ``[n, d]``.

    With frozen layers and without unit length this is the best head there is; otherwise it is a good start.
    ``ridge`` as in `isometry.spaces.LeastSquaresMap`.
    """
    order = np.argsort([len(text) for text in texts], kind="stable")
    with torch.no_grad():
        parts = [pooled(student, [texts[i] for i in rows]) for rows in np.array_split(order, -(-len(order) // 64))]
    states = np.empty((len(texts), parts[0].shape[1]), np.float32)
    states[order] = torch.cat(parts).float().cpu().numpy()
    fitted = LeastSquaresMap(ridge=ridge).fit(states, targets)
    with torch.no_grad():
        student[2].linear.weight.copy_(torch.from_numpy(fitted.weight_.T.copy()))
        student[2].linear.bias.copy_(torch.from_numpy(fitted.bias_))


def distil(
    teacher: SentenceTransformer,
    texts: Sequence[str] | Mapping[str, Sequence[str]],
    *,
    layers: int | None = 2,
    schedule: Schedule | None = None,
    body: SentenceTransformer | None = None,
    targets: FloatArray | None = None,
    ridge: float | Literal["auto"] | None = "auto",
    progress: Progress | None = None,
    keep: Path | None = None,
) -> SentenceTransformer:
    """Distil a teacher into a student of fewer layers by embedding regression (LEAF).

    The output head starts from its closed form (`fit_output_head`), then all layers are trained to reproduce the
    teacher's vectors in squared distance.

    Parameters
    ----------
    teacher
        Left as it is.
    texts
        Documents; or by role, ``{"query": [...], "document": [...]}``. The teacher's prompt of the role is put before
        each, for teacher and student alike.
    layers
        Blocks of the student, see `student_of`; None keeps all.
    schedule
        Steps and learning rate; 500 steps of 32 texts at 2e-4 by default. ``steps=0`` leaves the closed form.
    body
        Another model for the student to start from.
    targets
        The teacher's vectors ``[n, d]`` of the texts (queries before documents), where they are known; such as from
        `isometry.encoders.embed` with a cache, which names them by model, prompt and text.
    ridge
        Of the closed form; None starts from the identity.
    progress
        Called with (steps done, steps).
    keep
        Folder for checkpoints: given again, an interrupted training goes on where it was and ends the same.

    Raises
    ------
    EmptyInput
        If there is no text, or one is empty.
    DimensionMismatch
        If ``targets`` are not one vector of the teacher's width per text.
    """
    plan = Schedule(steps=500, lr=2e-4) if schedule is None else schedule
    by_role = dict(texts) if isinstance(texts, Mapping) else {"document": texts}
    rows = prompted(teacher, by_role)
    wanted = teacher_vectors(teacher, by_role) if targets is None else check_vectors(targets, what="targets")
    if wanted.shape != (len(rows), _width(teacher)):
        raise DimensionMismatch(f"{len(rows)} texts need targets of width {_width(teacher)}, got {wanted.shape}.")
    student = student_of(teacher, layers=layers, body=body)
    if ridge is not None:
        fit_output_head(student, rows, wanted, ridge=ridge)
    if plan.steps:
        align_student(student, rows, wanted, plan, progress=progress, keep=keep)
    return student.eval()


def align_student(
    student: SentenceTransformer,
    rows: Sequence[str],
    targets: FloatArray,
    schedule: Schedule,
    *,
    progress: Progress | None = None,
    keep: Path | None = None,
) -> list[float]:
    """Train a student in place to give ``targets`` ``[n, d]`` for texts (prompts included); return every loss."""
    feed = VectorFeed(rows, targets, schedule.steps, schedule.batch_size, seed=schedule.seed)
    settings = Settings(len(feed), schedule.batch_size, schedule.lr, schedule.warmup, seed=schedule.seed)
    history = train_encoder(student, feed, _CalmAlignment(student), settings, folder=keep, progress=progress)
    return list(history.losses.values())


class VectorFeed:
    """Batches of texts with the vectors they shall get, each text once per pass."""

    def __init__(
        self, texts: Sequence[str], targets: FloatArray, steps: int, batch_size: int, *, seed: int = 0
    ) -> None:
        self.texts, self.targets = texts, torch.from_numpy(targets)
        self.order = list(islice(batches_of(len(texts), batch_size, seed), steps))

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, step: int, /) -> Batch:
        """Return the batch of a step."""
        rows = self.order[step]
        return Batch([[self.texts[row] for row in rows]], self.targets[rows], rows=rows)

    def about(self) -> dict[str, Any]:
        """Return number and digest of texts and vectors."""
        digests = {"texts": digest([self.texts]), "targets": digest([], self.targets.double().sum(0).tolist())}
        return {"rows": len(self.texts), **digests}


class _CalmAlignment(Alignment):
    """Without dropout: its noise is larger than what the closed form has left to learn."""

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: Tensor | None = None) -> Tensor:
        self.eval()
        return super().forward(sentence_features, labels)


def prompted(teacher: SentenceTransformer, by_role: Mapping[str, Sequence[str]]) -> list[str]:
    """All texts, queries before documents, each behind the teacher's prompt of its role.

    Raises
    ------
    EmptyInput
        If there is none, or one is empty.
    InputError
        If a role is neither query nor document.
    """
    if unknown := by_role.keys() - {"query", "document"}:
        raise InputError(f"Texts are given by the role query or document, not {sorted(unknown)}.")
    rows = []
    for role in ("query", "document"):
        prompt = _prompt(teacher, role)
        for row, text in enumerate(by_role.get(role, ())):
            if not isinstance(text, str) or not text.strip():
                raise EmptyInput(f"Text {row} of role {role} is empty; remove it or give it words.")
            rows.append(prompt + text)
    if not rows:
        raise EmptyInput("Distillation needs texts; there is none.")
    return rows


def teacher_vectors(teacher: SentenceTransformer, by_role: Mapping[str, Sequence[str]]) -> FloatArray:
    """The teacher's vectors of texts by role, queries before documents, float32 ``[n, d]``, normalised once."""
    encoders = {"query": teacher.encode_query, "document": teacher.encode_document}
    parts = [
        np.asarray(encode(list(by_role[role]), prompt=_prompt(teacher, role), show_progress_bar=False), np.float32)
        for role, encode in encoders.items()
        if by_role.get(role)
    ]
    return np.concatenate(parts)


def _prompt(teacher: SentenceTransformer, role: str) -> str:
    return str((teacher.prompts or {}).get(role) or "")


def _width(model: SentenceTransformer) -> int:
    return int(model.get_embedding_dimension())
