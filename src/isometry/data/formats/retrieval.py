"""BEIR folders, also with one corpus and one query file a language (``corpus.de.jsonl.gz``)."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path

from isometry.data.formats.folders import LIMITS, Request, Shape, language, parts, stem, visible
from isometry.data.readers.content import read_text
from isometry.data.readers.records import read_records
from isometry.data.schemas import Retrieval
from isometry.errors import DataFormatError, DataWarning, InputError
from isometry.types import Document

_NAME = re.compile(r"(corpus|queries)(?:\.([A-Za-z_-]+))?\.jsonl(?:\.gz)?")


def _files(folder: Path) -> dict[str, dict[str, Path]]:
    """Return ``{"corpus": {language or "": file}, "queries": ...}``."""
    found: dict[str, dict[str, Path]] = {"corpus": {}, "queries": {}}
    for path in visible(folder):
        if match := _NAME.fullmatch(path.name):
            found[match[1]][match[2] or ""] = path
    return found


def _judgments(folder: Path) -> dict[str, Path]:
    folder = folder / "qrels"
    return {stem(path): path for path in visible(folder) if path.suffix == ".tsv"} if folder.is_dir() else {}


def recognise(path: Path) -> Shape | None:
    """Return the splits and languages of a BEIR folder; None for anything else."""
    if not path.is_dir():
        return None
    files = _files(path)
    if not (files["corpus"] and files["queries"]):
        return None
    return Shape("retrieval", tuple(_judgments(path)), tuple(filter(None, files["corpus"])))


def load(request: Request) -> Retrieval:
    """Read corpus, judged queries and judgments of one split.

    Raises
    ------
    InputError
        If the folder lacks a corpus, queries or judgments.
    DataFormatError
        If an id occurs twice, a grade is no whole number, or a judgment names an unknown query or document; with
        ``skip_bad`` such lines are left out with a `DataWarning`.
    """
    folder, files = request.path, _files(request.path) if request.path.is_dir() else {}
    missing = [name for name in ("corpus", "queries") if not files.get(name)]
    if missing or not _judgments(folder):
        lacks = " and ".join([*(f"{name}.jsonl" for name in missing), *([] if _judgments(folder) else ["qrels/*.tsv"])])
        raise InputError(f"{folder} is no BEIR folder: it lacks {lacks}.")
    left, right = ("", "") if "" in files["corpus"] else language(sorted(files["corpus"]), request)
    bad = _Bad(request.skip_bad)
    corpus = _documents(files["corpus"][right], bad)
    queries = {i: d.text for i, d in _documents(files["queries"][left], bad).items()}
    qrels = _qrels(parts(_judgments(folder), request), queries, corpus, bad)
    bad.report()
    judged = {query: text for query, text in queries.items() if query in qrels}
    return Retrieval(list(corpus.values()), judged, qrels, request.name)


class _Bad:
    """Raises bad lines, or counts them."""

    def __init__(self, skip: bool) -> None:
        self.skip, self.errors = skip, list[DataFormatError]()

    def __call__(self, error: DataFormatError) -> None:
        if not self.skip:
            raise error
        self.errors.append(error)

    def report(self) -> None:
        if self.errors:
            warnings.warn(
                f"{len(self.errors)} bad lines left out, the first: {self.errors[0]}", DataWarning, stacklevel=4
            )


def _documents(path: Path, bad: _Bad) -> dict[str, Document]:
    found: dict[str, Document] = {}
    for line, record in read_records(path, LIMITS, on_bad=bad):
        name, text, title = record.pop("_id", None), record.pop("text", ""), record.pop("title", "") or ""
        if name is None or not isinstance(text, str) or not isinstance(title, str):
            bad(DataFormatError(path, line, "a line needs _id and text, and title and text must be text."))
            continue
        if str(name) in found:
            earlier = found[str(name)].source.rpartition(":")[2]
            bad(DataFormatError(path, line, f"the id {str(name)!r} was already used in line {earlier}."))
            continue
        found[str(name)] = Document(str(name), text, title, f"{path.name}:{line}", record)
    return found


def _qrels(
    path: Path, queries: Mapping[str, str], corpus: Mapping[str, Document], bad: _Bad
) -> dict[str, dict[str, int]]:
    qrels: dict[str, dict[str, int]] = {}
    for line, content in enumerate(read_text(path, LIMITS)[0].split("\n"), 1):
        fields = content.split("\t")
        if not content.strip() or (line == 1 and not fields[-1].strip().lstrip("-").isdigit()):
            continue  # an empty line, or the header
        if problem := _problem(fields, queries, corpus):
            bad(DataFormatError(path, line, problem))
            continue
        qrels.setdefault(fields[0], {})[fields[1]] = int(fields[2])
    return qrels


def _problem(fields: list[str], queries: Mapping[str, str], corpus: Mapping[str, Document]) -> str:
    if len(fields) != 3:
        return f"a judgment has three fields, query-id, corpus-id and score, separated by tabs; got {len(fields)}."
    query, document, grade = fields
    if not re.fullmatch(r"\s*-?\d+\s*", grade):
        return f"the grade {grade!r} is not a whole number."
    if query not in queries:
        return f"the query {query!r} is not in the queries."
    return "" if document in corpus else f"the document {document!r} is not in the corpus."
