"""What only a look at the whole corpus shows: near-duplicates, and what benchmarks hold too.

    spool ─▶ near_duplicate_text, _meaning, _image ─▶ decontaminate ─▶ mixture ─▶ rows to keep, drops, tables

Of conversations that are alike the first in order stays. Texts are compared among conversations with the same media (or
none): generated questions share their wording and differ in what they are about. Where answers are short they must be
equal in words: "left" is no near-duplicate of "right". Memory: about 60 bytes per conversation and 50 per image.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import batched

import numpy as np
import pyarrow as pa

from blm.curate.corpus.benchmark_items import BenchmarkItem, benchmark_name
from blm.curate.corpus.config import CorpusConfig, NearDuplicates
from blm.curate.corpus.conversation import Drop
from blm.curate.corpus.decontaminate import (
    CONTAMINATION_SCHEMA,
    MATCHES_PER_CONVERSATION,
    BenchmarkImages,
    BenchmarkTexts,
    Match,
)
from blm.curate.corpus.hash_cache import HashCache
from blm.curate.corpus.mixture import entries, left_out, mixture_note
from blm.curate.corpus.near_images import near_duplicate_images
from blm.curate.corpus.near_meaning import near_duplicate_meaning
from blm.curate.corpus.near_text import near_duplicate_text
from blm.curate.corpus.perceptual_hash import (
    ImageHashes,
    image_hashes,
    joined_hashes,
    replaced_hashes,
)
from blm.curate.corpus.spool import Spool, exchanges
from blm.curate.corpus.stages import StageReport
from blm.curate.corpus.text_embeddings import Embeddings, TextEncoder
from blm.curate.engine import Engine, LocalEngine
from blm.schemas.progress import Progress

NEAR_TEXT, NEAR_IMAGE, DECONTAMINATE = "near_duplicate_text", "near_duplicate_image", "decontaminate"
NEAR_MEANING = "near_duplicate_meaning"
MIXTURE = "mixture"
CONTAMINATED = "contaminated"
DUPLICATES_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("reason", pa.string()),
        ("partner", pa.string()),
        ("kept", pa.string()),
        ("similarity", pa.float64()),
    ]
)
"""A row per near-duplicate left out: the conversation, the one it is alike (`partner`), the one of its cluster that is
`kept`, and the similarity of the pair: Jaccard of shingles, cosine of vectors, or the share of equal bits of hashes."""
_IMAGES_AT_ONCE = 64


@dataclass
class Comparison:
    """Which rows of a spool stay, and why others do not; `unmixed`: how many the mixture chose from."""

    keep: np.ndarray
    reports: list[StageReport] = field(default_factory=list)
    drops: list[Drop] = field(default_factory=list)
    duplicates: list[dict[str, object]] = field(default_factory=list)
    matches: list[dict[str, object]] = field(default_factory=list)
    unmixed: Counter[str] = field(default_factory=Counter)
    """By source/family."""

    def tables(self) -> tuple[pa.Table, pa.Table]:
        """Near-duplicates (`DUPLICATES_SCHEMA`) and contamination (`CONTAMINATION_SCHEMA`)."""
        return (
            pa.Table.from_pylist(self.duplicates, schema=DUPLICATES_SCHEMA),
            pa.Table.from_pylist(self.matches, schema=CONTAMINATION_SCHEMA),
        )


def compare(
    spool: Spool,
    config: CorpusConfig,
    items: Sequence[BenchmarkItem],
    progress: Progress,
    engine: Engine | None = None,
    cache: HashCache | None = None,
) -> Comparison:
    """Compare all conversations of a sealed spool with each other and with the `items` of benchmarks.

    Images that the cache does not know are hashed wherever the engine works; by default here.
    """
    found = Comparison(np.ones(len(spool), dtype=bool))
    wanted = config.near_duplicates
    images = BenchmarkImages(items, _only_equal(config))
    hashes = None
    if wanted.images != "keep" or images.needs_hashes:
        hashes = _hashes(spool, progress, engine or LocalEngine(), cache)
    if wanted.text is not None:
        progress("comparing texts", 0, 1)
        _near_text(spool, config, found)
        progress("comparing texts", 1, 1)
    if wanted.embeddings is not None:
        progress("comparing meanings", 0, 1)
        _near_meaning(spool, wanted.embeddings, found)
        progress("comparing meanings", 1, 1)
    if wanted.images != "keep" and hashes is not None:
        _near_images(spool, config, hashes, found)
    if items:
        progress("looking for benchmarks", 0, 1)
        _decontaminate(spool, BenchmarkTexts(items), images, items, hashes, found)
        progress("looking for benchmarks", 1, 1)
    if not config.mixture.keeps_everything:
        _mix(spool, config, found)
    return found


def _mix(spool: Spool, config: CorpusConfig, found: Comparison) -> None:
    """What the mixture leaves out of what is left."""
    report = StageReport(MIXTURE, int(found.keep.sum()))
    rows = ((row, record) for row, record in enumerate(spool.records()) if found.keep[row])
    listed = entries(rows, config.seed)
    found.unmixed = Counter(f"{one.source}/{one.family}" for one in listed)
    reasons = left_out(listed, config.mixture)
    report.note = mixture_note(listed, reasons, config.mixture)
    for row, reason in sorted(reasons.items()):
        found.keep[row] = False
        report.dropped[reason] += 1
        name, source = spool.table["id"][row].as_py(), spool.table["source"][row].as_py()
        found.drops.append(Drop(source, name, reason, "", "", MIXTURE))
    found.reports.append(report)


def _only_equal(config: CorpusConfig) -> frozenset[str]:
    return frozenset(benchmark_name(one) for one in config.benchmarks if one.images == "equal")


def _hashes(spool: Spool, progress: Progress, engine: Engine, cache: HashCache | None) -> ImageHashes:
    """Of all media contents."""
    if cache is None:
        return _hashed(spool, range(spool.contents), progress, engine)
    found, known = cache.find(spool.digests())
    missing = np.flatnonzero(~known).tolist()
    hashes = replaced_hashes(found, missing, _hashed(spool, missing, progress, engine))
    cache.keep(spool.digests(), hashes)
    return hashes


def _hashed(spool: Spool, numbers: Sequence[int], progress: Progress, engine: Engine) -> ImageHashes:
    """Of some media contents, as many at a time as the engine works at."""
    batches = ([spool.content(number) for number in some] for some in batched(numbers, _IMAGES_AT_ONCE))
    parts = []
    for batch, hashes in enumerate(engine.stream(image_hashes, batches)):
        progress("hashing images", batch * _IMAGES_AT_ONCE, len(numbers))
        parts.append(hashes)
    progress("hashing images", len(numbers), len(numbers))
    return joined_hashes(parts)


def _near_text(spool: Spool, config: CorpusConfig, found: Comparison) -> None:
    groups = _groups(spool, np.arange(spool.contents), found.keep)
    _leave_out(spool, NEAR_TEXT, _left_out(_alike_texts(spool, config, groups)), found)


def _alike_texts(spool: Spool, config: CorpusConfig, groups: np.ndarray) -> pa.Table:
    threshold = config.near_duplicates.text
    if threshold is None:
        threshold = NearDuplicates().text or 1.0
    return near_duplicate_text(
        spool.table["text"],
        threshold,
        groups,
        scratch=spool.folder,
        seed=config.seed,
        memory_bytes=int(config.memory * 1e9),
    )


def _near_meaning(spool: Spool, wanted: Embeddings, found: Comparison) -> None:
    encoder = TextEncoder(wanted)
    groups = _groups(spool, np.arange(spool.contents), found.keep)
    clusters = near_duplicate_meaning(
        spool.table["text"], groups, encoder, encoder.width, wanted.threshold, spool.folder
    )
    _leave_out(spool, NEAR_MEANING, _left_out(clusters), found)


def _near_images(spool: Spool, config: CorpusConfig, hashes: ImageHashes, found: Comparison) -> None:
    wanted = config.near_duplicates
    candidates = found.keep & _of_sources(spool, wanted.image_sources)
    clusters = near_duplicate_images(hashes, wanted.mirrored)
    first = np.arange(spool.contents)
    first[clusters["row"].to_numpy()] = clusters["cluster"].to_numpy()
    if wanted.images == "same_text":
        left_out = _left_out(_alike_texts(spool, config, _groups(spool, first, candidates)))
    else:
        similarity = dict(zip(clusters["row"].to_pylist(), clusters["similarity"].to_pylist(), strict=True))
        left_out = list(_shown_before(spool, first, similarity, candidates))
    _leave_out(spool, NEAR_IMAGE, left_out, found)


def _of_sources(spool: Spool, names: tuple[str, ...] | None) -> np.ndarray:
    """Which conversations are of these sources, (N,) bool; `None`: all."""
    if names is None:
        return np.ones(len(spool), dtype=bool)
    return np.isin(spool.table["source"].to_numpy(), names)


def _left_out(clusters: pa.Table) -> list[tuple[int, int, int, float]]:
    """Of each cluster all but the first: row, partner, the row kept, similarity."""
    return [
        (row["row"], row["partner"], row["cluster"], row["similarity"])
        for row in clusters.to_pylist()
        if not row["kept"]
    ]


def _shown_before(
    spool: Spool, first: np.ndarray, similarity: dict[int, float], keep: np.ndarray
) -> Iterator[tuple[int, int, int, float]]:
    """Conversations whose every image looks like one shown by an earlier conversation, other than in its very bytes."""
    numbers, starts = spool.media()
    shown: dict[int, tuple[int, int]] = {}
    for row in np.flatnonzero(keep & (np.diff(starts) > 0)).tolist():
        mine = numbers[starts[row] : starts[row + 1]].tolist()
        before = [shown.get(int(first[number]), (row, number)) for number in mine]
        if all(other != number for number, (_, other) in zip(mine, before, strict=True)):
            partner = before[0][0]
            yield row, partner, partner, min(similarity[number] for number in mine)
            continue
        for number in mine:
            shown.setdefault(int(first[number]), (row, number))


def _groups(spool: Spool, stand_in: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Per row, what must be equal for texts to be compared, (N,) uint64: media, each replaced by its `stand_in`, and
    short answers. Rows that are not kept have groups of their own."""
    numbers, starts = spool.media()
    shown = stand_in[numbers].astype(np.int64) if len(numbers) else numbers
    answers = spool.table["answer"].to_numpy()
    groups = np.empty(len(spool), dtype=np.uint64)
    for row in range(len(spool)):
        content = b"left out %d" % row
        if keep[row]:
            content = answers[row].tobytes() + shown[starts[row] : starts[row + 1]].tobytes()
        groups[row] = int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")
    return groups


def _leave_out(
    spool: Spool, reason: str, rows: Sequence[tuple[int, int, int, float]], found: Comparison
) -> None:
    report = StageReport(reason, int(found.keep.sum()))
    report.dropped += Counter({reason: len(rows)})
    found.reports.append(report)
    ids, sources = spool.table["id"], spool.table["source"]
    for row, partner, kept, similarity in rows:
        found.keep[row] = False
        name, source, other = ids[row].as_py(), sources[row].as_py(), ids[partner].as_py()
        note = f"{similarity:.2f} alike {other}"
        found.drops.append(Drop(source, name, reason, "", note, reason, other))
        found.duplicates.append(
            {
                "id": name,
                "source": source,
                "reason": reason,
                "partner": other,
                "kept": ids[kept].as_py(),
                "similarity": similarity,
            }
        )


def _decontaminate(
    spool: Spool,
    texts: BenchmarkTexts,
    images: BenchmarkImages,
    items: Sequence[BenchmarkItem],
    hashes: ImageHashes | None,
    found: Comparison,
) -> None:
    report = StageReport(DECONTAMINATE, int(found.keep.sum()))
    matched: dict[int, list[Match]] = {}
    for match in _matches(spool, texts, images, items, hashes):
        if found.keep[match.row]:
            matched.setdefault(match.row, []).append(match)
    for row, matches in sorted(matched.items()):
        found.keep[row] = False
        first = matches[0]
        name, source = spool.table["id"][row].as_py(), spool.table["source"][row].as_py()
        note = f"{first.kind} of {first.item.benchmark} row {first.item.row}, share {first.share:.2f}"
        found.drops.append(Drop(source, name, CONTAMINATED, "", note, DECONTAMINATE))
        report.dropped[CONTAMINATED] += 1
        for match in matches[:MATCHES_PER_CONVERSATION]:
            found.matches.append(
                {
                    "id": name,
                    "source": source,
                    "benchmark": match.item.benchmark,
                    "item": match.item.row,
                    "match": match.kind,
                    "share": match.share,
                    "evidence": match.evidence[:500],
                }
            )
    found.reports.append(report)


def _matches(
    spool: Spool,
    texts: BenchmarkTexts,
    images: BenchmarkImages,
    items: Sequence[BenchmarkItem],
    hashes: ImageHashes | None,
) -> Iterator[Match]:
    """Every match, images first; texts only where the conversation or the item shows no image."""
    digests = spool.digests()
    shown = images.found(digests, hashes)
    numbers, starts = spool.media()
    owners = np.repeat(np.arange(len(spool)), np.diff(starts))
    for number, row in zip(numbers.tolist(), owners.tolist(), strict=True):
        for item in shown.get(number, ()):
            yield Match(row, items[item], "image", 1.0, digests[number].hex())
    with_media = np.diff(starts) > 0
    for row, item, share, run in texts.words_in(spool.table["text"]):
        if not (with_media[row] and items[item].images):
            yield Match(row, items[item], "words", share, run)
    for row, record in enumerate(spool.records()):
        for item, said in texts.answers_in(exchanges(record)):
            if not (with_media[row] and items[item].images):
                yield Match(row, items[item], "answer", 1.0, said)
