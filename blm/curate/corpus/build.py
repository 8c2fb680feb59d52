"""Build a Stage I corpus: read, check, clean, deduplicate, split, pack; `manifest.json` comes last and means done.

    sources ─▶ stages ─▶ spool ─▶ comparison ─▶ shards (per split and kinds of media), records.parquet ─┐
                   └─▶ dropped.parquet ◀─┴─▶ near_duplicates.parquet, contamination.parquet           │
                                                                 manifest.json ◀─ tables, card, page ◀─┘

Everything streams: no more than one conversation's media is in memory, and what is compared waits on disk (see
`spool`, which takes as much as the corpus while it is built). Sources are read in the order of their names,
so the same inputs and settings give the same bytes whatever their order, also after an interruption.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from blm import __version__
from blm.curate.corpus.benchmark_items import BenchmarkItem, benchmark_name, read_benchmark
from blm.curate.corpus.card import CARD_FILE, corpus_card
from blm.curate.corpus.comparison import compare
from blm.curate.corpus.config import CorpusConfig, Source, SourceConfig
from blm.curate.corpus.conversation import Conversation, Drop
from blm.curate.corpus.page import REPORT_FILE, CorpusContent, corpus_page
from blm.curate.corpus.sources import SourceKind, source_kind
from blm.curate.corpus.spool import Spool
from blm.curate.corpus.stages import Pipeline
from blm.curate.episodes.config import DatasetSource
from blm.curate.episodes.index import dataset_names
from blm.curate.episodes.splits import SPLITS
from blm.curate.output_folder import OutputFolder
from blm.curate.shards import (
    FinishedShard,
    Sample,
    ShardWriter,
    file_sha256,
    write_parquet,
    write_shard_tables,
)
from blm.curate.summary import BuildSummary, summarise
from blm.schemas.corpus import CORPUS_SCHEMA, CorpusRecord, check_record, records_to_table
from blm.schemas.errors import ConfigError, DatasetError, UnknownNameError
from blm.schemas.manifest import (
    DROPPED_FILE,
    INDEX_FILE,
    SHARD_TABLE_FILE,
    Counts,
    InputFingerprint,
    Manifest,
    write_atomically,
)
from blm.schemas.progress import Progress, silent
from blm.schemas.shard import META_SUFFIX

KIND = "stage1-corpus"
RECORDS_FILE = "records.parquet"
DUPLICATES_FILE = "near_duplicates.parquet"
CONTAMINATION_FILE = "contamination.parquet"
SPOOL_FOLDER = "spool"
DROPPED_SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("source", "row", "stage", "reason", "field", "note")]
)
_TABLES = (
    RECORDS_FILE,
    DROPPED_FILE,
    DUPLICATES_FILE,
    CONTAMINATION_FILE,
    INDEX_FILE,
    SHARD_TABLE_FILE,
    CARD_FILE,
    REPORT_FILE,
)
_ROWS_AT_ONCE = 4096
_REPORT_EVERY = 50


@dataclass(frozen=True)
class _Input:
    """A source as this build uses it, and a digest of all it reads."""

    source: Source
    kind: SourceKind
    config: SourceConfig
    sha256: str


def build_corpus(config: CorpusConfig, progress: Progress | None = None) -> BuildSummary:
    """Build the corpus that `config` describes into `config.output`, or finish the build begun there.

    In the summary, `frames` counts images per split.

    Raises:
        DatasetError: an input is unusable as a whole, or no conversation is left.
        UnknownNameError: a source's kind is not known.
        ConfigError: inputs repeat.
        OutputExistsError: the output folder holds something else and `overwrite` is not set.
    """
    started = time.monotonic()
    progress = progress or silent
    inputs = _inputs(config, progress)
    _check_image_sources(config, inputs)
    items = _benchmark_items(config)
    fingerprint = _fingerprint(config, inputs, items)
    folder = OutputFolder(config.output, KIND, fingerprint)
    if folder.is_complete(_TABLES):
        return summarise(config.output, KIND, started, reused=None)
    folder.prepare(config.overwrite)

    pipeline = Pipeline(config)
    licences = {one.config.name: one.config.licence for one in inputs}
    with Spool(folder.staging / SPOOL_FOLDER) as spool:
        for conversation in pipeline.run(_read_all(inputs, progress)):
            spool.add(conversation)
        spool.seal()
        comparison = compare(spool, config, items, progress)
        pipeline.extend(comparison.reports, comparison.drops)
        with _CorpusWriter(folder.staging, fingerprint, config.shard_bytes) as writer:
            for conversation in spool.conversations(comparison.keep):
                writer.write(conversation)
        if not writer.counts.total():
            folder.abandon()
            raise _nothing_left(pipeline)
        manifest = _manifest(config, inputs, pipeline, writer, fingerprint)
        content = CorpusContent(manifest, pipeline.reports, licences, writer.counts, spool, comparison)
        write_atomically(folder.staging / REPORT_FILE, corpus_page(content).encode())
    write_parquet(folder.staging / DROPPED_FILE, _dropped_table(pipeline.drops))
    for name, table in zip((DUPLICATES_FILE, CONTAMINATION_FILE), comparison.tables(), strict=True):
        write_parquet(folder.staging / name, table)
    write_shard_tables(folder.staging, writer.shards)
    rows = [shard.row for shard in writer.shards]
    card = corpus_card(manifest, rows, pipeline.reports, licences)
    write_atomically(folder.staging / CARD_FILE, card.encode())
    folder.publish(manifest, rows)
    return summarise(config.output, KIND, started, writer.reused)


def _inputs(config: CorpusConfig, progress: Progress) -> list[_Input]:
    """Every source by the order of names, with the digest of the files it depends on."""
    names = dataset_names([DatasetSource(path=one.path, name=one.name) for one in config.sources])
    inputs = []
    for number, (name, source) in enumerate(sorted(zip(names, config.sources, strict=True), key=_first)):
        progress("reading sources", number, len(names), name)
        kind, settings = source_kind(source.kind), config.for_source(source, name)
        if kind.identity(source.path, settings) is None and not source.path.exists():
            raise DatasetError(f"source '{name}': {source.path} does not exist.", "Check the path.")
        inputs.append(_Input(source, kind, settings, _digest(source, kind, settings)))
    progress("reading sources", len(names), len(names))
    return inputs


def _first(pair: tuple[str, Source]) -> str:
    return pair[0]


def _digest(source: Source, kind: SourceKind, config: SourceConfig) -> str:
    """Of the names and contents of the files that the source reads, wherever they lie."""
    digest = hashlib.sha256()
    if identity := kind.identity(source.path, config):
        return hashlib.sha256(identity.encode()).hexdigest()
    bases = [base for base in (source.path, source.media_root, source.path.parent) if base is not None]
    for path in kind.files(source.path, config):
        base = next((base for base in bases if path.is_relative_to(base)), path.parent)
        digest.update(f"{path.relative_to(base).as_posix()} {file_sha256(path)}\n".encode(errors="replace"))
    return digest.hexdigest()


def _check_image_sources(config: CorpusConfig, inputs: list[_Input]) -> None:
    names = [one.config.name for one in inputs]
    for wanted in config.near_duplicates.image_sources or ():
        if wanted not in names:
            raise UnknownNameError("corpus source", wanted, names)


def _benchmark_items(config: CorpusConfig) -> list[BenchmarkItem]:
    """Of all benchmarks, in the order of their names."""
    benchmarks = {benchmark_name(one): one for one in config.benchmarks}
    if len(benchmarks) < len(config.benchmarks):
        raise ConfigError("two benchmarks have one name.", "Give each its own `name`.")
    return [item for _, benchmark in sorted(benchmarks.items()) for item in read_benchmark(benchmark)]


def _items_digest(items: list[BenchmarkItem]) -> str:
    digest = hashlib.sha256()
    for item in items:
        images = [hashlib.sha256(image).hexdigest() for image in item.images]
        said = [item.benchmark, item.row, item.question, item.context, item.answer, images]
        digest.update(json.dumps(said).encode() + b"\n")
    return digest.hexdigest()


def _fingerprint(config: CorpusConfig, inputs: list[_Input], items: list[BenchmarkItem]) -> str:
    """Of everything the build's bytes depend on; not of where inputs and output lie, nor of the inputs' order."""
    benchmarks = sorted((benchmark_name(one), one.images) for one in config.benchmarks)
    settings = config.build_settings() | {"sources": None, "benchmarks": [benchmarks, _items_digest(items)]}
    listed = [
        (one.source.kind, one.config.model_dump(mode="json", exclude={"media_root"}), one.sha256)
        for one in inputs
    ]
    content = json.dumps([KIND, __version__, settings, listed], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _read_all(inputs: list[_Input], progress: Progress) -> Iterator[Conversation | Drop]:
    for number, one in enumerate(inputs):
        for count, item in enumerate(one.kind.read(one.source.path, one.config)):
            if count % _REPORT_EVERY == 0:
                progress("building corpus", number, len(inputs), f"{one.config.name}: {count} conversations")
            yield item
    progress("building corpus", len(inputs), len(inputs))


@dataclass
class _CorpusWriter:
    """Writes shards and `records.parquet`, one conversation at a time.

    Samples of a shard hold the same kinds of media, so that `datasets` finds the same columns in all of them.
    """

    folder: Path
    fingerprint: str
    shard_bytes: int
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    shards: list[FinishedShard] = field(default_factory=list)
    reused: int = 0

    def __enter__(self) -> Self:
        self._open = ExitStack()
        self._writers: dict[str, ShardWriter] = {}
        self._beside = self.folder / f"{RECORDS_FILE}.tmp"
        self._stream = self._open.enter_context(self._beside.open("wb"))
        self._records = pq.ParquetWriter(self._stream, CORPUS_SCHEMA, compression="zstd")
        self._waiting: list[CorpusRecord] = []
        return self

    def write(self, conversation: Conversation) -> None:
        record = conversation.record
        check_record(record)
        prefix = f"{record.split}-{media_signature(record)}"
        if prefix not in self._writers:
            writer = ShardWriter(self.folder, prefix, record.split, self.fingerprint, self.shard_bytes)
            self._writers[prefix] = self._open.enter_context(writer)
            self.reused += len(writer.finished)
        label = f"{record.source}/{record.task_family}"
        if not self._writers[prefix].done(record.id):
            self._writers[prefix].write(_sample(conversation, label))
        self.counts[record.split, label] += 1
        self._waiting.append(record)
        if len(self._waiting) >= _ROWS_AT_ONCE:
            self._write_rows()

    def _write_rows(self) -> None:
        if self._waiting:
            self._records.write_table(records_to_table(self._waiting))
            self._waiting.clear()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._open.__exit__(kind, error, trace)
            self._beside.unlink(missing_ok=True)
            return
        self._write_rows()
        self._records.close()
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._open.close()
        os.replace(self._beside, self.folder / RECORDS_FILE)
        self.shards = [shard for _, one in sorted(self._writers.items()) for shard in one.finished]


def media_signature(record: CorpusRecord) -> str:
    """The media of a record as a word: 'text' for none, 'jpg', 'jpg3', 'jpg-png2'."""
    runs = [(name, len(list(run))) for name, run in groupby(record.media, key=lambda one: one.extension)]
    return "-".join(f"{name}{count if count > 1 else ''}" for name, count in runs) or "text"


def _sample(conversation: Conversation, label: str) -> Sample:
    record = conversation.record
    row = json.dumps(record.to_row(), sort_keys=True, ensure_ascii=False)
    members = {META_SUFFIX: row.encode()}
    for number, (media, content) in enumerate(zip(record.media, conversation.media, strict=True)):
        members[f"{number}.{media.extension}"] = content
    return Sample(record.id, members, frames=len(record.media), label=label)


def _nothing_left(pipeline: Pipeline) -> DatasetError:
    reasons = Counter(drop.reason for drop in pipeline.drops)
    listed = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()))
    first = f" First: {pipeline.drops[0].note}" if pipeline.drops else ""
    return DatasetError(
        f"no conversation is left of {pipeline.reports[0].inputs} (dropped: {listed or 'none'}).{first}",
        "Check the sources' paths and media.",
    )


def _dropped_table(drops: list[Drop]) -> pa.Table:
    def column(name: str) -> list[str]:
        return [getattr(drop, name).encode(errors="replace").decode() for drop in drops]

    return pa.table({name: column(name) for name in DROPPED_SCHEMA.names}, schema=DROPPED_SCHEMA)


def _manifest(
    config: CorpusConfig,
    inputs: list[_Input],
    pipeline: Pipeline,
    writer: _CorpusWriter,
    fingerprint: str,
) -> Manifest:
    settings: dict[str, Any] = config.build_settings()
    settings["sources"] = sorted(settings["sources"], key=lambda source: (source["kind"], source["path"]))
    splits, breakdown = Counter(), Counter()
    for (split, label), count in writer.counts.items():
        splits[split] += count
        breakdown[label] += count
    reasons = Counter(drop.reason for drop in pipeline.drops)
    return Manifest(
        kind=KIND,
        software=__version__,
        config=settings,
        inputs=tuple(
            InputFingerprint(
                name=one.config.name, kind=one.source.kind, path=str(one.source.path), sha256=one.sha256
            )
            for one in inputs
        ),
        counts=Counts(
            inputs=pipeline.reports[0].inputs,
            kept=sum(shard.row.samples for shard in writer.shards),
            dropped=dict(sorted(reasons.items())),
        ),
        splits={split: splits[split] for split in SPLITS},
        breakdown=dict(sorted(breakdown.items())),
        fingerprint=fingerprint,
    )
