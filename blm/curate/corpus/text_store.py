"""What comparing texts needs of each, on disk: shingles in blocks, and keys that texts share where they may be alike.

Nothing of it stays in memory but where blocks begin. Blocks and partitions are as large as the memory allows.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from blm.curate.corpus.shingles import ShingleSets

IDENTITY = "identity"
_BYTES_PER_KEY = 128
"""Of memory, while keys are sorted and compared."""
_KEYS_AT_ONCE = 1 << 17


class TextStore:
    """Add the sets of all texts in order, `seal`, then read blocks and keys. A context manager."""

    def __init__(self, folder: Path, bands: int, memory_bytes: int) -> None:
        self._folder = folder
        self._memory = memory_bytes
        self._shingles = (folder / "shingles").open("wb")
        self._sizes = (folder / "sizes").open("wb")
        self._bands = [f"band-{band:02d}" for band in range(bands)]
        self._keys = {name: (folder / name).open("wb") for name in (IDENTITY, *self._bands)}
        self._count = 0
        self._begins = [(0, 0)]
        self._size = 0

    def __len__(self) -> int:
        return self._count

    def add(self, sets: ShingleSets, identity: np.ndarray, bands: Iterator[np.ndarray]) -> None:
        """The next N texts: their shingles, a key (N,) uint64 equal where sets are, and one per band."""
        if self._size - self._begins[-1][1] >= self._memory // 32:
            self._begins.append((self._count, self._size))
        self._shingles.write(sets.hashes)
        self._sizes.write(sets.sizes.astype(np.uint32))
        for name, keys in zip((IDENTITY, *self._bands), (identity, *bands), strict=True):
            self._keys[name].write(np.ascontiguousarray(keys, dtype=np.uint64))
        self._count += len(sets)
        self._size += len(sets.hashes)

    def seal(self) -> None:
        """No more is added."""
        for stream in (self._shingles, self._sizes, *self._keys.values()):
            stream.close()
        self._begins.append((self._count, self._size))

    @property
    def block_begins(self) -> np.ndarray:
        """The first row of each block, and the number of texts, (blocks + 1,) int64."""
        return np.array([row for row, _ in self._begins])

    def block(self, number: int) -> ShingleSets:
        """The shingle sets of a block's texts."""
        (row, begin), (next_row, end) = self._begins[number : number + 2]
        sizes = np.fromfile(self._folder / "sizes", np.uint32, next_row - row, offset=4 * row)
        hashes = np.fromfile(self._folder / "shingles", np.uint32, end - begin, offset=4 * begin)
        return ShingleSets(hashes, np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]))

    def identities(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Keys (n,) uint64 and their rows, ascending; texts with equal keys come in one portion."""
        return self._portions(IDENTITY, None)

    def band_keys(self, wanted: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The same of each band, of the rows where `wanted` (N,) bool holds."""
        for name in self._bands:
            yield from self._portions(name, wanted)

    def _portions(self, name: str, wanted: np.ndarray | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        count = max(1, -(-self._count * _BYTES_PER_KEY // self._memory))
        for number in range(count):
            found = [
                _chosen(keys, row, wanted, number, count)
                for row, keys in _pieces(self._folder / name, self._count)
            ]
            if found:
                yield np.concatenate([keys for keys, _ in found]), np.concatenate([rows for _, rows in found])

    def __enter__(self) -> TextStore:
        return self

    def __exit__(self, *_: object) -> None:
        for stream in (self._shingles, self._sizes, *self._keys.values()):
            stream.close()


def _pieces(path: Path, count: int) -> Iterator[tuple[int, np.ndarray]]:
    for row in range(0, count, _KEYS_AT_ONCE):
        yield row, np.fromfile(path, np.uint64, min(_KEYS_AT_ONCE, count - row), offset=8 * row)


def _chosen(
    keys: np.ndarray, row: int, wanted: np.ndarray | None, number: int, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Those of portion `number` of `count`, by the key's upper half, with their rows."""
    taken = np.ones(len(keys), dtype=bool) if wanted is None else wanted[row : row + len(keys)]
    if count > 1:
        taken = taken & ((keys >> np.uint64(32)) % np.uint64(count) == number)
    there = np.flatnonzero(taken)
    return keys[there], there + row
