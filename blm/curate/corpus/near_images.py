"""Near-duplicate images: perceptual hashes, an index instead of a loop over pairs, and two hashes that must agree.

A pair counts where one hash is close and the other does not contradict it: pHash within 6 bits and dHash within 16, or
dHash within 4 and pHash within 24 (a caption over part of a picture). All but uniform pictures are left alone: their
hashes are noise.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from blm.curate.corpus.clusters import VerifiedPairs, clusters
from blm.curate.corpus.hamming import close_pairs
from blm.curate.corpus.perceptual_hash import ImageHashes

PHASH_CLOSE, DHASH_NOT_FAR = 6, 16
DHASH_CLOSE, PHASH_NOT_FAR = 4, 24
_BITS = 64


def near_duplicate_images(hashes: ImageHashes, mirrored: bool = False) -> pa.Table:
    """Clusters of images that look the same (`CLUSTER_SCHEMA`; `similarity` is the share of equal bits of both hashes).

    With `mirrored`, an image and its mirror image are near-duplicates too. Cost: 28 sorts of N, and see `hamming`.
    """
    rows = np.flatnonzero(hashes.usable)
    phash, dhash = hashes.phash[rows], hashes.dhash[rows]
    found = [_alike(phash, dhash, phash, dhash)]
    if mirrored:
        found.append(_alike(hashes.flipped_phash[rows], hashes.flipped_dhash[rows], phash, dhash))
    pairs = np.concatenate(found)
    first, second = rows[pairs[:, 0].astype(np.int64)], rows[pairs[:, 1].astype(np.int64)]
    return clusters(VerifiedPairs(first, second, pairs[:, 2]))


def matching_images(queries: ImageHashes, known: ImageHashes) -> np.ndarray:
    """Pairs (query, known), shape (P, 2) int64, of images that look the same, mirrored ones included."""
    parts = []
    for phash, dhash in ((queries.phash, queries.dhash), (queries.flipped_phash, queries.flipped_dhash)):
        pairs = _alike(phash, dhash, known.phash, known.dhash, ordered=False)[:, :2].astype(np.int64)
        parts.append(pairs[queries.usable[pairs[:, 0]] & known.usable[pairs[:, 1]]])
    return np.unique(np.concatenate(parts), axis=0)


def _alike(
    phash: np.ndarray,
    dhash: np.ndarray,
    other_phash: np.ndarray,
    other_dhash: np.ndarray,
    ordered: bool = True,
) -> np.ndarray:
    """Pairs that look the same: (P, 3) of query, index and the share of equal bits; `ordered`: query < index only."""
    pairs = np.concatenate(
        [close_pairs(phash, other_phash, PHASH_CLOSE), close_pairs(dhash, other_dhash, DHASH_CLOSE)]
    )
    pairs = np.unique(pairs[pairs[:, 0] < pairs[:, 1]] if ordered else pairs, axis=0)
    by_phash = np.bitwise_count(phash[pairs[:, 0]] ^ other_phash[pairs[:, 1]]).astype(np.int64)
    by_dhash = np.bitwise_count(dhash[pairs[:, 0]] ^ other_dhash[pairs[:, 1]]).astype(np.int64)
    same = (by_phash <= PHASH_CLOSE) & (by_dhash <= DHASH_NOT_FAR)
    same |= (by_dhash <= DHASH_CLOSE) & (by_phash <= PHASH_NOT_FAR)
    share = 1 - (by_phash + by_dhash) / (2 * _BITS)
    return np.column_stack([pairs, share])[same]
