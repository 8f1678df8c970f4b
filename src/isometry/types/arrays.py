"""Array types, and the checks every array passes on its way in or out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from isometry.errors import DimensionMismatch, InputError

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]
Json = Any
Real = TypeVar("Real", bound=np.floating[Any])

REACH: Final = 1e18  # lengths whose squares float32 still holds; below the inverse, squares vanish


def check_vectors(vectors: Any, *, dim: int | None = None, what: str = "vectors") -> FloatArray:
    """Return ``vectors`` as contiguous float32 ``[n, d]``.

    Raises
    ------
    DimensionMismatch
        If the array is not of numbers, not two-dimensional, not ``dim`` wide, or holds NaN or infinity.
    """
    try:
        array = np.ascontiguousarray(vectors, dtype=np.float32)
    except (ValueError, TypeError) as error:
        raise DimensionMismatch(f"{what} must be a matrix [n, d] of numbers ({error}).") from error
    if array.ndim != 2:
        raise DimensionMismatch(f"{what} must be a matrix [n, d], got an array of shape {array.shape}.")
    if dim is not None and array.shape[1] != dim:
        raise DimensionMismatch(f"{what} must be {dim} wide, got {array.shape[1]}.")
    with np.errstate(invalid="ignore"):
        total = array.sum(dtype=np.float64)  # finite unless an element is not: one pass, no temporary
    if not np.isfinite(total):
        row = int(np.flatnonzero(~np.isfinite(array).all(axis=1))[0])
        raise DimensionMismatch(f"{what} hold NaN or infinity (first in row {row}); remove or repair these rows.")
    return array


def check_reach(vectors: FloatArray, what: str = "vectors", *, least: bool = False) -> FloatArray:
    """Return ``vectors`` ``[n, d]`` whose products and squared distances float32 holds.

    Raises
    ------
    InputError
        If a row may be longer than 1e18, or with ``least`` all that are not zero are shorter than 1e-18.
    """
    largest = max(float(vectors.max(initial=0)), -float(vectors.min(initial=0)))
    length = largest * vectors.shape[-1] ** 0.5
    if length > REACH:
        raise InputError(f"{what} hold numbers as large as {largest:.1g}, whose products overflow; scale them down.")
    if least and 0 < length < 1 / REACH:
        raise InputError(f"{what} hold no number above {largest:.1g}, and such products vanish; scale them up.")
    return vectors


def finite(value: Json) -> Json:
    """Return a JSON-able copy of nested values: numpy scalars as Python's, NaN and infinity as None.

    >>> finite({"a": (1.0, float("inf")), "b": np.float32(2)})
    {'a': [1.0, None], 'b': 2.0}
    """
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, np.ndarray):
        return finite(value.tolist())
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value


def id_array(ids: Iterable[str]) -> NDArray[np.object_]:
    """Return ids as an object array of ``str``."""
    values = [str(i) for i in ids]
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def unit(x: NDArray[Real]) -> NDArray[Real]:
    """Return rows ``[..., d]`` scaled to length 1, of the same dtype; a row of zeros stays.

    >>> unit(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6, 0.8], [0.0, 0.0]]
    """
    norms = np.linalg.norm(x, axis=-1, keepdims=True)
    result: NDArray[Real] = np.divide(x, norms, out=np.zeros_like(x), where=norms > 0)
    return result
