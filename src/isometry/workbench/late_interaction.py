"""Token vectors beside a collection's single vectors: search by late interaction, kept in step with the documents."""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from isometry.errors import CorruptStore, DataFormatError, DataWarning, InputError, StoreError, Truncated
from isometry.files import write_whole
from isometry.types import Embeddings, Space
from isometry.types.progress import NamedProgress

if TYPE_CHECKING:
    from isometry.encoders import LateInteraction, TextEncoder
    from isometry.indexes import MultiVectorIndex
    from isometry.store import Collection

NOTE: Final = "late_interaction"  # in the collection's meta: of which space its token vectors are
FOLDER: Final = "late"
STATE: Final = "state.json"
FORMAT: Final = 1
BATCH: Final = 64  # documents embedded at once
STEP: Final = "embedding tokens"


@dataclass(frozen=True)
class TokenReport:
    """The token vectors of a collection after a run: how many documents were embedded, have any, and their size."""

    embedded: int
    documents: int
    dim: int
    bytes: int


def token_encoder(encoder: TextEncoder, dim: int | None = None) -> LateInteraction:
    """Late interaction with the model of a text encoder, untrained.

    Parameters
    ----------
    dim
        Width of a token vector; None: that of the model's states, which are left as they are. Less: they are projected
        onto random orthonormal directions, the same each time. A quarter of the default model's width is a quarter of
        the bytes, and .02 less nDCG@10 on Cranfield and recall@2 on LIMIT.

    Raises
    ------
    InputError
        If the model has no transformer, or its states are not so wide.
    """
    from isometry.encoders import LateInteraction
    from isometry.modules.token_projection import TokenProjection

    bare = LateInteraction(encoder)
    if dim is not None and not 1 <= dim <= bare.dim:
        raise InputError(f"A token vector of {encoder.space.model} has 1 to {bare.dim} numbers, got --dim {dim}.")
    return bare if dim in (None, bare.dim) else bare.replace(head=TokenProjection(bare.dim, dim, seed=0))


def has_tokens(collection: Collection) -> bool:
    """Whether a collection is also searched by late interaction."""
    return NOTE in collection.meta


def add_tokens(collection: Collection, late: LateInteraction) -> None:
    """Note that a collection has token vectors of a model, and keep the model; `TokenVectors.sync` embeds them.

    Token vectors of another model are replaced.
    """
    space = late.space
    way = next((s.removeprefix("pooling=") for s in late.encoder.space.chain if s.startswith("pooling=")), None)
    late.save(_model_folder(collection.path, space))  # before the note, which names it
    note = {"space": space.to_json(), "model": late.encoder.source, "pooling": way}
    if collection.meta.get(NOTE) != note:
        collection.set_meta({NOTE: note})
        TokenVectors(collection, late).save()  # none yet: what is missing from now on is lost


class TokenVectors:
    """The token vectors of a collection's documents, in its folder ``late``.

    The documents are the truth: what is here is of one commit, says of which texts, and can be made again.
    ``state.json`` names the index of that commit and is replaced last, so a reader sees the old one or the new one.

    Parameters
    ----------
    collection
        A collection with token vectors; what it has is read.
    late
        The model, if it is at hand.

    Raises
    ------
    InputError
        If the collection has no token vectors.
    """

    def __init__(self, collection: Collection, late: LateInteraction | None = None) -> None:
        note = collection.meta.get(NOTE)
        if not isinstance(note, dict):
            raise InputError(
                f"The collection {collection.name!r} has no token vectors for late interaction; "
                "index it again with --late-interaction."
            )
        self.name, self.root, self._note, self._late = collection.name, collection.path / FOLDER, note, late
        self.space = Space.from_json(note["space"])
        self.digests: dict[str, str] = {}
        self.sequence, self.problem, self._folder = -1, "", ""
        self.index = self._restored() or self._empty()

    @property
    def late(self) -> LateInteraction:
        """The model, checked to be the one that made the token vectors."""
        if self._late is None:
            self._late = _model(self.root.parent, self._note, self.space)
        self.space.check(self._late.space)
        return self._late

    def _empty(self) -> MultiVectorIndex:
        from isometry.indexes import MultiVectorIndex
        from isometry.spaces import FDE

        return MultiVectorIndex(self.space, fde=FDE(), dtype="int8")

    def _restored(self) -> MultiVectorIndex | None:
        """Read what is kept; None, with a `problem`, where it cannot be used."""
        from isometry.indexes import MultiVectorIndex

        for _ in range(2):  # a writer may take away the old index between reading its name and opening it
            try:
                state = _unsealed(self.root / STATE)
                if state["space"] != self.space.id:
                    self.problem = "are of another model"
                    return None
                index = MultiVectorIndex.load(self.root / state["index"])
                if len(index) != state["items"] or not set(index.ids) <= state["digests"].keys():
                    raise CorruptStore(f"{self.root / state['index']} holds other items than were written")
            except FileNotFoundError:
                self.problem = "are missing"
                return None
            except (StoreError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                self.problem = f"cannot be read ({error})"
                continue
            self.digests, self.sequence, self._folder, self.problem = (
                state["digests"], state["sequence"], state["index"], "",
            )  # fmt: skip
            return index
        return None

    def lag(self, collection: Collection) -> tuple[list[str], dict[str, str]]:
        """Ids that are no longer there as they were embedded, and the digests of the texts to embed, by id."""
        if self.sequence == collection.sequence:
            return [], {}
        there = {d.id: _digest(d.content) for d in collection.iterate()}
        stale = [i for i, digest in self.digests.items() if there.get(i) != digest]
        return stale, {i: digest for i, digest in there.items() if self.digests.get(i) != digest}

    def forget(self, ids: list[str]) -> None:
        """Drop the token vectors of documents, in memory."""
        self.index.remove(ids)
        for identity in ids:
            self.digests.pop(identity, None)

    def sync(self, collection: Collection, progress: NamedProgress | None = None) -> int:
        """Embed what is new or changed, drop what is gone, save; return how many documents were embedded.

        Interrupted, it keeps what is done, and the next call goes on there; a kill loses at most a fifth.

        Parameters
        ----------
        collection
            The collection, open for writing, so that nobody else changes it or these files.
        """
        sequence = collection.sequence
        if sequence == self.sequence:
            return 0
        stale, fresh = self.lag(collection)
        ids, cut, saved, changed = list(fresh), [0, 0], 0, bool(stale or fresh)
        if fresh:
            self.space.check(self.late.space)  # another model is refused before anything is dropped
        self.sequence = -1
        self.forget(stale)
        try:
            for start in range(0, len(ids), BATCH):
                emb = self._embed(collection, ids[start : start + BATCH], start, len(ids), progress)
                self.digests |= {i: fresh[i] for i in emb.ids.tolist()}
                if emb.cut_tokens is not None:
                    cut = [cut[0] + int((emb.cut_tokens > 0).sum()), cut[1] + int(emb.cut_tokens.sum())]
                if start + BATCH - saved >= max(4 * BATCH, len(self.digests) // 5):
                    self.save()
                    saved = start + BATCH
            self.sequence = sequence
        finally:
            self.save(changed=changed)
        if cut[0]:
            message = (
                f"{cut[0]:,} documents are longer than the window of {self.late.max_tokens} tokens; {cut[1]:,} tokens "
                "at their ends have no vectors for late interaction."
            )
            warnings.warn(message, Truncated, stacklevel=2)
        return len(ids)

    def _embed(
        self, collection: Collection, ids: list[str], done: int, total: int, progress: NamedProgress | None
    ) -> Embeddings:
        def report(here: int, _: int | None) -> None:
            if progress is not None:
                progress(STEP, done + here, total)

        texts = [d.content for d in collection.get(ids)]
        emb = self.late.embed(texts, ids, on_truncate="ignore", allow_empty=True, progress=report)
        assert emb.offsets is not None
        filled = np.diff(emb.offsets) > 0  # a text without a token is a document that late interaction cannot find
        if filled.any():
            self.index.add(emb.take(filled))
        return emb

    def save(self, *, changed: bool = True) -> None:
        """Write index and state, whole or not at all; ``changed``: whether the index is not the one that was read."""
        self.root.mkdir(exist_ok=True)
        if changed or not self._folder:
            draft = Path(mkdtemp(prefix="index-", dir=self.root))
            draft.chmod(0o755)
            self.index.save(draft)
            self._folder = draft.name
        model = _model_folder(self.root.parent, self.space)
        if not model.is_dir():
            self.late.save(model)
        state = {
            "format": FORMAT,
            "sequence": self.sequence,
            "space": self.space.id,
            "index": self._folder,
            "items": len(self.index),
            "digests": self.digests,
        }
        write_whole(self.root / STATE, _sealed(state))
        keep = {self._folder, model.name}
        for old in self.root.iterdir():
            if old.is_dir() and old.name.startswith(("index-", "model-")) and old.name not in keep:
                shutil.rmtree(old, ignore_errors=True)

    def report(self, embedded: int) -> TokenReport:
        """Say what there is."""
        size = sum(p.stat().st_size for p in self.root.rglob("*") if p.is_file())
        return TokenReport(embedded, len(self.index), self.space.dim, size)


def keep_tokens(
    collection: Collection, late: LateInteraction | None = None, progress: NamedProgress | None = None
) -> TokenReport:
    """Bring the token vectors of a collection that is open for writing in step with its documents.

    Warns (`DataWarning`) where what was kept could not be used and all of them had to be made again.
    """
    tokens = TokenVectors(collection, late)
    problem = tokens.problem
    embedded = tokens.sync(collection, progress)
    if problem and embedded:
        message = f"The token vectors of {tokens.name!r} {problem}; all {embedded:,} documents were embedded again."
        warnings.warn(message, DataWarning, stacklevel=2)
    return tokens.report(embedded)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _sealed(state: Mapping[str, Any]) -> bytes:
    body = json.dumps(state, sort_keys=True)
    return json.dumps({"sha256": hashlib.sha256(body.encode()).hexdigest(), "state": state}, sort_keys=True).encode()


def _unsealed(file: Path) -> dict[str, Any]:
    sealed = json.loads(file.read_bytes())
    state: dict[str, Any] = sealed["state"]
    if hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest() != sealed["sha256"]:
        raise CorruptStore(f"{file} does not fit its checksum")
    if state["format"] != FORMAT:
        raise CorruptStore(f"{file} has format {state['format']}, this release reads {FORMAT}")
    return state


def _model_folder(collection: Path, space: Space) -> Path:
    return collection / FOLDER / f"model-{space.id}"


def _model(collection: Path, note: Mapping[str, Any], space: Space) -> LateInteraction:
    """The model of a space as it was kept; where it is lost and was not trained, made as the first time."""
    from isometry.encoders import LateInteraction, load

    folder = _model_folder(collection, space)
    try:
        return LateInteraction.load(folder)
    except DataFormatError as error:
        again = token_encoder(load(note["model"], engine="torch", pooling=note["pooling"]), space.dim)
        if again.space.id != space.id:
            raise InputError(
                f"The late-interaction model of this collection is lost ({error}) "
                "Index it again with --late-interaction and the model's folder."
            ) from error
        return again
