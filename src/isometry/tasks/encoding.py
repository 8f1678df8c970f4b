"""How tasks talk to encoders: texts in, embeddings out, similarity of paired rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from isometry.errors import EmptyInput, InputError
from isometry.types import Embeddings, Role, Similarity, Space, check_vectors, id_array


def encode(encoder: Any, texts: Sequence[str], role: Role, ids: Iterable[str] | None = None) -> Embeddings:
    """Encode texts with an `isometry.protocols.Encoder` or a ``SentenceTransformer``.

    Parameters
    ----------
    encoder
        Has ``encode_query`` and ``encode_document``, one vector per text.
    texts
        At least one.
    role
        Which of the two methods is used.
    ids
        Default: "0", "1", ...

    Raises
    ------
    EmptyInput
        If there is no text.
    InputError
        If the encoder gives several vectors per text, or NaN or infinity.
    """
    if not len(texts):
        raise EmptyInput(f"There are no texts to encode as {role}.")
    method = encoder.encode_query if role == "query" else encoder.encode_document
    output = method(list(texts))
    names = id_array(map(str, range(len(texts))) if ids is None else ids)
    if np.ndim(output[0]) != 1:
        raise InputError(f"{system_name(encoder)} gives several vectors per text; score a pipeline that ranks by them.")
    vectors = check_vectors(output, what=f"Vectors of {system_name(encoder)}")
    return Embeddings(vectors, names, _space(encoder, vectors.shape[1]), role=role)


def encode_pairs(encoder: Any, left: Sequence[str], right: Sequence[str], role: Role) -> tuple[Embeddings, Embeddings]:
    """Encode two aligned lists, each distinct text once."""
    distinct = {text: i for i, text in enumerate(dict.fromkeys([*left, *right]))}
    emb = encode(encoder, list(distinct), role)
    return emb.take([distinct[text] for text in left]), emb.take([distinct[text] for text in right])


def row_similarity(left: Embeddings, right: Embeddings, how: Similarity | None = None) -> NDArray[np.float64]:
    """Similarity of row i of ``left`` with row i of ``right``, float64 ``[n]``; higher is nearer.

    Cosine (0 where a vector is 0), dot product, or negative Euclidean distance; default: the space's own.
    """
    how = left.space.similarity if how is None else how
    if how not in ("cosine", "dot", "euclidean"):
        raise InputError(f"Pairs are compared by cosine, dot or euclidean similarity, not by {how!r}.")
    a, b = left.vectors.astype(np.float64), right.vectors.astype(np.float64)
    if how == "euclidean":
        return cast("NDArray[np.float64]", -np.linalg.norm(a - b, axis=1))
    dots = np.einsum("nd,nd->n", a, b)
    if how == "cosine":
        norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        dots = np.divide(dots, norms, out=np.zeros_like(dots), where=norms > 0)
    return cast("NDArray[np.float64]", dots)


def system_name(system: Any) -> str:
    """Name of a system for reports: its space's, its model's or its class's."""
    space = getattr(system, "space", None)
    return space.name if isinstance(space, Space) else type(system).__name__


def _space(encoder: Any, dim: int) -> Space:
    space = getattr(encoder, "space", None)
    if isinstance(space, Space):
        return space
    how = getattr(encoder, "similarity_fn_name", None) or "cosine"
    return Space(system_name(encoder), dim, similarity=cast(Similarity, str(how)), normalized=False)
