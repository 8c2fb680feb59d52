"""Find what a corpus shares with benchmarks: their images, runs of 13 words, or a question with its answer.

    items ─▶ hashes of 13-word shingles ─▶ candidates ─▶ the words themselves ─┐
         ─▶ normalised question + answer ──────────────────────────────────────┼─▶ `CONTAMINATION_SCHEMA`
         ─▶ hashes of images ──────────────────────────────────────────────────┘

Where both an item and a conversation show images, only images count: "How many cubes are there? Three" is no leak
about another picture. A run of 13 words that more than `BOILERPLATE_ITEMS` items of a benchmark share is its
instructions, not a question (13 words and such a rule: Brown et al. 2020, "Language models are few-shot learners",
appendix C).

Memory: the benchmarks' texts and a batch of the corpus. Cost: linear in the corpus' bytes.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa

from blm.curate.corpus.benchmark_items import BenchmarkItem
from blm.curate.corpus.near_images import matching_images
from blm.curate.corpus.perceptual_hash import ImageHashes, image_hashes
from blm.curate.corpus.shingles import shingle_sets, words_of

CONTAMINATION_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("benchmark", pa.string()),
        ("item", pa.int64()),
        ("match", pa.string()),
        ("share", pa.float64()),
        ("evidence", pa.string()),
    ]
)
"""What matched what: a conversation, the benchmark and the row of its file; `match` is image, words or answer; `share`
is that of the item's 13-word runs which the conversation holds (1 for an answer or image); `evidence` the first such
run, the question and answer, or the image's SHA-256."""
RUN_WORDS = 13
BOILERPLATE_ITEMS = 10
MATCHES_PER_CONVERSATION = 20
_BATCH_ROWS = 256


@dataclass(frozen=True)
class Match:
    """A row of the corpus matches an item of a benchmark; see `CONTAMINATION_SCHEMA`."""

    row: int
    item: BenchmarkItem
    kind: str
    share: float
    evidence: str


class BenchmarkTexts:
    """The texts of benchmark items, to be looked for in conversations."""

    def __init__(self, items: Sequence[BenchmarkItem]) -> None:
        self._items = items
        self._hashes, self._owners, self._boilerplate = _index(items)
        self._item_runs = lru_cache(maxsize=4096)(lambda item: _runs(words_of(self._items[item].text)))
        self._answers: dict[bytes, list[int]] = defaultdict(list)
        for number, item in enumerate(items):
            if item.answer:
                self._answers[_exchange_key(item.question, item.answer)].append(number)

    def words_in(self, texts: pa.ChunkedArray | pa.Array) -> Iterator[tuple[int, int, float, str]]:
        """Per text and item that share a run of 13 words: row, item, the share of the item's runs, one of them."""
        chunks = texts.chunks if isinstance(texts, pa.ChunkedArray) else [texts]
        first = 0
        for chunk in chunks:
            for start in range(0, len(chunk), _BATCH_ROWS):
                batch = chunk.slice(start, _BATCH_ROWS)
                for row, items in self._candidates(batch):
                    for item, share, run in self._verified(batch[row].as_py(), items):
                        yield first + start + row, item, share, run
            first += len(chunk)

    def answers_in(self, exchanges: Iterable[tuple[str, str]]) -> Iterator[tuple[int, str]]:
        """Items asked and answered in these (question, answer) pairs, with both as they are said."""
        for question, answer in exchanges:
            for item in self._answers.get(_exchange_key(question, answer), ()):
                yield item, f"{question} → {answer}"

    def _candidates(self, texts: pa.Array) -> Iterator[tuple[int, list[int]]]:
        sets = shingle_sets(texts, RUN_WORDS)
        low = np.searchsorted(self._hashes, sets.hashes, side="left")
        high = np.searchsorted(self._hashes, sets.hashes, side="right")
        found: dict[int, set[int]] = defaultdict(set)
        for place in np.flatnonzero(high > low):
            row = int(np.searchsorted(sets.starts, place, side="right")) - 1
            found[row].update(self._owners[low[place] : high[place]].tolist())
        for row, items in sorted(found.items()):
            yield row, sorted(items)

    def _verified(self, text: str, items: list[int]) -> Iterator[tuple[int, float, str]]:
        mine = _runs(words_of(text))
        for item in items:
            common = sorted(mine & self._item_runs(item))
            if common and len(self._boilerplate):
                known = np.isin(shingle_sets(pa.array(common), RUN_WORDS).hashes, self._boilerplate)
                common = [run for run, boilerplate in zip(common, known, strict=True) if not boilerplate]
            if common:
                yield item, len(common) / len(self._item_runs(item)), common[0]


def _index(items: Sequence[BenchmarkItem]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hashes of all items' runs, ascending; the items they are of; hashes of boilerplate, which are not among them."""
    hashes: list[np.ndarray] = [np.zeros(0, np.uint32)]
    owners: list[np.ndarray] = [np.zeros(0, np.int64)]
    for start in range(0, len(items), _BATCH_ROWS):
        batch = items[start : start + _BATCH_ROWS]
        sets = shingle_sets(pa.array([item.text for item in batch], pa.large_string()), RUN_WORDS)
        hashes.append(sets.hashes)
        owners.append(start + np.repeat(np.arange(len(batch)), sets.sizes))
    runs, owner = np.concatenate(hashes), np.concatenate(owners)
    names = {name: number for number, name in enumerate(dict.fromkeys(item.benchmark for item in items))}
    of = np.array([names[item.benchmark] for item in items], dtype=np.uint64)
    keys, counts = np.unique((of[owner] << np.uint64(32)) | runs, return_counts=True)
    boilerplate = np.unique(keys[counts > BOILERPLATE_ITEMS].astype(np.uint32))
    telling = ~np.isin(runs, boilerplate)
    runs, owner = runs[telling], owner[telling]
    order = np.argsort(runs, kind="stable")
    return runs[order], owner[order], boilerplate


class BenchmarkImages:
    """The images of benchmark items, to be looked for among those of conversations."""

    def __init__(self, items: Sequence[BenchmarkItem], only_equal: frozenset[str] = frozenset()) -> None:
        """`only_equal`: benchmarks of whose images only equal bytes count."""
        self._equal: dict[bytes, list[int]] = defaultdict(list)
        self._alike: list[int] = []
        contents = []
        for number, item in enumerate(items):
            for image in item.images:
                self._equal[hashlib.sha256(image).digest()].append(number)
                if item.benchmark not in only_equal:
                    self._alike.append(number)
                    contents.append(image)
        self._hashes = image_hashes(contents)

    @property
    def needs_hashes(self) -> bool:
        """Whether any image is looked for by what it looks like."""
        return bool(self._alike)

    def found(self, digests: Sequence[bytes], hashes: ImageHashes | None) -> dict[int, list[int]]:
        """Per number of a corpus image that is found, the items that show it.

        `digests` are the images' SHA-256; `hashes` what they look like, needed where `needs_hashes`.
        """
        matches: dict[int, set[int]] = defaultdict(set)
        for number, digest in enumerate(digests):
            if digest in self._equal:
                matches[number].update(self._equal[digest])
        if hashes is not None and self._alike:
            for number, known in matching_images(hashes, self._hashes).tolist():
                matches[number].add(self._alike[known])
        return {number: sorted(items) for number, items in matches.items()}


def _runs(words: list[str]) -> set[str]:
    return {" ".join(words[start : start + RUN_WORDS]) for start in range(len(words) - RUN_WORDS + 1)}


def _exchange_key(question: str, answer: str) -> bytes:
    """The same for questions and answers that differ in letter case, punctuation or white space alone."""
    said = "\n".join(" ".join(words_of(part)) or part.strip() for part in (question, answer))
    return hashlib.blake2b(said.encode(errors="replace"), digest_size=16).digest()
