"""Read the questions of a benchmark from a file, whatever form it came in.

JSON (a list), JSON lines, Parquet, CSV and TSV have fields; where the configuration does not name them, the first known
name counts. Rows in LLaVA's form (`conversations`) or chat form (`messages`) are read as such. Plain text is an item a
line. Images are bytes, {"bytes", "path"} as `datasets` stores them, or paths below the file's folder.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from blm.curate.corpus.config import Benchmark
from blm.curate.corpus.sources.rows import parquet_batches
from blm.schemas.errors import ConfigError, DatasetError

QUESTIONS = ("question", "prompt", "query", "problem", "instruction", "input", "text", "sentence")
ANSWERS = ("answer", "answers", "response", "output", "target", "label", "solution")
CHOICES = ("choices", "options")
IMAGES = ("image", "images", "image_path", "decoded_image")
CHATS = ("conversations", "messages")


@dataclass(frozen=True)
class BenchmarkItem:
    """One question: its benchmark, its row (from 0), what is asked, answered and shown.

    `context` is text that belongs to it besides, such as the options to choose from.
    """

    benchmark: str
    row: int
    question: str
    answer: str = ""
    context: str = ""
    images: tuple[bytes, ...] = ()

    @property
    def text(self) -> str:
        return "\n".join(part for part in (self.question, self.context, self.answer) if part)


def benchmark_name(benchmark: Benchmark) -> str:
    return benchmark.name or benchmark.path.stem


def read_benchmarks(benchmarks: Sequence[Benchmark]) -> list[BenchmarkItem]:
    """The items of all benchmarks, in the order of their names.

    Raises:
        ConfigError: two have one name.
        DatasetError: a file is not readable, or holds no question.
    """
    named = {benchmark_name(one): one for one in benchmarks}
    if len(named) < len(benchmarks):
        raise ConfigError("two benchmarks have one name.", "Give each its own `name`.")
    found: list[BenchmarkItem] = []
    for name, benchmark in sorted(named.items()):
        items = list(read_benchmark(benchmark))
        if not items:
            raise DatasetError(f"benchmark '{name}': {benchmark.path} holds no question.", "Check the file.")
        found += items
    return found


def read_benchmark(benchmark: Benchmark) -> Iterator[BenchmarkItem]:
    """The items of a benchmark, in the file's order; rows in which nothing is asked are passed over.

    Raises:
        DatasetError: the file or a row is not readable, has no field of a question, or an image is not there.
    """
    path, name = benchmark.path, benchmark_name(benchmark)
    if not path.is_file():
        raise DatasetError(f"benchmark '{name}': {path} is not a file.", "Check the path.")
    try:
        for number, row in enumerate(_rows(path)):
            if isinstance(row, str):
                if row.strip():
                    yield BenchmarkItem(name, number, row)
            elif isinstance(row, Mapping):
                yield from _items(benchmark, name, number, row)
            else:
                raise ValueError(f"row {number} is {type(row).__name__}, not a mapping of fields")
    except (ValueError, OSError, csv.Error) as error:
        raise DatasetError(
            f"benchmark '{name}' ({path}): {error}.",
            "Mend the file, or name its fields in the configuration.",
        ) from error


def _rows(path: Path) -> Iterator[Any]:
    match path.suffix.lower():
        case ".json":
            content = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(content, list):
                raise ValueError("it holds no list of rows")
            yield from content
        case ".jsonl" | ".ndjson":
            with path.open(encoding="utf-8") as lines:
                yield from (json.loads(line) for line in lines if line.strip())
        case ".parquet":
            for batch in parquet_batches(path, 256):
                yield from batch.to_pylist()
        case ".csv" | ".tsv":
            csv.field_size_limit(sys.maxsize)
            with path.open(encoding="utf-8", newline="") as lines:
                yield from csv.DictReader(lines, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
        case _:
            with path.open(encoding="utf-8", errors="replace") as lines:
                yield from lines


def _items(benchmark: Benchmark, name: str, number: int, row: Mapping[str, Any]) -> Iterator[BenchmarkItem]:
    images = _images(benchmark, number, row)
    for chat in CHATS:
        if benchmark.question is None and isinstance(row.get(chat), list):
            for question, answer in _chat(row[chat]):
                yield BenchmarkItem(name, number, question, answer, images=images)
            return
    question = _text(_field(row, benchmark.question, QUESTIONS, number, required=True))
    answer = _field(row, benchmark.answer, ANSWERS, number)
    context = _text(_field(row, None, CHOICES, number))
    # A benchmark may list several right answers: each is one.
    for one in answer if isinstance(answer, list) and answer else [answer]:
        if question.strip() or context.strip():
            yield BenchmarkItem(name, number, question, _text(one), context, images)


def _field(
    row: Mapping[str, Any], wanted: str | None, known: tuple[str, ...], number: int, required: bool = False
) -> Any:
    if wanted is not None:
        if wanted and wanted not in row:
            raise ValueError(f"row {number} has no field '{wanted}'; there are: {', '.join(map(str, row))}")
        return row.get(wanted)
    for key in known:
        if row.get(key) is not None:
            return row[key]
    if required:
        raise ValueError(
            f"row {number} has no field {', '.join(known[:-1])} or {known[-1]}; there are: {', '.join(map(str, row))}"
        )
    return None


def _text(value: Any) -> str:
    match value:
        case None:
            return ""
        case list() | tuple():
            return "\n".join(map(_text, value))
        case Mapping():
            return "\n".join(map(_text, value.values()))
        case _:
            return str(value)


def _chat(turns: list[Any]) -> Iterator[tuple[str, str]]:
    said = [
        (turn.get("from", turn.get("role")), _turn_text(turn.get("value", turn.get("content"))))
        for turn in turns
        if isinstance(turn, Mapping)
    ]
    for (speaker, question), (_, answer) in zip(said, [*said[1:], ("", "")], strict=True):
        if speaker in ("human", "user"):
            yield question.replace("<image>", "").strip(), answer


def _turn_text(content: Any) -> str:
    if isinstance(content, list):
        return "".join(_text(part.get("text")) for part in content if isinstance(part, Mapping))
    return _text(content)


def _images(benchmark: Benchmark, number: int, row: Mapping[str, Any]) -> tuple[bytes, ...]:
    if benchmark.image == "":
        return ()
    found = _field(row, benchmark.image, IMAGES, number)
    listed = found if isinstance(found, list) else [found]
    folder = benchmark.path.parent
    return tuple(chain.from_iterable(_image(folder, number, one) for one in listed))


def _image(folder: Path, number: int, value: Any) -> Iterator[bytes]:
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        yield value
    elif isinstance(value, str) and value:
        path = (folder / value).resolve()
        if not path.is_relative_to(folder.resolve()):
            raise ValueError(f"row {number}: the image {value} lies outside the benchmark's folder")
        if not path.is_file():
            raise ValueError(
                f"row {number}: the image {value} is not there (`image: ''` leaves images aside)"
            )
        yield path.read_bytes()
