"""Facts about each episode, from its frames: counts, motion, time, how states follow actions, how it ended.

Everything is computed over whole batches of frames at once: an episode is a run of rows, and sums and extremes over
episodes are `reduceat`s. A million frames of fourteen axes take about a third of a CPU second; window functions in SQL
took two for a third of these facts of six axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
import pyarrow as pa

from blm.curate.episodes.content import content_hash
from blm.curate.episodes.following import following_lags
from blm.curate.episodes.frames import Frames
from blm.curate.episodes.trajectories import signatures
from blm.schemas.embodiment import Embodiment

MOTION_WINDOW_S = 0.2
"""Displacement is measured over this long, so that one count of encoder noise does not read as motion."""

JERK_FACTOR = 3.0
"""A command is jerky in a frame where its jerk is this many times the axis' limit."""

_AT_LIMIT = 0.002
"""An axis is at its limit within this fraction of its range."""

_MOVES = 0.1
"""An axis whose counterpart moves by this fraction of its range is expected to move too."""

_ROWS_IN_CACHE = 4096
"""Of fourteen axes and twice over: half a megabyte."""

FACT_FIELDS: tuple[tuple[str, pa.DataType], ...] = (
    ("rows", pa.int64()),
    ("contiguous", pa.bool_()),
    ("finite", pa.bool_()),
    ("ended_well", pa.bool_()),
    ("top_speed", pa.float64()),
    ("moves_from", pa.int64()),
    ("moves_to", pa.int64()),
    ("idle_fraction", pa.float64()),
    ("constant_axes", pa.int64()),
    ("action_jump", pa.float64()),
    ("state_jump", pa.float64()),
    ("velocity_ratio", pa.float64()),
    ("jerky_fraction", pa.float64()),
    ("saturated_s", pa.float64()),
    ("lag_s", pa.float64()),
    ("gripper_range", pa.float64()),
    ("backward_steps", pa.int64()),
    ("longest_gap_periods", pa.float64()),
    ("signature", pa.large_binary()),
    ("identity", pa.string()),
)
"""Columns of `episode_facts` after `episode`."""


@dataclass(frozen=True)
class _Signals:
    """States or actions of whole episodes, one axis after the other.

    Attributes:
        values: (A, N) float32; what is not finite is NaN.
        low, high: (A, E) an axis' extremes in an episode; NaN where it is NaN somewhere.
    """

    values: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray, starts: np.ndarray) -> _Signals:
        """Of (N, A) values and (E,) first rows of episodes."""
        values = _axis_by_axis(rows)
        low, high = (extreme.reduceat(values, starts, axis=1) for extreme in (np.minimum, np.maximum))
        finite = np.isfinite(low) & np.isfinite(high)
        if not finite.all():
            values[~np.isfinite(values)] = np.nan
            low, high = (np.where(finite, extreme, np.nan) for extreme in (low, high))
        return cls(values, low, high)

    @property
    def finite(self) -> np.ndarray:
        """(E,) bool: all of an episode's values are finite."""
        return np.logical_and.reduce(np.isfinite(self.low), axis=0)


@dataclass(frozen=True)
class _Batch:
    """Frames of whole episodes, with what every measure needs.

    Attributes:
        starts: (E,) first row of each episode.
        rows: (E,) how many it has.
    """

    state: _Signals
    action: _Signals
    starts: np.ndarray
    rows: np.ndarray
    embodiment: Embodiment
    rate_hz: float

    @cached_property
    def owner(self) -> np.ndarray:
        """(N,) position of the episode a row belongs to."""
        return np.repeat(np.arange(len(self.rows)), self.rows)

    @cached_property
    def place(self) -> np.ndarray:
        """(N,) how many rows of its episode come before a row."""
        return np.arange(len(self.owner)) - np.repeat(self.starts, self.rows)

    @cached_property
    def spans(self) -> np.ndarray:
        return self.embodiment.column("upper") - self.embodiment.column("lower")

    def covered(self, signals: _Signals) -> np.ndarray:
        """(A, E) how much of its range an axis covers."""
        return (signals.high - signals.low) / self.spans[:, None]

    def fastest(
        self, signals: Sequence[_Signals], apart: int, units: np.ndarray, axes: Sequence[int]
    ) -> np.ndarray:
        """(N − apart,) float32: the farthest that one of the axes of one of the signals moves over so many frames of an
        episode, each axis in a unit of its own."""
        rows = max(0, len(self.owner) - apart)
        fastest, displacement = np.zeros((2, rows), np.float32)
        for one, axis in product(signals, axes):
            signal = one.values[axis]
            np.subtract(signal[apart:], signal[:rows], out=displacement)
            np.abs(displacement, out=displacement)
            displacement *= np.float32(1 / units[axis])
            np.fmax(fastest, displacement, out=fastest)
        return fastest * self.together(apart)

    def together(self, apart: int) -> np.ndarray:
        """(N − apart,) bool: rows i and i + apart belong to one episode."""
        return self.owner[apart:] == self.owner[: max(0, len(self.owner) - apart)]

    def largest(self, values: np.ndarray) -> np.ndarray:
        """(E,) float64: the largest of per-row values and 0; NaN does not count."""
        padded = np.zeros(len(self.owner), values.dtype)
        np.fmax(values, 0, out=padded[: len(values)])
        return np.maximum.reduceat(padded, self.starts).astype(np.float64)

    def total(self, flags: np.ndarray) -> np.ndarray:
        """(E,) int64: how many of the per-row flags are set."""
        padded = np.zeros(len(self.owner), np.int64)
        padded[: len(flags)] = flags
        return np.add.reduceat(padded, self.starts)


def motion_window(rate_hz: float) -> int:
    """`MOTION_WINDOW_S` in frames, at least one."""
    return max(1, round(MOTION_WINDOW_S * rate_hz))


@np.errstate(over="ignore", invalid="ignore")  # wild readings may differ by more than float32 holds
def episode_facts(frames: Frames, embodiment: Embodiment, rate_hz: float, idle_speed: float) -> pa.Table:
    """One row per episode in `frames`: `episode` and the columns of `FACT_FIELDS`.

    `contiguous`: frame indices are 0, 1, …, rows − 1. `ended_well`: success was recorded at any frame; null where it
    is not recorded. `top_speed`: see `Thresholds`. `moves_from` and `moves_to`: the first frame of the first and of
    the last window of `MOTION_WINDOW_S` faster than `idle_speed` (null if there is none); `idle_fraction` is the share
    of slower windows between them. `constant_axes`: axes whose state or action stays the same while its counterpart
    moves. Jumps: an arm axis' displacement from frame to frame; `velocity_ratio`: over a window; both × what the
    axis' velocity limit allows. `jerky_fraction` of the frames have a command beyond `JERK_FACTOR` × the jerk limit.
    `saturated_s`: the longest time an arm axis is commanded to its limit. `lag_s`: see `following_lags`.
    `gripper_range`: of its opening. `backward_steps`: frames that are not later than the one before;
    `longest_gap_periods` between frames. `signature`: bytes of `signatures`. `identity`: see `content_hash`.
    """
    if not len(frames.frame):
        return pa.table({name: pa.array([], kind) for name, kind in (("episode", pa.int64()), *FACT_FIELDS)})
    numbers, starts, rows = frames.episodes()
    batch = _Batch(
        state=_Signals.of(frames.state, starts),
        action=_Signals.of(frames.action, starts),
        starts=starts,
        rows=rows,
        embodiment=embodiment,
        rate_hz=rate_hz,
    )
    facts = {
        "rows": rows,
        "contiguous": batch.total(frames.frame != batch.place) == 0,
        "finite": batch.state.finite & batch.action.finite,
        "ended_well": _ended_well(batch, frames.success),
        **_motion(batch, idle_speed),
        **_limits(batch),
        **_axis_ranges(batch),
        **_time(batch, frames.time),
    }
    from_row = starts + np.nan_to_num(facts["moves_from"]).astype(np.int64)
    to_row = starts + _last_moving(facts["moves_to"], rows, motion_window(rate_hz))
    facts["lag_s"] = _lags(batch)
    facts["signature"] = signatures(frames.state, from_row, to_row, batch.spans)
    ends = starts + rows
    facts["identity"] = [content_hash(frames, slice(*span)) for span in zip(starts, ends, strict=True)]
    columns = {name: _column(facts[name], kind) for name, kind in FACT_FIELDS}
    return pa.table({"episode": pa.array(numbers, pa.int64()), **columns})


def _axis_by_axis(values: np.ndarray) -> np.ndarray:
    """(N, A) → contiguous (A, N), in blocks that a processor's cache holds: a third of the time of all at once."""
    turned = np.empty(values.shape[::-1], values.dtype)
    for first in range(0, len(values), _ROWS_IN_CACHE):
        rows = slice(first, first + _ROWS_IN_CACHE)
        turned[:, rows] = values[rows].T
    return turned


def _column(values: np.ndarray | list, kind: pa.DataType) -> pa.Array:
    """NaN, which stands for what cannot be known, becomes null; rows of a matrix become their bytes."""
    if isinstance(values, np.ndarray) and values.ndim == 2:
        content = np.ascontiguousarray(values, "<f4")
        ends = np.arange(len(content) + 1) * content[0].nbytes
        return pa.Array.from_buffers(kind, len(content), [None, pa.py_buffer(ends), pa.py_buffer(content)])
    if isinstance(values, np.ndarray) and values.dtype.kind == "f":
        unknown = np.isnan(values)
        known = np.where(unknown, 0, values)
        return pa.array(known if pa.types.is_floating(kind) else known.astype(np.int64), kind, mask=unknown)
    return pa.array(values, kind)


def _last_moving(moves_to: np.ndarray, rows: np.ndarray, window: int) -> np.ndarray:
    """(E,) the last frame of the last window that moves; the last frame of all where none does."""
    return np.minimum(np.where(np.isnan(moves_to), rows - 1, moves_to + window), rows - 1).astype(np.int64)


def _lags(batch: _Batch) -> np.ndarray:
    """Of the arm alone: a gripper that holds something does not follow its command."""
    signals, covered = (batch.state.values, batch.action.values), batch.covered(batch.action)
    arm = batch.embodiment.arm_indices
    return following_lags(*signals, batch.starts, batch.spans, batch.rate_hz, covered, arm)


def _ended_well(batch: _Batch, success: np.ndarray | None) -> np.ndarray | list[None]:
    return [None] * len(batch.starts) if success is None else batch.total(success) > 0


def _motion(batch: _Batch, idle_speed: float) -> dict[str, np.ndarray]:
    """When anything moves, and how fast."""
    window = motion_window(batch.rate_hz)
    per_s = batch.spans * window / batch.rate_hz
    every = range(len(batch.spans))
    speed = batch.fastest((batch.state, batch.action), window, per_s, every)
    moving = speed > idle_speed
    place = batch.place[: len(speed)]
    last = batch.largest(np.where(moving, place + 1, 0)) - 1
    never = last < 0
    first = len(batch.owner) - batch.largest(np.where(moving, len(batch.owner) - place, 0))
    count = batch.total(moving)
    spread = np.where(never, 1, last - first + 1)
    return {
        "top_speed": batch.largest(speed),
        "moves_from": np.where(never, np.nan, first),
        "moves_to": np.where(never, np.nan, last),
        "idle_fraction": np.where(never, np.nan, 1 - count / spread),
    }


def _in_axis_units(batch: _Batch, limit: str) -> np.ndarray:
    return batch.embodiment.column(limit) / np.abs(batch.embodiment.column("scale"))


def _limits(batch: _Batch) -> dict[str, np.ndarray]:
    """How motion compares with what the arm's axes can do; the gripper's limits say little about commands."""
    arm, window = batch.embodiment.arm_indices, motion_window(batch.rate_hz)
    reach = _in_axis_units(batch, "max_velocity") / batch.rate_hz
    jerk = (JERK_FACTOR * _in_axis_units(batch, "max_jerk") / batch.rate_hz**3).tolist()
    jerky = np.zeros(max(0, len(batch.owner) - 3), bool)
    for axis in arm:
        jerky |= np.abs(np.diff(batch.action.values[axis], n=3)) > jerk[axis]
    over_window = batch.fastest((batch.state, batch.action), window, reach * window, arm)
    return {
        "action_jump": batch.largest(batch.fastest((batch.action,), 1, reach, arm)),
        "state_jump": batch.largest(batch.fastest((batch.state,), 1, reach, arm)),
        "velocity_ratio": batch.largest(over_window),
        "jerky_fraction": batch.total(jerky & batch.together(3)) / np.maximum(1, batch.rows - 3),
        "saturated_s": _longest_at_limit(batch) / batch.rate_hz,
    }


def _longest_at_limit(batch: _Batch) -> np.ndarray:
    """(E,) frames of the longest run in which one arm axis' command stays at one of its limits."""
    longest = np.zeros(len(batch.starts))
    for axis in batch.embodiment.arm_indices:
        signal, described = batch.action.values[axis], batch.embodiment.axes[axis]
        margin = _AT_LIMIT * (described.upper - described.lower)
        if not (batch.action.low[axis] > described.lower + margin).all():
            longest = np.maximum(longest, _longest_run(batch, signal <= described.lower + margin))
        if not (batch.action.high[axis] < described.upper - margin).all():
            longest = np.maximum(longest, _longest_run(batch, signal >= described.upper - margin))
    return longest


def _longest_run(batch: _Batch, flags: np.ndarray) -> np.ndarray:
    """(E,) rows of the longest run of (N,) flags that are set."""
    row = np.arange(len(flags))
    before = np.where(flags, np.where(batch.place == 0, row - 1, -1), row)
    return batch.largest((row - np.maximum.accumulate(before)) * flags)


def _axis_ranges(batch: _Batch) -> dict[str, np.ndarray]:
    """What each axis covers in an episode: dead ones, and the gripper's share of its opening."""
    state, action = batch.covered(batch.state), batch.covered(batch.action)
    dead = ((state == 0) & (action > _MOVES)) | ((action == 0) & (state > _MOVES))
    gripper, index = batch.embodiment.gripper, batch.embodiment.gripper_index
    opening = abs(gripper.open - gripper.closed) / batch.spans[index]
    return {
        "constant_axes": dead.sum(axis=0),
        "gripper_range": np.maximum(state[index], action[index]) / opening,
    }


def _time(batch: _Batch, time: np.ndarray | None) -> dict[str, np.ndarray]:
    if time is None:
        unknown = np.full(len(batch.starts), np.nan)
        return {"backward_steps": unknown, "longest_gap_periods": unknown}
    together = batch.together(1)
    steps = np.diff(time)
    return {
        "backward_steps": batch.total(together & ~(steps > 0)),
        "longest_gap_periods": batch.largest(np.where(together, steps, 0)) * batch.rate_hz,
    }
