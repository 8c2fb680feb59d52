"""Texts that mean the same in other words: those whose vectors lie close to that of an earlier text.

Every text is compared with every earlier one of its group, exactly, in blocks of matrix products: n² · width / 2
multiplications for a group of n, about a minute of one core for 100,000 texts and 384 values, 100 times that for a
million. Texts alone in their group are not even encoded. Vectors wait on disk; memory holds two blocks and their
product.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from blm.curate.corpus.clusters import VerifiedPairs, clusters

_TEXTS_AT_ONCE = 1024
_BLOCK_ROWS = 2048
_ROUNDING = 1e-6
"""Equal vectors have a product of 1 but for this."""


def near_duplicate_meaning(
    texts: pa.ChunkedArray,
    groups: np.ndarray,
    encode: Callable[[Sequence[str]], np.ndarray],
    width: int,
    threshold: float,
    scratch: Path | None = None,
) -> pa.Table:
    """Clusters (`CLUSTER_SCHEMA`) of texts of one group; each is joined to the earlier text that it is most alike.

    Args:
        texts: strings (N,).
        groups: (N,) integers; only texts of one group are compared.
        encode: gives vectors (n, width) float32 of length 1 for n texts.
        threshold: cosine similarity from which texts count.
        scratch: a folder for the vectors, 4 · width bytes for each text. Default: a temporary one.
    """
    rows, edges = _compared_rows(groups)
    with tempfile.TemporaryDirectory(dir=scratch, prefix="near-meaning-") as folder:
        vectors = _encoded(texts, rows, encode, width, Path(folder) / "vectors")
        found = [
            _closest_before(vectors[begin:end], threshold, begin)
            for begin, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
        ]
    joined = [np.concatenate([np.zeros(0), *parts]) for parts in zip(*found, strict=True)] or [
        np.zeros(0)
    ] * 3
    second, first = rows[joined[0].astype(np.int64)], rows[joined[1].astype(np.int64)]
    return clusters(VerifiedPairs(first, second, joined[2]))


def _compared_rows(groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows that share their group with another, group by group and in order within, and where each group begins."""
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    begins = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if len(groups) else order
    sizes = np.diff(np.append(begins, len(groups)))
    several = sizes > 1
    rows = order[np.repeat(several, sizes)]
    return rows, np.concatenate([[0], np.cumsum(sizes[several])]).astype(np.int64)


def _encoded(
    texts: pa.ChunkedArray,
    rows: np.ndarray,
    encode: Callable[[Sequence[str]], np.ndarray],
    width: int,
    file: Path,
) -> np.ndarray:
    """Vectors of these rows, (n, width) float32, on disk."""
    if not len(rows):
        return np.zeros((0, width), dtype=np.float32)
    vectors = np.memmap(file, dtype=np.float32, mode="w+", shape=(len(rows), width))
    for start in range(0, len(rows), _TEXTS_AT_ONCE):
        some = rows[start : start + _TEXTS_AT_ONCE]
        vectors[start : start + len(some)] = encode(texts.take(pa.array(some)).to_pylist())
    return vectors


def _closest_before(
    vectors: np.ndarray, threshold: float, offset: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of a group, the rows with an earlier one at least so close: row, the closest of those, their similarity."""
    parts = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)), *_blocks(vectors, threshold)]
    row, before, similarity = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return row + offset, before + offset, similarity


def _blocks(vectors: np.ndarray, threshold: float) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    for begin in range(0, len(vectors), _BLOCK_ROWS):
        mine = np.asarray(vectors[begin : begin + _BLOCK_ROWS])
        best = np.full(len(mine), -np.inf, dtype=np.float32)
        partner = np.zeros(len(mine), dtype=np.int64)
        for start in range(0, begin + 1, _BLOCK_ROWS):
            similarity = mine @ np.asarray(vectors[start : start + _BLOCK_ROWS]).T
            if start == begin:
                similarity[~np.tri(len(mine), k=-1, dtype=bool)] = -np.inf
            closest = similarity.argmax(axis=1)
            value = similarity[np.arange(len(mine)), closest]
            better = value > best
            best[better], partner[better] = value[better], closest[better] + start
        alike = np.flatnonzero(best >= threshold - _ROUNDING)
        yield alike + begin, partner[alike], np.minimum(best[alike].astype(np.float64), 1.0)
