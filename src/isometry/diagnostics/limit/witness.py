"""Explicit vectors that return every k-subset in 2k dimensions: what a search for vectors may fail to find exists."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from isometry.errors import InputError


def moment_curve(n: int, k: int) -> NDArray[np.float64]:
    """Return n points of the trigonometric moment curve, unit rows float64 ``[n, 2k]``.

    Row j is ``(cos t, sin t, ..., cos kt, sin kt) / sqrt(k)`` with ``t = 2 pi j / n`` (Carathéodory; the vertices of
    a cyclic polytope, see Gale 1963).
    """
    if n < 1 or k < 1:
        raise InputError(f"n and k must be at least 1, got {n} and {k}.")
    angles = 2 * np.pi * np.arange(n)[:, None] / n * np.arange(1, k + 1)
    points: NDArray[np.float64] = np.stack([np.cos(angles), np.sin(angles)], axis=2).reshape(n, 2 * k) / np.sqrt(k)
    return points


def subset_queries(subsets: NDArray[np.int64], n: int) -> NDArray[np.float64]:
    """Queries whose k best documents on `moment_curve` are exactly the given rows, unit rows float64 ``[m, 2k]``.

    The trigonometric polynomial ``-prod over s of (1 - cos(t - t_s))`` is 0 at the documents of a subset and negative
    everywhere else; its Fourier coefficients of degree 1 to k are the query, and its constant moves all scores alike.
    The gap to the next document shrinks like ``n ** (-2 k)`` at worst: exact arithmetic ranks any n, a float type does
    not.

    Parameters
    ----------
    subsets
        int ``[m, k]``, distinct rows of documents each.
    n
        Documents.

    Examples
    --------
    >>> from itertools import combinations
    >>> pairs = np.asarray(list(combinations(range(20), 2)))
    >>> best = np.argsort(-subset_queries(pairs, 20) @ moment_curve(20, 2).T)[:, :2]
    >>> bool((np.sort(best) == pairs).all())
    True
    """
    chosen = np.atleast_2d(np.asarray(subsets, np.int64))
    k = chosen.shape[1]
    if chosen.min(initial=0) < 0 or chosen.max(initial=0) >= n or any(len(set(row)) < k for row in chosen.tolist()):
        raise InputError(f"every subset must hold {k} distinct rows of 0..{n - 1}.")
    phases = np.exp(2j * np.pi * chosen / n)
    coefficients = np.ones((len(chosen), 1), complex)  # of exp(i l t), l = -j..j after j factors
    for factor in phases.T:
        grown = np.zeros((len(chosen), coefficients.shape[1] + 2), complex)
        grown[:, :-2] -= 0.5 * factor[:, None] * coefficients
        grown[:, 1:-1] += coefficients
        grown[:, 2:] -= 0.5 * factor.conj()[:, None] * coefficients
        coefficients = grown
    positive = -2 * coefficients[:, k + 1 :]  # a_l - i b_l of cos lt and sin lt
    queries = np.stack([positive.real, -positive.imag], axis=2).reshape(len(chosen), 2 * k)
    result: NDArray[np.float64] = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    return result
