"""What was read of each source, checked and brought into one form, kept for the next build in the same folder.

    .cache/<source>-<key>/rows.arrow    a row per conversation or drop, in order
                          media         every image once
                          entry.json    digests of both; written last

The key is a digest of the source's content and of all settings that reading, licence, validate and normalise depend on.
So a source is read again only if it, or one of those, has changed: another source, mixture, quality rule or benchmark
changes nothing about it. Takes about as much space as the corpus; may be removed at any time. O(bytes) to check.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc

from blm import __version__
from blm.curate.corpus.config import CorpusConfig
from blm.curate.corpus.conversation import Conversation, Drop
from blm.curate.corpus.inputs import Input
from blm.curate.shards import file_sha256, safe_key
from blm.schemas.corpus import CorpusRecord

_FORM = 1
_ROWS, _MEDIA, _ENTRY = "rows.arrow", "media", "entry.json"
_SCHEMA = pa.schema(
    [
        ("item", pa.large_string()),
        ("group", pa.string()),
        ("starts", pa.list_(pa.int64())),
        ("sizes", pa.list_(pa.int64())),
    ]
)
"""`item` is the record or drop as JSON; `starts` and `sizes` are of its media. A drop has null for `group`."""
_ROWS_AT_ONCE = 1024


class SourceCache:
    """Entries of one folder; those that were asked for are told apart from those of earlier builds."""

    def __init__(self, folder: Path, config: CorpusConfig) -> None:
        self.folder = folder
        self._settings = config.build_settings()
        self._asked: set[str] = set()
        self.found: list[str] = []
        """Names of sources that need not be read."""

    def entry(self, source: Input) -> Path:
        """Where the entry of a source lies, or would."""
        settings = [self._settings.get(name) for name in ("licences", "limits", "allow_download", "download")]
        given = source.config.model_dump(mode="json", exclude={"media_root"})
        content = [_FORM, __version__, source.source.kind, given, source.sha256, settings]
        key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        name = f"{safe_key(source.config.name)}-{key[:16]}"
        self._asked.add(name)
        return self.folder / name

    def read(self, source: Input) -> Iterator[Conversation | Drop] | None:
        """What was kept of the source; None where nothing was, or it is damaged."""
        entry = self.entry(source)
        try:
            digests = json.loads((entry / _ENTRY).read_text(encoding="utf-8"))
            whole = all(file_sha256(entry / name) == digests[name] for name in (_ROWS, _MEDIA))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if not whole:
            return None
        self.found.append(source.config.name)
        return _read(entry)

    def keep(self, source: Input, items: Iterable[Conversation | Drop]) -> Iterator[Conversation | Drop]:
        """The same items; when all have passed they are kept."""
        entry = self.entry(source)
        beside = entry.with_name(f"{entry.name}.tmp")
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        yield from _written(beside, items)
        shutil.rmtree(entry, ignore_errors=True)
        os.replace(beside, entry)

    def sweep(self) -> None:
        """Remove what this build did not ask for."""
        for path in self.folder.glob("*"):
            if path.name not in self._asked:
                shutil.rmtree(path, ignore_errors=True)


def kept_conversation(folder: Path, source: str, name: str) -> Conversation | None:
    """A record of the source as it was before quality rules, masks and all that follows; None where it was not kept.

    O(texts of the source).
    """
    for entry in sorted(folder.glob(f"{safe_key(source)}-*")):
        try:
            with (entry / _MEDIA).open("rb") as media, pa.memory_map(str(entry / _ROWS)) as rows:
                reader = pa.ipc.open_file(rows)
                for number in range(reader.num_record_batches):
                    batch = reader.get_batch(number)
                    may_be = pc.match_substring(batch["item"], json.dumps(name))  # type: ignore[attr-defined]
                    for item in map(partial(_item, media), batch.filter(may_be).to_pylist()):
                        if isinstance(item, Conversation) and item.record.id == name:
                            return item
        except (OSError, pa.ArrowException):
            continue
    return None


def _written(folder: Path, items: Iterable[Conversation | Drop]) -> Iterator[Conversation | Drop]:
    """Pass items on, writing them as they go."""
    known: dict[bytes, int] = {}
    starts = array("q", [0])
    waiting: list[dict[str, Any]] = []
    with (folder / _MEDIA).open("wb") as media, (folder / _ROWS).open("wb") as stream:
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with pa.ipc.new_file(stream, _SCHEMA, options=options) as rows:
            for item in items:
                numbers = [_number(content, known, starts, media) for content in getattr(item, "media", ())]
                waiting.append(_row(item, numbers, starts))
                if len(waiting) >= _ROWS_AT_ONCE:
                    rows.write_batch(pa.RecordBatch.from_pylist(waiting, schema=_SCHEMA))
                    waiting.clear()
                yield item
            if waiting:
                rows.write_batch(pa.RecordBatch.from_pylist(waiting, schema=_SCHEMA))
        for file in (media, stream):
            file.flush()
            os.fsync(file.fileno())
    digests = {name: file_sha256(folder / name) for name in (_ROWS, _MEDIA)}
    (folder / _ENTRY).write_text(json.dumps(digests), encoding="utf-8")


def _number(content: bytes, known: dict[bytes, int], starts: array[int], media: Any) -> int:
    """The number of a media content, written where it is new."""
    digest = hashlib.sha256(content).digest()
    if digest not in known:
        known[digest] = len(known)
        media.write(content)
        starts.append(starts[-1] + len(content))
    return known[digest]


def _row(item: Conversation | Drop, numbers: list[int], starts: array[int]) -> dict[str, Any]:
    is_drop = isinstance(item, Drop)
    return {
        "item": json.dumps(asdict(item) if is_drop else item.record.to_row()),
        "group": None if is_drop else item.group,
        "starts": [starts[number] for number in numbers],
        "sizes": [starts[number + 1] - starts[number] for number in numbers],
    }


def _read(folder: Path) -> Iterator[Conversation | Drop]:
    with (folder / _MEDIA).open("rb") as media, pa.memory_map(str(folder / _ROWS)) as rows:
        reader = pa.ipc.open_file(rows)
        for number in range(reader.num_record_batches):
            yield from map(partial(_item, media), reader.get_batch(number).to_pylist())


def _item(media: IO[bytes], row: dict[str, Any]) -> Conversation | Drop:
    content = json.loads(row["item"])
    if row["group"] is None:
        return Drop(**content)
    contents = []
    for start, size in zip(row["starts"], row["sizes"], strict=True):
        media.seek(start)
        contents.append(media.read(size))
    return Conversation(CorpusRecord.from_row(content), tuple(contents), row["group"])
