"""WebDataset shards with the same bytes for the same samples, an index of byte offsets, and restarts without rework.

Members are written with `tarfile` in USTAR form and fixed metadata. webdataset's own `TarWriter` writes the same
form, but importing it imports torch (five seconds), and it neither hashes nor reports offsets.

Beside each complete shard lies `<shard>.json`, which says what it was made from (its `source`) and where its members
are. Whoever would write the same shard again finds it with `read_finished` and need not.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, cast

from blm.schemas.errors import DatasetError
from blm.schemas.manifest import INDEX_FILE, SHARD_TABLE_FILE, write_atomically
from blm.schemas.shard import SHARD_ROW_MAPPINGS, IndexRow, ShardRow, shard_row_columns

DEFAULT_SHARD_BYTES = 256 * 1024 * 1024

_SAFE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_SAFE_SUFFIX = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)*")
_BLOCK = tarfile.BLOCKSIZE
_LONGEST_NAME = 100
_HASHED_AT_ONCE = 2**18
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
    """A shard that is complete on disk, and where its members lie."""

    row: ShardRow
    index: tuple[IndexRow, ...]

    def to_json(self) -> str:
        """As text, for `from_json`."""
        index = [(row.key, row.suffix, row.offset, row.size) for row in self.index]
        return json.dumps({"row": self.row.model_dump(), "index": index}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Raises ValueError, KeyError or TypeError where `text` is something else."""
        content = json.loads(text)
        row = ShardRow.model_validate(content["row"])
        index = (
            IndexRow(shard=row.name, key=k, suffix=s, offset=o, size=n) for k, s, o, n in content["index"]
        )
        return cls(row, tuple(index))


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


class OpenShard:
    """A shard being written: beside its final place until `finish`, so that a name ending in `.tar` is always whole.

    `source` says what it is made from, in whatever form `read_finished` is asked for later.
    """

    def __init__(self, folder: Path, name: str, split: str, source: str) -> None:
        self.folder, self.name, self.split, self.source = folder, name, split, source
        self._stream = (folder / f"{name}.tmp").open("wb")
        self._hashing = _HashingFile(self._stream)
        self._tar = tarfile.open(  # noqa: SIM115 - closed in finish or abandon
            fileobj=cast(IO[bytes], self._hashing), mode="w", format=tarfile.USTAR_FORMAT
        )
        self._index: list[IndexRow] = []
        self._counts: dict[str, int] = {}
        self.samples = self.frames = 0

    def size_with(self, sample: Sample) -> int:
        """Bytes of the tar if `sample` were its last one, end blocks and padding included."""
        size = sum(_BLOCK + _rounded(len(content), _BLOCK) for content in sample.members.values())
        return _rounded(self._hashing.tell() + size + 2 * _BLOCK, tarfile.RECORDSIZE)

    def add(self, sample: Sample) -> None:
        """Append a sample; raises DatasetError, naming the key, where a member's name is not allowed."""
        for suffix in sample.members:
            check_member(sample.key, suffix)
        for suffix, content in sample.members.items():
            info = tarfile.TarInfo(f"{sample.key}.{suffix}")
            info.size, info.mtime, info.mode = len(content), 0, 0o644
            self._tar.addfile(info, io.BytesIO(content))
            offset = self._hashing.tell() - _rounded(len(content), _BLOCK)
            self._index.append(
                IndexRow(shard=self.name, key=sample.key, suffix=suffix, offset=offset, size=len(content))
            )
        self.samples += 1
        self.frames += sample.frames
        if sample.label:
            self._counts[sample.label] = self._counts.get(sample.label, 0) + 1

    def finish(self, skipped: Mapping[str, str] | None = None) -> FinishedShard:
        """Flush the shard to disk, put it in its place, and record it; `skipped` as in `ShardRow`."""
        self._tar.close()
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()
        os.replace(self.folder / f"{self.name}.tmp", self.folder / self.name)
        row = ShardRow(
            name=self.name,
            sha256=self._hashing.digest.hexdigest(),
            samples=self.samples,
            frames=self.frames,
            bytes=self._hashing.tell(),
            split=self.split,
            counts=dict(sorted(self._counts.items())),
            source=self.source,
            skipped=dict(skipped or {}),
        )
        finished = FinishedShard(row, tuple(self._index))
        write_atomically(self.folder / f"{self.name}.json", finished.to_json().encode())
        return finished

    def abandon(self) -> None:
        """Leave nothing behind."""
        self._stream.close()
        (self.folder / f"{self.name}.tmp").unlink(missing_ok=True)


class ShardWriter:
    """Writes samples into `<folder>/<prefix>-<number:05d>.tar`, starting a new shard before `target_bytes` is passed.

    Use it as a context manager; leaving by an exception keeps what is finished and removes the shard begun.

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
        self._open: OpenShard | None = None
        self._finished = list(self._pick_up())
        self._keys = {row.key for shard in self._finished for row in shard.index}

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
        elif self._open is not None:
            self._open.abandon()
            self._open = None

    @property
    def finished(self) -> tuple[FinishedShard, ...]:
        """The shards complete so far, in order."""
        return tuple(self._finished)

    def done(self, key: str) -> bool:
        """Whether `key` was written already, by this run or by the one it continues."""
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
            name = shard_name(self.prefix, len(self._finished))
            self._open = OpenShard(self.folder, name, self.split, self.fingerprint)
        self._open.add(sample)

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

    def _pick_up(self) -> Iterable[FinishedShard]:
        """Shards 0, 1, … that an earlier run with the same fingerprint finished and that are still intact."""
        number = 0
        while shard := read_finished(self.folder, shard_name(self.prefix, number), self.fingerprint):
            yield shard
            number += 1

    def _finish(self) -> None:
        assert self._open is not None
        self._finished.append(self._open.finish())
        self._open = None


def shard_name(prefix: str, number: int) -> str:
    """The file name of a group's shard `number`, counted from 0."""
    return f"{prefix}-{number:05d}.tar"


def read_finished(folder: Path, name: str, source: str) -> FinishedShard | None:
    """A shard finished from this `source`, or None where it is missing, made from another one, or damaged."""
    try:
        shard = FinishedShard.from_json((folder / f"{name}.json").read_text(encoding="utf-8"))
        same = shard.row.source == source and file_sha256(folder / name) == shard.row.sha256
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return shard if same else None


def file_sha256(path: Path, given_up: Callable[[], bool] = lambda: False) -> str:
    """SHA-256 of a file's bytes, hexadecimal; of a part of them where it is given up on the way."""
    digest, some = hashlib.sha256(), bytearray(_HASHED_AT_ONCE)
    with path.open("rb", buffering=0) as stream:
        while (count := stream.readinto(some)) and not given_up():
            digest.update(memoryview(some)[:count])
    return digest.hexdigest()


def write_shard_tables(folder: Path, shards: Iterable[FinishedShard]) -> None:
    """Write `manifest.parquet` (one row per shard, by name) and `index.parquet` (one row per member, as stored)."""
    import pyarrow as pa

    ordered = sorted(shards, key=lambda shard: shard.row.name)
    rows = pa.Table.from_pylist([shard_row_columns(shard.row) for shard in ordered], schema=_shard_schema())
    write_parquet(folder / SHARD_TABLE_FILE, rows)
    schema = _index_schema()
    columns = {name: [getattr(row, name) for one in ordered for row in one.index] for name in schema.names}
    write_parquet(folder / INDEX_FILE, pa.table(columns, schema=schema))


def read_shard_table(folder: Path) -> tuple[ShardRow, ...]:
    """The rows of a build's `manifest.parquet`.

    Raises:
        DatasetError: the file is missing or not readable.
    """
    rows = _read_rows(folder / SHARD_TABLE_FILE)
    try:
        return tuple(
            ShardRow.model_validate(
                row | {name: json.loads(row[name]) for name in SHARD_ROW_MAPPINGS if name in row}
            )
            for row in rows
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(
            f"{folder / SHARD_TABLE_FILE} is not a table of shards: {error}", "Build it again."
        ) from error


def read_index(folder: Path) -> dict[str, tuple[IndexRow, ...]]:
    """The rows of a build's `index.parquet` by shard, as stored.

    Raises:
        DatasetError: the file is missing or not readable.
    """
    members: dict[str, list[IndexRow]] = {}
    try:
        for row in _read_rows(folder / INDEX_FILE):
            member = _index_row(row)
            members.setdefault(member.shard, []).append(member)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DatasetError(
            f"{folder / INDEX_FILE} is not an index of shards: {error}", "Build it again."
        ) from error
    return {shard: tuple(rows) for shard, rows in members.items()}


def _index_row(row: Mapping[str, Any]) -> IndexRow:
    offset, size = int(row["offset"]), int(row["size"])
    if not (0 <= offset < 2**62 and 0 <= size < 2**62):
        raise ValueError(f"offset {offset}, size {size}")
    return IndexRow(
        shard=str(row["shard"]), key=str(row["key"]), suffix=str(row["suffix"]), offset=offset, size=size
    )


def write_parquet(path: Path, table: object) -> None:
    """Write an Arrow table beside `path`, flush it to disk and rename it into place."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(cast(pa.Table, table), buffer, compression="zstd")
    write_atomically(path, buffer.getvalue())


def _read_rows(path: Path) -> list[dict]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(f"{path} is not readable: {error}", "Build it again.") from error


def _shard_schema():
    import pyarrow as pa

    whole = ("samples", "frames", "bytes")
    names = ("name", "sha256", *whole, "split", "counts", "source", "skipped")
    return pa.schema([(name, pa.int64() if name in whole else pa.string()) for name in names])


def _index_schema():
    import pyarrow as pa

    text = ("shard", "key", "suffix")
    return pa.schema([*((name, pa.string()) for name in text), ("offset", pa.int64()), ("size", pa.int64())])
