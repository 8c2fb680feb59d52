"""What Parquet files claim to hold, judged by their footers alone, before anything of them is read.

DuckDB reads the footers: pyarrow ends the whole process where what a footer says of a column contradicts its schema.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import batched
from pathlib import Path
from typing import NamedTuple

import duckdb

from blm.curate.episodes.boundaries import MAX_EPISODE_FRAMES
from blm.schemas.printable import printable

TOO_MANY = 16
"""So many times the values that a row should have are not read."""

_MORE_VALUES = 1000
_MORE_BYTES = 1024**2
_FILES_AT_ONCE = 1000
_FOOTERS = f"""
    with columns as (
        select *, {TOO_MANY} * row_group_num_rows::double + {_MORE_VALUES} as most from parquet_metadata($files)
    )
    select file_name, row_group_id, row_group_num_rows, path_in_schema, num_values, total_uncompressed_size from columns
    where column_id = 0 or num_values > most or total_uncompressed_size > 8 * most + {_MORE_BYTES}
"""
"""The first column of each group of rows, and those that would be too long with one value a row: see `_problem`."""

_ROWS = "select file_name, num_rows from parquet_file_metadata($files)"
"""A seventh of the time of `_FOOTERS`, which looks at every column of every group of rows."""

_MORE_ROWS = 10_000


class _Chunk(NamedTuple):
    """A column within a group of rows. `path` has a list's ', list, element' and the like after the name."""

    group: int
    rows: int
    path: str
    values: int
    size: int


def parquet_list(files: Sequence[str]) -> list[str]:
    """File names that DuckDB takes as they are, not as patterns."""
    return [re.sub(r"([*?\[])", r"[\1]", file) for file in files]


def footer_bytes(files: Iterable[str]) -> int:
    """How large the footers of Parquet files are together; what is no file has none."""
    return sum(map(_footer_bytes, files))


def _footer_bytes(file: str) -> int:
    try:
        if not os.path.isfile(file):  # opening a pipe would wait
            return 0
        with open(file, "rb", buffering=0) as content:
            content.seek(-8, os.SEEK_END)
            return int.from_bytes(content.read(4), "little")
    except (OSError, ValueError):
        return 0


def rows_that_may_be(announced: int) -> int:
    """How many rows a file may have whose episodes announce so many: ten times as many and some more."""
    return _MORE_ROWS + 10 * announced


def values_that_may_be(rows: int, in_each: int) -> int:
    """How many values so many rows may hold, each of which should hold `in_each`."""
    return TOO_MANY * rows * in_each + _MORE_VALUES


def most_rows_of_files(files: Iterable[str], lengths: Iterable[int]) -> dict[str, int]:
    """By file, how many rows it may have.

    Args:
        files: of each episode, the one it lies in; '' for none.
        lengths: of each episode, as announced.
    """
    announced: Counter[str] = Counter()
    for file, length in zip(files, lengths, strict=True):
        announced[file] += length if 0 <= length <= MAX_EPISODE_FRAMES else 0
    return {file: rows_that_may_be(rows) for file, rows in announced.items() if file}


def row_problems(connection: duckdb.DuckDBPyConnection, most_rows: Mapping[str, int]) -> dict[str, str]:
    """Why Parquet files are not to be read, by file, as far as the rows tell that each claims as a whole.

    See `table_problems`, which also says what a column holds too much of.
    """
    return _problems_of_files(connection, _ROWS, most_rows, lambda rows, most: _row_problem(rows[0][0], most))


def table_problem(
    connection: duckdb.DuckDBPyConnection, path: Path, most_rows: int, values: Mapping[str, int]
) -> str | None:
    """Why the columns of one file are not to be read, or None; see `table_problems`."""
    return table_problems(connection, {str(path): most_rows}, values).get(str(path))


def table_problems(
    connection: duckdb.DuckDBPyConnection, most_rows: Mapping[str, int], values: Mapping[str, int]
) -> dict[str, str]:
    """Why the columns of Parquet files are not to be read, by file; those of which nothing is said are.

    Args:
        connection: reads the footers, on as many threads as it has.
        most_rows: by file, the rows that it may have.
        values: columns that are wanted, with the values expected in a row; 16 times as many are too many.
    """

    def problem(rows: list[tuple], most: int) -> str | None:
        return _problem([_Chunk(*row) for row in rows], most, values)

    return _problems_of_files(connection, _FOOTERS, most_rows, problem)


def _problems_of_files(
    connection: duckdb.DuckDBPyConnection,
    query: str,
    most_rows: Mapping[str, int],
    problem: Callable[[list[tuple], int], str | None],
) -> dict[str, str]:
    # DuckDB would take a folder for all the files in it; pathlib raises where a name is too long to be a file's.
    problems = {file: f"{file} is no file" for file in most_rows if not os.path.isfile(file)}
    readable = [file for file in most_rows if file not in problems]
    for files in batched(readable, _FILES_AT_ONCE):
        for file, rows in _footers(connection, query, files, problems):
            if why := problem(rows, most_rows[file]):
                problems[file] = f"{file} {why}"
    return problems


def _footers(
    connection: duckdb.DuckDBPyConnection, query: str, files: Sequence[str], problems: dict[str, str]
) -> Iterator[tuple[str, list[tuple]]]:
    """All in one go; where that fails in two halves, and so on, until what is not readable stands alone."""
    found: dict[str, list[tuple]] = defaultdict(list)
    given = {os.path.abspath(file): file for file in files}  # of patterns, DuckDB tells names without '..'
    try:
        for file, *row in connection.execute(query, {"files": parquet_list(list(given))}).fetchall():
            found[given[file]].append(tuple(row))
    except (duckdb.Error, UnicodeDecodeError) as error:
        if len(files) == 1:
            problems[files[0]] = f"{files[0]} is not readable: {printable(str(error), 200)}"
            return
        middle = len(files) // 2
        yield from _footers(connection, query, files[:middle], problems)
        yield from _footers(connection, query, files[middle:], problems)
    else:
        yield from found.items()


def _problem(chunks: Sequence[_Chunk], most_rows: int, values: Mapping[str, int]) -> str | None:
    rows = sum({chunk.group: chunk.rows for chunk in chunks}.values())
    if why := _row_problem(rows, most_rows):
        return why
    for chunk in chunks:
        name = _wanted_column(chunk.path, values)
        if name is None:
            continue
        most = values_that_may_be(chunk.rows, values[name])
        if chunk.values > most or chunk.size > 8 * most + _MORE_BYTES:
            return f"claims {chunk.values} values in {chunk.rows} rows of its column '{name}'"
    return None


def _row_problem(rows: int, most_rows: int) -> str | None:
    return f"claims {rows} rows; what is announced allows {most_rows} at most" if rows > most_rows else None


def _wanted_column(path: str, values: Mapping[str, int]) -> str | None:
    """DuckDB tells a nested column as 'tasks, list, element'."""
    if path in values:
        return path
    return next((name for name in values if path.startswith((f"{name}.", f"{name}, "))), None)
