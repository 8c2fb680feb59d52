"""Clusters of near-duplicates, from verified pairs: connected rows are one cluster and its first row survives."""

from __future__ import annotations

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


@dataclass(frozen=True)
class VerifiedPairs:
    """Pairs (P,): rows `first` < `second`, and their similarity, 0 to 1."""

    first: np.ndarray
    second: np.ndarray
    similarity: np.ndarray


def clusters(pairs: VerifiedPairs, count: int) -> pa.Table:
    """Connected rows, each with the pair that brought it in; see `CLUSTER_SCHEMA`."""
    order = np.lexsort((pairs.second, pairs.first, -pairs.similarity))
    parent: dict[int, int] = {}
    brought: dict[int, tuple[int, float]] = {}
    for first, second, similarity in zip(
        pairs.first[order].tolist(),
        pairs.second[order].tolist(),
        pairs.similarity[order].tolist(),
        strict=True,
    ):
        one, other = _root(parent, first), _root(parent, second)
        if one == other:
            continue
        parent[max(one, other)] = min(one, other)
        # The root that loses its place came first in its cluster: its own partner is the pair that joined the two.
        brought[max(one, other)] = (first if max(one, other) == second else second, similarity)
    rows = sorted({*parent, *parent.values()})
    members = [(row, _root(parent, row)) for row in rows]
    columns = [
        rows,
        [root for _, root in members],
        [row == root for row, root in members],
        [brought.get(row, (-1, 1.0))[0] for row in rows],
        [brought.get(row, (-1, 1.0))[1] for row in rows],
    ]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, CLUSTER_SCHEMA, strict=True)]
    return pa.table(arrays, schema=CLUSTER_SCHEMA)


def _root(parent: dict[int, int], row: int) -> int:
    root = row
    while (above := parent.get(root, root)) != root:
        root = above
    while (above := parent.get(row, row)) != root:
        parent[row], row = root, above
    return root
