"""The corpus as Parquet, which `datasets` opens with decoded images and the Hub shows: `parquet/<split>-<i>.parquet`.

    id, source, licence, space, task_family, provenance    as in the corpus record
    messages    turns: role, and content as parts of `type` text or image, as chat templates of `transformers` take them
    images      the images in the order in which the messages show them

Same records, same bytes. Memory: a row group, at most `_ROW_GROUP_BYTES` of images.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from blm.curate.corpus.build_files import PARQUET_FOLDER
from blm.curate.corpus.conversation import Conversation

_COPIED = ("id", "source", "licence", "space", "task_family", "provenance")
_MESSAGES = pa.list_(
    pa.struct(
        [
            ("role", pa.string()),
            ("content", pa.list_(pa.struct([("type", pa.string()), ("text", pa.string())]))),
        ]
    )
)
_IMAGES = pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
_STRING = {"dtype": "string", "_type": "Value"}
FEATURES: Mapping[str, Any] = {
    "id": _STRING,
    "messages": [{"role": _STRING, "content": [{"type": _STRING, "text": _STRING}]}],
    "images": [{"_type": "Image"}],
    **dict.fromkeys(_COPIED[1:], _STRING),
}
"""The columns in the words of `datasets`, which finds them in the files' metadata."""
PARQUET_FORM_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("messages", _MESSAGES),
        ("images", _IMAGES),
        *((name, pa.string()) for name in _COPIED[1:]),
    ],
    metadata={"huggingface": json.dumps({"info": {"features": FEATURES}})},
)
_ROW_GROUP_ROWS, _ROW_GROUP_BYTES = 256, 16 * 1024 * 1024
"""Small, so that a viewer reads few images to show some."""


@dataclass
class ParquetForm:
    """Writes the files of one split, a new one before `target_bytes` of content are passed. `close` when all is in."""

    folder: Path
    split: str
    target_bytes: int
    _waiting: list[dict[str, Any]] = field(default_factory=list)
    _waiting_bytes: int = 0
    _written_bytes: int = 0
    _number: int = 0
    _file: pq.ParquetWriter | None = None

    def write(self, conversation: Conversation) -> None:
        """Append a conversation."""
        row = parquet_row(conversation)
        size = sum(len(image["bytes"]) for image in row["images"]) + len(str(row["messages"]))
        so_far = self._written_bytes + self._waiting_bytes
        if so_far and so_far + size > self.target_bytes:
            self.close()
        if len(self._waiting) >= _ROW_GROUP_ROWS or self._waiting_bytes + size > _ROW_GROUP_BYTES:
            self._write_group()
        self._waiting.append(row)
        self._waiting_bytes += size

    def close(self) -> None:
        """Finish the file under way; the next conversation begins another."""
        self._write_group()
        if self._file is None:
            return
        self._file.close()
        beside = self._beside()
        with beside.open("rb+") as stream:
            os.fsync(stream.fileno())
        os.replace(beside, beside.with_suffix(""))
        self._file, self._written_bytes = None, 0
        self._number += 1

    def _write_group(self) -> None:
        if not self._waiting:
            return
        if self._file is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._file = pq.ParquetWriter(
                self._beside(),
                PARQUET_FORM_SCHEMA,
                compression="zstd",
                use_dictionary=["source", "licence", "space", "task_family"],  # type: ignore[arg-type]
            )
        self._file.write_table(pa.Table.from_pylist(self._waiting, schema=PARQUET_FORM_SCHEMA))
        self._written_bytes += self._waiting_bytes
        self._waiting_bytes = 0
        self._waiting.clear()

    def _beside(self) -> Path:
        return self.folder / f"{self.split}-{self._number:05d}.parquet.tmp"


def parquet_row(conversation: Conversation) -> dict[str, Any]:
    """A conversation as a row of `PARQUET_FORM_SCHEMA`."""
    record = conversation.record
    shown = [part.media for message in record.messages for part in message.content if part.kind != "text"]
    return {
        **{name: getattr(record, name) for name in _COPIED},
        "messages": [
            {
                "role": message.role,
                "content": [
                    {"type": part.kind, "text": part.text if part.kind == "text" else None}
                    for part in message.content
                ],
            }
            for message in record.messages
        ],
        "images": [
            {
                "bytes": conversation.media[number],
                "path": f"{record.media[number].sha256}.{record.media[number].extension}",
            }
            for number in shown
        ],
    }


def parquet_form_rows(build: Path) -> int | None:
    """How many conversations the files in a build's folder hold; None where one is not readable."""
    try:
        return sum(pq.read_metadata(file).num_rows for file in (build / PARQUET_FOLDER).glob("*.parquet"))
    except (OSError, pa.ArrowException):
        return None


def parquet_configs(splits: Iterable[str]) -> list[dict[str, object]]:
    """What the card says so that `load_dataset(folder)` and the Hub open these files by themselves."""
    files = [{"split": split, "path": f"{PARQUET_FOLDER}/{split}-[0-9]*.parquet"} for split in splits]
    return [{"config_name": "default", "default": True, "data_files": files}]
