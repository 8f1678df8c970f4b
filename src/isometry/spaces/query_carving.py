"""Ball carving: fewer query vectors for the same MaxSim."""

from __future__ import annotations

import numpy as np

from isometry.errors import InputError
from isometry.types import Embeddings, FloatArray


def carve(tokens: FloatArray, threshold: float = 0.7) -> FloatArray:
    """Greedy ball carving of one query's tokens (MUVERA, arXiv:2405.19504, section 3.2): ``[t, d]`` to ``[c, d]``.

    The first token not yet taken opens a ball; every free token whose dot product with it reaches ``threshold`` joins
    it, and the ball is replaced by the sum of its tokens, so that MaxSim keeps its scale. Carved MaxSim never exceeds
    the full one, for one document token must serve a whole ball.

    Parameters
    ----------
    tokens
        float32 ``[t, d]``, unit rows by convention.
    threshold
        Smallest dot product within a ball; above 1 it leaves unit tokens alone.

    Examples
    --------
    >>> carve(np.array([[1, 0], [0, 1], [1, 0]], np.float32))
    array([[2., 0.],
           [0., 1.]], dtype=float32)
    """
    if not np.isfinite(threshold):
        raise InputError(f"threshold must be a finite number, got {threshold!r}.")
    near = tokens @ tokens.T >= threshold
    free = np.ones(len(tokens), bool)
    balls = []
    for i in range(len(tokens)):
        if free[i]:
            ball = near[i] & free
            ball[i] = True  # a token shorter than the threshold is still its own ball
            free &= ~ball
            balls.append(tokens[ball].sum(axis=0))
    return np.stack(balls) if balls else tokens[:0]


def carve_queries(queries: Embeddings, threshold: float = 0.7) -> Embeddings:
    """`carve` each item of multi-vector embeddings.

    Raises
    ------
    InputError
        If the embeddings hold one vector per id.
    """
    if queries.offsets is None:
        raise InputError("Only multi-vector queries can be carved; these hold one vector per id.")
    parts = [carve(queries.item(i), threshold) for i in range(len(queries))]
    offsets = np.concatenate([[0], np.cumsum([len(p) for p in parts])]).astype(np.int64)
    vectors = np.concatenate(parts) if parts else queries.vectors
    return Embeddings(vectors, queries.ids, queries.space, role=queries.role, offsets=offsets)
