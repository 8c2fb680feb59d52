"""What Parquet files claim to hold, judged by their footers alone, before anything of them is read.

DuckDB reads the footers: pyarrow ends the whole process where what a footer says of a column contradicts its schema.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import batched
from pathlib import Path
from typing import NamedTuple

import duckdb

from blm.schemas.printable import printable

_FILES_AT_ONCE = 1000
_FOOTERS = """
    select file_name, row_group_id, row_group_num_rows, path_in_schema, num_values, total_uncompressed_size
    from parquet_metadata($files)
"""


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


def table_problem(path: Path, most_rows: int, values: Mapping[str, int]) -> str | None:
    """Why the columns of one file are not to be read, or None; see `table_problems`."""
    return table_problems({str(path): most_rows}, values).get(str(path))


def table_problems(most_rows: Mapping[str, int], values: Mapping[str, int]) -> dict[str, str]:
    """Why the columns of Parquet files are not to be read, by file; those of which nothing is said are.

    Args:
        most_rows: by file, the rows that it may have.
        values: columns that are wanted, with the values expected in a row; 16 times as many are too many.
    """
    # DuckDB would take a folder for all the files in it.
    problems = {file: f"{file} is no file" for file in most_rows if not Path(file).is_file()}
    readable = [file for file in most_rows if file not in problems]
    with duckdb.connect(config={"threads": 1}) as connection:
        for files in batched(readable, _FILES_AT_ONCE):
            for file, chunks in _footers(connection, files, problems):
                if why := _problem(chunks, most_rows[file], values):
                    problems[file] = f"{file} {why}"
    return problems


def _footers(
    connection: duckdb.DuckDBPyConnection, files: Sequence[str], problems: dict[str, str]
) -> Iterator[tuple[str, list[_Chunk]]]:
    """All in one go; where that fails in two halves, and so on, until what is not readable stands alone."""
    chunks: dict[str, list[_Chunk]] = defaultdict(list)
    try:
        for file, *chunk in connection.execute(_FOOTERS, {"files": parquet_list(files)}).fetchall():
            chunks[file].append(_Chunk(*chunk))
    except (duckdb.Error, UnicodeDecodeError) as error:
        if len(files) == 1:
            problems[files[0]] = f"{files[0]} is not readable: {printable(str(error), 200)}"
            return
        middle = len(files) // 2
        yield from _footers(connection, files[:middle], problems)
        yield from _footers(connection, files[middle:], problems)
    else:
        yield from chunks.items()


def _problem(chunks: Sequence[_Chunk], most_rows: int, values: Mapping[str, int]) -> str | None:
    rows = sum({chunk.group: chunk.rows for chunk in chunks}.values())
    if rows > most_rows:
        return f"claims {rows} rows; its episodes announce {most_rows} at most"
    for chunk in chunks:
        name = _wanted_column(chunk.path, values)
        if name is None:
            continue
        most = 16 * chunk.rows * values[name] + 1000
        if chunk.values > most or chunk.size > 8 * most + 1024**2:
            return f"claims {chunk.values} values in {chunk.rows} rows of its column '{name}'"
    return None


def _wanted_column(path: str, values: Mapping[str, int]) -> str | None:
    """DuckDB tells a nested column as 'tasks, list, element'."""
    if path in values:
        return path
    return next((name for name in values if path.startswith((f"{name}.", f"{name}, "))), None)
