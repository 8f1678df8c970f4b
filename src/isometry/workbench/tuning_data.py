"""Whatever the user has, as rows to tune on and a held-out task that says what came of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from isometry.data import load_set, split_by_document
from isometry.data.converters import POSITIVE_LABELS, says_alike
from isometry.data.schemas import STS, Labelled, Pairs, Retrieval, Triplets
from isometry.data.triplets import DocumentSplit
from isometry.errors import InputError, IsometryError, NoTextColumn, UnknownName
from isometry.tasks import ClassificationTask, RetrievalTask, STSTask
from isometry.tasks.triplets import TripletTask
from isometry.training.rows import Rows, distinct, labelled_rows
from isometry.types import Document, normal_text

if TYPE_CHECKING:
    from isometry.protocols import Task

SHARE = 0.2  # of the rows, held out where the data has no parts of its own
DEV_UNITS = 200  # most rows or queries to choose among states by
DEV_CORPUS = 300
ELSEWHERE_DOCUMENTS, ELSEWHERE_TEXTS = 400, 2000
CHUNK_WORDS = 150
_WORD = re.compile(r"\S+")


@dataclass(frozen=True)
class TuningData:
    """Rows to tune on, a small task to choose among states by, and the held-out task.

    ``metric`` is what both tasks are read by; ``notes`` say what was split, left out or made up.
    """

    name: str
    rows: Rows
    dev: Task
    test: Task
    metric: str
    synthetic: bool = False
    notes: tuple[str, ...] = field(default=())


def tuning_data(source: str | Path, *, root: Path | None = None, seed: int = 0) -> TuningData:
    """Read a named set, a table, a BEIR folder, a collection, or plain documents, and hold a part of it out.

    A part named ``test`` is held out where there is one, else a fifth of the documents, so that no document and no text
    is on both sides. Of plain documents, pseudo-queries are made by inverse cloze, for training and for judging.

    Raises
    ------
    InputError
        If the data can train nothing, with the reason.
    """
    parts = _parts(source, root)
    train = _load(source, "test" if "test" in parts and "train" not in parts else "train", root)
    if isinstance(train, list):
        return _documents(str(source), train, seed)
    test = _load(source, "test", root) if {"train", "test"} <= parts else None
    for part in (train, test):
        _no_empty(str(source), part)
    makers: dict[type, Callable[..., TuningData]] = {
        Retrieval: _retrieval, STS: _sts, Labelled: _labelled, Pairs: _pairs, Triplets: _triplets,
    }  # fmt: skip
    if type(train) not in makers:
        raise InputError(
            f"{source} holds {type(train).__name__.lower()} data; tuning needs pairs, triplets, labelled texts, scored "
            "pairs, a BEIR folder or documents."
        )
    return makers[type(train)](str(source), train, test, seed)


def elsewhere_task(source: str | Path, *, root: Path | None = None, seed: int = 0) -> tuple[Task, str]:
    """Return the held-out task of some data and its metric, made cheap: it is there to notice what was forgotten.

    Of a corpus, the relevant documents and some others; of labelled texts, some to learn the classes from.
    """
    data = tuning_data(source, root=root, seed=seed)
    task, rng = data.test, np.random.default_rng(seed)
    if isinstance(task, RetrievalTask):
        wanted = {d for grades in task.qrels.values() for d, grade in grades.items() if grade > 0}
        others = {task.corpus[i].id for i in rng.permutation(len(task.corpus))[:ELSEWHERE_DOCUMENTS].tolist()}
        corpus = [d for d in task.corpus if d.id in wanted or d.id in others]
        task = RetrievalTask(corpus, task.queries, _within(task.qrels, corpus), f"{data.name}, {len(corpus)} documents")
    elif isinstance(task, ClassificationTask):
        rows = rng.permutation(len(task.train_texts))[:ELSEWHERE_TEXTS].tolist()
        texts, labels = [task.train_texts[i] for i in rows], [task.train_labels[i] for i in rows]
        task = ClassificationTask(texts, labels, task.test_texts, task.test_labels, data.name, probe="knn")
    return task, data.metric


def _no_empty(name: str, part: Any) -> None:
    """Raise on the first row with an empty text, numbered as in the data."""
    sides = [getattr(part, side, None) for side in ("left", "right", "anchor", "positive", "negative", "texts")]
    for number, row in enumerate(zip(*[side for side in sides if side is not None], strict=True), 1):
        if not all(text.strip() for text in row):
            raise InputError(f"Row {number} of {name} has an empty text; leave it out or fill it in.")


def _within(qrels: Mapping[str, Mapping[str, int]], corpus: Sequence[Document]) -> dict[str, dict[str, int]]:
    ids = {document.id for document in corpus}
    return {q: {d: grade for d, grade in grades.items() if d in ids} for q, grades in qrels.items()}


def _load(source: str | Path, split: str, root: Path | None) -> Any:
    """Return a schema; documents where the files are no data set; what a collection of that name holds."""
    from isometry.data import documents, read
    from isometry.data.sets import recognise

    try:
        return load_set(source, split=split, root=root)
    except UnknownName:
        if (kept := _collection(str(source))) is None:
            raise
        return kept
    except IsometryError:
        path = Path(source).expanduser()
        if not path.exists() or recognise(path) is not None:
            raise
    try:
        return list(documents(read(path), token_spans=_words, max_tokens=CHUNK_WORDS, overlap=0))
    except NoTextColumn as error:
        raise InputError(
            f"{source} has no columns to tune on; name them query and document; anchor, positive and negative; "
            "text and label; or sentence1, sentence2 and score."
        ) from error


def _words(text: str) -> list[tuple[int, int]]:
    return [match.span() for match in _WORD.finditer(text)]


def _collection(name: str) -> Any:
    """Return what a collection holds: documents, with its judged queries where it has some; None if there is none."""
    from isometry.workbench.indexing import open_collection

    try:
        with open_collection(name) as opened:
            kept, judgments = list(opened.iterate()), opened.meta.get("judgments")
    except UnknownName:
        return None
    if not judgments:
        return kept
    ids = {document.id for document in kept}
    qrels = {q: {d: g for d, g in row.items() if d in ids} for q, row in judgments["qrels"].items()}
    return Retrieval(kept, judgments["queries"], {q: row for q, row in qrels.items() if row}, name)


def _parts(source: str | Path, root: Path | None) -> set[str]:
    from isometry.data.sets import locate, recognise

    try:
        shape = recognise(locate(source, root))
    except UnknownName:  # a collection
        return set()
    return set(shape.parts) if shape else set()


def _cut(documents: Sequence[str], texts: Sequence[Sequence[str]], most: int | None, seed: int) -> Any:
    count = len(set(documents))
    if count < 2:
        raise InputError(f"All {len(documents)} rows are about one text, so none can be held out; add rows on others.")
    share = SHARE if most is None else min(SHARE, most / count)
    return split_by_document(documents, texts, share=share, seed=seed)


def _sts(name: str, train: STS, test: STS | None, seed: int) -> TuningData:
    top = float(max(np.max(train.scores), 0 if test is None else np.max(test.scores)))
    low = float(min(np.min(train.scores), 0.0))
    notes = []

    def task(part: STS, rows: Sequence[int] | None = None) -> STSTask:
        take = range(len(part.left)) if rows is None else rows
        left, right = [part.left[i] for i in take], [part.right[i] for i in take]
        if len({float(part.scores[i]) for i in take}) < 2:
            raise InputError(
                f"The {len(left)} scored pairs of {name} to judge by all have one score, so no order of them is right; "
                "add pairs with other scores."
            )
        return STSTask(left, right, [float(part.scores[i]) for i in take], name=name)

    held: Sequence[int] | None = None
    keep = list(range(len(train.left)))
    if test is None:
        split = _cut(train.left, list(zip(train.left, train.right, strict=True)), None, seed)
        keep, held = split.train.tolist(), split.test.tolist()
        notes.append(_said(split))
    else:
        seen = {_pair(row) for row in zip(test.left, test.right, strict=True)}
        keep, said = _apart([_pair(row) not in seen for row in zip(train.left, train.right, strict=True)])
        notes += said
    texts = [(train.left[i], train.right[i]) for i in keep]
    inner = _cut([left for left, _ in texts], texts, DEV_UNITS, seed + 1)
    dev = task(train, [keep[i] for i in inner.test])
    rows = [keep[i] for i in inner.train]
    scaled = [(float(train.scores[i]) - low) / max(top - low, 1e-12) for i in rows]
    made = distinct(Rows("sts", ([train.left[i] for i in rows], [train.right[i] for i in rows]), scaled))
    judged = task(train, held) if test is None else task(test)
    return TuningData(name, made, dev, judged, "spearman", notes=(*notes, *_left_out(made)))


def _labelled(name: str, train: Labelled, test: Labelled | None, seed: int) -> TuningData:
    notes = []
    texts, labels = list(train.texts), list(train.labels)
    if test is None:
        split = _cut([str(i) for i in range(len(texts))], [[t] for t in texts], None, seed)
        test = Labelled([texts[i] for i in split.test], [labels[i] for i in split.test])
        texts, labels = [texts[i] for i in split.train], [labels[i] for i in split.train]
        notes.append(_said(split))
    else:
        seen = {normal_text(text) for text in test.texts}
        keep, said = _apart([normal_text(text) not in seen for text in texts])
        texts, labels = [texts[i] for i in keep], [labels[i] for i in keep]
        notes += said
    inner = _cut([str(i) for i in range(len(texts))], [[t] for t in texts], DEV_UNITS, seed + 1)
    kept = inner.train.tolist()
    rows = labelled_rows([texts[i] for i in kept], [labels[i] for i in kept], seed=seed)
    few = np.random.default_rng(seed).permutation(kept)[:2000].tolist()

    def task(fit: Sequence[int], texts_: Sequence[str], labels_: Sequence[str]) -> ClassificationTask:
        return ClassificationTask([texts[i] for i in fit], [labels[i] for i in fit], texts_, labels_, name, probe="knn")

    dev = task(few, [texts[i] for i in inner.test], [labels[i] for i in inner.test])
    judged = task(range(len(texts)), test.texts, test.labels)
    return TuningData(name, rows, dev, judged, "accuracy", notes=(*notes, *_left_out(rows)))


def _pairs(name: str, train: Pairs, test: Pairs | None, seed: int) -> TuningData:
    left, right, labels = list(train.left), list(train.right), train.labels
    notes = []
    if labels is not None:
        positive = [i for i, label in enumerate(labels) if says_alike(label)]
        if not positive:
            raise InputError(
                f"No pair of {name} has a label that says its texts belong together (one of "
                f"{', '.join(sorted(POSITIVE_LABELS))}); the labels are {', '.join(sorted(set(labels))[:6])}."
            )
        notes.append(f"{len(positive)} of {len(labels)} pairs are positive ones and were used.")
        left, right = [left[i] for i in positive], [right[i] for i in positive]
    if test is None:
        split = _cut(right, list(zip(left, right, strict=True)), None, seed)
        held = [(left[i], right[i]) for i in split.test]
        left, right = [left[i] for i in split.train], [right[i] for i in split.train]
        notes.append(_said(split))
    else:
        chosen = range(len(test.left))
        if test.labels is not None:
            chosen = [i for i in chosen if says_alike(test.labels[i])]  # type: ignore[assignment]
        held = [(test.left[i], test.right[i]) for i in chosen]
        keep, said = _unseen(left, held)
        left, right = [left[i] for i in keep], [right[i] for i in keep]
        notes += said
    inner = _cut(right, list(zip(left, right, strict=True)), DEV_UNITS, seed + 1)
    rows = distinct(Rows("pairs", ([left[i] for i in inner.train], [right[i] for i in inner.train])))
    dev = _finding(name, [(left[i], right[i]) for i in inner.test])
    return TuningData(name, rows, dev, _finding(name, held), "mrr", notes=(*notes, *_left_out(rows)))


def _finding(name: str, pairs: Sequence[tuple[str, str]]) -> RetrievalTask:
    """Let each left side find its right side among all right sides held out."""
    ids = {text: f"d{i}" for i, text in enumerate(dict.fromkeys(right for _, right in pairs))}
    corpus = [Document(id=key, text=text) for text, key in ids.items()]
    queries: dict[str, str] = {}
    qrels: dict[str, dict[str, int]] = {}
    numbers: dict[str, str] = {}
    for left, right in pairs:
        number = numbers.setdefault(left, f"q{len(numbers)}")
        queries[number] = left
        qrels.setdefault(number, {})[ids[right]] = 1
    return RetrievalTask(corpus, queries, qrels, name)


def _triplets(name: str, train: Triplets, test: Triplets | None, seed: int) -> TuningData:
    columns = [list(train.anchor), list(train.positive), list(train.negative)]
    rows, notes = list(zip(*columns, strict=True)), []
    if test is None:
        split = _cut(columns[1], rows, None, seed)
        held, rows = [rows[i] for i in split.test], [rows[i] for i in split.train]
        notes.append(_said(split))
    else:
        held = list(zip(test.anchor, test.positive, test.negative, strict=True))
        keep, said = _unseen(train.anchor, held)
        rows = [rows[i] for i in keep]
        notes += said
    inner = _cut([row[1] for row in rows], rows, DEV_UNITS, seed + 1)
    made = distinct(Rows("triplets", tuple(list(c) for c in zip(*[rows[i] for i in inner.train], strict=True))))
    dev = TripletTask([rows[i] for i in inner.test], name)
    return TuningData(name, made, dev, TripletTask(held, name), "accuracy", notes=(*notes, *_left_out(made)))


def _retrieval(name: str, train: Retrieval, test: Retrieval | None, seed: int) -> TuningData:
    notes = []
    judged = list(train.qrels)
    if test is None:
        order = np.random.default_rng(seed).permutation(len(judged))
        cut = max(1, len(judged) // 2)
        held, judged = [judged[i] for i in sorted(order[:cut])], [judged[i] for i in sorted(order[cut:])]
        notes.append(f"{len(held)} of {len(held) + len(judged)} judged queries were held out.")
        test = Retrieval(train.corpus, train.queries, {q: train.qrels[q] for q in held})
    keep, said = _unseen([train.queries[q] for q in judged], [(test.queries[q],) for q in test.qrels])
    judged = [judged[i] for i in keep]
    notes += said
    documents = {d.id: d.content for d in train.corpus if d.content.strip()}
    order = np.random.default_rng(seed + 1).permutation(len(judged))
    chosen = [judged[i] for i in order[: min(DEV_UNITS // 2, max(1, len(judged) // 5))]]
    rest = sorted(set(judged) - set(chosen))
    rest = [rest[i] for i in _unseen([train.queries[q] for q in rest], [(train.queries[q],) for q in chosen])[0]]
    rest = [q for q in rest if train.queries[q].strip()]
    judgments = [(q, d) for q in rest for d, grade in train.qrels[q].items() if grade > 0 and d in documents]
    pairs = [(train.queries[q], documents[d]) for q, d in judgments]
    if not pairs:
        raise InputError(f"{name} has {len(judged)} judged queries to train on; tuning needs more.")
    rows = distinct(Rows("pairs", ([q for q, _ in pairs], [d for _, d in pairs])))
    wanted = {d for q in chosen for d in train.qrels[q]}
    rng = np.random.default_rng(seed + 2)
    others = [train.corpus[i] for i in rng.permutation(len(train.corpus))[:DEV_CORPUS].tolist()]
    corpus = [d for d in train.corpus if d.id in wanted] + [d for d in others if d.id not in wanted]
    dev = RetrievalTask(corpus, train.queries, {q: train.qrels[q] for q in chosen}, name)
    held_out_task = RetrievalTask(test.corpus, test.queries, test.qrels, name)
    return TuningData(name, rows, dev, held_out_task, "ndcg@10", notes=(*notes, *_left_out(rows)))


def _documents(name: str, documents: Sequence[Document], seed: int) -> TuningData:
    from isometry.tasks import inverse_cloze

    corpus, queries, qrels = inverse_cloze(documents, seed=seed)
    made = _retrieval(name, Retrieval(corpus, queries, qrels, name), None, seed)
    said = (
        f"There are no judged queries: {len(queries)} were made from the documents by inverse cloze (a sentence is "
        "taken out of its document and has to find it again). Real questions are harder."
    )
    return TuningData(name, made.rows, made.dev, made.test, made.metric, synthetic=True, notes=(said, *made.notes))


def _said(split: DocumentSplit) -> str:
    held, dropped = len(split.test), len(split.dropped)
    said = f"{held} of {held + dropped + len(split.train)} rows were held out, by document."
    return said if not dropped else f"{said[:-1]}; {dropped} others share a text with these and were left out."


def _pair(row: Sequence[str]) -> frozenset[str]:
    return frozenset(map(normal_text, row))


def _unseen(first: Sequence[str], held: Sequence[Sequence[str]]) -> tuple[list[int], list[str]]:
    """Return the rows whose query or anchor is no held-out text."""
    seen = {normal_text(text) for row in held for text in row}
    return _apart([normal_text(text) not in seen for text in first])


def _apart(keep: Sequence[bool]) -> tuple[list[int], list[str]]:
    rows = [i for i, kept in enumerate(keep) if kept]
    if not rows:
        raise InputError("Every row to train on is also in the held-out part; give other rows to one of them.")
    out = len(keep) - len(rows)
    return rows, [f"{out} rows to train on are also in the held-out part and were left out."] if out else []


def _left_out(rows: Rows) -> tuple[str, ...]:
    return tuple(f"{count} rows were left out: {reason}." for reason, count in rows.dropped.items())
