"""Reducers: a text's token vectors to fewer of them, in training and at inference, by one interface.

``reduce(x, mask, generator=None)`` takes token vectors ``[b, t, d]`` and which of them count (bool ``[b, t]``), and
returns ``[b, k, d]`` with their mask. Gradients flow through the means, never through the choice of clusters.

Identity         every token (multi-vector, MV)
Mean             one vector (single-vector, SV)
Tail, Stride     the last k tokens; every k-th token
Clusters         k-means inside each text: k fixed (C4x8) or a share of its tokens (C25, C50)
Agglomerative    hierarchical pooling, the usual way of shrinking after training
reducers         the pair of reducers a name such as "C4x8" stands for
reduce_embeddings  the same on ragged `Embeddings`
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from isometry.lazy import exports

_HOMES = {
    "Agglomerative": "agglomerative",
    "Clusters": "clusters",
    "Identity": "selection",
    "Mean": "clusters",
    "Reducer": "reducer",
    "Reduction": "ragged",
    "Stride": "selection",
    "Tail": "selection",
    "from_record": "naming",
    "padded": "ragged",
    "reduce_embeddings": "ragged",
    "reducers": "naming",
    "segment_mean": "segments",
    "to_record": "naming",
    "within_share": "segments",
}

if TYPE_CHECKING:
    from isometry.modules.token_reduction.agglomerative import Agglomerative
    from isometry.modules.token_reduction.clusters import Clusters, Mean
    from isometry.modules.token_reduction.naming import from_record, reducers, to_record
    from isometry.modules.token_reduction.ragged import Reduction, padded, reduce_embeddings
    from isometry.modules.token_reduction.reducer import Reducer
    from isometry.modules.token_reduction.segments import segment_mean, within_share
    from isometry.modules.token_reduction.selection import Identity, Stride, Tail

__all__ = [
    "Agglomerative",
    "Clusters",
    "Identity",
    "Mean",
    "Reducer",
    "Reduction",
    "Stride",
    "Tail",
    "from_record",
    "padded",
    "reduce_embeddings",
    "reducers",
    "segment_mean",
    "to_record",
    "within_share",
]

__getattr__, __dir__ = exports(__name__, _HOMES)
