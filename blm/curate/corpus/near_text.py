"""Near-duplicate texts: MinHash, bands, and every candidate pair verified by the exact Jaccard of its shingles.

    texts ─▶ shingle sets ─▶ equal sets ──────────────────────────────┐
                  └─▶ MinHash (Broder 1997) ─▶ bands ─▶ candidates ─▶ exact Jaccard ─▶ clusters

Cost is linear in the number of texts as long as buckets stay small; a bucket of more than `_LARGE_BUCKET` texts
(boilerplate) is compared with its first members and neighbours only. Shingles, band keys and candidates wait in a
scratch folder, so memory holds what it is allowed, one byte per text and about 100 per text with a near-duplicate.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from blm.curate.corpus.candidates import Candidates, bucket_pairs
from blm.curate.corpus.clusters import PairCollection, VerifiedPairs, clusters
from blm.curate.corpus.shingles import ShingleSets, shingle_sets
from blm.curate.corpus.text_store import TextStore
from blm.curate.runs import portions, runs
from blm.schemas.errors import ConfigError

DEFAULT_MEMORY_BYTES = 500_000_000
LEAST_MEMORY_BYTES = 1 << 20

_BANDS, _ROWS = 16, 4
"""A pair of Jaccard 0.7 shares a band with probability 1 − (1 − 0.7⁴)¹⁶ = 0.988, one of 0.8 with 0.9998."""
_BATCH_BYTES = 512 * 1024
_SHINGLES_AT_ONCE = 1 << 20
_BYTES_PER_SHINGLE = 256
"""Of memory, while pairs are compared, with what else is then in memory."""


def near_duplicate_text(
    texts: pa.ChunkedArray | pa.Array | Iterable[pa.Array],
    threshold: float = 0.7,
    groups: np.ndarray | None = None,
    scratch: Path | None = None,
    seed: int = 0,
    memory_bytes: int = DEFAULT_MEMORY_BYTES,
) -> pa.Table:
    """Clusters (`CLUSTER_SCHEMA`) of texts whose word-shingle sets have a Jaccard similarity of at least `threshold`.

    Args:
        texts: strings (N,), or arrays of them, one after the other, which are read once.
        threshold: 0.5 to 1. Below 0.7 recall falls: 0.64 at 0.5.
        groups: (N,) integers; only texts of one group are compared. Default: all.
        scratch: a folder for intermediate files, about 160 bytes plus 4 per word and text. Default: a temporary one.
        seed: of the hash functions; the same seed gives the same result.
        memory_bytes: what sorting and comparing may use, beside 40 MB for a batch of texts. No effect on the result.

    Raises:
        ConfigError: `threshold` or `memory_bytes` is out of range, or `groups` has another length.
    """
    if not 0.5 <= threshold <= 1:
        raise ConfigError(f"the near-duplicate threshold is {threshold}.", "Choose one from 0.5 to 1.")
    if memory_bytes < LEAST_MEMORY_BYTES:
        raise ConfigError(f"{memory_bytes} bytes are too little memory.", f"Allow {LEAST_MEMORY_BYTES}.")
    with tempfile.TemporaryDirectory(dir=scratch, prefix="near-text-") as name:
        folder = Path(name)
        with TextStore(folder, _BANDS, memory_bytes) as store:
            for sets in _batches(texts):
                salt = _salt(groups, len(store), len(sets))
                store.add(sets, _identity(sets) ^ salt, _band_keys(_signatures(sets, seed), salt))
            if groups is not None and len(groups) != len(store):
                raise _wrong_groups(groups, len(store))
            store.seal()
            return clusters(_verified(store, folder, threshold, memory_bytes))


def _batches(texts: pa.ChunkedArray | pa.Array | Iterable[pa.Array]) -> Iterator[ShingleSets]:
    """The shingle sets of consecutive texts, each batch of about `_BATCH_BYTES`."""
    chunks: Any = [texts] if isinstance(texts, pa.Array) else texts
    if isinstance(texts, pa.ChunkedArray):
        chunks = texts.chunks  # type: ignore[attr-defined]
    for chunk in chunks:
        size = max(1, int(len(chunk) * _BATCH_BYTES / max(1, chunk.nbytes)))
        for start in range(0, len(chunk), size):
            yield shingle_sets(chunk.slice(start, size))


def _salt(groups: np.ndarray | None, first: int, count: int) -> np.ndarray:
    """What makes the keys of different groups differ, (count,) uint64."""
    if groups is None:
        return np.zeros(count, dtype=np.uint64)
    mine = np.asarray(groups[first : first + count])
    if len(mine) < count:
        raise _wrong_groups(groups, f"at least {first + count}")
    return _mix(mine.astype(np.uint64) + np.uint64(1))


def _wrong_groups(groups: np.ndarray, count: int | str) -> ConfigError:
    return ConfigError(f"{len(groups)} groups for {count} texts.", "Give one group per text.")


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


def _band_keys(signature: np.ndarray, salt: np.ndarray) -> Iterator[np.ndarray]:
    """Per band, a key (N,) uint64 of its rows of the signature (bands × rows, N)."""
    for band in range(_BANDS):
        key = salt.copy()
        for row in range(_ROWS):
            key = _mix(key ^ signature[band * _ROWS + row])
        yield key


def _mix(values: np.ndarray) -> np.ndarray:
    """Spread every bit of (n,) uint64 over all bits."""
    values = (values ^ (values >> np.uint64(32))) * np.uint64(0x9E3779B97F4A7C15)
    return values ^ (values >> np.uint64(29))


def _verified(store: TextStore, folder: Path, threshold: float, memory_bytes: int) -> VerifiedPairs:
    """Pairs of rows with equal shingle sets, and of those that share a band and are alike enough."""
    found = PairCollection(memory_bytes)
    distinct = np.ones(len(store), dtype=bool)
    for keys, rows in store.identities():
        first, equal = _equal(keys, rows)
        distinct[equal] = False
        found.add(VerifiedPairs(first, equal, np.ones(len(equal))))
    candidates = Candidates(folder, store.block_begins, memory_bytes)
    for keys, rows in store.band_keys(distinct):
        for first, second in bucket_pairs(keys, rows, memory_bytes):
            candidates.add(first, second)
    block = lru_cache(maxsize=2)(store.block)
    begins = store.block_begins
    for one, other, first, second in candidates:
        similarity = _jaccard(block(one), block(other), first, second, memory_bytes)
        alike = similarity >= threshold
        pairs = VerifiedPairs(begins[one] + first[alike], begins[other] + second[alike], similarity[alike])
        found.add(pairs)
    return found.pairs()


def _equal(keys: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows whose key an earlier row has, and for each the first that has it."""
    order = np.argsort(keys, kind="stable")
    again = np.zeros(len(keys), dtype=bool)
    np.equal(keys[order[1:]], keys[order[:-1]], out=again[1:])
    begins = np.flatnonzero(~again)
    first = np.repeat(begins, np.diff([*begins, len(keys)]))
    return rows[order[first[again]]], rows[order[again]]


def _jaccard(
    one: ShingleSets, other: ShingleSets, first: np.ndarray, second: np.ndarray, memory_bytes: int
) -> np.ndarray:
    """Exact Jaccard similarity (P,) of the sets `first` (P,) of `one` and `second` (P,) of `other`."""
    sizes = one.sizes[first] + other.sizes[second]
    similarity = np.empty(len(first))
    for part in portions(sizes, min(_SHINGLES_AT_ONCE, memory_bytes // _BYTES_PER_SHINGLE)):
        common = _common(one, other, first[part], second[part])
        similarity[part] = common / np.maximum(sizes[part] - common, 1)
    return similarity


def _common(one: ShingleSets, other: ShingleSets, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """How many shingles each pair has in common, (P,) int64."""
    keys = []
    for sets, rows in ((one, first), (other, second)):
        size = sets.sizes[rows]
        pair = np.repeat(np.arange(len(rows), dtype=np.uint64) << np.uint64(32), size)
        keys.append(pair | sets.hashes[runs(sets.starts[rows], size)])
    merged = np.concatenate(keys)
    merged.sort()
    shared = merged[1:][merged[1:] == merged[:-1]]
    return np.bincount((shared >> np.uint64(32)).astype(np.int64), minlength=len(first))
