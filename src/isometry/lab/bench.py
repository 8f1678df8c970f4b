"""The lab a recipe works in: data by name or the user's own, an encoder, seeds, caches, progress."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isometry.errors import InputError, RecipeError
from isometry.types import Document, FloatArray, Role
from isometry.types.progress import NamedProgress, silent

if TYPE_CHECKING:
    from isometry.data.schemas import STS, Labelled, Pairs, Retrieval
    from isometry.encoders import TextEncoder


@dataclass
class Lab:
    """Everything a recipe may ask for.

    Parameters
    ----------
    preset
        Name of the scale: ``"smoke"``, ``"laptop"`` or ``"paper"``.
    config
        The preset's values.
    seeds
        Seeds to repeat randomised parts with.
    user_data
        The user's own data; replaces every named set of the recipe.
    data_root
        Folder of named sets, put before the search path.
    model
        Encoder to study; the default is the small built-in one.
    progress
        Called with (what, done, total).
    cache
        Folder for embeddings that may be used again; None keeps nothing.
    """

    preset: str = "smoke"
    config: Mapping[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0,)
    user_data: Path | None = None
    data_root: Path | None = None
    model: str = "minilm"
    progress: NamedProgress = silent
    cache: Path | None = None

    def encoder(self) -> TextEncoder:
        """Return the encoder under study, reference precision, loaded once."""
        return self._encoder

    @cached_property
    def _encoder(self) -> TextEncoder:
        from isometry.encoders import load

        return load(self.model, engine="torch")

    def embed(self, texts: Sequence[str], role: Role = "document") -> FloatArray:
        """Return float32 ``[n, d]``, from the cache where these texts were embedded before."""
        from isometry.encoders import EmbeddingCache, embed

        def report(done: int, total: int | None) -> None:
            self.progress("embedding", done, total)

        cache = None if self.cache is None else EmbeddingCache(self.cache / "embeddings.sqlite")
        try:
            return embed(self.encoder(), texts, role=role, on_truncate="ignore", cache=cache, progress=report).vectors
        finally:
            if cache is not None:
                cache.close()

    def path(self, name: str) -> Path:
        """Return the file or folder of a named set (the user's data never replaces it)."""
        from isometry.data import find

        return find(name, self.data_root)

    def labelled(self, name: str, split: str = "test") -> Labelled:
        """Return texts with labels: the user's, or the named set."""
        return self._load(name, "labelled", split)  # type: ignore[no-any-return]

    def pairs(self, name: str, split: str = "train") -> Pairs:
        """Return pairs of texts: the user's, or the named set."""
        return self._load(name, "pairs", split)  # type: ignore[no-any-return]

    def sts(self, name: str, split: str = "test") -> STS:
        """Return scored pairs: the user's, or the named set."""
        return self._load(name, "sts", split)  # type: ignore[no-any-return]

    def retrieval(self, name: str, split: str = "test") -> Retrieval:
        """Return corpus, queries and judgments: the user's, or the named set."""
        return self._load(name, "retrieval", split)  # type: ignore[no-any-return]

    def documents(self, name: str) -> list[Document]:
        """Return texts to search: whatever the user's data holds, or the corpus of the named set."""
        from isometry.data import documents, load_set, read

        if self.user_data is None:
            return list(load_set(name, kind="retrieval", root=self.data_root).corpus)
        encoder = self.encoder()
        reading = read(self.user_data)
        return list(documents(reading, token_spans=encoder.token_spans, max_tokens=encoder.room("document")))

    def _load(self, name: str, kind: str, split: str) -> Any:
        from isometry.data import load_set

        if self.user_data is None:
            return load_set(name, kind=kind, split=split, root=self.data_root)
        try:
            return load_set(self.user_data, kind=kind, split=split)
        except InputError as error:
            raise RecipeError(
                f"This recipe needs data of kind {kind!r}, and {self.user_data} is not: {error}"
            ) from error
