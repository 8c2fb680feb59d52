"""Charts as SVG text, in the style of our pages."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = ("#2b5d8a", "#c2653a", "#3a8a5f", "#8a5fa8", "#b09020", "#5a6470", "#b04a6a", "#4a9aa8")


def line_chart(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    x_label: str,
    y_label: str,
    log_y: bool = False,
    size: tuple[float, float] = (6.4, 3.4),
) -> str:
    """Named (x, y) series in one chart; returns SVG text. Long noisy series get a running mean drawn over them."""
    figure, axes = _new(size)
    for index, (name, (x, y)) in enumerate(series.items()):
        colour = _COLOURS[index % len(_COLOURS)]
        smooth = _running_mean(np.asarray(y, dtype=float))
        if smooth is None:
            axes.plot(x, y, color=colour, label=name, linewidth=1.6)
        else:
            axes.plot(x, y, color=colour, alpha=0.22, linewidth=0.8)
            axes.plot(x, smooth, color=colour, label=name, linewidth=1.8)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    if log_y:
        axes.set_yscale("log")
    if len(series) > 1:
        axes.legend(frameon=False, fontsize=8, loc="best")
    return _svg(figure)


def band_chart(x: np.ndarray, tracks: Mapping[str, np.ndarray], x_label: str, y_label: str) -> str:
    """Several quantities over time, each an array (episodes, T): median line and 10–90 % band; returns SVG text."""
    figure, axes = _new((6.4, 3.4))
    for index, (name, values) in enumerate(tracks.items()):
        colour = _COLOURS[index % len(_COLOURS)]
        low, middle, high = np.nanpercentile(values, [10, 50, 90], axis=0)
        axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.plot(x, middle, color=colour, linewidth=1.6, label=name)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.legend(frameon=False, fontsize=8, ncols=2, loc="best")
    return _svg(figure)


def success_chart(rows: Sequence[tuple[str, float, float, float]]) -> str:
    """Horizontal bars of success rates with confidence whiskers: rows of (label, rate, low, high); returns SVG text."""
    figure, axes = _new((6.4, 0.5 * len(rows) + 0.9))
    for place, (_, rate, low, high) in enumerate(rows):
        axes.barh(place, 100 * rate, color=_COLOURS[0] if place == 0 else "#b8bcc4", height=0.55)
        axes.plot([100 * low, 100 * high], [place, place], color="#23262d", linewidth=1.2)
    axes.set_yticks(range(len(rows)), [row[0] for row in rows])
    axes.set_xlim(0, 100)
    axes.set_xlabel("success, % (whiskers: Wilson 95 % interval)")
    axes.invert_yaxis()
    return _svg(figure)


def histogram_chart(
    groups: Mapping[str, Sequence[float] | np.ndarray],
    x_label: str,
    bins: int = 30,
    y_label: str = "episodes",
) -> str:
    """How often each value occurs, one outlined histogram per group over common bins; returns SVG text."""
    figure, axes = _new((4.9, 2.8))
    edges = np.histogram_bin_edges(np.concatenate([np.asarray(values) for values in groups.values()]), bins)
    for index, (name, values) in enumerate(groups.items()):
        colour = _COLOURS[index % len(_COLOURS)]
        counts, _ = np.histogram(values, edges)
        axes.stairs(counts, edges, color=colour, fill=True, alpha=0.18)
        axes.stairs(counts, edges, color=colour, linewidth=1.4, label=name)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    if len(groups) > 1:
        axes.legend(frameon=False, fontsize=8, loc="best")
    return _svg(figure)


def change_chart(rows: Sequence[tuple[str, float, float]], x_label: str) -> str:
    """Two bars a row, before (pale) and after: rows of (label, before, after); returns SVG text."""
    figure, axes = _new((4.9, 0.3 * len(rows) + 0.9))
    places = np.arange(len(rows))
    for shift, values, colour, name in (
        (-0.19, [row[1] for row in rows], "#c9ccd3", "before"),
        (0.19, [row[2] for row in rows], _COLOURS[0], "after"),
    ):
        axes.barh(places + shift, values, color=colour, height=0.36, label=name)
    axes.set_yticks(places, [row[0] for row in rows])
    axes.set_xlabel(x_label)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color="#ece9e2", linewidth=0.8)
    axes.invert_yaxis()
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    return _svg(figure)


def density_chart(points: np.ndarray, x_label: str, y_label: str) -> str:
    """Where (N, 2) points lie, in hexagons shaded by their number, both axes to one scale; returns SVG text."""
    figure, axes = _new((4.6, 4.0))
    spread = max(float(np.ptp(points, axis=0).max()), 1e-3)
    middle = (points.min(axis=0) + points.max(axis=0)) / 2
    (left, below), (right, above) = middle - 0.55 * spread, middle + 0.55 * spread
    extent = (float(left), float(right), float(below), float(above))
    axes.hexbin(points[:, 0], points[:, 1], gridsize=36, mincnt=1, cmap="Blues", bins="log", extent=extent)
    axes.set_aspect("equal")
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    return _svg(figure)


def range_chart(rows: Sequence[tuple[str, float, float, float, float]]) -> str:
    """Bars within bars: rows of (label, least, 1 %, 99 %, most) on a scale of 0 to 1; returns SVG text."""
    figure, axes = _new((6.4, 0.3 * len(rows) + 0.9))
    for place, (_, least, low, high, most) in enumerate(rows):
        axes.barh(place, 1.0, color="#ece9e2", height=0.62)
        axes.barh(place, high - low, left=low, color=_COLOURS[0], height=0.62)
        axes.plot([least, most], [place, place], color="#23262d", linewidth=1.2)
    axes.set_yticks(range(len(rows)), [row[0] for row in rows])
    axes.set_xlim(min(0.0, *(row[1] for row in rows)), max(1.0, *(row[4] for row in rows)))
    axes.set_xlabel("share of the axis' range (bar: 1–99 %, line: lowest to highest)")
    axes.invert_yaxis()
    return _svg(figure)


def _new(size: tuple[float, float]):
    """A bare Figure (no pyplot, no global state) with our look."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#c8c6c0")
    axes.tick_params(colors="#6a6f7a", labelsize=8)
    axes.grid(axis="y", color="#ece9e2", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.xaxis.label.set_fontsize(9)
    axes.yaxis.label.set_fontsize(9)
    return figure, axes


def _svg(figure: Figure) -> str:
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "blm", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _running_mean(values: np.ndarray, least: int = 60) -> np.ndarray | None:
    """Centred running mean over 1/20 of a long series; None for a short one."""
    if len(values) < least:
        return None
    half = len(values) // 40 + 1
    sums = np.concatenate([[0.0], np.cumsum(values)])
    low = np.maximum(np.arange(len(values)) - half, 0)
    high = np.minimum(np.arange(len(values)) + half + 1, len(values))
    return (sums[high] - sums[low]) / (high - low)
