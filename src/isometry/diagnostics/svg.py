"""Charts as inline SVG text: a scatter map, a histogram, a curve. Colours come from the page's style sheet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from isometry.diagnostics.sphere import Array

_WIDTH, _HEIGHT = 460, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 10, 12, 34


def histogram(values: NDArray[np.generic], label: str, *, bins: int = 40) -> str:
    """Counts of values in equal bins."""
    data = np.asarray(values, np.float64)
    if not len(data):
        return _empty(label)
    low, high = float(data.min()), float(data.max())
    if high - low < 1e-6 * max(abs(low), abs(high), 1e-300):  # rounding is no distribution
        low, high = low - 0.5, high + 0.5
    count = int(min(bins, high - low + 1)) if np.issubdtype(values.dtype, np.integer) else bins
    counts, edges = np.histogram(data, bins=count, range=(low, high))
    x, y = _scale(low, high, _LEFT, _WIDTH - _RIGHT), _scale(0.0, float(counts.max()), _HEIGHT - _BOTTOM, _TOP)
    bars = "".join(
        f'<rect x="{x(a):.1f}" y="{y(c):.1f}" width="{max(x(b) - x(a) - 0.8, 0.6):.1f}" '
        f'height="{_HEIGHT - _BOTTOM - y(c):.1f}"><title>{a:.4g} to {b:.4g}: {c}</title></rect>'
        for a, b, c in zip(edges[:-1], edges[1:], counts, strict=True)
        if c
    )
    return _frame(f'<g class="bars">{bars}</g>', label, (low, high), (0.0, float(counts.max())))


def curve(values: Array, label: str) -> str:
    """Values over their position, counted from 1, on a logarithmic vertical axis; zeros are left out."""
    shown = values[values > values.max(initial=0.0) * 1e-9]
    if not len(shown):
        return _empty(label)
    logs = np.log10(shown)
    low, high = float(logs.min()), float(logs.max())
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    x = _scale(1.0, max(len(shown), 2), _LEFT, _WIDTH - _RIGHT)
    y = _scale(low, high, _HEIGHT - _BOTTOM, _TOP)
    points = " ".join(f"{x(i + 1):.1f},{y(v):.1f}" for i, v in enumerate(logs))
    body = f'<polyline class="curve" points="{points}"/>'
    return _frame(body, label, (1.0, float(max(len(shown), 2))), (10.0**low, 10.0**high))


def scatter(points: Array, shades: Sequence[int], titles: Sequence[str], label: str) -> str:
    """A map of points ``[n, 2]`` with hover titles; ``shades`` 0 to 4 pick a colour."""
    width, height, pad = 960.0, 560.0, 16.0
    span = np.maximum(np.ptp(points, axis=0), 1e-12)
    scale = float(min((width - 2 * pad) / span[0], (height - 2 * pad) / span[1]))
    middle = (points.max(axis=0) + points.min(axis=0)) / 2
    placed = (points - middle) * scale * [1, -1] + [width / 2, height / 2]
    dots = "".join(
        f'<circle class="s{shade}" cx="{x:.1f}" cy="{y:.1f}" r="3.4"><title>{escape(title)}</title></circle>'
        for (x, y), shade, title in zip(placed, shades, titles, strict=True)
    )
    box = f"0 0 {width:.0f} {height:.0f}"
    return f'<svg class="map" viewBox="{box}" role="img" aria-label="{escape(label)}">{dots}</svg>'


def _scale(low: float, high: float, start: float, stop: float) -> Callable[[float], float]:
    """Return the linear map from [low, high] to [start, stop]."""
    slope = (stop - start) / ((high - low) or 1.0)
    return lambda value: start + (value - low) * slope


def _frame(body: str, label: str, x: tuple[float, float], y: tuple[float, float]) -> str:
    base, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    ticks = "".join(
        f'<text x="{_LEFT + part * (right - _LEFT):.0f}" y="{base + 16}" text-anchor="{anchor}">'
        f"{_number(x[0] + part * (x[1] - x[0]))}</text>"
        for part, anchor in ((0.0, "start"), (0.5, "middle"), (1.0, "end"))
    )
    ticks += f'<text x="{_LEFT - 6}" y="{_TOP + 8}" text-anchor="end">{_number(y[1])}</text>'
    ticks += f'<text x="{_LEFT - 6}" y="{base}" text-anchor="end">{_number(y[0])}</text>'
    axis = f'<path class="axis" d="M{_LEFT} {_TOP}V{base}H{right}"/>'
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(label)}">{axis}{body}'
        f'<g class="ticks">{ticks}</g></svg>'
    )


def _number(value: float) -> str:
    """Three digits at most for what is small, whole thousands for what is large: it has to fit beside the axis."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.2g}" if 0 < abs(value) < 1e-3 else f"{value:.3g}"


def _empty(label: str) -> str:
    return f'<p class="none">{escape(label)}: too few vectors to draw.</p>'
