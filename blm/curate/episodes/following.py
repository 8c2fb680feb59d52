"""How late the arm follows its commands: the time shift that best lays the measured path over the commanded one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_LATEST_S = 1.0
_EARLIEST_S = 0.2
_LEAST_RANGE = 0.05
"""An episode whose fastest axis covers less of its range says nothing about lag."""

_LEAST_FRAMES = 5
"""Of a path and a shifted one that are compared."""

_FIT = 0.2
"""A shift explains the path only where it leaves at most this share of its variance."""

_FARTHEST = 1e3
"""Ranges of an axis. Running sums go over all episodes: one that jumps farther would take the others' precision."""


def following_lags(
    state: np.ndarray,
    action: np.ndarray,
    starts: np.ndarray,
    spans: np.ndarray,
    rate_hz: float,
    axes: Sequence[int],
) -> np.ndarray:
    """(E,) float64 seconds by which states follow actions; negative where they lead, NaN where it cannot be told.

    Of each episode that of the given axes is looked at whose command covers most of its range. The variance of the
    difference, not its size, is made smallest, so that a constant offset (a sagging joint, a calibration) does no harm;
    of equally good shifts the smallest counts.

    Args:
        state, action: (A, N) axis values of E episodes, one after the other.
        starts: (E,) first row of each episode.
        spans: (A,) range of each axis, axis units.
        axes: those that are expected to follow.
    """
    axis, covered = _widest_axis(action, starts, spans, axes)
    rows = np.diff([*starts, action.shape[1]])
    command, measured = (
        _centred(_of_axis(values, axis, spans, starts), starts, rows) for values in (action, state)
    )
    variance = np.add.reduceat(command**2, starts) / rows
    shifts = np.array(sorted(range(-round(_EARLIEST_S * rate_hz), round(_LATEST_S * rate_hz) + 1), key=abs))
    left = _left_over(command, measured, starts, shifts)
    smallest = left.min(axis=0)
    best = shifts[(left <= 1.05 * smallest + 1e-7).argmax(axis=0)] / rate_hz
    unknown = (covered < _LEAST_RANGE) | ~(smallest <= _FIT * variance)
    return np.where(unknown, np.nan, best)


def _widest_axis(
    action: np.ndarray, starts: np.ndarray, spans: np.ndarray, axes: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """(E,) the axis whose command covers most of its range in an episode, and (E,) how much of it."""
    ranges = [
        np.maximum.reduceat(action[axis], starts) - np.minimum.reduceat(action[axis], starts) for axis in axes
    ]
    covered = np.nan_to_num(np.array(ranges) / spans[list(axes), None])
    return np.array(axes)[covered.argmax(axis=0)], covered.max(axis=0)


def _of_axis(values: np.ndarray, axis: np.ndarray, spans: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """(N,) of (A, N) values, each episode's own axis, as fractions of its range."""
    ends = [*starts[1:], values.shape[1]]
    chosen = [values[one, begin:end] for one, begin, end in zip(axis, starts, ends, strict=True)]
    return np.concatenate(chosen) / np.repeat(spans[axis].astype(np.float32), np.subtract(ends, starts))


def _left_over(
    command: np.ndarray, measured: np.ndarray, starts: np.ndarray, shifts: np.ndarray
) -> np.ndarray:
    """(S, E) variance of the measured path, so many frames later, about the commanded one; inf for too few frames, and
    where an episode has values that are not finite or too far off. Both are (N,) float64, about each episode's mean.

    Σ(m − c)² is Σm² + Σc² − 2Σmc, and but for Σmc sums over part of an episode are differences of running sums, which
    takes a fifth of the time that sums of differences do.
    """
    rows = np.diff([*starts, len(command)])
    usable = _within(command, starts) & _within(measured, starts)
    if not usable.all():
        command, measured = (np.where(np.repeat(usable, rows), values, 0) for values in (command, measured))
    later, count = shifts[:, None], rows - np.abs(shifts)[:, None]
    told = usable & (count >= _LEAST_FRAMES)
    count = np.where(told, count, 1)
    of_command, of_measured = (np.where(told, starts + np.maximum(0, late), 0) for late in (-later, later))
    one, other, one_square, other_square = (
        (total[begin + count] - total[begin]) / count
        for total, begin in (
            (_running_sum(command), of_command),
            (_running_sum(measured), of_measured),
            (_running_sum(command * command), of_command),
            (_running_sum(measured * measured), of_measured),
        )
    )
    common = _common(command, measured, starts, shifts) / count
    left = one_square + other_square - 2 * common - (other - one) ** 2
    return np.where(told, np.maximum(left, 0), np.inf)


def _common(command: np.ndarray, measured: np.ndarray, starts: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """(S, E) sums of the products of each episode's command with what was measured so many frames later."""
    early, late = max(0, -shifts.min()), max(0, shifts.max())
    ends = [*starts[1:], len(command)]
    found = np.empty((len(starts), early + late + 1))
    among_zeros = np.zeros(early + max(np.subtract(ends, starts)) + late)
    for row, begin, end in zip(found, starts.tolist(), ends, strict=True):
        after = early + end - begin
        among_zeros[early:after] = measured[begin:end]
        among_zeros[after:] = 0
        row[:] = np.correlate(among_zeros[: after + late], command[begin:end], "valid")
    return found[:, shifts + early].T


def _centred(values: np.ndarray, starts: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Less each episode's mean, in float64."""
    values = values.astype(np.float64)
    return values - np.repeat(np.add.reduceat(values, starts) / rows, rows)


def _within(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """(E,) bool: all of an episode's values are numbers of a size that an axis can have."""
    return np.maximum.reduceat(np.abs(values), starts) <= _FARTHEST


def _running_sum(values: np.ndarray) -> np.ndarray:
    """(N + 1,) the sum of all values before each place."""
    return np.concatenate([[0.0], np.cumsum(values)])
