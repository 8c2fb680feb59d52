"""Clusters of near-duplicates, from verified pairs: connected rows are one cluster and its first row survives."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

CLUSTER_SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("cluster", pa.int64()),
        ("kept", pa.bool_()),
        ("partner", pa.int64()),
        ("similarity", pa.float64()),
    ]
)
"""One row per input that has a near-duplicate: `cluster` is the row of its first member, the one that is `kept`;
`partner` and `similarity` are the verified pair that brought the row into the cluster (of the first: -1 and 1.0)."""
_BYTES_PER_PAIR = 400
"""Of memory, while pairs are joined, with what else is then in memory."""
_PAIRS_AT_ONCE = 1 << 14


@dataclass(frozen=True)
class VerifiedPairs:
    """Pairs (P,): rows `first` < `second`, and their similarity, 0 to 1."""

    first: np.ndarray
    second: np.ndarray
    similarity: np.ndarray

    def __len__(self) -> int:
        return len(self.first)

    def take(self, numbers: np.ndarray) -> VerifiedPairs:
        return VerifiedPairs(self.first[numbers], self.second[numbers], self.similarity[numbers])


class PairCollection:
    """Pairs as they are found. Beyond what memory holds only those stay that join two clusters.

    Clusters come out the same: a pair that joins nothing among some pairs joins nothing among more (Kruskal 1956).
    """

    def __init__(self, memory_bytes: int) -> None:
        self._found: list[VerifiedPairs] = []
        self._count = 0
        self._most = self._least_most = memory_bytes // _BYTES_PER_PAIR

    def add(self, pairs: VerifiedPairs) -> None:
        self._found.append(pairs)
        self._count += len(pairs)
        if self._count > self._most:
            pairs = self.pairs()
            self._found = [pairs.take(np.sort(_Forest(pairs).joining))]
            self._count = len(self._found[0])
            self._most = max(self._least_most, 2 * self._count)

    def pairs(self) -> VerifiedPairs:
        """All that were added and count."""
        none = VerifiedPairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
        names = ("first", "second", "similarity")
        return VerifiedPairs(
            *(np.concatenate([getattr(one, name) for one in (none, *self._found)]) for name in names)
        )


def clusters(pairs: VerifiedPairs) -> pa.Table:
    """Connected rows, each with the pair that brought it in; see `CLUSTER_SCHEMA`."""
    forest = _Forest(pairs)
    count = len(forest.rows)
    partner, similarity = np.full(count, -1), np.ones(count)
    joined = pairs.take(forest.joining)
    # The root that loses its place came first in its cluster: its own partner is the pair that joined the two.
    lost = forest.rows[forest.lost]
    partner[forest.lost] = np.where(lost == joined.second, joined.first, joined.second)
    similarity[forest.lost] = joined.similarity
    first = forest.rows[forest.roots()]
    columns = [forest.rows, first, forest.rows == first, partner, similarity]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, CLUSTER_SCHEMA, strict=True)]
    return pa.table(arrays, schema=CLUSTER_SCHEMA)


class _Forest:
    """Pairs joined from the most alike to the least, ties by rows; each cluster's root is its first row.

    Attributes:
        rows: all rows that have a pair, (R,) int64, ascending.
        joining: numbers of the pairs that joined two clusters, (J,), in the order in which they did.
        lost: for each of them, the root that ceased to be one, (J,), as a place in `rows`.
    """

    def __init__(self, pairs: VerifiedPairs) -> None:
        self.rows = np.unique(np.concatenate([pairs.first, pairs.second]))
        self._parent = array("q", range(len(self.rows)))
        joining, lost = array("q"), array("q")
        for number, first, second in self._in_order(pairs):
            one, other = self._root(first), self._root(second)
            if one != other:
                self._parent[max(one, other)] = min(one, other)
                joining.append(number)
                lost.append(max(one, other))
        self.joining = np.array(joining, dtype=np.int64)
        self.lost = np.array(lost, dtype=np.int64)

    def roots(self) -> np.ndarray:
        """Per row, the first row of its cluster, as a place in `rows`, (R,) int64."""
        roots = np.frombuffer(self._parent, dtype=np.int64) if len(self.rows) else np.zeros(0, np.int64)
        while not np.array_equal(above := roots[roots], roots):
            roots = above
        return roots

    def _in_order(self, pairs: VerifiedPairs) -> Iterator[tuple[int, int, int]]:
        order = np.lexsort((pairs.second, pairs.first, -pairs.similarity))
        for begin in range(0, len(order), _PAIRS_AT_ONCE):
            part = order[begin : begin + _PAIRS_AT_ONCE]
            first = np.searchsorted(self.rows, pairs.first[part])
            second = np.searchsorted(self.rows, pairs.second[part])
            yield from zip(part.tolist(), first.tolist(), second.tolist(), strict=True)

    def _root(self, place: int) -> int:
        parent = self._parent
        root = place
        while (above := parent[root]) != root:
            root = above
        while (above := parent[place]) != root:
            parent[place], place = root, above
        return root
