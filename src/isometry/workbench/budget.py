"""How long something may take, as people write it, and how many steps that allows."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable
from pathlib import Path

from isometry.errors import InputError
from isometry.files import write_whole

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


def settled_steps(folder: Path, settle: Callable[[], int]) -> int:
    """Return the steps settled for the unfinished run in ``folder``; settle and note them where there are none.

    What a budget allows differs from moment to moment; a run that goes on must not change its length.
    """
    kept = folder / "settings.json"
    if kept.is_file():
        return int(json.loads(kept.read_text())["steps"])
    steps = settle()
    write_whole(kept, json.dumps({"steps": steps}).encode())
    return steps


def seconds_each(run: Callable[[int], object]) -> float:
    """Return the seconds of one step of ``run(steps)``, less what it spends once: runs 1 step, then 3."""
    spent = list[float]()
    for steps in (1, 3):
        begun = time.perf_counter()
        run(steps)
        spent.append(time.perf_counter() - begun)
    return max(1e-3, (spent[1] - spent[0]) / 2)
