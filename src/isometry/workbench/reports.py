"""What a change did, in the same words everywhere: an improvement is only called one if its interval excludes 0."""

from __future__ import annotations

from typing import Any

from isometry.stats import Comparison


def comparison_dict(c: Comparison) -> dict[str, Any]:
    """Return the JSON form of a comparison of before and after."""
    return {
        "task": c.task, "metric": c.metric, "n": c.n, "before": c.mean_baseline, "after": c.mean_method,
        "delta": c.delta, "ci95": list(c.ci95), "p": c.p,
    }  # fmt: skip


def verdict_of(result: Comparison, baseline: str = "") -> str:
    """Say in one sentence what a change did, against ``baseline`` where that is not simply how it was before."""
    low, high = result.ci95
    against = f" against {baseline}" if baseline else ""
    change = (
        f"{result.metric} {result.mean_baseline:.4f} to {result.mean_method:.4f} "
        f"(95 % interval of the change: {low:+.4f} to {high:+.4f})"
    )
    if low > 0:
        return f"Improved on held-out data{against}: {change}."
    if high < 0:
        return f"Worse on held-out data{against}: {change}."
    return f"No improvement shown on held-out data{against}: {change}; the interval includes 0."
