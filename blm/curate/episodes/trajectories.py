"""A short form of an episode's path, by which paths can be compared without their frames."""

from __future__ import annotations

import numpy as np

POINTS = 64
"""States in a signature, evenly spread over the motion."""


def signatures(
    state: np.ndarray, from_row: np.ndarray, to_row: np.ndarray, spans: np.ndarray, points: int = POINTS
) -> np.ndarray:
    """(E, points × A) float32: states between two rows as fractions of each axis' range, linearly interpolated.

    Point p of axis a stands at `p * A + a`; on and beside what is not finite, or beyond float32, it is NaN.

    Args:
        state: (N, A) axis values.
        from_row, to_row: (E,) first and last row of each episode's motion.
        spans: (A,) range of each axis, axis units.
    """
    share = np.linspace(0, 1, points, dtype=np.float32)
    place = (np.maximum(0, to_row - from_row)[:, None] * share).astype(np.float32)
    before = place.astype(np.int64)
    weight = (place - before).astype(np.float32)[:, :, None]
    before += from_row[:, None]
    after = np.minimum(before + 1, to_row[:, None])
    drawn = state[after]
    low = state[before]
    drawn -= low
    drawn *= weight
    drawn += low
    drawn /= spans.astype(np.float32)
    drawn[~np.isfinite(drawn)] = np.nan
    return drawn.reshape(len(from_row), -1)
