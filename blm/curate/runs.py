"""Runs of consecutive numbers, many at a time: what it takes to gather pieces of arrays without a loop; and portions
of what is too much for memory."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np


def runs(begins: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """All of begin, begin + 1, …, begin + count − 1, one run after the other; shape (sum of `counts`,), int64."""
    before = np.cumsum(counts) - counts
    return np.arange(int(counts.sum())) + np.repeat(begins - before, counts)


def portions(counts: np.ndarray, most: int) -> Iterator[slice]:
    """Consecutive slices of `counts`, each of a sum of about `most`: beyond it by less than its largest count."""
    edges = np.flatnonzero(np.diff(np.cumsum(counts) // most)) + 1
    for begin, end in pairwise([0, *edges.tolist(), len(counts)]):
        if end > begin:
            yield slice(begin, end)
