"""All pairs of 64-bit hashes that differ in few bits, without comparing everything with everything.

Two hashes that differ in at most 6 bits agree in at least two of their eight bytes. So they are sorted by each of the
28 pairs of bytes, and only those that share both are compared: no pair is missed. With n hashes spread evenly, each is
compared with about 28 n / 65,536 others: 430 at a million.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np

from blm.curate.runs import portions, runs

MAX_DISTANCE = 6
_COMPARISONS_AT_ONCE = 1 << 20


def close_pairs(queries: np.ndarray, hashes: np.ndarray, distance: int) -> np.ndarray:
    """Pairs (query, index), shape (P, 2) int64, ascending and distinct, whose hashes differ in at most `distance` bits.

    Args:
        queries: (m,) uint64.
        hashes: (n,) uint64.
        distance: 0 to 6.
    """
    if not 0 <= distance <= MAX_DISTANCE:
        raise ValueError(f"distance is {distance}, not within 0..{MAX_DISTANCE}")
    found: list[np.ndarray] = [np.zeros((0, 2), dtype=np.int64)]
    for bytes_used in combinations(range(8), 2):
        order, ordered = _sorted(_key(hashes, bytes_used))
        wanted = _key(queries, bytes_used)
        first = np.searchsorted(ordered, wanted, side="left")
        counts = np.searchsorted(ordered, wanted, side="right") - first
        there = np.flatnonzero(counts)
        for part in portions(counts[there], _COMPARISONS_AT_ONCE):
            rows = there[part]
            query = np.repeat(rows, counts[rows])
            index = order[runs(first[rows], counts[rows])]
            close = np.bitwise_count(queries[query] ^ hashes[index]) <= distance
            found.append(np.stack([query[close], index[close]], axis=1))
    return np.unique(np.concatenate(found), axis=0)


def _key(hashes: np.ndarray, bytes_used: tuple[int, int]) -> np.ndarray:
    parts = np.ascontiguousarray(hashes).view(np.uint8).reshape(-1, 8)[:, bytes_used].astype(np.uint16)
    return parts[:, 0] << np.uint16(8) | parts[:, 1]


def _sorted(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(keys, kind="stable")
    return order, keys[order]
