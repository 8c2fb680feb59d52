"""Runs of consecutive numbers, many at a time: what it takes to gather pieces of arrays without a loop."""

from __future__ import annotations

import numpy as np


def runs(begins: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """All of begin, begin + 1, …, begin + count − 1, one run after the other; shape (sum of `counts`,), int64."""
    before = np.cumsum(counts) - counts
    return np.arange(int(counts.sum())) + np.repeat(begins - before, counts)
