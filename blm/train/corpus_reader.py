"""Read a Stage I corpus: one conversation and the bytes of its media at a time, by seeking."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pyarrow.parquet as parquet

from blm.schemas.corpus import CorpusRecord
from blm.schemas.errors import DatasetError
from blm.schemas.manifest import INDEX_FILE, Manifest, read_manifest
from blm.schemas.shard import META_SUFFIX


@dataclass(frozen=True)
class _Member:
    shard: str
    offset: int
    size: int


class CorpusBuild:
    """A complete Stage I build on disk.

    Attributes:
        manifest: what was built.
        records: every conversation, in index order.

    Raises:
        DatasetError: the folder holds no finished corpus, or a file of it is missing or damaged.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.manifest: Manifest = read_manifest(self.folder, "stage1-corpus")
        self._files: dict[str, int] = {}
        self._members: dict[str, dict[str, _Member]] = {}
        path = self.folder / INDEX_FILE
        if not path.is_file():
            raise DatasetError(f"{path} does not exist.", "Build the corpus again.")
        for row in parquet.read_table(path).to_pylist():
            member = _Member(row["shard"], row["offset"], row["size"])
            self._members.setdefault(row["key"], {})[row["suffix"]] = member
        self.keys = tuple(self._members)
        self.records = tuple(self._record(key) for key in self.keys)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self._files.values():
            os.close(descriptor)
        self._files = {}

    def media(self, index: int) -> tuple[bytes, ...]:
        """Bytes of the media of record `index`, in the record's order."""
        members, record = self._members[self.keys[index]], self.records[index]
        names = [f"{i}.{media.extension}" for i, media in enumerate(record.media)]
        for name in names:
            if name not in members:
                raise DatasetError(
                    f"corpus record '{record.id}': '{name}' is not in its shard.", "Build it again."
                )
        return tuple(self._pread(members[name]) for name in names)

    def _record(self, key: str) -> CorpusRecord:
        try:
            return CorpusRecord.from_row(json.loads(self._pread(self._members[key][META_SUFFIX])))
        except (KeyError, ValueError) as error:
            raise DatasetError(
                f"{self.folder}: sample '{key}' holds no record: {error}", "Build it again."
            ) from error

    def _pread(self, member: _Member) -> bytes:
        if member.shard not in self._files:
            try:
                self._files[member.shard] = os.open(self.folder / member.shard, os.O_RDONLY)
            except OSError as error:
                path = self.folder / member.shard
                raise DatasetError(f"Cannot open {path}: {error.strerror}.", "Copy it again.") from error
        content = os.pread(self._files[member.shard], member.size, member.offset)
        if len(content) != member.size:
            raise DatasetError(
                f"{self.folder / member.shard} ends before byte {member.offset + member.size}.",
                "Copy it again.",
            )
        return content
