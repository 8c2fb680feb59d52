"""How late the arm follows its commands: the time shift that best lays the measured path over the commanded one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

_LATEST_S = 1.0
_EARLIEST_S = 0.2
_LEAST_RANGE = 0.05
"""An episode whose fastest axis covers less of its range says nothing about lag."""

_LEAST_FRAMES = 5
"""Of a path and a shifted one that are compared."""

_FIT = 0.2
"""A shift explains the path only where it leaves at most this share of its variance."""

_VALUES_AT_ONCE = 2**17

_FARTHEST = 1e3
"""Ranges of an axis. A path that jumps farther leaves no precision for the rest of it."""


def following_lags(
    state: np.ndarray,
    action: np.ndarray,
    starts: np.ndarray,
    spans: np.ndarray,
    rate_hz: float,
    covered: np.ndarray,
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
        covered: (A, E) how much of its range the command of an axis covers.
        axes: those that are expected to follow.
    """
    of_axes = np.nan_to_num(covered[list(axes)])
    axis, widest = np.array(axes)[of_axes.argmax(axis=0)], of_axes.max(axis=0)
    rows = np.diff([*starts, action.shape[1]])
    command, measured = (
        _centred(_of_axis(values, axis, spans, starts), starts, rows) for values in (action, state)
    )
    variance = np.add.reduceat(command**2, starts) / rows
    usable = (widest >= _LEAST_RANGE) & _within(command, starts) & _within(measured, starts)
    shifts = np.array(sorted(range(-round(_EARLIEST_S * rate_hz), round(_LATEST_S * rate_hz) + 1), key=abs))
    lags = np.full(len(starts), np.nan)
    for some in _alike(np.flatnonzero(usable & (rows >= _LEAST_FRAMES)), rows, len(shifts)):
        commanded, followed = (_padded(values, starts[some], rows[some]) for values in (command, measured))
        left = _left_over(commanded, followed, rows[some], shifts)
        smallest = left.min(axis=1)
        best = shifts[(left <= 1.05 * smallest[:, None] + 1e-7).argmax(axis=1)]
        lags[some] = np.where(smallest <= _FIT * variance[some], best / rate_hz, np.nan)
    return lags


def _alike(episodes: np.ndarray, rows: np.ndarray, shifts: int) -> Iterator[np.ndarray]:
    """Episodes of about the same length together, no more than what is computed of them keeps in the caches."""
    episodes = episodes[np.argsort(rows[episodes], kind="stable")[::-1]]
    while len(episodes):
        some = max(1, _VALUES_AT_ONCE // (int(rows[episodes[0]]) + shifts))
        yield episodes[:some]
        episodes = episodes[some:]


def _padded(values: np.ndarray, starts: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(E, L) of (N,) values: each episode's, and zeros up to the length of the longest."""
    padded = np.zeros((len(starts), rows.max()))
    for row, start, count in zip(padded, starts.tolist(), rows.tolist(), strict=True):
        row[:count] = values[start : start + count]
    return padded


def _of_axis(values: np.ndarray, axis: np.ndarray, spans: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """(N,) of (A, N) values, each episode's own axis, as fractions of its range."""
    ends = [*starts[1:], values.shape[1]]
    chosen = [values[one, begin:end] for one, begin, end in zip(axis, starts, ends, strict=True)]
    return np.concatenate(chosen) / np.repeat(spans[axis].astype(np.float32), np.subtract(ends, starts))


def _left_over(command: np.ndarray, measured: np.ndarray, rows: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """(E, S) variance of the measured path, so many frames later, about the commanded one; inf for too few frames. Both
    are (E, L) float64, the first `rows` (E,) of each with a mean of 0, the others 0.

    Σ(m − c)² is Σm² + Σc² − 2Σmc, and but for Σmc sums over part of an episode are differences of running sums, which
    takes a fifth of the time that sums of differences do. They run over each episode by itself: what is found must not
    depend on the others of a batch.
    """
    told = rows[:, None] - np.abs(shifts) >= _LEAST_FRAMES
    count = np.where(told, rows[:, None] - np.abs(shifts), 1)
    of_command, of_measured = (np.where(told, np.maximum(0, later), 0) for later in (-shifts, shifts))
    squares = _sums(command**2, of_command, count) + _sums(measured**2, of_measured, count)
    difference = (_sums(measured, of_measured, count) - _sums(command, of_command, count)) / count
    left = (squares - 2 * _common(command, measured, rows, shifts)) / count - difference**2
    return np.where(told, np.maximum(left, 0), np.inf)


def _sums(values: np.ndarray, begin: np.ndarray, count: np.ndarray) -> np.ndarray:
    """(E, S) of (E, L) values, `count` of them from `begin` on."""
    running = np.zeros((len(values), values.shape[1] + 1))
    np.cumsum(values, axis=1, out=running[:, 1:])
    return np.take_along_axis(running, begin + count, 1) - np.take_along_axis(running, begin, 1)


def _common(command: np.ndarray, measured: np.ndarray, rows: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """(E, S) sums of the products of each episode's command with what was measured so many frames later."""
    early, late = max(0, -shifts.min()), max(0, shifts.max())
    found = np.empty((len(rows), early + late + 1))
    among_zeros = np.pad(measured, ((0, 0), (early, late)))
    for row, one, other, count in zip(found, command, among_zeros, rows.tolist(), strict=True):
        row[:] = np.correlate(other[: early + count + late], one[:count], "valid")
    return found[:, shifts + early]


def _centred(values: np.ndarray, starts: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Less each episode's mean, in float64."""
    values = values.astype(np.float64)
    return values - np.repeat(np.add.reduceat(values, starts) / rows, rows)


def _within(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """(E,) bool: all of an episode's values are numbers of a size that an axis can have."""
    return np.maximum.reduceat(np.abs(values), starts) <= _FARTHEST
