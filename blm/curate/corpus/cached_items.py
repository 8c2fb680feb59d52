"""Files that hold conversations and drops as they were read and cleaned, and what became of each when it was judged.

rows.arrow    a row per item, in order; the media of each by their places in:
media         every content once
judged        a row per row of rows.arrow, in as many batches; media do not change any more
"""

from __future__ import annotations

import hashlib
import json
import os
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc

from blm.curate.corpus.conversation import Conversation, Drop
from blm.schemas.corpus import CorpusRecord

ROWS_FILE, MEDIA_FILE = "rows.arrow", "media"
_ROWS_SCHEMA = pa.schema(
    [
        ("item", pa.large_string()),
        ("dropped", pa.bool_()),
        ("group", pa.string()),
        ("starts", pa.list_(pa.int64())),
        ("sizes", pa.list_(pa.int64())),
    ]
)
"""`item` is the record or drop as JSON; `starts` and `sizes` are of its media. A drop has null for `group`."""
_OUTCOME_SCHEMA = pa.schema(list(_ROWS_SCHEMA)[:2])
_OF_MEDIA = [_ROWS_SCHEMA.get_field_index(name) for name in ("group", "starts", "sizes")]
_ROWS_AT_ONCE = 1024


def write_items(folder: Path, items: Iterable[Conversation | Drop]) -> Iterator[Conversation | Drop]:
    """Pass items on, writing rows and media as they go; all is on disk when the last has passed."""
    known: dict[bytes, int] = {}
    starts = array("q", [0])
    with (folder / MEDIA_FILE).open("wb") as media:

        def row(item: Conversation | Drop) -> dict[str, Any]:
            numbers = [_number(content, known, starts, media) for content in getattr(item, "media", ())]
            return _outcome(item) | {
                "group": None if isinstance(item, Drop) else item.group,
                "starts": [starts[number] for number in numbers],
                "sizes": [starts[number + 1] - starts[number] for number in numbers],
            }

        yield from _written(folder / ROWS_FILE, _ROWS_SCHEMA, items, row)
        media.flush()
        os.fsync(media.fileno())


def write_outcomes(path: Path, items: Iterable[Conversation | Drop]) -> Iterator[Conversation | Drop]:
    """Pass on what became of the items of `write_items`, one for each, writing it as it goes."""
    return _written(path, _OUTCOME_SCHEMA, items, _outcome)


def read_items(folder: Path) -> Iterator[Conversation | Drop]:
    """What `write_items` wrote."""
    with (folder / MEDIA_FILE).open("rb") as media, pa.memory_map(str(folder / ROWS_FILE)) as rows:
        for batch in _batches(rows):
            for row in batch.to_pylist():
                yield _item(media, row)


def read_outcomes(folder: Path, path: Path) -> Iterator[Conversation | Drop]:
    """What `write_outcomes` wrote to `path`, with the media of the items it was made of."""
    with (
        (folder / MEDIA_FILE).open("rb") as media,
        pa.memory_map(str(folder / ROWS_FILE)) as rows,
        pa.memory_map(str(path)) as outcomes,
    ):
        for batch, outcome in zip(_batches(rows, _OF_MEDIA), _batches(outcomes), strict=True):
            for row, became in zip(batch.to_pylist(), outcome.to_pylist(), strict=True):
                yield _item(media, row | became)


def conversation_of(folder: Path, name: str) -> Conversation | None:
    """The conversation of this ID among the items of a folder. O(texts)."""
    with (folder / MEDIA_FILE).open("rb") as media, pa.memory_map(str(folder / ROWS_FILE)) as rows:
        for batch in _batches(rows):
            may_be = pc.match_substring(batch["item"], json.dumps(name))  # type: ignore[attr-defined]
            for row in batch.filter(may_be).to_pylist():
                item = _item(media, row)
                if isinstance(item, Conversation) and item.record.id == name:
                    return item
    return None


def _written(
    path: Path, schema: pa.Schema, items: Iterable[Conversation | Drop], row: Any
) -> Iterator[Conversation | Drop]:
    waiting: list[dict[str, Any]] = []
    with path.open("wb") as stream:
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with pa.ipc.new_file(stream, schema, options=options) as rows:
            for item in items:
                waiting.append(row(item))
                if len(waiting) >= _ROWS_AT_ONCE:
                    rows.write_batch(pa.RecordBatch.from_pylist(waiting, schema=schema))
                    waiting.clear()
                yield item
            if waiting:
                rows.write_batch(pa.RecordBatch.from_pylist(waiting, schema=schema))
        stream.flush()
        os.fsync(stream.fileno())


def _batches(stream: pa.NativeFile, fields: list[int] | None = None) -> Iterator[pa.RecordBatch]:
    """Of all columns or some."""
    reader = pa.ipc.open_file(stream, options=pa.ipc.IpcReadOptions(included_fields=fields))
    return (reader.get_batch(number) for number in range(reader.num_record_batches))


def _number(content: bytes, known: dict[bytes, int], starts: array[int], media: IO[bytes]) -> int:
    """The number of a media content, written where it is new."""
    digest = hashlib.sha256(content).digest()
    if digest not in known:
        known[digest] = len(known)
        media.write(content)
        starts.append(starts[-1] + len(content))
    return known[digest]


def _outcome(item: Conversation | Drop) -> dict[str, Any]:
    dropped = isinstance(item, Drop)
    return {"item": json.dumps(asdict(item) if dropped else item.record.to_row()), "dropped": dropped}


def _item(media: IO[bytes], row: dict[str, Any]) -> Conversation | Drop:
    content = json.loads(row["item"])
    if row["dropped"]:
        return Drop(**content)
    contents = []
    for start, size in zip(row["starts"], row["sizes"], strict=True):
        media.seek(start)
        contents.append(media.read(size))
    return Conversation(CorpusRecord.from_row(content), tuple(contents), row["group"])
