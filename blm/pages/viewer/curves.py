"""Columns of numbers as what the page draws: curves of axes, groups of curves, bands and stretches."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

MOST_SERIES = 16
"""In one plot."""


def axis_curves(
    names: Mapping[str, Sequence[str]], values: Mapping[str, np.ndarray], units: Mapping[str, str]
) -> list[dict[str, Any]]:
    """State and action of each axis side by side: paired by name, or by place where they are equally many.

    `values` holds (frames, axes) by kind ('state', 'action'), `names` those of its columns.
    """
    axes: dict[str, dict[str, Any]] = {}
    for kind, columns in paired_names(names).items():
        for number, name in enumerate(columns):
            axis = axes.setdefault(name, {"name": name, "unit": units.get(name, "")})
            axis[kind] = curve(values[kind][:, number])
    return list(axes.values())


def paired_names(names: Mapping[str, Sequence[str]]) -> dict[str, Sequence[str]]:
    """The names under which state and action belong together: the state's for both where they are equally many."""
    paired = dict(names)
    if len(paired) == 2 and len(paired["state"]) == len(paired["action"]):
        paired["action"] = paired["state"]
    return paired


def curve_group(
    title: str, unit: str, names: Sequence[str], values: np.ndarray, keep_constant: bool = False
) -> dict[str, Any]:
    """Columns that share a plot; those that never change say nothing and are left out, unless asked for."""
    moving = [number for number in range(values.shape[1]) if keep_constant or np.ptp(values[:, number]) > 0]
    series = [{"name": names[number], "values": curve(values[:, number])} for number in moving[:MOST_SERIES]]
    return {"title": title, "unit": unit, "series": series}


def bands(track: np.ndarray, labels: Mapping[int, str]) -> list[dict[str, Any]]:
    """Half-open stretches of frames over which `track` (frames,) holds one number, with the number's label."""
    ends = [0, *(np.flatnonzero(np.diff(track)) + 1).tolist(), len(track)]
    return [
        {
            "from": begin,
            "to": end,
            "number": int(track[begin]),
            "label": labels.get(int(track[begin]), ""),
        }
        for begin, end in pairwise(ends)
    ]


def stretches(flags: np.ndarray) -> list[list[int]]:
    """Half-open stretches of frames over which `flags` (frames,) is true."""
    track = np.concatenate([[0], (flags > 0).astype(int), [0]])
    begins, ends = np.flatnonzero(np.diff(track) == 1), np.flatnonzero(np.diff(track) == -1)
    return [[int(begin), int(end)] for begin, end in zip(begins, ends, strict=True)]


def curve(values: np.ndarray) -> list[float | None]:
    """Five significant digits; None where a value is not finite."""
    return [float(f"{value:.5g}") if math.isfinite(value) else None for value in values.tolist()]
