"""Texts as sets of hashed word shingles, a whole batch at a time in NumPy, without a Python object per word.

A word is a run of letters and digits (any script; letter case does not count; a CJK character is a word of its own). A
shingle is a number of words in a row; a text of fewer words is one shingle, and one without words is its bytes,
so that short texts are alike only where they are equal.

Words are hashed through prefix sums of byte × base^position modulo 2^64: with an odd base the position divides out, so
a word's hash is two look-ups however long it is. Cost: linear in bytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

SHINGLE_WORDS = 5

_BASE = np.uint64(0x9E3779B97F4A7C15)
_INVERSE = np.uint64(pow(int(_BASE), -1, 2**64))
_WORD, _OWN_WORD = 1, 2
_ASCII_WORDS = re.compile(r"[0-9a-z]+")
_WORDS = re.compile(rb"[\xe3-\xed][0-9a-z\x80-\xe2\xee-\xff]*|[0-9a-z\x80-\xe2\xee-\xff]+")
"""A run of word bytes; one that begins a character which is a word of its own (see `_classes`) begins another."""


@dataclass(frozen=True)
class ShingleSets:
    """The shingles of N texts: those of text i are `hashes[starts[i]:starts[i + 1]]`, ascending and distinct.

    Attributes:
        hashes: (S,) uint32.
        starts: (N + 1,) int64.
    """

    hashes: np.ndarray
    starts: np.ndarray

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def sizes(self) -> np.ndarray:
        """Shingles per text, (N,) int64."""
        return np.diff(self.starts)


def shingle_sets(texts: pa.Array, width: int = SHINGLE_WORDS) -> ShingleSets:
    """The sets of shingles of `width` words of an array of strings; a null counts as an empty text."""
    lowered = _lowered(texts)
    text, starts = _bytes_of(lowered)
    prefix, inverse = _prefix_sums(text)
    first, stop, owner = _words(text, starts)
    words = _mixed((prefix[stop] - prefix[first]) * inverse[first])
    hashes, owners = _shingles(words, owner, len(starts) - 1, width)
    bare = np.flatnonzero(np.bincount(owner, minlength=len(starts) - 1) == 0)
    whole = _mixed((prefix[starts[bare + 1]] - prefix[starts[bare]]) * inverse[starts[bare]])
    return _distinct(np.concatenate([hashes, whole]), np.concatenate([owners, bare]), len(starts) - 1)


def words_of(text: str) -> list[str]:
    """The words of a text, in order, as `shingle_sets` sees them."""
    if text.isascii():
        return _ASCII_WORDS.findall(text.lower())
    lowered = _lowered(pa.array([text]))[0].as_py().encode()
    return [word.decode(errors="replace") for word in _WORDS.findall(lowered)]


def _lowered(texts: pa.Array) -> pa.Array:
    return pc.utf8_lower(pc.fill_null(texts.cast(pa.large_string()), ""))  # type: ignore[attr-defined]


def _bytes_of(texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """All texts' bytes one after the other (uint8), and where each begins, (N + 1,) int64."""
    _, offsets, content = texts.buffers()
    starts = np.frombuffer(offsets, dtype=np.int64)[texts.offset : texts.offset + len(texts) + 1]
    raw = np.frombuffer(content, dtype=np.uint8) if content is not None else np.zeros(0, np.uint8)
    return raw[starts[0] : starts[-1]], starts - starts[0]


def _prefix_sums(text: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums of byte × base^position before each position, (n + 1,), and base^−position, (n + 1,); modulo 2^64."""
    count = len(text) + 1
    prefix = np.zeros(count, dtype=np.uint64)
    np.multiply(text, _powers(_BASE, count)[:-1], out=prefix[1:])
    np.cumsum(prefix[1:], out=prefix[1:])
    return prefix, _powers(_INVERSE, count)


def _powers(base: np.uint64, count: int) -> np.ndarray:
    """base^0 … base^(count − 1) modulo 2^64, by doubling; kept for the next batch."""
    known = _KNOWN_POWERS.get(int(base))
    if known is None or len(known) < count:
        known = np.ones(1, dtype=np.uint64)
        while len(known) < count:
            known = np.concatenate([known, known * known[-1:] * base])
        _KNOWN_POWERS[int(base)] = known
    return known[:count]


_KNOWN_POWERS: dict[int, np.ndarray] = {}


def _classes() -> np.ndarray:
    """What each byte is: nothing, part of a word, or the beginning of a character that is a word of its own."""
    classes = np.zeros(256, dtype=np.uint8)
    classes[[*range(ord("0"), ord("9") + 1), *range(ord("a"), ord("z") + 1)]] = _WORD
    classes[0x80:] = _WORD
    classes[0xE3:0xEE] = _OWN_WORD  # lead bytes of CJK and Hangul
    return classes


_CLASSES = _classes()


def _words(text: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every word's first byte, the byte after its last, and the text it is in; each (W,) int64."""
    kind = _CLASSES[text]
    inside = kind > 0
    before = np.concatenate([[False], inside[:-1]])
    before[starts[:-1][starts[:-1] < len(text)]] = False
    begins = inside & (~before | (kind == _OWN_WORD))
    first = np.flatnonzero(begins)
    after = np.concatenate([inside[1:] & ~begins[1:], [False]]) if len(text) else inside
    stop = np.flatnonzero(inside & ~after) + 1
    counts = np.diff(np.searchsorted(first, starts))
    return first, stop, np.repeat(np.arange(len(starts) - 1), counts)


def _shingles(words: np.ndarray, owner: np.ndarray, texts: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of all shingles and the texts they are of."""
    counts = np.bincount(owner, minlength=texts)
    begins = np.concatenate([[0], np.cumsum(counts)[:-1]])
    rank = np.arange(len(words)) - begins[owner]
    hashes = np.zeros(len(words), dtype=np.uint64)
    for place in range(width):
        later = words[place:]
        hashes[: len(later)] = hashes[: len(later)] * _BASE + later
    full = rank + width <= counts[owner]
    short = np.flatnonzero((counts > 0) & (counts < width))
    few = np.zeros(len(short), dtype=np.uint64)
    for place in range(width - 1):
        there = counts[short] > place
        at = begins[short[there]] + place
        few[there] = few[there] * _BASE + words[at]
    return np.concatenate([hashes[full], few]), np.concatenate([owner[full], short])


def _distinct(hashes: np.ndarray, owners: np.ndarray, texts: int) -> ShingleSets:
    keys = (owners.astype(np.uint64) << np.uint64(32)) | (_mixed(hashes) >> np.uint64(32))
    keys.sort()
    fresh = np.ones(len(keys), dtype=bool)
    np.not_equal(keys[1:], keys[:-1], out=fresh[1:])
    keys = keys[fresh]
    counts = np.bincount((keys >> np.uint64(32)).astype(np.int64), minlength=texts)
    return ShingleSets(keys.astype(np.uint32), np.concatenate([[0], np.cumsum(counts)]))


def _mixed(values: np.ndarray) -> np.ndarray:
    """Spread every bit of uint64 values over all bits (the finaliser of SplitMix64; Steele et al. 2014)."""
    values = values ^ (values >> np.uint64(30))
    values = values * np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
