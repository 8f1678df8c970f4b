"""Corrections of p-values for many comparisons."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from isometry.errors import InputError

FloatVector = NDArray[np.float64]


def holm(p: Iterable[float]) -> FloatVector:
    """Adjust p-values by Holm's step-down procedure, which bounds the chance of any false finding.

    Holm (1979), "A simple sequentially rejective multiple test procedure".

    Parameters
    ----------
    p
        p-values ``[m]``.

    Returns
    -------
    numpy.ndarray
        Adjusted p-values, float64 ``[m]``, in the order given.

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    values = _p_values(p)
    order = np.argsort(values, kind="stable")
    stepped = values[order] * np.arange(len(values), 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return adjusted


def benjamini_hochberg(p: Iterable[float]) -> FloatVector:
    """Adjust p-values by the Benjamini-Hochberg step-up procedure, which bounds the share of false findings.

    Benjamini and Hochberg (1995); holds for independent or positively dependent tests.

    Parameters
    ----------
    p
        p-values ``[m]``.

    Returns
    -------
    numpy.ndarray
        Adjusted p-values, float64 ``[m]``, in the order given.

    Examples
    --------
    >>> benjamini_hochberg([0.25, 0.5, 0.125, 0.125]).round(3).tolist()
    [0.333, 0.5, 0.25, 0.25]
    """
    values = _p_values(p)
    m = len(values)
    order = np.argsort(values, kind="stable")[::-1]
    stepped = values[order] * m / np.arange(m, 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum.accumulate(np.minimum(stepped, 1.0))
    return adjusted


def _p_values(p: Iterable[float]) -> FloatVector:
    values = np.asarray(list(p), dtype=np.float64)
    if values.ndim != 1 or not ((values >= 0) & (values <= 1)).all():
        raise InputError("p-values must be a list of numbers between 0 and 1.")
    return values
