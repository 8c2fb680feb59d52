"""Near-duplicate texts: MinHash, bands, and every candidate pair verified by the exact Jaccard of its shingles.

    texts ─▶ shingle sets ─▶ equal sets ──────────────────────────────┐
                  └─▶ MinHash (Broder 1997) ─▶ bands ─▶ candidates ─▶ exact Jaccard ─▶ clusters

Cost is linear in the number of texts as long as buckets stay small; a bucket of more than `_LARGE_BUCKET` texts
(boilerplate) is compared with its first members and neighbours only. Band keys and shingles wait in a scratch folder,
so memory holds a batch and about 40 bytes per text, whatever the corpus.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from blm.curate.corpus.clusters import VerifiedPairs, clusters
from blm.curate.corpus.shingles import ShingleSets, shingle_sets
from blm.curate.runs import runs
from blm.schemas.errors import ConfigError

_BANDS, _ROWS = 16, 4
"""A pair of Jaccard 0.7 shares a band with probability 1 − (1 − 0.7⁴)¹⁶ = 0.988, one of 0.8 with 0.9998."""
_BATCH_BYTES = 512 * 1024
_LARGE_BUCKET = 64
_FIRST_MEMBERS = 8
_NEIGHBOURS = 8
_PAIRS_AT_ONCE = 1 << 16


def near_duplicate_text(
    texts: pa.ChunkedArray | pa.Array,
    threshold: float = 0.7,
    groups: np.ndarray | None = None,
    scratch: Path | None = None,
    seed: int = 0,
) -> pa.Table:
    """Clusters (`CLUSTER_SCHEMA`) of texts whose word-shingle sets have a Jaccard similarity of at least `threshold`.

    Args:
        texts: strings (N,).
        threshold: 0.5 to 1. Below 0.7 recall falls: 0.64 at 0.5.
        groups: (N,) integers; only texts of one group are compared. Default: all.
        scratch: a folder for intermediate files, about 64 bytes plus 4 per word and text. Default: a temporary one.
        seed: of the hash functions; the same seed gives the same result.

    Raises:
        ConfigError: `threshold` is out of range, or `groups` has another length.
    """
    if not 0.5 <= threshold <= 1:
        raise ConfigError(f"the near-duplicate threshold is {threshold}.", "Choose one from 0.5 to 1.")
    count = len(texts)
    if groups is not None and len(groups) != count:
        raise ConfigError(f"{len(groups)} groups for {count} texts.", "Give one group per text.")
    salt = np.zeros(count, dtype=np.uint64) if groups is None else _mixed_groups(groups)
    with tempfile.TemporaryDirectory(dir=scratch, prefix="near-text-") as folder:
        store = _Store(Path(folder), count)
        for first, sets in _batches(texts):
            store.add(first, sets, salt[first : first + len(sets)], seed)
        store.seal()
        pairs = _verified(store, threshold)
    return clusters(pairs, count)


class _Store:
    """Shingles and band keys of all texts, on disk but for offsets and one key per text."""

    def __init__(self, folder: Path, count: int) -> None:
        self._shingles = (folder / "shingles").open("w+b")
        self._bands = [(folder / f"band-{band:02d}").open("w+b") for band in range(_BANDS)]
        self.starts = np.zeros(count + 1, dtype=np.int64)
        self.identity = np.zeros(count, dtype=np.uint64)

    def add(self, first: int, sets: ShingleSets, salt: np.ndarray, seed: int) -> None:
        rows = slice(first, first + len(sets))
        self.starts[first + 1 : first + 1 + len(sets)] = self.starts[first] + sets.starts[1:]
        self._shingles.write(sets.hashes.tobytes())
        signature = _signatures(sets, seed)
        self.identity[rows] = _identity(sets) ^ salt
        for band, stream in enumerate(self._bands):
            key = salt.copy()
            for row in range(_ROWS):
                key = _mix(key ^ signature[band * _ROWS + row])
            stream.write(key.tobytes())

    def seal(self) -> None:
        for stream in (self._shingles, *self._bands):
            stream.flush()

    def band_keys(self) -> Iterator[np.ndarray]:
        """Per band, a key (N,) uint64 that texts share where they may be alike."""
        for stream in self._bands:
            stream.seek(0)
            yield np.frombuffer(stream.read(), dtype=np.uint64)

    def shingles(self) -> np.ndarray:
        """All shingles, (S,) uint32, read from disk where they are looked at."""
        size = int(self.starts[-1])
        return (
            np.memmap(self._shingles, dtype=np.uint32, mode="r", shape=(size,))
            if size
            else np.zeros(0, np.uint32)
        )


def _batches(texts: pa.ChunkedArray | pa.Array) -> Iterator[tuple[int, ShingleSets]]:
    """The shingle sets of consecutive texts, each batch of about `_BATCH_BYTES`."""
    chunks = texts.chunks if isinstance(texts, pa.ChunkedArray) else [texts]
    row = 0
    for chunk in chunks:
        size = max(1, int(len(chunk) * _BATCH_BYTES / max(1, chunk.nbytes)))
        for start in range(0, len(chunk), size):
            sets = shingle_sets(chunk.slice(start, size))
            yield row, sets
            row += len(sets)


def _signatures(sets: ShingleSets, seed: int) -> np.ndarray:
    """MinHash values (bands × rows, N) uint64: per hash function, the least hash of each text's shingles."""
    generator = np.random.default_rng([seed, 0x6D696E])
    factors = generator.integers(0, 2**31, _BANDS * _ROWS, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
    masks = generator.integers(0, 2**32, _BANDS * _ROWS, dtype=np.uint32)
    least = np.empty((_BANDS * _ROWS, len(sets)), dtype=np.uint64)
    hashed = np.empty_like(sets.hashes)
    for number, (factor, mask) in enumerate(zip(factors, masks, strict=True)):
        np.bitwise_xor(sets.hashes, mask, out=hashed)
        np.multiply(hashed, factor, out=hashed)
        least[number] = np.minimum.reduceat(hashed, sets.starts[:-1])
    return least


def _identity(sets: ShingleSets) -> np.ndarray:
    """A hash of each whole set, (N,) uint64: equal where the sets are."""
    return _mix(np.add.reduceat(_mix(sets.hashes.astype(np.uint64)), sets.starts[:-1]))


def _mixed_groups(groups: np.ndarray) -> np.ndarray:
    return _mix(np.asarray(groups).astype(np.uint64) + np.uint64(1))


def _mix(values: np.ndarray) -> np.ndarray:
    """Spread every bit of (n,) uint64 over all bits."""
    values = (values ^ (values >> np.uint64(32))) * np.uint64(0x9E3779B97F4A7C15)
    return values ^ (values >> np.uint64(29))


def _verified(store: _Store, threshold: float) -> VerifiedPairs:
    """Pairs of rows with equal shingle sets, and those that share a band and are alike enough."""
    representative = _first_equal(store.identity)
    distinct = np.flatnonzero(representative == np.arange(len(representative)))
    equal = np.flatnonzero(representative != np.arange(len(representative)))
    found = [VerifiedPairs(representative[equal], equal, np.ones(len(equal)))]
    candidates = np.zeros(0, dtype=np.int64)
    count = len(representative)
    for key in store.band_keys():
        candidates = np.union1d(candidates, _bucket_pairs(key[distinct], distinct, count))
    shingles = store.shingles()
    for begin in range(0, len(candidates), _PAIRS_AT_ONCE):
        first, second = np.divmod(candidates[begin : begin + _PAIRS_AT_ONCE], count)
        jaccard = _jaccard(shingles, store.starts, first, second)
        alike = jaccard >= threshold
        found.append(VerifiedPairs(first[alike], second[alike], jaccard[alike]))
    return VerifiedPairs(
        *(np.concatenate([getattr(one, name) for one in found]) for name in ("first", "second", "similarity"))
    )


def _first_equal(values: np.ndarray) -> np.ndarray:
    """Per element, the index of the first that equals it, (N,) int64."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    fresh = np.ones(len(values), dtype=bool)
    np.not_equal(ordered[1:], ordered[:-1], out=fresh[1:])
    first = np.empty(len(values), dtype=np.int64)
    first[order] = order[np.flatnonzero(fresh)][np.cumsum(fresh) - 1] if len(values) else order
    return first


def _bucket_pairs(keys: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
    """Pairs of rows with one key, each as first × count + second, ascending and distinct."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    edges = np.concatenate([[0], np.flatnonzero(ordered[1:] != ordered[:-1]) + 1, [len(keys)]])
    sizes = np.diff(edges)
    several = sizes > 1
    begins, sizes = edges[:-1][several], sizes[several]
    end = np.repeat(begins + sizes, sizes)
    places = runs(begins, sizes)
    small = np.repeat(sizes <= _LARGE_BUCKET, sizes)
    firsts, seconds = [], []
    for step in range(1, int(min(sizes.max(initial=0), _LARGE_BUCKET))):
        there = (places + step < end) & (small | (step <= _NEIGHBOURS))
        firsts.append(places[there])
        seconds.append(places[there] + step)
    for begin, size in zip(begins[sizes > _LARGE_BUCKET], sizes[sizes > _LARGE_BUCKET], strict=True):
        for member in range(_FIRST_MEMBERS):
            firsts.append(np.full(size - member - 1, begin + member))
            seconds.append(np.arange(begin + member + 1, begin + size))
    if not firsts:
        return np.zeros(0, dtype=np.int64)
    one, other = rows[order[np.concatenate(firsts)]], rows[order[np.concatenate(seconds)]]
    return np.unique(np.minimum(one, other) * count + np.maximum(one, other))


def _jaccard(shingles: np.ndarray, starts: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Exact Jaccard similarity (P,) of the shingle sets of rows `first` and `second`."""
    sizes = [starts[rows + 1] - starts[rows] for rows in (first, second)]
    keys = []
    for rows, size in zip((first, second), sizes, strict=True):
        pair = np.repeat(np.arange(len(rows), dtype=np.uint64) << np.uint64(32), size)
        keys.append(pair | shingles[runs(starts[rows], size)])
    merged = np.concatenate(keys)
    merged.sort()
    shared = merged[1:][merged[1:] == merged[:-1]]
    common = np.bincount((shared >> np.uint64(32)).astype(np.int64), minlength=len(first))
    return common / np.maximum(sizes[0] + sizes[1] - common, 1)
