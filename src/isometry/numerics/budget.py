"""Memory budgets: the largest configuration that fits, found by bisection."""

from __future__ import annotations

from collections.abc import Callable

from isometry.errors import InputError


def largest_within(size: Callable[[int], float], low: int, high: int, limit: float) -> int | None:
    """Return the largest knob in ``[low, high]`` whose size is at most ``limit``, or None; ``size`` never falls.

    >>> largest_within(lambda k: k * k, 1, 100, 50)
    7
    """
    if high < low or size(low) > limit:
        return None
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if size(middle) <= limit else (low, middle - 1)
    return low


def smallest_within(size: Callable[[float], float], low: float, high: float, limit: float) -> float | None:
    """Return the smallest real knob in ``[low, high]`` whose size is at most ``limit``, or None; ``size`` never rises.

    >>> round(smallest_within(lambda a: 1 / a, 0.1, 10, 0.5) or 0, 6)
    2.0
    """
    if size(low) <= limit:
        return low
    if size(high) > limit:
        return None
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if size(middle) <= limit else (middle, high)
    return high


class BudgetInfeasible(InputError):
    """No configuration of a method is as small as the budget; ``least`` is the smallest ratio it reaches."""

    def __init__(self, message: str, least: float) -> None:
        self.least = least
        super().__init__(message)


def infeasible(method: str, budget: float, least: float) -> BudgetInfeasible:
    """Return the error of a budget no configuration of the method reaches, naming the range it does reach."""
    return BudgetInfeasible(
        f"The budget {budget:g} is infeasible for {method} on this table: its ratios begin at {least:.4g} "
        f"(feasible: {least:.4g} to {max(1.0, least):.4g}); raise the budget or choose another method.",
        least,
    )
