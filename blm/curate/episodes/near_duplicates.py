"""Episodes that follow nearly the same path, also where one recording began or ended a little earlier or later.

Comparing every pair would take days for a hundred thousand episodes. Two recordings of one path share its *excursion*
(how far each axis goes from where paths usually begin) unless one of them lost its end, and its *head* (where the
axes are soon after the motion began) unless one of them lost its beginning. Only episodes that agree in one of these
are compared, at the time shift that suits them best.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from blm.curate.runs import runs

_EXCURSION_TOLERANCE = 0.006
"""Excursions of one path recorded twice agree to this fraction of an axis' range; at an extreme nothing moves."""

_HEAD_TOLERANCE = 0.02
"""Heads agree a little less: between two frames a path is taken to be straight."""

_DEPARTED = 0.05
"""A path's head begins where its fastest axis has covered this much; that moment is the same in every recording."""

_HEAD_S = (0.0, 0.25, 0.5)

_GRID_AXES = 3
_PAIRS_AT_ONCE = 4_000
_SHIFT_STEP_S = 0.05
_STEPS = 2
_ROUGHLY = 8
_SKIP = 4
"""A rough look at every fourth point, at a shift that is right to some milliseconds, lets through what lies within
this many thresholds."""

_LEAST_OVERLAP = 0.7
"""Paths are compared over at least this share of the shorter one."""


@dataclass(frozen=True)
class NearDuplicates:
    """Of n episodes: `group` (n,) int64, the first member of each one's cluster; `partner` (n,) int64, the nearest one
    among those that come earlier, or −1; `distance` (n,) float64 to it, root mean square in axis ranges, else NaN."""

    group: np.ndarray
    partner: np.ndarray
    distance: np.ndarray


def find_near_duplicates(
    paths: np.ndarray, duration_s: np.ndarray, threshold: float, told: np.ndarray | None = None
) -> NearDuplicates:
    """Cluster episodes of one embodiment whose paths lie within `threshold` of each other.

    Args:
        paths: (n, P, A) float32, states spread evenly over the motion, as fractions of each axis' range.
        duration_s: (n,) of the motion, seconds.
        threshold: root mean square over time and axes, in axis ranges; below it two paths are one.
        told: (n,) bool, which episodes may have, or be, a partner; default: all. Groups hold the others too.
    """
    count = len(paths)
    found = NearDuplicates(np.arange(count), np.full(count, -1), np.full(count, np.nan))
    for first, second, shift_s in _candidates(paths, duration_s):
        distance = _distances(paths, duration_s, first, second, shift_s, threshold)
        for one, other, apart in zip(first, second, distance, strict=True):
            if apart < threshold:
                _join(found, int(one), int(other))
                if told is None or (told[one] and told[other]):
                    _pair(found, int(one), int(other), float(apart))
    for one in range(count):
        found.group[one] = _root(found.group, one)
    return found


def _join(found: NearDuplicates, one: int, other: int) -> None:
    """Clusters keep their first member as root, so that the result does not depend on the order of pairs."""
    low, high = sorted((_root(found.group, one), _root(found.group, other)))
    found.group[high] = low


def _pair(found: NearDuplicates, one: int, other: int, apart: float) -> None:
    early, late = sorted((one, other))
    if not apart >= found.distance[late]:
        found.distance[late], found.partner[late] = apart, early


def _root(group: np.ndarray, one: int) -> int:
    while group[one] != one:
        group[one] = group[group[one]]
        one = int(group[one])
    return one


def _excursions(paths: np.ndarray) -> np.ndarray:
    """(n, A): where each axis is furthest from the place where paths usually begin."""
    away = paths - np.median(paths[:, 0], axis=0)
    furthest = np.abs(away).argmax(axis=1)
    return np.take_along_axis(away, furthest[:, None], axis=1)[:, 0]


def _departures(paths: np.ndarray, duration_s: np.ndarray) -> np.ndarray:
    """(n,) seconds from the first point to the moment of departure."""
    last = paths.shape[1] - 1
    away = np.abs(paths - paths[:, :1]).max(axis=2)
    after = np.clip((away > _DEPARTED).argmax(axis=1), 1, last)
    rows = np.arange(len(paths))
    low, high = away[rows, after - 1], away[rows, after]
    share = np.clip((_DEPARTED - low) / np.maximum(high - low, 1e-9), 0, 1)
    return (after - 1 + share) / last * duration_s


def _heads(paths: np.ndarray, duration_s: np.ndarray, departures: np.ndarray) -> np.ndarray:
    """(n, H × A): where the axes are at the moment of departure and a little later."""
    seconds = departures[:, None] + np.array(_HEAD_S)
    rows = np.arange(len(paths))[:, None]
    return _read(paths, rows, seconds / np.maximum(duration_s, 1e-9)[:, None]).reshape(len(paths), -1)


def _read(paths: np.ndarray, rows: np.ndarray, share: np.ndarray) -> np.ndarray:
    """(m, k, A): the paths of `rows` (m, 1) at `share` (m, k) of their time, held at their ends."""
    last = paths.shape[1] - 1
    place = np.clip(share, 0, 1) * last
    before = np.minimum(place.astype(np.int64), last - 1)
    weight = (place - before)[..., None].astype(np.float32)
    return paths[rows, before] * (1 - weight) + paths[rows, before + 1] * weight


def _candidates(
    paths: np.ndarray, duration_s: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Pairs (i < j) with the shift, seconds, that lays one over the other: by their heads, or by their ends.

    They come in batches; a pair may come twice.
    """
    usable = np.flatnonzero(np.isfinite(paths).all(axis=(1, 2)))
    if len(usable) < 2:
        return
    paths, duration_s = paths[usable], duration_s[usable]
    departures = _departures(paths, duration_s)
    for first, second in _neighbours(_heads(paths, duration_s, departures), _HEAD_TOLERANCE):
        yield usable[first], usable[second], departures[second] - departures[first]
    for first, second in _neighbours(_excursions(paths), _EXCURSION_TOLERANCE):
        yield usable[first], usable[second], duration_s[second] - duration_s[first]


def _neighbours(features: np.ndarray, tolerance: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs (i < j) of rows that agree in every feature, from neighbouring cells of a grid over the widest ones."""
    widest = np.argsort(features.std(axis=0))[::-1][:_GRID_AXES]
    cells = np.floor(features[:, widest] / tolerance).astype(np.int64) + (1 << 18)
    weights = np.array([1 << 40, 1 << 20, 1][: len(widest)])
    keys = cells @ weights
    order = np.argsort(keys, kind="stable")
    ranked = keys[order]
    for offset in np.ndindex(*(3,) * len(widest)):
        wanted = ranked + (np.array(offset) - 1) @ weights
        low, high = np.searchsorted(ranked, wanted), np.searchsorted(ranked, wanted, side="right")
        for one, other in _expanded(low, high):
            first, second = order[one], order[other]
            alike = first < second
            for feature in (*widest, *range(features.shape[1])):
                first, second = first[alike], second[alike]
                alike = np.abs(features[first, feature] - features[second, feature]) <= tolerance
            yield first[alike], second[alike]


def _expanded(low: np.ndarray, high: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Every (i, j) with low[i] ≤ j < high[i], some rows at a time, so that memory stays bounded."""
    ends = np.cumsum(high - low)
    begin = 0
    while begin < len(low):
        done = ends[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, done + 100 * _PAIRS_AT_ONCE, side="right")))
        counts = (high - low)[begin:end]
        yield np.repeat(np.arange(begin, end), counts), runs(low[begin:end], counts)
        begin = end


def _distances(
    paths: np.ndarray,
    duration_s: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    shift_s: np.ndarray,
    threshold: float,
) -> np.ndarray:
    """(m,) distance of each pair at its best time shift; inf where a rough look at `shift_s` rules it out."""
    best = np.full(len(first), np.inf)
    steps = np.arange(-_STEPS, _STEPS + 1) * _SHIFT_STEP_S
    for begin in range(0, len(first), _PAIRS_AT_ONCE):
        part = slice(begin, begin + _PAIRS_AT_ONCE)
        one, other, shift = first[part], second[part], shift_s[part]
        rough = _apart(paths, duration_s, one, other, shift, every=_SKIP)
        close = np.flatnonzero(rough < _ROUGHLY * threshold)
        if not len(close):
            continue
        one, other, shift = one[close], other[close], shift[close]
        along = np.stack([_apart(paths, duration_s, one, other, shift + step, every=_SKIP) for step in steps])
        best[begin + close] = _apart(paths, duration_s, one, other, shift + _lowest(along, steps))
    return best


def _lowest(along: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """(m,) the step at which a parabola through the squares about the smallest of (S, m) distances is lowest."""
    lowest = np.clip(along.argmin(axis=0), 1, len(steps) - 2)
    pick = np.arange(along.shape[1])
    left, middle, right = (np.minimum(along[lowest + step, pick], 1e3) ** 2 for step in (-1, 0, 1))
    bend = left - 2 * middle + right
    offset = np.where(bend > 0, 0.5 * (left - right) / np.maximum(bend, 1e-12), 0.0)
    return steps[lowest] + np.clip(offset, -1, 1) * _SHIFT_STEP_S


def _apart(
    paths: np.ndarray,
    duration_s: np.ndarray,
    one: np.ndarray,
    other: np.ndarray,
    shift_s: np.ndarray,
    every: int = 1,
) -> np.ndarray:
    """(m,) root mean square between the first path and the second one read `shift_s` later; inf for little overlap.

    With `every`, only each so-many-th point of the first path is looked at.
    """
    share = np.linspace(0, 1, paths.shape[1])[::every]
    seconds = share * duration_s[one][:, None] + shift_s[:, None]
    where = seconds / np.maximum(duration_s[other], 1e-9)[:, None]
    inside = (where >= -1e-6) & (where <= 1 + 1e-6)
    drawn = _read(paths, other[:, None], where)
    square = ((drawn - paths[one, ::every]) ** 2).mean(axis=2) * inside
    number = inside.sum(axis=1)
    shorter = np.minimum(duration_s[one], duration_s[other])
    enough = number * duration_s[one] / len(share) >= _LEAST_OVERLAP * shorter
    return np.where(enough & (number > 0), np.sqrt(square.sum(axis=1) / np.maximum(number, 1)), np.inf)
