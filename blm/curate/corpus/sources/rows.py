"""Rows of a source's files, one at a time and of bounded size: JSON, JSON lines, CSV and Parquet.

A row that cannot be read is a `RowError` in its place; a file that cannot be read as a whole is a `DatasetError`.
Memory: one row (at most `Limits.max_row_bytes`), or one batch of a Parquet file, whatever the file's size.
"""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from blm.curate.corpus.config import Limits
from blm.curate.parquet_files import open_in_batches
from blm.schemas.errors import DatasetError

ROW_FILE_ENDINGS = (".json", ".jsonl", ".ndjson", ".csv", ".parquet")
_CHUNK_BYTES = 1 << 20
_BATCH_ROWS = 64
_AFTER_VALUES = frozenset(" \t\r\n,]")


class RowError(Exception):
    """A row that cannot be used: the reason, the field at fault, and what was found."""

    def __init__(self, reason: str, field: str, note: str) -> None:
        super().__init__(note)
        self.reason, self.field, self.note = reason, field, note


def read_rows(path: Path, limits: Limits) -> Iterator[Any]:
    """A file's rows in order, each its content or a `RowError`. Lines count where they are not empty.

    Raises:
        DatasetError: the file is missing, of no known form, or as a whole unreadable.
    """
    if not path.is_file():
        raise DatasetError(f"{path} does not exist.", f"Give a file ending in {', '.join(ROW_FILE_ENDINGS)}.")
    ending = path.suffix.lower()
    if ending not in ROW_FILE_ENDINGS:
        raise DatasetError(
            f"{path}: rows are not read from '{ending}' files.", f"Known: {', '.join(ROW_FILE_ENDINGS)}."
        )
    if ending in (".jsonl", ".ndjson"):
        yield from _json_lines(path, limits.max_row_bytes)
    elif ending == ".csv":
        yield from _csv_rows(path, limits.max_row_bytes)
    elif ending == ".parquet":
        yield from _parquet_rows(path)
    else:
        yield from _json_elements(path, limits.max_row_bytes)


def row_files(path: Path, pattern: str = "*") -> list[Path]:
    """The file itself, or the files of rows below a folder whose names match, in order; hidden ones left out.

    Raises:
        DatasetError: there is none.
    """
    if path.is_file():
        return [path]
    found = [
        one
        for one in sorted(path.rglob(pattern))
        if one.suffix.lower() in ROW_FILE_ENDINGS
        and one.is_file()
        and not any(part.startswith(".") for part in one.relative_to(path).parts)
    ]
    if not found:
        named = "" if pattern == "*" else f" named '{pattern}'"
        raise DatasetError(f"{path} holds no file of rows{named}.", f"Known: {', '.join(ROW_FILE_ENDINGS)}.")
    return found


def bounded_lines(stream: IO[bytes], limit: int) -> Iterator[bytes | None]:
    """Lines that are not empty; None for one of more than `limit` bytes, which is skipped without being held."""
    while line := stream.readline(limit + 1):
        if len(line) > limit and not line.endswith(b"\n"):
            while rest := stream.readline(_CHUNK_BYTES):
                if rest.endswith(b"\n"):
                    break
            yield None
        elif line.strip():
            yield line


def parse_json(content: bytes, field: str = "") -> Any:
    """What the bytes hold.

    Raises:
        RowError: 'bad_json'.
    """
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise RowError("bad_json", field, f"not readable as JSON: {error}") from error


def _json_lines(path: Path, limit: int) -> Iterator[Any]:
    with path.open("rb") as stream:
        for line in bounded_lines(stream, limit):
            if line is None:
                yield RowError("row_too_long", "", f"a line of more than {limit} bytes")
                continue
            try:
                yield parse_json(line)
            except RowError as error:
                yield error


def _json_elements(path: Path, limit: int) -> Iterator[Any]:
    """The elements of a JSON list, parsed one at a time."""
    with path.open("rb") as stream:
        text = _TextWindow(path, stream)
        opening = text.next_mark()
        if opening != "[":
            what = {"": "nothing", "{": "a mapping"}.get(opening, "something else")
            raise DatasetError(f"{path} holds {what}, not a list.", "JSON lines need the ending .jsonl.")
        text.step()
        if text.next_mark() == "]":
            return
        while True:
            yield text.element(limit)
            mark = text.next_mark()
            if mark == "]":
                return
            if mark != ",":
                raise text.unreadable(f"'{mark}' where ',' or ']' belongs" if mark else "it ends too early")
            text.step()
            text.next_mark()


class _TextWindow:
    """The part of a JSON text that is being looked at."""

    def __init__(self, path: Path, stream: IO[bytes]) -> None:
        self._path, self._stream = path, stream
        self._decode = codecs.getincrementaldecoder("utf-8-sig")()
        self._parser = json.JSONDecoder()
        self._text, self._at, self._ended = "", 0, False

    def unreadable(self, why: object) -> DatasetError:
        return DatasetError(
            f"{self._path} is not readable as JSON: {why}", "Mend it; JSON lines need the ending .jsonl."
        )

    def next_mark(self) -> str:
        """The next character that is not white space, '' at the end; stands before it."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in " \t\r\n":
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more(_CHUNK_BYTES):
                return ""

    def step(self) -> None:
        self._at += 1

    def element(self, limit: int) -> Any:
        """The value that begins here.

        Raises:
            DatasetError: there is none, or it is longer than `limit`.
        """
        wanted = _CHUNK_BYTES
        while True:
            try:
                value, end = self._parser.raw_decode(self._text, self._at)
                # A number may go on behind the window's edge: '1' may be the beginning of '1.5'.
                if self._ended or self._text[end : end + 1] in _AFTER_VALUES:
                    self._at = end
                    return value
            except (ValueError, RecursionError) as error:
                if self._ended or isinstance(error, RecursionError):
                    raise self.unreadable(error) from error
            if len(self._text) - self._at > limit:
                raise self.unreadable(f"an element without an end within {limit} characters")
            self._more(wanted)
            wanted *= 2

    def _more(self, size: int) -> bool:
        chunk = self._stream.read(size)
        try:
            text = self._decode.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            raise self.unreadable(error) from error
        self._text, self._at = self._text[self._at :] + text, 0
        self._ended = not chunk
        return bool(chunk)


def _csv_rows(path: Path, limit: int) -> Iterator[Any]:
    previous = csv.field_size_limit(limit)
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
            rows = csv.DictReader(stream)
            while True:
                try:
                    yield {name: value for name, value in next(rows).items() if name is not None}
                except StopIteration:
                    return
                except csv.Error as error:
                    yield RowError("bad_row", "", f"not readable as CSV: {error}")
    finally:
        csv.field_size_limit(previous)


def _parquet_rows(path: Path) -> Iterator[Any]:
    try:
        for batch in parquet_batches(path, _BATCH_ROWS):
            yield from checked_rows(batch)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DatasetError(f"{path} is not readable as Parquet: {error}", "Mend or remove it.") from error


def parquet_batches(path: Path, rows: int, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """The batches of a Parquet file, in bounded memory."""
    with open_in_batches(path) as file:
        yield from file.iter_batches(rows, columns=columns, use_threads=False)


def checked_rows(batch: pa.RecordBatch) -> Iterator[Any]:
    """A batch's rows as mappings, after its offsets were checked to lie within its buffers."""
    batch.validate(full=True)
    for number in range(batch.num_rows):
        yield batch.slice(number, 1).to_pylist()[0]
