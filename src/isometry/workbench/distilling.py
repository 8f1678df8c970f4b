"""Distil a model into a smaller one that speaks in its space, and say what that cost and gained."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isometry.errors import InputError
from isometry.stats import Comparison, compare
from isometry.types import FloatArray, Role, Scores
from isometry.types.progress import NamedProgress, Progress, silent
from isometry.workbench.budget import seconds_each, settled_steps
from isometry.workbench.model_card import write_card
from isometry.workbench.outputs import check_out, check_work, replacing, save_model, working
from isometry.workbench.reports import comparison_dict, verdict_of
from isometry.workbench.tuning_data import TuningData, tuning_data

if TYPE_CHECKING:
    from isometry.encoders import EmbeddingCache, TextEncoder

BATCH, RATE, MOST_STEPS = 32, 2e-4, 2000
TRAINING_SHARE = 0.5  # of the budget; the rest embeds the texts and measures


@dataclass(frozen=True)
class Distilled:
    """A student, judged on held-out data: against its teacher, its untrained cut, and in the teacher's index."""

    out: Path
    teacher: str
    layers: int
    data: TuningData
    texts: int
    steps: int
    against_cut: Comparison
    against_teacher: Comparison
    asymmetric: Comparison | None
    agreement: dict[str, float]
    seconds: float
    notes: Sequence[str] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form; stable keys."""
        student, teacher = self.against_teacher.mean_method, self.against_teacher.mean_baseline
        kept = f" It keeps {100 * student / teacher:.1f} % of its teacher's quality." if teacher > 0 else ""
        named = {"against its untrained cut": self.against_cut, "against its teacher": self.against_teacher,
                 "queries by student, documents by teacher": self.asymmetric}  # fmt: skip
        rows = [{**comparison_dict(c), "task": f"{c.task}: {name}"} for name, c in named.items() if c is not None]
        return {
            "out": str(self.out), "teacher": self.teacher, "layers": self.layers, "data": self.data.name,
            "texts": self.texts, "steps": self.steps, "synthetic": self.data.synthetic,
            "seconds": round(self.seconds, 1), "held_out": rows[0], "elsewhere": rows[1:], "agreement": self.agreement,
            "verdict": f"{verdict_of(self.against_cut, 'its untrained cut')}{kept}",
            "warnings": [], "notes": list(self.notes), "compared": ["other", "student"],
        }  # fmt: skip


def distil_model(
    source: str | Path, out: Path, *, teacher: str = "minilm", layers: int = 2, budget: float = 600.0,
    steps: int | None = None, seed: int = 0, root: Path | None = None, fresh: bool = False,
    progress: NamedProgress | None = None,
) -> Distilled:  # fmt: skip
    """Distil ``teacher`` into its first ``layers`` layers on the texts of some data (LEAF), and write the student.

    The student is a plain sentence-transformers model; a record in its folder lets it search indexes of its teacher.

    Parameters
    ----------
    source, root, seed
        See `tuning_data`; labels and judgments are only used to judge.
    budget
        Seconds for everything; ``steps`` goes before it.
    """
    from isometry.encoders import EmbeddingCache, load, record_alignment
    from isometry.spaces.least_squares import agreement
    from isometry.training.cross_encoder import Schedule
    from isometry.training.distil import distil

    started, report = time.perf_counter(), progress or silent
    check_out(out, fresh=fresh, sources=[teacher])
    data = tuning_data(source, root=root)
    texts, held = _texts(data)
    encoder = load(teacher, engine="torch")  # all on one engine: reduced precision differs by the modules
    model = encoder.model
    with working(out, fresh=fresh) as work, EmbeddingCache(work / "vectors.sqlite") as cache:
        check_work(work, {"layers": layers, "teacher": encoder.space.id})
        known = _Known(encoder, cache)
        targets: FloatArray = known.embed(texts, "document", lambda done, total: report("embedding", done, total))
        cut = distil(model, texts, layers=layers, schedule=Schedule(steps=0), targets=targets, ridge=None)
        count = steps or settled_steps(work, lambda: _steps(model, texts, targets, layers, budget))
        student = distil(
            model, texts, layers=layers, schedule=Schedule(steps=count, batch_size=BATCH, lr=RATE, seed=seed),
            targets=targets, keep=work / "student", progress=lambda done, total: report("training", done, total),
        )  # fmt: skip
        report("measuring", 0, None)
        of_teacher = data.test.score(known)
        save_model(cut, work / "model-cut")  # read back, so that all are measured by one engine
        of_cut = data.test.score(load(work / "model-cut", engine="torch"))
        with replacing(out) as folder:
            save_model(student, folder)
            small = load(folder, engine="torch")
            measured = agreement(small.encode_document(held), known.encode_document(held))
            of_student = data.test.score(small)
            asymmetric: Scores | None = None
            if data.metric in ("ndcg@10", "mrr"):
                asymmetric = data.test.score(_Asymmetric(small, known))
            found = Distilled(
                out, teacher, layers, data, len(texts), count, compare(of_student, of_cut, data.metric),
                compare(of_student, of_teacher, data.metric),
                None if asymmetric is None else compare(asymmetric, of_teacher, data.metric), measured,
                time.perf_counter() - started, data.notes,
            )  # fmt: skip
            write_card(folder, found.to_dict(), title=out.name)
            record_alignment(folder, encoder.space, measured)  # last: it names every file of the folder as it is now
    return found


class _Known:
    """An encoder that embeds every text once, also over an interruption."""

    def __init__(self, encoder: TextEncoder, cache: EmbeddingCache) -> None:
        self.encoder, self.cache, self.space = encoder, cache, encoder.space

    def embed(self, texts: Sequence[str], role: Role, progress: Progress | None = None) -> FloatArray:
        from isometry.encoders import embed

        found = embed(
            self.encoder, texts, role=role, on_truncate="ignore", cache=self.cache, allow_empty=True, progress=progress
        )
        return found.vectors

    def encode_query(self, texts: Sequence[str]) -> FloatArray:
        return self.embed(texts, "query")

    def encode_document(self, texts: Sequence[str]) -> FloatArray:
        return self.embed(texts, "document")


class _Asymmetric:
    """Queries by one encoder, documents by another of the same space."""

    def __init__(self, queries: Any, documents: Any) -> None:
        self.encode_query, self.encode_document = queries.encode_query, documents.encode_document
        self.space = documents.space


def _texts(data: TuningData) -> tuple[list[str], list[str]]:
    """Return the texts to distil on and some held out; of a retrieval set the corpus counts, which needs no labels."""
    from isometry.tasks import RetrievalTask

    texts = [text for column in data.rows.columns for text in column]
    if isinstance(data.test, RetrievalTask) and data.metric == "ndcg@10":
        texts += [document.content for document in data.test.corpus if document.content.strip()]
    distinct = sorted(set(texts))
    if len(distinct) < 40:
        raise InputError(f"{data.name} has {len(distinct)} different texts; distillation needs at least 40.")
    held = distinct[:: max(2, len(distinct) // 200)][:200]
    taken = set(held)
    return [text for text in distinct if text not in taken], held


def _steps(model: Any, texts: Sequence[str], targets: FloatArray, layers: int, budget: float) -> int:
    """Return how many steps the budget allows."""
    from isometry.training.cross_encoder import Schedule
    from isometry.training.distil import align_student, student_of

    student = student_of(model, layers=layers)
    each = seconds_each(
        lambda steps: align_student(student, texts, targets, Schedule(steps=steps, batch_size=BATCH, lr=RATE))
    )
    return int(min(MOST_STEPS, max(20, TRAINING_SHARE * budget / each)))
