"""WebDataset shards with the same bytes for the same samples, an index of byte offsets, and restarts without rework.

Members are written with `tarfile` in USTAR form and fixed metadata. webdataset's own `TarWriter` writes the same
form, but importing it imports torch (five seconds), and it neither hashes nor reports offsets.

While a build is under way, `<folder>/.unfinished/<shard>.json` records each shard that is complete. A writer opened
again with the same `fingerprint` picks those up; `done(key)` tells the producer what it need not make again.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Self, cast

from blm.schemas.errors import DatasetError
from blm.schemas.manifest import INDEX_FILE, SHARD_TABLE_FILE, write_atomically
from blm.schemas.shard import IndexRow, ShardRow, shard_row_columns

DEFAULT_SHARD_BYTES = 256 * 1024 * 1024
UNFINISHED_FOLDER = ".unfinished"

_SAFE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_SAFE_SUFFIX = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)*")
_BLOCK = tarfile.BLOCKSIZE
_LONGEST_NAME = 100
"""USTAR's limit for a name without folders; longer ones would need extra header blocks."""


@dataclass(frozen=True)
class Sample:
    """One WebDataset sample.

    Attributes:
        key: letters, digits, `_` and `-`; unique within a build.
        members: file ending (without the leading dot, lower case) → bytes, stored in this order.
        frames: how many frames it holds, 0 where that means nothing.
        label: what `ShardRow.counts` counts it under, e.g. 'so100/pick-cube'.
    """

    key: str
    members: Mapping[str, bytes]
    frames: int = 0
    label: str = ""


@dataclass(frozen=True)
class FinishedShard:
    """A shard that is complete on disk, where its members lie, and which keys were passed over, with why."""

    row: ShardRow
    index: tuple[IndexRow, ...]
    skipped: Mapping[str, str]


def safe_key(name: str) -> str:
    """`name` as a WebDataset key: a dot would begin the file ending and a slash a folder, so both become `_`.

    Two names may become one key; the writer then refuses the second.
    """
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name) or "_"


def check_member(key: str, suffix: str) -> None:
    """Raise DatasetError, naming the key, where a member's name would not survive webdataset or a file system."""
    if not _SAFE_KEY.fullmatch(key):
        raise DatasetError(
            f"sample key '{key}' is not usable as a file name in a shard.",
            "Keys hold letters, digits, '_' and '-' only (see blm.curate.shards.safe_key).",
        )
    if not _SAFE_SUFFIX.fullmatch(suffix):
        raise DatasetError(
            f"sample '{key}': member '{suffix}' is not usable as a file ending.",
            "Endings hold lower-case letters, digits, '_' and single dots.",
        )
    if len(key) + 1 + len(suffix) > _LONGEST_NAME:
        raise DatasetError(
            f"sample '{key}': the member name '{key}.{suffix}' is longer than {_LONGEST_NAME} characters.",
            "Use a shorter dataset name or record id.",
        )


def _rounded(size: int, unit: int) -> int:
    return -(-size // unit) * unit


class _HashingFile:
    """A write-only file that hashes what passes through; `tarfile` needs `write` and `tell` of it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._position = 0
        self.digest = hashlib.sha256()

    def write(self, content: bytes) -> int:
        self.digest.update(content)
        self._position += len(content)
        return self._stream.write(content)

    def tell(self) -> int:
        return self._position


@dataclass
class _OpenShard:
    """The shard being written: its file beside the final one, and what will be its rows."""

    name: str
    stream: IO[bytes]
    hashing: _HashingFile
    tar: tarfile.TarFile
    index: list[IndexRow] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    samples: int = 0
    frames: int = 0

    def size_with(self, sample: Sample) -> int:
        """Bytes of the tar if `sample` were its last one, end blocks and padding included."""
        size = sum(_BLOCK + _rounded(len(content), _BLOCK) for content in sample.members.values())
        return _rounded(self.hashing.tell() + size + 2 * _BLOCK, tarfile.RECORDSIZE)

    def add(self, sample: Sample) -> None:
        for suffix, content in sample.members.items():
            info = tarfile.TarInfo(f"{sample.key}.{suffix}")
            info.size, info.mtime, info.mode = len(content), 0, 0o644
            self.tar.addfile(info, io.BytesIO(content))
            padded = _rounded(len(content), _BLOCK)
            self.index.append(
                IndexRow(
                    shard=self.name,
                    key=sample.key,
                    suffix=suffix,
                    offset=self.hashing.tell() - padded,
                    size=len(content),
                )
            )
        self.samples += 1
        self.frames += sample.frames
        if sample.label:
            self.counts[sample.label] = self.counts.get(sample.label, 0) + 1


class ShardWriter:
    """Writes samples into `<folder>/<prefix>-<number:05d>.tar`, starting a new shard before `target_bytes` is passed.

    A shard is written beside, flushed to disk and renamed, so a name ending in `.tar` is always a whole shard. Use
    it as a context manager; leaving by an exception keeps what is finished and removes the shard begun.

    `fingerprint` identifies everything the samples depend on (inputs, configuration, code). Shards finished under
    the same fingerprint by an earlier, interrupted run are kept if their content still has the recorded hash.
    """

    def __init__(
        self,
        folder: Path,
        prefix: str,
        split: str,
        fingerprint: str,
        target_bytes: int = DEFAULT_SHARD_BYTES,
    ) -> None:
        self.folder, self.prefix, self.split = folder, prefix, split
        self.fingerprint, self.target_bytes = fingerprint, target_bytes
        self.folder.mkdir(parents=True, exist_ok=True)
        self._open: _OpenShard | None = None
        self._pending_skips: dict[str, str] = {}
        self._finished = list(self._pick_up())
        self._keys = {row.key for shard in self._finished for row in shard.index}
        self._keys |= {key for shard in self._finished for key in shard.skipped}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._abandon()

    @property
    def finished(self) -> tuple[FinishedShard, ...]:
        """The shards complete so far, in order."""
        return tuple(self._finished)

    @property
    def skipped(self) -> dict[str, str]:
        """Keys passed over with `skip`, with their notes, of the shards complete so far and the one begun."""
        notes: dict[str, str] = {}
        for shard in self._finished:
            notes |= shard.skipped
        return notes | (self._open.skipped if self._open else {}) | self._pending_skips

    def done(self, key: str) -> bool:
        """Whether `key` was written or skipped already, by this run or by the one it continues."""
        return key in self._keys

    def write(self, sample: Sample) -> None:
        """Append a sample.

        Raises:
            DatasetError: the key was used before, or a member's name is not allowed; names the key.
        """
        for suffix in sample.members:
            check_member(sample.key, suffix)
        self._claim(sample.key)
        if self._open and self._open.samples and self._open.size_with(sample) > self.target_bytes:
            self._finish()
        if self._open is None:
            self._begin()
        assert self._open is not None
        self._open.add(sample)

    def skip(self, key: str, note: str) -> None:
        """Record that `key` was considered and left out, and why, so that a continued run need not try again."""
        self._claim(key)
        (self._open.skipped if self._open else self._pending_skips)[key] = note

    def close(self) -> tuple[FinishedShard, ...]:
        """Finish the last shard and return all of them."""
        if self._open is not None:
            self._finish()
        return self.finished

    def _claim(self, key: str) -> None:
        if key in self._keys:
            raise DatasetError(
                f"sample key '{key}' appears twice in {self.folder}.",
                "Keys must be unique: rename one of the inputs, or drop the duplicate.",
            )
        self._keys.add(key)

    def _shard_name(self, number: int) -> str:
        return f"{self.prefix}-{number:05d}.tar"

    def _pick_up(self) -> Iterable[FinishedShard]:
        """Shards 0, 1, … that an earlier run with the same fingerprint finished and that are still intact."""
        number = 0
        while shard := read_finished(self.folder, self._shard_name(number), self.fingerprint):
            yield shard
            number += 1

    def _begin(self) -> None:
        name = self._shard_name(len(self._finished))
        stream = (self.folder / f"{name}.tmp").open("wb")
        hashing = _HashingFile(stream)
        tar = tarfile.open(  # noqa: SIM115 - closed in _finish or _abandon
            fileobj=cast(IO[bytes], hashing), mode="w", format=tarfile.USTAR_FORMAT
        )
        self._open = _OpenShard(name, stream, hashing, tar)
        self._open.skipped.update(self._pending_skips)
        self._pending_skips.clear()

    def _finish(self) -> None:
        shard = self._open
        assert shard is not None
        shard.tar.close()
        shard.stream.flush()
        os.fsync(shard.stream.fileno())
        shard.stream.close()
        os.replace(self.folder / f"{shard.name}.tmp", self.folder / shard.name)
        row = ShardRow(
            name=shard.name,
            sha256=shard.hashing.digest.hexdigest(),
            samples=shard.samples,
            frames=shard.frames,
            bytes=shard.hashing.tell(),
            split=self.split,
            counts=dict(sorted(shard.counts.items())),
        )
        finished = FinishedShard(row, tuple(shard.index), shard.skipped)
        _record_finished(self.folder, finished, self.fingerprint)
        self._finished.append(finished)
        self._open = None

    def _abandon(self) -> None:
        if self._open is not None:
            self._open.stream.close()
            (self.folder / f"{self._open.name}.tmp").unlink(missing_ok=True)
            self._open = None


def read_finished(folder: Path, name: str, fingerprint: str) -> FinishedShard | None:
    """A shard finished under `fingerprint`, or None where it is missing, of another build, or damaged."""
    record = folder / UNFINISHED_FOLDER / f"{name}.json"
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
        row = ShardRow.model_validate(content["row"])
        if content["fingerprint"] != fingerprint or file_sha256(folder / name) != row.sha256:
            return None
        index = tuple(
            IndexRow(shard=name, key=key, suffix=suffix, offset=offset, size=size)
            for key, suffix, offset, size in content["index"]
        )
        return FinishedShard(row, index, content["skipped"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _record_finished(folder: Path, shard: FinishedShard, fingerprint: str) -> None:
    content = {
        "fingerprint": fingerprint,
        "row": shard.row.model_dump(),
        "index": [(row.key, row.suffix, row.offset, row.size) for row in shard.index],
        "skipped": dict(shard.skipped),
    }
    write_atomically(
        folder / UNFINISHED_FOLDER / f"{shard.row.name}.json", json.dumps(content, sort_keys=True).encode()
    )


def forget_progress(folder: Path) -> None:
    """Remove the records of a build under way: the last step, after `manifest.json` is in place."""
    shutil.rmtree(folder / UNFINISHED_FOLDER, ignore_errors=True)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_shard_tables(folder: Path, shards: Iterable[FinishedShard]) -> None:
    """Write `manifest.parquet` (one row per shard, by name) and `index.parquet` (one row per member, as stored)."""
    import pyarrow as pa

    ordered = sorted(shards, key=lambda shard: shard.row.name)
    rows = pa.Table.from_pylist([shard_row_columns(shard.row) for shard in ordered], schema=_shard_schema())
    write_parquet(folder / SHARD_TABLE_FILE, rows)
    members = [row for shard in ordered for row in shard.index]
    schema = _index_schema()
    columns = {name: [getattr(row, name) for row in members] for name in schema.names}
    write_parquet(folder / INDEX_FILE, pa.table(columns, schema=schema))


def read_shard_table(folder: Path) -> tuple[ShardRow, ...]:
    """The rows of a build's `manifest.parquet`.

    Raises:
        DatasetError: the file is missing or not readable.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / SHARD_TABLE_FILE
    try:
        rows = pq.read_table(path).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(f"{path} is not readable: {error}", "Build it again.") from error
    return tuple(ShardRow.model_validate(row | {"counts": json.loads(row["counts"])}) for row in rows)


def write_parquet(path: Path, table: object) -> None:
    """Write an Arrow table beside `path`, flush it to disk and rename it into place."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(cast(pa.Table, table), buffer, compression="zstd")
    write_atomically(path, buffer.getvalue())


def _shard_schema():
    import pyarrow as pa

    whole = ("samples", "frames", "bytes")
    names = ("name", "sha256", *whole, "split", "counts")
    return pa.schema([(name, pa.int64() if name in whole else pa.string()) for name in names])


def _index_schema():
    import pyarrow as pa

    text = ("shard", "key", "suffix")
    return pa.schema([*((name, pa.string()) for name in text), ("offset", pa.int64()), ("size", pa.int64())])
