"""Files to a collection that can be searched: read, chunk, embed what is new, store."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from isometry.errors import EmptyInput, InputError, UnknownName
from isometry.types import Document
from isometry.types.progress import NamedProgress, silent
from isometry.workbench.places import BUILTIN, collection_names, collection_path

if TYPE_CHECKING:
    from isometry.data import Reading
    from isometry.encoders import LateInteraction, TextEncoder
    from isometry.store import Collection
    from isometry.workbench.late_interaction import TokenReport

BATCH = 512  # documents per transaction: what an interrupted run can lose is at most one batch of embedding
OVERLAP = 32  # tokens two neighbouring chunks share


@dataclass(frozen=True)
class IndexReport:
    """What one indexing run did."""

    collection: str
    path: Path
    documents: int
    added: int
    unchanged: int
    removed: int
    cut_documents: int = 0
    cut_tokens: int = 0
    judged_queries: int = 0
    skipped: tuple[Any, ...] = ()
    warnings: tuple[str, ...] = field(default=())
    tokens: TokenReport | None = None


def index(
    source: str | Path,
    name: str,
    encoder: TextEncoder,
    *,
    options: Mapping[str, Any] | None = None,
    max_tokens: int | None = None,
    overlap: int = OVERLAP,
    late: LateInteraction | bool = False,
    progress: NamedProgress = silent,
) -> IndexReport:
    """Bring a collection in line with a file or folder: embed what is new or changed, remove what is gone.

    Every `BATCH` documents are one transaction, so an interrupted run goes on where it stopped.

    Parameters
    ----------
    source
        A file, a folder, or a BEIR folder (its judged queries are kept for `evaluate`).
    name
        Name or path of the collection; made if it is not there.
    encoder
        Embeds the chunks; the collection refuses an encoder of another space.
    options
        Passed to `isometry.data.read`, e.g. ``text_column``, ``exclude``, ``skip_bad``.
    max_tokens, overlap
        Longest chunk and what neighbours share, in the encoder's tokens; default: the encoder's window.
    late
        Also keep token vectors, for search by late interaction: of this model, or True: of the one the collection has
        them of, else of the encoder. Once there they are kept in step by every run.

    Raises
    ------
    EmptyInput
        If nothing readable is there.
    """
    from isometry.data import documents, read

    window = encoder.room("document")
    size = window if max_tokens is None else max_tokens
    if not 8 <= size <= window:
        raise InputError(f"Chunks must have 8 to {window} tokens (the window of this model), got {size}.")
    if not 0 <= overlap < size:
        raise InputError(f"The overlap must be at least 0 and smaller than a chunk ({size} tokens), got {overlap}.")
    progress("reading", 0, None)
    reading = read(Path(source), **(options or {}))
    chunks = documents(reading, token_spans=encoder.token_spans, max_tokens=size, overlap=overlap)
    with TemporaryFile("w+", encoding="utf-8") as spool:
        # Everything is read before anything is written: a malformed last line leaves the collection as it was.
        ids = _spool(chunks, spool, progress)
        if not ids:
            raise EmptyInput(f"{source}: nothing to index was found{_reasons(reading)}.")
        judged = _judgments(Path(source))
        with _open(name, encoder) as collection:
            _note_late(collection, encoder, late)
            report = _fill(collection, encoder, reading, _Spooled(spool, ids, judged, Path(source).resolve()), progress)
            return replace(report, tokens=_tokens(collection, late, progress))


class _Spooled(NamedTuple):
    """Documents on disk, one JSON line each, and what else the source holds."""

    file: IO[str]
    ids: set[str]
    judgments: dict[str, Any] | None
    root: Path

    def documents(self) -> Iterator[Document]:
        self.file.seek(0)
        return (Document(**json.loads(line)) for line in self.file)


def _spool(chunks: Iterator[Document], file: IO[str], progress: NamedProgress) -> set[str]:
    ids = set()
    for count, document in enumerate(chunks, 1):
        ids.add(document.id)
        json.dump({**vars(document), "payload": dict(document.payload)}, file)
        file.write("\n")
        if count % BATCH == 0:
            progress("reading", count, None)
    return ids


def _open(name: str, encoder: TextEncoder) -> Collection:
    from isometry.store import Collection

    path = collection_path(name)
    if (path / "collection.sqlite").exists():
        collection = Collection.open(path, write=True)
        try:
            collection.default_space.check(encoder.space)
        except InputError:
            collection.close()
            raise
        return collection
    return Collection.create(path, encoder.space)


def _note_late(collection: Collection, encoder: TextEncoder, late: LateInteraction | bool) -> None:
    """Note token vectors before anything is embedded, so that the run after an interrupted one makes them too."""
    if late is False:
        return
    from isometry.workbench.late_interaction import add_tokens, has_tokens, token_encoder

    if late is not True:
        add_tokens(collection, late)
    elif not has_tokens(collection):
        add_tokens(collection, token_encoder(encoder))


def _tokens(collection: Collection, late: LateInteraction | bool, progress: NamedProgress) -> TokenReport | None:
    from isometry.workbench.late_interaction import has_tokens, keep_tokens

    if not has_tokens(collection):
        return None
    return keep_tokens(collection, None if isinstance(late, bool) else late, progress)


def _fill(
    collection: Collection, encoder: TextEncoder, reading: Reading, source: _Spooled, progress: NamedProgress
) -> IndexReport:
    from isometry.encoders import embed

    root, chunks = str(source.root), source.documents()
    before = set(collection.ids())
    roots = collection.meta.get("roots", {})
    others = {identity for other, ids in roots.items() if other != root for identity in ids}
    gone = sorted(before.intersection(roots.get(root, ())) - source.ids - others)
    # Noted before the first document: an interrupted run leaves a collection that can be searched, judged and cleaned.
    roots[root] = sorted(source.ids.union(gone))
    notes = {"roots": roots, "model": encoder.source}
    collection.set_meta(notes if source.judgments is None else {**notes, "judgments": source.judgments})
    done = added = cut_documents = cut_tokens = 0
    progress("embedding", 0, len(source.ids))
    while batch := list(islice(chunks, BATCH)):
        known = {d.id: d for d in collection.get([d.id for d in batch if d.id in before])}
        done += len(batch)
        if fresh := [d for d in batch if known.get(d.id) != d]:
            emb = embed(
                encoder,
                [d.content for d in fresh],
                role="document",
                ids=[d.id for d in fresh],
                on_truncate="ignore",
                allow_empty=True,
            )
            if emb.cut_tokens is not None:
                cut_documents += int((emb.cut_tokens > 0).sum())
                cut_tokens += int(emb.cut_tokens.sum())
            collection.upsert(fresh, emb)
            added += len(fresh)
        progress("embedding", done, len(source.ids))
    if gone:
        collection.delete(gone)
    collection.snapshot()
    judged = len(source.judgments["queries"]) if source.judgments else 0
    return IndexReport(
        collection.name, collection.path, collection.count(), added, done - added, len(gone),
        cut_documents, cut_tokens, judged, tuple(reading.skipped), tuple(reading.warnings),
    )  # fmt: skip


def _reasons(reading: Reading) -> str:
    if not reading.skipped:
        return ""
    first = reading.skipped[0]
    more = f" and {len(reading.skipped) - 1} more" if len(reading.skipped) > 1 else ""
    return f" (skipped {first.path}: {first.reason}{more})"


def _judgments(root: Path) -> dict[str, Any] | None:
    """Return the judged queries of a BEIR folder, to be kept with the collection."""
    if not root.is_dir() or not any((root / f"queries.jsonl{end}").is_file() for end in ("", ".gz")):
        return None
    from isometry.data import load_set

    judged = load_set(root, kind="retrieval")
    queries = {q: judged.queries[q] for q in judged.qrels}
    qrels = {q: dict(grades) for q, grades in judged.qrels.items()}
    return {"name": root.name, "queries": queries, "qrels": qrels}


def open_collection(name: str, *, write: bool = False) -> Collection:
    """Open a collection by name or path; the built-in one is made when it is first asked for.

    Raises
    ------
    UnknownName
        With the names there are.
    """
    from isometry.store import Collection

    path = collection_path(name)
    if not path.exists() and name == BUILTIN:
        from isometry.data import find
        from isometry.encoders import load

        index(find(BUILTIN), BUILTIN, load())
    if not path.exists():
        hint = "Make one with `isometry index PATH`; `isometry list` shows what there is."
        raise UnknownName("collection", name, [BUILTIN, *collection_names()], hint=hint)
    return Collection.open(path, write=write)


def resolve(source: str | Path, name: str) -> Path:
    """Return the folder or file that a path or the name of a data set stands for, before anything slow begins.

    Raises
    ------
    EmptyInput
        If nothing is there.
    InputError
        If the collection cannot have this name.
    """
    from isometry.data import find

    path = Path(source)
    if not path.exists():
        try:
            path = find(str(source))
        except UnknownName as error:
            raise EmptyInput(f"{source} does not exist; give a file, a folder, or the name of a data set.") from error
    collection_path(name)
    if name == BUILTIN and path.resolve() != find(BUILTIN).resolve():
        raise InputError(f"{BUILTIN!r} is the name of the built-in collection; choose another with --name.")
    return path
