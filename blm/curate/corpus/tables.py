"""Each stage of a build on an Arrow table of records, for use from Python without a build.

    table (CORPUS_SCHEMA) ─▶ apply_stage(name, table, …) ─▶ kept (CORPUS_SCHEMA), dropped (DROPPED_SCHEMA), report

What a stage costs is said where it is: `stages`, `near_text`, `near_images`, `decontaminate`, `mixture`. Records become
Python objects a batch at a time; stages that compare write them to a temporary folder first.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from blm.curate.corpus.benchmark_items import read_benchmarks
from blm.curate.corpus.build_files import dropped_table
from blm.curate.corpus.comparison import (
    DECONTAMINATE,
    MIXTURE,
    NEAR_IMAGE,
    NEAR_MEANING,
    NEAR_TEXT,
    compare,
)
from blm.curate.corpus.config import CorpusConfig
from blm.curate.corpus.conversation import Conversation, Drop
from blm.curate.corpus.mixture import Mixture
from blm.curate.corpus.pipeline import Line
from blm.curate.corpus.spool import Spool
from blm.curate.corpus.stages import STAGES, StageReport
from blm.schemas.corpus import CORPUS_SCHEMA, CorpusRecord, records_to_table, table_to_records
from blm.schemas.errors import DatasetError, UnknownNameError
from blm.schemas.progress import silent
from blm.schemas.yaml_model import validate

COMPARING_STAGES = (NEAR_TEXT, NEAR_MEANING, NEAR_IMAGE, DECONTAMINATE, MIXTURE)
ALL_STAGES = (*STAGES, *COMPARING_STAGES)
"""In the order in which a build applies them."""
_NEEDS_MEDIA = ("validate", NEAR_IMAGE)
_ROWS_AT_ONCE = 1024


class StageResult(NamedTuple):
    """The records a stage keeps, perhaps changed, in order; those it dropped, with reasons; what it counted."""

    kept: pa.Table
    dropped: pa.Table
    report: StageReport


def apply_stage(
    name: str, table: pa.Table, media: Mapping[str, bytes] | None = None, **settings: Any
) -> StageResult:
    """Apply one stage to records.

    Args:
        name: one of `ALL_STAGES`.
        table: records, `CORPUS_SCHEMA`.
        media: bytes of the images by SHA-256 (hexadecimal). Needed by 'validate' and 'near_duplicate_image'; by
            'decontaminate' to find images that look like a benchmark's, and not only equal ones.
        settings: keys of `corpus.yaml`, for example `quality={"skip": ["links"]}`, `languages=["en"]`.

    Raises:
        UnknownNameError: no such stage.
        ConfigError: a setting is wrong.
        DatasetError: a record is malformed, or its media are needed and not given.
    """
    if name not in ALL_STAGES:
        raise UnknownNameError("stage", name, ALL_STAGES)
    # A build has sources and an output; a stage looks at neither.
    config = validate(CorpusConfig, {"sources": ["none:none"], "output": "none"} | settings, "apply_stage")
    conversations = _conversations(table, media, name in _NEEDS_MEDIA)
    if name in STAGES:
        return _one_by_one(name, conversations, config)
    return _compared(name, conversations, config)


def _conversations(
    table: pa.Table, media: Mapping[str, bytes] | None, needed: bool
) -> Iterator[Conversation]:
    for batch in table.to_batches(_ROWS_AT_ONCE):
        for record in table_to_records(pa.Table.from_batches([batch])):
            yield Conversation(record, _media(record, media or {}, needed), _group(record))


def _group(record: CorpusRecord) -> str:
    """What decides the split, as the source of recorded episodes says it."""
    return json.loads(record.provenance).get("episode_identity", "")


def _media(record: CorpusRecord, known: Mapping[str, bytes], needed: bool) -> tuple[bytes, ...]:
    absent = [one.sha256 for one in record.media if one.sha256 not in known]
    if needed and absent:
        raise DatasetError(f"record '{record.id}': no bytes for image {absent[0]}.", "Give them in `media`.")
    return tuple(known.get(one.sha256, b"") for one in record.media)


def _one_by_one(name: str, conversations: Iterator[Conversation], config: CorpusConfig) -> StageResult:
    line = Line({name: STAGES[name]}, config)
    kept, drops = _Records(), []
    for conversation in conversations:
        found = line.through(conversation)
        if isinstance(found, Drop):
            drops.append(found)
        else:
            kept.add(found.record)
    return StageResult(kept.table(), dropped_table(drops), line.reports[0])


def _compared(name: str, conversations: Iterator[Conversation], config: CorpusConfig) -> StageResult:
    config = _only(name, config)
    items = read_benchmarks(config.benchmarks)
    with tempfile.TemporaryDirectory(prefix="blm-stage-") as folder, Spool(Path(folder) / "spool") as spool:
        for conversation in conversations:
            spool.add(conversation)
        spool.seal()
        found = compare(spool, config, items, silent)
        kept = _Records()
        for record in spool.records_of(np.flatnonzero(found.keep)):
            kept.add(record)
        reports = [report for report in found.reports if report.name == name]
        report = reports[0] if reports else StageReport(name, len(spool))
        return StageResult(kept.table(), dropped_table(found.drops), report)


def _only(name: str, config: CorpusConfig) -> CorpusConfig:
    """The settings with which a comparison does this and nothing else."""
    near = config.near_duplicates
    images = "any_text" if near.images == "keep" else near.images
    changes: dict[str, Any] = {
        "near_duplicates": near.model_copy(
            update={
                "text": near.text if name == NEAR_TEXT else None,
                "embeddings": near.embeddings if name == NEAR_MEANING else None,
                "images": images if name == NEAR_IMAGE else "keep",
            }
        )
    }
    if name != DECONTAMINATE:
        changes["benchmarks"] = ()
    if name != MIXTURE:
        changes["mixture"] = Mixture()
    return config.model_copy(update=changes)


class _Records:
    """Records on their way into one table."""

    def __init__(self) -> None:
        self._waiting: list[CorpusRecord] = []
        self._tables = [CORPUS_SCHEMA.empty_table()]

    def add(self, record: CorpusRecord) -> None:
        self._waiting.append(record)
        if len(self._waiting) >= _ROWS_AT_ONCE:
            self._flush()

    def table(self) -> pa.Table:
        self._flush()
        return pa.concat_tables(self._tables)

    def _flush(self) -> None:
        self._tables.append(records_to_table(self._waiting))
        self._waiting.clear()
