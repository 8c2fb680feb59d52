"""How late the arm follows its commands: the time shift that best lays the measured path over the commanded one."""

from __future__ import annotations

import numpy as np

_LATEST_S = 1.0
_EARLIEST_S = 0.2
_LEAST_RANGE = 0.05
"""An episode whose fastest axis covers less of its range says nothing about lag."""

_LEAST_FRAMES = 5
"""Of a path and a shifted one that are compared."""

_FIT = 0.2
"""A shift explains the path only where it leaves at most this share of its variance."""


def following_lags(
    state: np.ndarray,
    action: np.ndarray,
    starts: np.ndarray,
    owner: np.ndarray,
    spans: np.ndarray,
    rate_hz: float,
) -> np.ndarray:
    """(E,) float64 seconds by which states follow actions; negative where they lead, NaN where it cannot be told.

    Of each episode the axis whose command covers most of its range is looked at. The variance of the difference, not
    its size, is made smallest, so that a constant offset (a sagging joint, a calibration) does no harm; of equally
    good shifts the smallest counts.

    Args:
        state, action: (A, N) axis values of E episodes, one after the other.
        starts: (E,) first row of each episode.
        owner: (N,) which episode a row belongs to.
        spans: (A,) range of each axis, axis units.
    """
    command, measured, covered = _widest_axis(state, action, starts, owner, spans)
    variance = _spread(command, np.ones(len(command), bool), starts)
    shifts = sorted(range(-round(_EARLIEST_S * rate_hz), round(_LATEST_S * rate_hz) + 1), key=abs)
    if np.isfinite(command).all() and np.isfinite(measured).all():
        left = _left_over_at(command, measured, starts, shifts)
    else:
        left = np.stack([_left_over(command, measured, owner, starts, shift) for shift in shifts])
    smallest = left.min(axis=0)
    best = np.array(shifts)[(left <= 1.05 * smallest + 1e-7).argmax(axis=0)] / rate_hz
    unknown = (covered < _LEAST_RANGE) | ~(smallest <= _FIT * variance)
    return np.where(unknown, np.nan, best)


def _widest_axis(
    state: np.ndarray, action: np.ndarray, starts: np.ndarray, owner: np.ndarray, spans: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Command (N,) and measured (N,) of each episode's widest axis, as fractions of its range, and its cover (E,)."""
    covered = np.maximum.reduceat(action, starts, axis=1) - np.minimum.reduceat(action, starts, axis=1)
    covered = np.nan_to_num(covered / spans[:, None])
    axis = covered.argmax(axis=0)
    chosen = axis[owner]
    rows = np.arange(len(owner))
    scale = spans[chosen].astype(np.float32)
    return action[chosen, rows] / scale, state[chosen, rows] / scale, covered.max(axis=0)


def _left_over_at(
    command: np.ndarray, measured: np.ndarray, starts: np.ndarray, shifts: list[int]
) -> np.ndarray:
    """`_left_over` at every shift, (S, E), of finite values: Σ(m − c)² is Σm² + Σc² − 2Σmc, and but for Σmc sums over
    part of an episode are differences of running sums. A fifth of the cost."""
    rows = np.diff([*starts, len(command)])
    command, measured = (_centred(values, starts, rows) for values in (command, measured))
    sums = [_running_sum(values) for values in (command, measured, command * command, measured * measured)]
    product = np.zeros(len(command) + 1)
    left = np.full((len(shifts), len(starts)), np.inf)
    for found, shift in zip(left, shifts, strict=True):
        told = rows - abs(shift) >= _LEAST_FRAMES
        count = (rows - abs(shift))[told]
        of_command, of_measured = starts[told] + max(0, -shift), starts[told] + max(0, shift)
        length = max(0, len(command) - abs(shift))
        ahead, behind = command[max(0, -shift) :][:length], measured[max(0, shift) :][:length]
        np.multiply(ahead, behind, out=product[:length])
        edges = np.column_stack([starts[told], starts[told] + count]).reshape(-1)
        common = np.add.reduceat(product, edges)[::2] if len(edges) else np.zeros(0)
        begins = (of_command, of_measured) * 2
        one, other, one_square, other_square = (
            (total[begin + count] - total[begin]) / count for total, begin in zip(sums, begins, strict=True)
        )
        found[told] = one_square + other_square - 2 * common / count - (other - one) ** 2
    return np.maximum(left, 0)


def _centred(values: np.ndarray, starts: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Less each episode's mean, in float64."""
    values = values.astype(np.float64)
    return values - np.repeat(np.add.reduceat(values, starts) / rows, rows)


def _running_sum(values: np.ndarray) -> np.ndarray:
    """(N + 1,) the sum of all values before each place."""
    return np.concatenate([[0.0], np.cumsum(values)])


def _left_over(
    command: np.ndarray, measured: np.ndarray, owner: np.ndarray, starts: np.ndarray, shift: int
) -> np.ndarray:
    """(E,) variance of the measured path, `shift` frames later, about the commanded one; inf for too few frames."""
    count = len(owner)
    early, late = max(0, -shift), max(0, shift)
    length = max(0, count - abs(shift))
    difference = np.zeros(count, np.float32)
    valid = np.zeros(count, bool)
    difference[:length] = measured[late : late + length] - command[early : early + length]
    valid[:length] = owner[late : late + length] == owner[early : early + length]
    return _spread(difference, valid & np.isfinite(difference), starts, least=_LEAST_FRAMES)


def _spread(values: np.ndarray, valid: np.ndarray, starts: np.ndarray, least: int = 1) -> np.ndarray:
    """(E,) variance of the valid rows of each episode; inf where fewer than `least` are."""
    kept = np.where(valid, values, 0).astype(np.float64)
    number = np.add.reduceat(valid.astype(np.int64), starts)
    mean = np.add.reduceat(kept, starts) / np.maximum(number, 1)
    square = np.add.reduceat(kept * kept, starts) / np.maximum(number, 1)
    return np.where(number < least, np.inf, np.maximum(square - mean * mean, 0))
