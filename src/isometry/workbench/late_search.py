"""Search by late interaction in a collection with token vectors, mended first where they are behind."""

from __future__ import annotations

import warnings
from collections.abc import Collection as Items
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from isometry.errors import DataWarning, InputError, StoreError
from isometry.ranking import Stage
from isometry.types import Hits, Queries
from isometry.types.progress import NamedProgress
from isometry.workbench.late_interaction import TokenVectors

if TYPE_CHECKING:
    from isometry.encoders import LateInteraction
    from isometry.indexes import MultiVectorIndex
    from isometry.store import Collection


def current_tokens(
    collection: Collection, late: LateInteraction | None = None, progress: NamedProgress | None = None
) -> TokenVectors:
    """Return the token vectors of a collection as of now, to search in.

    Where they are behind or unusable they are mended first. While another process writes they cannot be: then what is
    current is searched. Both with a `DataWarning`.
    """
    from isometry.store import Collection

    tokens, sequence = TokenVectors(collection, late), collection.sequence
    stale, fresh = tokens.lag(collection)
    if not (stale or fresh):
        tokens.sequence = sequence
        return tokens
    behind = f"{len({*stale, *fresh}):,} documents of {tokens.name!r} have token vectors that are out of date, or none"
    problem = f"The token vectors of {tokens.name!r} {tokens.problem}" if tokens.problem else behind
    try:
        writer = Collection.open(collection.path, write=True, wait=0)
    except StoreError as error:
        tokens.forget(stale)
        message = (
            f"{problem}, and they cannot be renewed now ({error}) "
            f"Late interaction does not find {len(fresh):,} of {collection.count():,} documents yet."
        )
    else:
        with writer:
            tokens = TokenVectors(writer, late)  # another process may have renewed them meanwhile
            embedded = tokens.sync(writer, progress)
        message = f"{problem}; {embedded:,} documents were embedded just now."
    warnings.warn(message, DataWarning, stacklevel=2)
    return tokens


class MaxSimSearch(Stage):
    """Late-interaction retrieval: candidates by fixed dimensional encodings, ranked by exact MaxSim.

    Parameters
    ----------
    late
        Embeds the queries' texts.
    index
        Where to search.
    k
        How many hits per query.
    allowed
        Ids that may be found; None: all.
    """

    name = "maxsim"

    def __init__(
        self, late: LateInteraction, index: MultiVectorIndex, *, k: int = 10, allowed: Items[str] | None = None
    ) -> None:
        self.late, self.index, self.k = late, index, k
        self.allowed = None if allowed is None else frozenset(allowed)

    def config(self) -> Mapping[str, Any]:
        """Model and index by their space, k, and the filter."""
        allowed = None if self.allowed is None else sorted(self.allowed)
        return {"late": self.late.space.id, "index": self.index, "k": self.k, "allowed": allowed}

    def rank(self, queries: Queries, hits: Hits | None) -> Hits:
        """Embed and search.

        Raises
        ------
        InputError
            If there are hits already.
        EmptyInput
            If a query has no token.
        SpaceMismatch
            If the model is not the one that made the index.
        """
        if hits is not None:
            raise InputError(f"{self.name} finds hits by itself and must stand first; combine two with fuse(a, b).")
        if not len(queries) or not len(self.index):
            return Hits.build(queries.ids, [()] * len(queries))
        self.index.space.check(self.late.space)
        asked = self.late.embed(list(queries.texts), queries.ids.tolist(), role="query")
        allowed = self.allowed
        where = None if allowed is None else np.fromiter((i in allowed for i in self.index.ids), bool, len(self.index))
        return self.index.search(asked, self.k, where)
