"""The pictures a recipe leaves: curves and bars as data, drawn only when somebody asks for files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from isometry.errors import InputError, MissingExtra
from isometry.files import make_folder

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C564B", "#555555", "#F0E442")
MOST_TICKS = 8
MARKERS = "os^Dv<>Ph*"


@dataclass(frozen=True)
class Plot:
    """One picture: named series over common axes.

    Parameters
    ----------
    title, x_label, y_label
        What the reader sees; name units and the depth of a metric.
    series
        By name, the points ``(x, y)``; for bars ``x`` are categories.
    kind
        ``"line"`` joins the points of a series, ``"scatter"`` does not, ``"bar"`` groups them by category.
    log_x, log_y
        Logarithmic axes.
    """

    title: str
    x_label: str
    y_label: str
    series: Mapping[str, Sequence[tuple[Any, float]]]
    kind: Literal["line", "scatter", "bar"] = "line"
    log_x: bool = False
    log_y: bool = False

    def __post_init__(self) -> None:
        if not self.series or not all(len(points) for points in self.series.values()):
            raise InputError(f"The plot {self.title!r} needs at least one point in every series.")


def write_plots(plots: Mapping[str, Plot], folder: Path, *, suffix: str = "svg") -> list[Path]:
    """Draw each plot to ``<folder>/<name>.<suffix>`` (svg, png or pdf) and return the files.

    Raises
    ------
    MissingExtra
        If matplotlib is not installed.
    InputError
        If the folder cannot be made.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise MissingExtra("matplotlib", "explore") from error
    from matplotlib.figure import Figure

    make_folder(folder)
    files = []
    with matplotlib.rc_context({"svg.hashsalt": "isometry", "font.size": 10, "axes.grid": True, "grid.alpha": 0.3}):
        for name, plot in plots.items():
            figure = Figure(figsize=(7, 4.5), layout="constrained")
            _draw(figure.subplots(), plot)
            target = folder / f"{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}.{suffix}"
            metadata = {"Date": None} if suffix == "svg" else None
            figure.savefig(target, metadata=metadata, dpi=150)
            files.append(target)
    return files


def _draw(axes: Any, plot: Plot) -> None:
    if plot.kind == "bar":
        _bars(axes, plot)
    else:
        for i, (name, points) in enumerate(plot.series.items()):
            x, y = zip(*points, strict=True)
            style = {"linestyle": "" if plot.kind == "scatter" else "-", "marker": MARKERS[i % len(MARKERS)]}
            axes.plot(x, y, label=name, color=COLOURS[i % len(COLOURS)], markersize=5, **style)
    if plot.log_x:
        axes.set_xscale("log")
        values = sorted({x for points in plot.series.values() for x, _ in points})
        if len(values) <= MOST_TICKS:  # few values are named; a logarithmic axis would print powers over each other
            axes.set_xticks(values, [f"{value:g}" for value in values])
            axes.set_xticks([], minor=True)
    if plot.log_y:
        axes.set_yscale("log")
    axes.set(title=plot.title, xlabel=plot.x_label, ylabel=plot.y_label)
    axes.spines[["top", "right"]].set_visible(False)
    if len(plot.series) > 1:
        outside = {"loc": "upper left", "bbox_to_anchor": (1.01, 1)} if len(plot.series) > 4 else {}
        axes.legend(frameon=False, **outside)


def _bars(axes: Any, plot: Plot) -> None:
    categories = list(dict.fromkeys(x for points in plot.series.values() for x, _ in points))
    width = 0.8 / len(plot.series)
    for i, (name, points) in enumerate(plot.series.items()):
        places = [categories.index(x) + (i - (len(plot.series) - 1) / 2) * width for x, _ in points]
        axes.bar(places, [y for _, y in points], width, label=name, color=COLOURS[i % len(COLOURS)])
    long = max(len(str(c)) for c in categories) * len(categories) > 60
    axes.set_xticks(range(len(categories)), [str(c) for c in categories], rotation=30 if long else 0,
                    ha="right" if long else "center")  # fmt: skip
    axes.grid(visible=False, axis="x")
