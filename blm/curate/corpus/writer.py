"""Writes what is kept: shards, `records.parquet` and, where asked for, the Parquet form for `datasets`."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow.parquet as pq

from blm.curate.corpus.build_files import PARQUET_FOLDER, RECORDS_FILE
from blm.curate.corpus.conversation import Conversation
from blm.curate.corpus.parquet_form import ParquetForm
from blm.curate.shards import FinishedShard, Sample, ShardWriter
from blm.schemas.corpus import CORPUS_SCHEMA, CorpusRecord, check_record, records_to_table
from blm.schemas.shard import META_SUFFIX

_ROWS_AT_ONCE = 4096


@dataclass
class CorpusWriter:
    """Writes shards and `records.parquet`, one conversation at a time.

    Samples of a shard hold the same kinds of media, so that `datasets` finds the same columns in all of them.
    `parquet_form`: also write `parquet/` (see `parquet_form`).
    """

    folder: Path
    fingerprint: str
    shard_bytes: int
    parquet_form: bool = False
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    shards: list[FinishedShard] = field(default_factory=list)
    reused: int = 0
    licences: set[tuple[str, str]] = field(default_factory=set)
    """Of what is written: source and licence."""

    def __enter__(self) -> Self:
        shutil.rmtree(self.folder / PARQUET_FOLDER, ignore_errors=True)
        self._open = ExitStack()
        self._writers: dict[str, ShardWriter] = {}
        self._forms: dict[str, ParquetForm] = {}
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
        if self.parquet_form:
            self._form(record.split).write(conversation)
        self.counts[record.split, label] += 1
        self.licences.add((record.source, record.licence))
        self._waiting.append(record)
        if len(self._waiting) >= _ROWS_AT_ONCE:
            self._write_rows()

    def _form(self, split: str) -> ParquetForm:
        if split not in self._forms:
            self._forms[split] = ParquetForm(self.folder / PARQUET_FOLDER, split, self.shard_bytes)
        return self._forms[split]

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
        for form in self._forms.values():
            form.close()
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
