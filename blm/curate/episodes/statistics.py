"""What normalisation needs: exact per-axis statistics of each embodiment's training frames, in bounded memory.

Two passes over batches of whole episodes. Sums are taken per episode and added up exactly, so no digit depends on how
episodes are spread over batches or on their order. Quantiles are exact too, by radix selection: the bit patterns of
float32, made to sort like the numbers, are counted by their upper halves in the first pass, and in the second by
their lower halves within the upper halves that hold the ranks sought. Memory: half a megabyte per axis, and a batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from blm.schemas.embodiment import Embodiment
from blm.schemas.manifest import AxisStatistics, EmbodimentStatistics

_DIGITS = 10
"""Significant digits kept: below float32's own error, and no digit that depends on the machine's summation."""

_QUANTILES = {"q01": 0.01, "q99": 0.99}
_HALF = 1 << 16


@dataclass(frozen=True)
class TrainingFrames:
    """Frames of one or more whole samples, one after the other.

    Attributes:
        state, action: (N, A) float32, axis units.
        starts: (E,) first row of each sample.
    """

    state: np.ndarray
    action: np.ndarray
    starts: np.ndarray


class FrameSource(Protocol):
    """Gives the same frames, in batches, each time that it is called."""

    def __call__[Result](self, consume: Callable[[Iterator[TrainingFrames]], Result]) -> Result: ...


def embodiment_statistics(
    embodiment: Embodiment, rate_hz: float, cameras: Sequence[str], sources: Sequence[FrameSource]
) -> EmbodimentStatistics:
    """Statistics over the training samples of all sources, each of which is gone through twice.

    Frames with a value that is not finite are left out.
    """
    found = passed_statistics(len(embodiment.axes), sources)
    return EmbodimentStatistics(
        axis_names=embodiment.axis_names,
        gripper_index=embodiment.gripper_index,
        rate_hz=rate_hz,
        cameras=tuple(cameras),
        state=found["state"],
        action=found["action"],
    )


def passed_statistics(axes: int, sources: Sequence[FrameSource]) -> dict[str, AxisStatistics]:
    """Of `state` and of `action`; see `embodiment_statistics`."""
    counted = _passed(sources, lambda _: _Counting(axes))
    placed = _passed(sources, lambda which: _Placing(counted[which]))
    return {which: one.result() for which, one in placed.items()}


def axis_statistics(values: np.ndarray) -> AxisStatistics:
    """Statistics of (N, A) float32 values, axis units.

    `std` divides by N; `q01` and `q99` are exact, interpolated linearly between the nearest ranks.
    """
    starts = np.zeros(min(1, len(values)), np.int64)
    counted = _Counting(values.shape[1])
    counted.add(values, starts)
    placed = _Placing(counted)
    placed.add(values, starts)
    return placed.result()


def _passed[Pass: (_Counting, _Placing)](
    sources: Sequence[FrameSource], begin: Callable[[str], Pass]
) -> dict[str, Pass]:
    """One pass over all sources, of states and of actions."""

    def consume(batches: Iterator[TrainingFrames]) -> dict[str, Pass]:
        passes = {which: begin(which) for which in ("state", "action")}
        for frames in batches:
            for which, one in passes.items():
                one.add(getattr(frames, which), frames.starts)
        return passes

    total = {which: begin(which) for which in ("state", "action")}
    for source in sources:
        for which, one in source(consume).items():
            total[which].merge(one)
    return total


class _Counting:
    """First pass: how many, sums, extremes, and counts by the upper half of the bit pattern."""

    def __init__(self, axes: int) -> None:
        self.count = 0
        self.low, self.high = np.full(axes, np.inf), np.full(axes, -np.inf)
        self.upper = np.zeros((axes, _HALF), np.int64)
        self._sums: list[np.ndarray] = []

    def add(self, values: np.ndarray, starts: np.ndarray) -> None:
        values, starts = _finite(values, starts)
        if not len(values):
            return
        self.count += len(values)
        self._sums.append(np.add.reduceat(values.astype(np.float64), starts, axis=0))
        self.low, self.high = (
            np.minimum(self.low, values.min(axis=0)),
            np.maximum(self.high, values.max(axis=0)),
        )
        for axis, column in enumerate(_sortable(values)):
            self.upper[axis] += np.bincount(column >> 16, minlength=_HALF)

    def merge(self, other: _Counting) -> None:
        self.count += other.count
        self._sums += other._sums
        self.low, self.high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
        self.upper += other.upper

    @property
    def mean(self) -> np.ndarray:
        """(A,) float64; NaN where there are no frames."""
        return _exact_sums(self._sums, len(self.low)) / (self.count or math.nan)


class _Placing:
    """Second pass: squares about the mean, and counts by the lower half where the ranks sought lie."""

    def __init__(self, counted: _Counting) -> None:
        self._counted = counted
        self._mean = counted.mean
        self._squares: list[np.ndarray] = []
        axes = range(len(counted.low))
        self._ranks = [rank for share in _QUANTILES.values() for rank in _ranks(share, counted.count)]
        self._cumulated = counted.upper.cumsum(axis=1)
        self._upper_of = [
            {rank: int(np.searchsorted(self._cumulated[axis], rank, side="right")) for rank in self._ranks}
            for axis in axes
        ]
        self._lower = [
            {upper: np.zeros(_HALF, np.int64) for upper in set(self._upper_of[a].values())} for a in axes
        ]

    def add(self, values: np.ndarray, starts: np.ndarray) -> None:
        values, starts = _finite(values, starts)
        if not len(values):
            return
        self._squares.append(np.add.reduceat(np.square(values - self._mean), starts, axis=0))
        for axis, column in enumerate(_sortable(values)):
            upper = column >> 16
            for wanted, counts in self._lower[axis].items():
                counts += np.bincount(column[upper == wanted] & (_HALF - 1), minlength=_HALF)

    def merge(self, other: _Placing) -> None:
        self._squares += other._squares
        for mine, others in zip(self._lower, other._lower, strict=True):
            for upper, counts in mine.items():
                counts += others[upper]

    def result(self) -> AxisStatistics:
        counted = self._counted
        axes = range(len(counted.low))
        columns = {
            "mean": self._mean,
            "std": np.sqrt(_exact_sums(self._squares, len(counted.low)) / (counted.count or math.nan)),
            "min": counted.low,
            "max": counted.high,
            **{name: [self._quantile(axis, share) for axis in axes] for name, share in _QUANTILES.items()},
        }
        rounded = {
            name: tuple(float(f"{value:.{_DIGITS}g}") for value in column) for name, column in columns.items()
        }
        return AxisStatistics(count=counted.count, **rounded)

    def _quantile(self, axis: int, share: float) -> float:
        if not self._counted.count:
            return math.nan
        below, above = (self._value(axis, rank) for rank in _ranks(share, self._counted.count))
        part = share * (self._counted.count - 1) % 1
        return below + (above - below) * part

    def _value(self, axis: int, rank: int) -> float:
        """The value that `rank` others come before in sorted order."""
        upper = self._upper_of[axis][rank]
        before = int(self._cumulated[axis][upper - 1]) if upper else 0
        lower = int(np.searchsorted(self._lower[axis][upper].cumsum(), rank - before, side="right"))
        return _number(upper << 16 | lower)


def _ranks(share: float, count: int) -> tuple[int, int]:
    """The ranks between which a quantile lies."""
    place = share * max(0, count - 1)
    return math.floor(place), min(math.ceil(place), max(0, count - 1))


def _finite(values: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Without frames that hold something not finite, and without samples that are then empty."""
    usable = np.isfinite(values).all(axis=1)
    if usable.all():
        return values, starts
    before = np.concatenate([[0], usable.cumsum()])
    left = np.diff(before[[*starts, len(values)]]) > 0
    return values[usable], before[starts][left]


def _exact_sums(parts: Sequence[np.ndarray], axes: int) -> np.ndarray:
    """(A,) correctly rounded sums over the rows of all parts, whatever their order."""
    if not parts:
        return np.zeros(axes)
    return np.array([math.fsum(column) for column in np.concatenate(parts).T])


def _sortable(values: np.ndarray) -> Iterator[np.ndarray]:
    """Each axis' values as (N,) uint32 that sort like the float32 numbers."""
    for column in np.ascontiguousarray(values.T, dtype="<f4"):
        bits = column.view("<u4")
        yield np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))


def _number(sortable: int) -> float:
    bits = sortable & 0x7FFFFFFF if sortable >> 31 else ~sortable & 0xFFFFFFFF
    return float(np.array(bits, "<u4").view("<f4"))
