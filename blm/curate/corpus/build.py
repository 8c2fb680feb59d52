"""Build a Stage I corpus: read, check, clean, deduplicate, split, pack; `manifest.json` comes last and means done.

    sources ─▶ stages ─▶ spool ─▶ comparison ─▶ shards (per split and kinds of media), records.parquet ─┐
                   └─▶ dropped.parquet ◀─┴─▶ near_duplicates.parquet, contamination.parquet           │
                                                                 manifest.json ◀─ tables, card, page ◀─┘

Everything streams: a batch of conversations is in memory (see `pipeline`), and what is compared waits on disk (see
`spool`, which takes as much as the corpus while it is built). Sources are read in the order of their names,
so the same inputs and settings give the same bytes whatever their order, also after an interruption.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from blm import __version__
from blm.curate.corpus.benchmark_items import BenchmarkItem, benchmark_name, read_benchmarks
from blm.curate.corpus.build_files import (
    CONTAMINATION_FILE,
    DUPLICATES_FILE,
    KIND,
    PARQUET_FOLDER,
    RECORDS_FILE,
    STAGES_FILE,
    dropped_table,
    stages_table,
)
from blm.curate.corpus.card import CARD_FILE, corpus_card
from blm.curate.corpus.comparison import compare
from blm.curate.corpus.config import CorpusConfig
from blm.curate.corpus.conversation import Conversation, Drop
from blm.curate.corpus.empty_sources import empty_sources
from blm.curate.corpus.hash_cache import HashCache
from blm.curate.corpus.inputs import Input, check_names, read_inputs
from blm.curate.corpus.language import identifier_identity
from blm.curate.corpus.page import REPORT_FILE, CorpusContent, corpus_page
from blm.curate.corpus.parquet_form import parquet_form_rows
from blm.curate.corpus.pipeline import Pipeline, judging_reports
from blm.curate.corpus.source_cache import SourceCache
from blm.curate.corpus.spool import Spool
from blm.curate.corpus.stages import READ, StageReport
from blm.curate.corpus.writer import CorpusWriter
from blm.curate.engine import open_engine
from blm.curate.episodes.content import older_splits
from blm.curate.episodes.splits import SPLITS
from blm.curate.output_folder import CACHE_FOLDER, OutputFolder
from blm.curate.shards import write_parquet, write_shard_tables
from blm.curate.summary import BuildSummary, summarise
from blm.schemas.errors import DatasetError
from blm.schemas.manifest import (
    DROPPED_FILE,
    INDEX_FILE,
    MANIFEST_VERSION,
    SHARD_TABLE_FILE,
    Counts,
    InputFingerprint,
    Manifest,
    read_manifest,
    write_atomically,
)
from blm.schemas.progress import Progress, silent

SPOOL_FOLDER = "spool"
_TABLES = (
    RECORDS_FILE,
    DROPPED_FILE,
    STAGES_FILE,
    DUPLICATES_FILE,
    CONTAMINATION_FILE,
    INDEX_FILE,
    SHARD_TABLE_FILE,
    CARD_FILE,
    REPORT_FILE,
)
_REPORT_EVERY = 50


def build_corpus(config: CorpusConfig, progress: Progress | None = None) -> BuildSummary:
    """Build the corpus that `config` describes into `config.output`, finish the build begun there, or bring the one
    there up to date: sources may be added to it, and what was read of a source is not read again (see `source_cache`).

    In the summary, `frames` counts images per split.

    Raises:
        DatasetError: an input is unusable as a whole, or no conversation is left.
        UnknownNameError: a source's kind is not known.
        ConfigError: inputs repeat.
        OutputExistsError: the output folder holds something else and `overwrite` is not set, or another build is
            writing there.
    """
    started = time.monotonic()
    progress = progress or silent
    inputs = read_inputs(config, progress)
    check_names(config, inputs)
    items = read_benchmarks(config.benchmarks)
    folder = OutputFolder(config.output, KIND, _fingerprint(config, inputs, items), (PARQUET_FOLDER,))
    with folder.claimed():
        if folder.is_complete(_TABLES) and _has_parquet_form(config):
            summary = summarise(config.output, KIND, started, reused=None)
        else:
            folder.prepare(config.overwrite, lambda manifest: _objection(manifest, config, inputs))
            summary = _build(folder, config, inputs, items, started, progress)
        return replace(summary, empty=empty_sources(config.output))


def _build(
    folder: OutputFolder,
    config: CorpusConfig,
    inputs: list[Input],
    items: list[BenchmarkItem],
    started: float,
    progress: Progress,
) -> BuildSummary:
    cache = SourceCache(folder.path / CACHE_FOLDER, config) if config.cache else None
    with (
        open_engine(config.engine, config.ray_address, config.workers) as engine,
        Spool(folder.staging / SPOOL_FOLDER) as spool,
    ):
        pipeline = Pipeline(config, engine)
        for conversation in pipeline.admit(_judged(inputs, pipeline, cache, progress)):
            spool.add(conversation)
        spool.seal()
        hashes = HashCache(cache.folder) if cache is not None else None
        comparison = compare(spool, config, items, progress, engine, hashes)
        pipeline.extend(comparison.reports, comparison.drops)
        with CorpusWriter(folder.staging, folder.fingerprint, config.shard_bytes, config.parquet) as writer:
            for conversation in spool.conversations(comparison.keep):
                writer.write(conversation)
        if not writer.counts.total():
            folder.abandon()
            if cache is not None and folder.finished_build() is None:
                shutil.rmtree(cache.folder, ignore_errors=True)
            raise _nothing_left(pipeline, inputs)
        licences = _licences(inputs, writer)
        manifest = _manifest(config, inputs, pipeline, writer, folder.fingerprint)
        content = CorpusContent(manifest, pipeline.reports, licences, writer.counts, spool, comparison)
        write_atomically(folder.staging / REPORT_FILE, corpus_page(content).encode())
    write_parquet(folder.staging / DROPPED_FILE, dropped_table(pipeline.drops))
    write_parquet(folder.staging / STAGES_FILE, stages_table(pipeline.reports))
    for name, table in zip((DUPLICATES_FILE, CONTAMINATION_FILE), comparison.tables(), strict=True):
        write_parquet(folder.staging / name, table)
    write_shard_tables(folder.staging, writer.shards)
    rows = [shard.row for shard in writer.shards]
    card = corpus_card(manifest, rows, pipeline.reports, licences)
    write_atomically(folder.staging / CARD_FILE, card.encode())
    folder.publish(manifest, rows)
    summary = summarise(config.output, KIND, started, writer.reused)
    if cache is None:
        return summary
    cache.sweep()
    return replace(summary, unchanged=tuple(cache.found))


def _has_parquet_form(config: CorpusConfig) -> bool:
    """Whether the finished build has the Parquet form whole, or need not."""
    if not config.parquet:
        return True
    return parquet_form_rows(config.output) == read_manifest(config.output).counts.kept


def _items_digest(items: list[BenchmarkItem]) -> str:
    digest = hashlib.sha256()
    for item in items:
        images = [hashlib.sha256(image).hexdigest() for image in item.images]
        said = [item.benchmark, item.row, item.question, item.context, item.answer, images]
        digest.update(json.dumps(said).encode() + b"\n")
    return digest.hexdigest()


def _fingerprint(config: CorpusConfig, inputs: list[Input], items: list[BenchmarkItem]) -> str:
    """Of everything the build's bytes depend on; not of where inputs and output lie, nor of the inputs' order."""
    benchmarks = sorted((benchmark_name(one), one.images) for one in config.benchmarks)
    settings = config.build_settings() | {"sources": None, "benchmarks": [benchmarks, _items_digest(items)]}
    if encoder := config.near_duplicates.embeddings:
        settings["encoder"] = encoder.identity()
    if config.languages:
        settings["language_identifier"] = identifier_identity()
    listed = [
        (
            one.source.kind,
            one.kind.code,
            one.config.model_dump(mode="json", exclude={"media_root"}),
            one.sha256,
        )
        for one in inputs
    ]
    content = json.dumps([KIND, __version__, MANIFEST_VERSION, settings, listed], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _judged(
    inputs: list[Input], pipeline: Pipeline, cache: SourceCache | None, progress: Progress
) -> Iterator[Conversation | Drop]:
    """Every source's conversations and drops, read, cleaned and judged now or by an earlier build."""
    for number, one in enumerate(inputs):
        name = one.config.name
        progress("building corpus", number, len(inputs), name)
        items, reports = _of_source(one, pipeline, cache)
        for count, item in enumerate(items):
            if count % _REPORT_EVERY == 0:
                progress("building corpus", number, len(inputs), f"{name}: {count} conversations")
            yield item
        pipeline.count_judged(reports)
    progress("building corpus", len(inputs), len(inputs))


def _of_source(
    one: Input, pipeline: Pipeline, cache: SourceCache | None
) -> tuple[Iterator[Conversation | Drop], Sequence[StageReport]]:
    """One source's judged items, and what judging counts: all of it once they have passed."""
    if cache is not None and (judged := cache.read_judged(one)) is not None:
        return judged
    reports = judging_reports()
    cleaned = cache.read(one) if cache is not None else None
    if cleaned is None:
        cleaned = pipeline.clean(one.kind.read(one.source.path, one.config))
        cleaned = cache.keep(one, cleaned) if cache is not None else cleaned
    items = pipeline.judge(cleaned, reports)
    return (cache.keep_judged(one, items, reports) if cache is not None else items), reports


def _objection(manifest: Manifest, config: CorpusConfig, inputs: list[Input]) -> str | None:
    """Why the build with this manifest is not to be replaced by the one that `config` describes, unless told."""
    before, now = manifest.config, json.loads(json.dumps(config.build_settings()))
    if differing := sorted(key for key in now if key != "sources" and now[key] != before.get(key)):
        return f"a build with another {', '.join(differing)}"
    if changed := [one for one in before["sources"] if one not in now["sources"]]:
        return f"a build that also has {changed[0]['kind']}:{changed[0]['path']}, or has it otherwise"
    contents = {one.config.name: one.sha256 for one in inputs}
    if other := [one.name for one in manifest.inputs if contents.get(one.name) != one.sha256]:
        return f"a build of another content of {', '.join(other)}"
    if any(one.kind == "lerobot" for one in manifest.inputs):
        return older_splits(manifest)
    return None


def _licences(inputs: list[Input], writer: CorpusWriter) -> dict[str, tuple[str, ...]]:
    """Of what is kept of each source; its own where nothing is."""
    return {
        one.config.name: tuple(
            sorted(licence for source, licence in writer.licences if source == one.config.name)
        )
        or (one.config.licence,)
        for one in inputs
    }


def _nothing_left(pipeline: Pipeline, inputs: list[Input]) -> DatasetError:
    if not pipeline.drops:
        named = ", ".join(f"{one.config.name} ({one.source.path})" for one in inputs)
        return DatasetError(f"there is no conversation in {named}.", "Check the sources' paths.")
    reasons = Counter(drop.reason for drop in pipeline.drops)
    listed = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()))
    most = reasons.most_common(1)[0][0]
    examples = [drop for drop in pipeline.drops if drop.reason == most]
    example = f" For example: {examples[0].note}." if examples[0].note else ""
    return DatasetError(
        f"no conversation is left of {pipeline.reports[0].inputs} (dropped: {listed}).{example}",
        "Check the sources' kinds, columns and media_root."
        if examples[0].stage == READ
        else "Check the rules, or the sources.",
    )


def _manifest(
    config: CorpusConfig,
    inputs: list[Input],
    pipeline: Pipeline,
    writer: CorpusWriter,
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
