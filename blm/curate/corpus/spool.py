"""Conversations that passed one by one, waiting on disk to be compared with each other before they are packed.

`rows.arrow` holds a row for each, uncompressed and memory-mapped, so that comparing reads no more than it looks at;
`media` holds every media content once. Memory: a batch of rows, and about 200 bytes per distinct media content.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import shutil
from array import array
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa

from blm.curate.corpus.conversation import Conversation
from blm.curate.corpus.shingles import words_of
from blm.schemas.corpus import CorpusRecord

SPOOL_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("text", pa.large_string()),
        ("answer", pa.uint64()),
        ("media", pa.list_(pa.int64())),
        ("record", pa.large_string()),
    ]
)
"""`text` is all that is said; `answer` a hash of short answers, 0 where they are long; `media` numbers of contents;
`record` the corpus record as JSON."""
SHORT_ANSWER_WORDS = 20
_ROWS_AT_ONCE = 1024


class Spool:
    """Add conversations, `seal`, then read them as often as needed. A context manager: nothing stays on disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> Self:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        self._rows = pa.OSFile(str(self._folder / "rows.arrow"), "wb")
        self._writer = pa.ipc.new_file(self._rows, SPOOL_SCHEMA)
        self._contents = (self._folder / "media").open("w+b")
        self._waiting: list[dict[str, object]] = []
        self._known: dict[bytes, int] = {}
        self._ends = array("q")
        self._mapped: mmap.mmap | bytes = b""
        self.table = SPOOL_SCHEMA.empty_table()
        return self

    def add(self, conversation: Conversation) -> None:
        record = conversation.record
        numbers = [
            self._media_number(bytes.fromhex(one.sha256), content)
            for one, content in zip(record.media, conversation.media, strict=True)
        ]
        row = {
            "id": record.id,
            "source": record.source,
            "text": conversation_text(record),
            "answer": _short_answer(record),
            "media": numbers,
            "record": json.dumps(record.to_row(), sort_keys=True, ensure_ascii=False),
        }
        self._waiting.append(row)
        if len(self._waiting) >= _ROWS_AT_ONCE:
            self._write_rows()

    def seal(self) -> None:
        """No more is added; `table` then has a row of `SPOOL_SCHEMA` for each conversation, in the order added."""
        self._write_rows()
        self._close_rows()
        self._contents.flush()
        if self._ends and self._ends[-1]:
            self._mapped = mmap.mmap(self._contents.fileno(), 0, access=mmap.ACCESS_READ)
        self._map = pa.memory_map(str(self._folder / "rows.arrow"))
        self.table = pa.ipc.open_file(self._map).read_all()

    def __len__(self) -> int:
        return len(self.table)

    @property
    def folder(self) -> Path:
        """Where it waits; others may put there what they need meanwhile."""
        return self._folder

    @property
    def contents(self) -> int:
        """How many distinct media contents there are."""
        return len(self._ends)

    def content(self, number: int) -> bytes:
        """The bytes of a media content."""
        return self._mapped[self._ends[number - 1] if number else 0 : self._ends[number]]

    def digests(self) -> list[bytes]:
        """SHA-256 of each media content, in order."""
        return list(self._known)

    def media(self) -> tuple[np.ndarray, np.ndarray]:
        """Media numbers of all conversations one after the other, and where each one's begin, (N + 1,) int64."""
        counts, numbers = [], []
        for chunk in self.table["media"].chunks:
            counts.append(np.diff(chunk.offsets.to_numpy()))
            numbers.append(chunk.flatten().to_numpy())
        if not counts:
            return np.zeros(0, np.int64), np.zeros(1, np.int64)
        return np.concatenate(numbers), np.concatenate([[0], np.cumsum(np.concatenate(counts))])

    def conversation(self, row: int) -> Conversation:
        """The conversation of a row, without its group."""
        return self._conversation(self.table.slice(row, 1).select(["record", "media"]).to_pylist()[0])

    def conversations(self, keep: np.ndarray) -> Iterator[Conversation]:
        """Those where `keep` (N,) bool holds, in order."""
        row = 0
        for batch in self.table.select(["record", "media"]).to_batches(_ROWS_AT_ONCE):
            wanted = keep[row : row + len(batch)]
            row += len(batch)
            yield from map(self._conversation, batch.filter(pa.array(wanted)).to_pylist())

    def records(self) -> Iterator[CorpusRecord]:
        """The records of all conversations, in order."""
        for batch in self.table.select(["record"]).to_batches(_ROWS_AT_ONCE):
            for content in batch["record"].to_pylist():
                yield CorpusRecord.from_row(json.loads(content))

    def records_of(self, rows: np.ndarray) -> list[CorpusRecord]:
        """The records of some rows."""
        contents = self.table["record"].take(pa.array(rows)) if len(rows) else []
        return [CorpusRecord.from_row(json.loads(str(content))) for content in contents]

    def _conversation(self, row: dict) -> Conversation:
        record = CorpusRecord.from_row(json.loads(row["record"]))
        return Conversation(record, tuple(self.content(number) for number in row["media"]))

    def _media_number(self, digest: bytes, content: bytes) -> int:
        number = self._known.get(digest)
        if number is None:
            number = self._known[digest] = len(self._known)
            self._contents.write(content)
            self._ends.append((self._ends[-1] if self._ends else 0) + len(content))
        return number

    def _write_rows(self) -> None:
        if self._waiting:
            self._writer.write_batch(pa.RecordBatch.from_pylist(self._waiting, schema=SPOOL_SCHEMA))
            self._waiting.clear()

    def _close_rows(self) -> None:
        if not self._rows.closed:
            self._writer.close()
            self._rows.close()

    def __exit__(self, *_: object) -> None:
        self.table = SPOOL_SCHEMA.empty_table()
        self._close_rows()
        self._contents.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def conversation_text(record: CorpusRecord) -> str:
    """All that is said, a message per line."""
    return "\n".join(
        "".join(part.text for part in message.content if part.kind == "text") for message in record.messages
    )


def exchanges(record: CorpusRecord) -> Sequence[tuple[str, str]]:
    """Each question with its answer."""
    said = [
        (message.role, "".join(part.text for part in message.content if part.kind == "text"))
        for message in record.messages
    ]
    return [(one, other) for (role, one), (_, other) in pairwise(said) if role == "user"]


def _short_answer(record: CorpusRecord) -> int:
    """A hash of the words of all answers if they are few: there, another word is another answer. 0 if they are many."""
    answers = [words_of(answer) for _, answer in exchanges(record)]
    if sum(map(len, answers)) > SHORT_ANSWER_WORDS:
        return 0
    digest = hashlib.blake2b(json.dumps(answers).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") | 1
