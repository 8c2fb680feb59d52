"""Pairs of texts that share a key: made bucket by bucket, gathered on disk, and read again each once.

Pairs are read by the blocks of texts (see `text_store`) that they are of, so that two blocks at a time are enough to
compare them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from blm.curate.runs import portions, runs

_LARGE_BUCKET = 64
_FIRST_MEMBERS = 8
_NEIGHBOURS = 8
_BYTES_PER_PAIR = 256
"""Of memory, at the worst moment, with what else is then in memory."""


def bucket_pairs(
    keys: np.ndarray, rows: np.ndarray, memory_bytes: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs (first, second) of rows with one key, first < second, a bounded number at a time.

    In a bucket of more than `_LARGE_BUCKET` rows only pairs with its first members and with neighbours.

    Args:
        keys: (n,) uint64.
        rows: (n,) int64, ascending.
        memory_bytes: what a portion of the pairs may use.
    """
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    same = ordered[1:] == ordered[:-1]
    several = np.zeros(len(keys), dtype=bool)
    several[1:] |= same
    several[:-1] |= same
    rows, ordered = rows[order[several]], ordered[several]
    edges = np.concatenate([[0], np.flatnonzero(ordered[1:] != ordered[:-1]) + 1, [len(ordered)]])
    begins, sizes = edges[:-1], np.diff(edges)
    counts = np.where(
        sizes <= _LARGE_BUCKET, sizes * (sizes - 1) // 2, sizes * (_FIRST_MEMBERS + _NEIGHBOURS)
    )
    for part in portions(counts, max(1, memory_bytes // _BYTES_PER_PAIR)):
        first, second = _pairs(begins[part], sizes[part])
        yield rows[first], rows[second]


def _pairs(begins: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places of the pairs of buckets that begin at `begins` and have `sizes` members."""
    end = np.repeat(begins + sizes, sizes)
    places = runs(begins, sizes)
    small = np.repeat(sizes <= _LARGE_BUCKET, sizes)
    firsts: list[np.ndarray] = [np.zeros(0, np.int64)]
    seconds: list[np.ndarray] = [np.zeros(0, np.int64)]
    for step in range(1, int(min(sizes.max(initial=0), _LARGE_BUCKET))):
        there = (places + step < end) & (small | (step <= _NEIGHBOURS))
        firsts.append(places[there])
        seconds.append(places[there] + step)
    for begin, size in zip(begins[sizes > _LARGE_BUCKET], sizes[sizes > _LARGE_BUCKET], strict=True):
        for member in range(_FIRST_MEMBERS):
            firsts.append(np.full(size - member - 1, begin + member))
            seconds.append(np.arange(begin + member + 1, begin + size))
    return np.concatenate(firsts), np.concatenate(seconds)


class Candidates:
    """Add pairs, then iterate: each is given once, with the pairs of the same two blocks."""

    def __init__(self, folder: Path, block_begins: np.ndarray, memory_bytes: int) -> None:
        self._folder = folder
        self._begins = block_begins
        self._count = int(block_begins[-1])
        self._pairs_at_once = max(1, memory_bytes // _BYTES_PER_PAIR)

    def add(self, first: np.ndarray, second: np.ndarray) -> None:
        """Pairs (n,) of rows, first < second."""
        pairs = np.unique(first * self._count + second)
        edges = np.searchsorted(pairs, self._begins * self._count)
        for block in np.flatnonzero(np.diff(edges)):
            with self._path(block).open("ab") as stream:
                stream.write(pairs[edges[block] : edges[block + 1]])

    def __iter__(self) -> Iterator[tuple[int, int, np.ndarray, np.ndarray]]:
        """Blocks `one` <= `other`, and pairs of rows counted from the beginning of each. A pair may come again where a
        block has more than memory holds."""
        for one in range(len(self._begins) - 1):
            for pairs in self._read(one):
                first, second = np.divmod(pairs, self._count)
                owner = np.searchsorted(self._begins, second, side="right") - 1
                for other in np.unique(owner).tolist():
                    mine = owner == other
                    yield one, other, first[mine] - self._begins[one], second[mine] - self._begins[other]

    def _read(self, block: int) -> Iterator[np.ndarray]:
        path = self._path(block)
        if not path.exists():
            return
        total = path.stat().st_size // 8
        for begin in range(0, total, self._pairs_at_once):
            count = min(self._pairs_at_once, total - begin)
            yield np.unique(np.fromfile(path, np.int64, count, offset=8 * begin))

    def _path(self, block: int) -> Path:
        return self._folder / f"candidates-{block}"
