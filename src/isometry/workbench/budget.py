"""How long something may take, as people write it."""

from __future__ import annotations

import math
import re

from isometry.errors import InputError

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([smh]?)\s*", re.IGNORECASE)


def parse_duration(text: str) -> float:
    """Return seconds of ``90``, ``90s``, ``10m`` or ``1.5h``.

    Raises
    ------
    InputError
        If it is none of these, or 0.

    Examples
    --------
    >>> parse_duration("10m"), parse_duration("1.5h"), parse_duration("45")
    (600.0, 5400.0, 45.0)
    """
    match = _DURATION.fullmatch(text)
    seconds = float(match[1]) * _SECONDS[match[2].lower() or "s"] if match else 0.0
    if not 0 < seconds < math.inf:
        raise InputError(f"A budget is a time such as 90s, 10m or 1.5h, got {text!r}.")
    return seconds
