"""What normalisation needs: exact per-axis statistics of each embodiment's training frames, as packed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from blm.schemas.embodiment import Embodiment
from blm.schemas.manifest import AxisStatistics, EmbodimentStatistics

_DIGITS = 10
"""Significant digits kept: below float32's own error, and no digit that depends on the machine's summation."""


def axis_statistics(values: np.ndarray) -> AxisStatistics:
    """Statistics of (N, A) float32 values, axis units, computed in float64, one axis at a time.

    `std` divides by N; `q01` and `q99` are exact, interpolated linearly. Memory: 8 N bytes besides the values.
    """
    columns: dict[str, list[float]] = {name: [] for name in ("mean", "std", "min", "max", "q01", "q99")}
    for axis in range(values.shape[1]):
        column = values[:, axis].astype(np.float64)
        low, high = np.quantile(column, [0.01, 0.99])
        found = (column.mean(), column.std(), column.min(), column.max(), low, high)
        for name, value in zip(columns, found, strict=True):
            columns[name].append(float(f"{value:.{_DIGITS}g}"))
    return AxisStatistics(count=len(values), **{name: tuple(column) for name, column in columns.items()})


def embodiment_statistics(
    embodiment: Embodiment,
    rate_hz: float,
    cameras: Sequence[str],
    segments: Iterable[tuple[np.ndarray, np.ndarray]],
) -> EmbodimentStatistics:
    """Statistics over the (states, actions) of training samples, each (T, A) float32."""
    states, actions = zip(*segments, strict=True)
    return EmbodimentStatistics(
        axis_names=embodiment.axis_names,
        gripper_index=embodiment.gripper_index,
        rate_hz=rate_hz,
        cameras=tuple(cameras),
        state=axis_statistics(np.concatenate(states)),
        action=axis_statistics(np.concatenate(actions)),
    )
