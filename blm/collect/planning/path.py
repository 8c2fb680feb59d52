"""Geometric paths: straight segments joined into one smooth curve, and ways around what is in between.

A path is a polyline of configurations (model coordinates of every axis) whose corners are rounded, turned into a
uniform cubic B-spline. Its second derivative is continuous, so that a jerk-limited progress along it is jerk-limited
in every axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import factorial

import numpy as np

_PIECE_S = 0.04
_BASIS = np.array([[1, 4, 1, 0], [-3, 0, 3, 0], [3, -6, 3, 0], [-1, 3, -3, 1]]) / 6.0


@dataclass(frozen=True)
class SmoothPath:
    """A uniform cubic B-spline with control points `controls` (n + 3, C); its parameter runs over 0..n.

    The first and last control points are placed so that the curve starts and ends exactly at the polyline's ends.
    One unit of the parameter takes `pace_s` seconds at full speed.
    """

    controls: np.ndarray
    pace_s: float

    @classmethod
    def through(cls, points: np.ndarray, pace_s: float) -> SmoothPath:
        """From evenly paced points (n + 1, C), n ≥ 1, which it follows closely and whose ends it meets."""
        before, after = 2 * points[:1] - points[1:2], 2 * points[-1:] - points[-2:-1]
        return cls(np.concatenate([before, points, after]), pace_s)

    @property
    def length(self) -> float:
        """Upper end of the parameter."""
        return float(len(self.controls) - 3)

    def at(self, parameters: np.ndarray, order: int = 0) -> np.ndarray:
        """Points, or with `order` 1..3 derivatives by the parameter, (N, C) at `parameters` (N,)."""
        piece = np.clip(np.floor(parameters).astype(int), 0, len(self.controls) - 4)
        u = np.asarray(parameters) - piece
        powers = np.zeros((len(u), 4))
        for power in range(order, 4):
            powers[:, power] = factorial(power) / factorial(power - order) * u ** (power - order)
        neighbours = self.controls[piece[:, None] + np.arange(4)]
        return np.einsum("nk,nkc->nc", powers @ _BASIS, neighbours)


def smooth(
    points: np.ndarray, paces: np.ndarray, acceleration: np.ndarray, blend_s: float = 0.0
) -> SmoothPath:
    """Round the corners of a polyline and slow it down where it bends.

    Args:
        points: (m, C), m ≥ 2.
        paces: (m − 1,) seconds each piece takes at full speed.
        acceleration: (K,) limits of the first K ≤ C columns, per s²; bends are paced so that half of it suffices.
        blend_s: how far before and after a corner the rounding reaches, in seconds at full speed.
    """
    even, step = _resample(points, paces)
    if blend_s > 0:
        even = _blend(even, max(1, round(blend_s / step)))
        even, step = _resample(even, step * _slowdown(even, step, acceleration))
    return SmoothPath.through(even, step)


def joint_paces(points: np.ndarray, velocity: np.ndarray) -> np.ndarray:
    """Seconds (m − 1,) each piece of a polyline (m, C) takes with its slowest axis at `velocity` (K,), K ≤ C."""
    return np.max(np.abs(np.diff(points[:, : len(velocity)], axis=0)) / velocity, axis=1)


def _resample(points: np.ndarray, paces: np.ndarray) -> tuple[np.ndarray, float]:
    """Points (n + 1, C), n ≥ 4, spaced evenly in time along a polyline, and that spacing in seconds."""
    times = np.concatenate([[0.0], np.cumsum(np.maximum(paces, 1e-9))])
    count = max(4, int(np.ceil(times[-1] / _PIECE_S)))
    wanted = np.linspace(0.0, times[-1], count + 1)
    even = np.stack([np.interp(wanted, times, column) for column in points.T], axis=1)
    return even, float(times[-1] / count)


def _blend(points: np.ndarray, reach: int) -> np.ndarray:
    """Smooth with a triangular window of `reach` points to each side; ends and end tangents stay."""
    reach = min(reach, (len(points) - 1) // 2)
    window = np.concatenate([np.arange(1, reach + 2), np.arange(reach, 0, -1)]).astype(float)
    window /= window.sum()
    head = 2 * points[0] - points[reach:0:-1]
    tail = 2 * points[-1] - points[-2 : -reach - 2 : -1]
    padded = np.concatenate([head, points, tail])
    return np.stack([np.convolve(column, window, mode="valid") for column in padded.T], axis=1)


def _slowdown(points: np.ndarray, step: float, acceleration: np.ndarray) -> np.ndarray:
    """Factors ≥ 1 (n,) by which the pieces between evenly paced points (n + 1, C) should take longer."""
    columns = points[:, : len(acceleration)]
    bend = np.zeros(len(points))
    bend[1:-1] = np.max(np.abs(np.diff(columns, n=2, axis=0)) / step**2 / (0.5 * acceleration), axis=1)
    factor = np.sqrt(np.maximum(bend, 1.0))
    spread = _spread(factor, reach=3)
    return 0.5 * (spread[1:] + spread[:-1])


def _spread(values: np.ndarray, reach: int) -> np.ndarray:
    """The largest of the neighbours within `reach`, then averaged over them, so that pace changes gently."""
    padded = np.pad(values, 2 * reach, mode="edge")
    largest = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1).max(axis=1)
    return np.lib.stride_tricks.sliding_window_view(largest, 2 * reach + 1).mean(axis=1)
