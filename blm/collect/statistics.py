"""Statistics of episodes and of a whole dataset, in LeRobot's form: min, max, mean, std, count and five quantiles.

A dataset's mean and std are the count-weighted ones, its min and max are true. Its quantiles come from the rows
themselves (not from a mean of the episodes' quantiles); those of images come from the count-weighted mixture of the
episodes' distributions, each taken as piecewise linear between its known quantiles.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

Statistics = dict[str, np.ndarray]

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
STATISTIC_NAMES = ("min", "max", "mean", "std", "count", *QUANTILES)

LEVELS = np.arange(256) / 255.0
_KNOTS = np.array([0.0, *QUANTILES.values(), 1.0])
_FRAME_STRIDE = 4
_SAMPLED_PIXELS = 64
_SAMPLED_ROWS = 100_000
_REFRESH_GROWTH = 1.1


def column_statistics(columns: Mapping[str, np.ndarray]) -> dict[str, Statistics]:
    """Statistics of numeric columns, each (T,) or (T, D); every statistic has shape (D,), float64, count (1,)."""
    matrix, slices = _matrix(columns)
    minimum, maximum = matrix.min(axis=0), matrix.max(axis=0)
    mean, std = matrix.mean(axis=0), matrix.std(axis=0)
    quantiles = np.quantile(matrix, list(QUANTILES.values()), axis=0)
    count = np.array([len(matrix)], dtype=np.int64)
    result = {}
    for key, part in slices.items():
        values = {"min": minimum[part], "max": maximum[part], "mean": mean[part], "std": std[part]}
        values["count"] = count
        result[key] = values | {name: row[part] for name, row in zip(QUANTILES, quantiles, strict=True)}
    return result


class ImageStatistics:
    """Statistics of one camera's images per channel, in 0..1, from a fixed subsample of frames and pixels."""

    def __init__(self) -> None:
        self._frames = 0
        self._histogram = np.zeros((3, 256), dtype=np.int64)

    def add(self, image: np.ndarray) -> None:
        """Take in one (height, width, 3) uint8 image (every fourth one is looked at)."""
        if self._frames % _FRAME_STRIDE == 0:
            stride = max(1, max(image.shape[:2]) // _SAMPLED_PIXELS)
            sample = image[::stride, ::stride].reshape(-1, 3).astype(np.int64) + np.array([0, 256, 512])
            self._histogram += np.bincount(sample.ravel(), minlength=768).reshape(3, 256)
        self._frames += 1

    def result(self) -> Statistics:
        """Every statistic has shape (3, 1, 1); `count` is the number of pixels looked at, shape (1,)."""
        count = int(self._histogram[0].sum())
        cumulative = self._histogram.cumsum(axis=1)
        present = self._histogram > 0
        mean = self._histogram @ LEVELS / count
        variance = self._histogram @ LEVELS**2 / count - mean**2
        values = {
            "min": LEVELS[present.argmax(axis=1)],
            "max": LEVELS[255 - present[:, ::-1].argmax(axis=1)],
            "mean": mean,
            "std": np.sqrt(np.maximum(variance, 0.0)),
        }
        for name, quantile in QUANTILES.items():
            values[name] = LEVELS[(cumulative >= quantile * count).argmax(axis=1)]
        shaped = {name: value.reshape(3, 1, 1) for name, value in values.items()}
        return shaped | {"count": np.array([count], dtype=np.int64)}


class DatasetStatistics:
    """Statistics of a growing dataset; adding the same episodes in the same order gives the same bits.

    Up to 100,000 rows are kept for the quantiles; beyond that every second, fourth, … row by frame index.
    """

    def __init__(self) -> None:
        self._moments: dict[str, Statistics] = {}
        self._image_distributions: dict[str, np.ndarray] = {}
        self._slices: dict[str, slice] = {}
        self._rows: list[np.ndarray] = []
        self._total = 0
        self._stride = 1
        self._quantiles: dict[str, Statistics] = {}
        self._quantiles_at = 0

    def add(self, columns: Mapping[str, np.ndarray], statistics: Mapping[str, Statistics]) -> None:
        """Take in one episode: its numeric columns and the statistics of all its features."""
        matrix, self._slices = _matrix(columns)
        rows = np.arange(self._total, self._total + len(matrix))
        self._rows.append(matrix[rows % self._stride == 0])
        self._total += len(matrix)
        self._thin_out()
        for key, values in statistics.items():
            known = self._moments.get(key)
            self._moments[key] = _merged(known, values) if known else _moments(values)
            if key not in columns:
                self._add_image(key, values)

    def result(self, refresh: bool = False) -> dict[str, Statistics]:
        """All statistics. Quantiles are computed afresh when asked, or when the data grew by a tenth since."""
        if refresh or self._total >= self._quantiles_at * _REFRESH_GROWTH:
            self._quantiles = self._column_quantiles() | self._image_quantiles()
            self._quantiles_at = self._total
        return {key: self._moments[key] | self._quantiles[key] for key in sorted(self._moments)}

    def _thin_out(self) -> None:
        while sum(map(len, self._rows)) > _SAMPLED_ROWS:
            self._rows = [np.concatenate(self._rows)[::2]]
            self._stride *= 2

    def _column_quantiles(self) -> dict[str, Statistics]:
        self._rows = [np.concatenate(self._rows)]
        quantiles = np.quantile(self._rows[0], list(QUANTILES.values()), axis=0)
        return {
            key: {name: row[part] for name, row in zip(QUANTILES, quantiles, strict=True)}
            for key, part in self._slices.items()
        }

    def _add_image(self, key: str, values: Statistics) -> None:
        distribution = self._image_distributions.setdefault(key, np.zeros((3, 256)))
        names = ("min", *QUANTILES, "max")
        for channel in range(3):
            points = np.array([values[name][channel, 0, 0] for name in names])
            share = np.interp(LEVELS, points, _KNOTS, left=0.0, right=1.0)
            distribution[channel] += share * int(values["count"][0])

    def _image_quantiles(self) -> dict[str, Statistics]:
        result = {}
        for key, distribution in self._image_distributions.items():
            share = distribution / distribution[:, -1:]
            result[key] = {
                name: LEVELS[(share >= quantile).argmax(axis=1)].reshape(3, 1, 1)
                for name, quantile in QUANTILES.items()
            }
        return result


def _matrix(columns: Mapping[str, np.ndarray]) -> tuple[np.ndarray, dict[str, slice]]:
    """Columns side by side, (T, sum of widths) float64, and where each one lies."""
    flat = {key: values.reshape(len(values), -1).astype(np.float64) for key, values in columns.items()}
    slices, start = {}, 0
    for key, values in flat.items():
        slices[key] = slice(start, start + values.shape[1])
        start += values.shape[1]
    return np.concatenate(list(flat.values()), axis=1), slices


def _moments(values: Statistics) -> Statistics:
    return {name: values[name] for name in ("min", "max", "mean", "std", "count")}


def _merged(first: Statistics, second: Statistics) -> Statistics:
    """Moments of two sets of rows taken together (Chan, Golub & LeVeque 1979)."""
    n, m = int(first["count"][0]), int(second["count"][0])
    mean = (first["mean"] * n + second["mean"] * m) / (n + m)
    variance = (
        n * (first["std"] ** 2 + (first["mean"] - mean) ** 2)
        + m * (second["std"] ** 2 + (second["mean"] - mean) ** 2)
    ) / (n + m)
    return {
        "min": np.minimum(first["min"], second["min"]),
        "max": np.maximum(first["max"], second["max"]),
        "mean": mean,
        "std": np.sqrt(variance),
        "count": first["count"] + second["count"],
    }
