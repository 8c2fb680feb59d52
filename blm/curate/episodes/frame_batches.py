"""All low-dimensional frames of a dataset, a bounded number at a time, in as few passes over the files as possible.

DuckDB reads the Parquet files (only the columns asked for) and hands over Arrow batches; no file is opened and no
frame is touched in Python. Where a file cannot be read, the files are gone through one by one to find out which.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from blm.curate.engine import few_at_once
from blm.curate.episodes.footers import parquet_list, row_problems, table_problems
from blm.curate.episodes.frames import (
    Columns,
    Frames,
    FramesError,
    check_lengths,
    column_names,
    concatenate,
    frames_of_table,
    read_frames,
    values_per_row,
    whole_numbers,
)

DEFAULT_MEMORY_BYTES = 2 * 10**9

_ROWS_AT_ONCE = (20_000, 80_000)
"""At least and at most; within, what the memory limit allows. Larger batches leave the processor's caches: slower."""

_COPIES = 8
"""How many times over a batch's vectors are in memory at the worst moment, with what is computed from them."""


_ROWS_FROM_DUCKDB = (2048, 8192)
"""At least and at most; its limit does not cover what it has handed out, so vectors are looked at after so many."""

_BYTES_PER_ROW_FROM_DUCKDB = 2**18


@dataclass(frozen=True)
class Resources:
    """What reading may use. DuckDB spills to `spill` (default: `.tmp` in the current folder) beyond the limit."""

    memory_bytes: int = DEFAULT_MEMORY_BYTES
    threads: int = 2
    spill: Path | None = None

    def rows_at_once(self, values_per_row: int) -> int:
        """Rows of float32 values that half of the memory holds with all that is computed from them, once per thread
        and once more."""
        least, most = _ROWS_AT_ONCE
        batches = 2 * (self.threads + 1)
        return max(least, min(most, self.memory_bytes // batches // (4 * values_per_row * _COPIES)))

    @property
    def rows_from_duckdb(self) -> int:
        """Rows that are handed out before the length of their vectors is known."""
        least, most = _ROWS_FROM_DUCKDB
        return max(least, min(most, self.memory_bytes // _BYTES_PER_ROW_FROM_DUCKDB))

    def connect(self, threads: int | None = None) -> duckdb.DuckDBPyConnection:
        """A database of that many threads (default: all) that takes half of the memory at most."""
        settings: dict[str, str | bool | int | float | list[str]] = {
            "threads": threads or self.threads,
            "memory_limit": f"{self.memory_bytes // 2 // 1024**2} MiB",
        }
        if self.spill is not None:
            settings["temp_directory"] = str(self.spill)
        connection = duckdb.connect(config=settings)
        connection.execute("set global disable_parquet_prefetching = true")  # meant for slow links: a tenth
        return connection


DEFAULT_RESOURCES = Resources()


class _OutOfOrderError(Exception):
    """The frames of an episode do not lie together."""


_UNREADABLE = (duckdb.Error, pa.ArrowException, FramesError, ValueError, OSError, RuntimeError)


def read_batches[Result](
    most_rows: Mapping[str, int],
    columns: Columns,
    resources: Resources,
    consume: Callable[[Iterator[Frames]], Result],
) -> tuple[Result, dict[str, str]]:
    """What `consume` makes of all frames, and the files that cannot be read, with why.

    Batches hold whole episodes, ordered by episode and frame; no episode comes twice. Where reading all files in one
    go turns out to be impossible on the way, `consume` is called again from the start: it must not keep anything. Then
    files are read one by one, and an episode that lies in two of them may come in parts.

    Args:
        most_rows: the files, and how many rows each may have; one that claims more is not read.
    """
    # The other half of the threads work on what was read; and among small groups of rows DuckDB's wait for each other.
    with resources.connect(max(1, resources.threads // 2)) as connection:
        unreadable = row_problems(connection, most_rows)
        readable = {file: most for file, most in sorted(most_rows.items()) if file not in unreadable}
        for in_order in (True, False):
            try:
                return consume(_streamed(connection, readable, columns, resources, in_order)), unreadable
            except (_OutOfOrderError, *_UNREADABLE) as error:
                # Sorting holds everything, on disk if need be, and pyarrow knows no limit at all.
                unreadable |= table_problems(connection, readable, values_per_row(columns))
                readable = {file: most for file, most in readable.items() if file not in unreadable}
                if not isinstance(error, _OutOfOrderError):
                    break
    return consume(_one_by_one(list(readable), columns, resources, unreadable)), unreadable


def in_threads[Result](
    function: Callable[[Frames], Result], batches: Iterable[Frames], resources: Resources
) -> Iterator[Result]:
    """The function's results in order, of as many batches at a time as there are threads; NumPy lets others run."""
    if resources.threads == 1:
        yield from map(function, batches)
        return
    with ThreadPoolExecutor(resources.threads) as pool:
        yield from few_at_once(
            batches,
            lambda frames: pool.submit(function, frames),
            Future.result,
            resources.threads + 1,
            Future.cancel,
        )


def _streamed(
    connection: duckdb.DuckDBPyConnection,
    most_rows: Mapping[str, int],
    columns: Columns,
    resources: Resources,
    in_order: bool,
) -> Iterator[Frames]:
    if not most_rows:
        return
    rows_at_once = resources.rows_at_once(len(columns.state) + len(columns.action))
    names = ", ".join(f'"{name}"' for name in column_names(columns))
    order = "" if in_order else " order by episode_index, frame_index"
    query = f"select {names} from read_parquet($files, hive_partitioning = false){order}"
    finished = np.zeros(0, np.int64)
    rest: list[pa.Table] = []
    with connection.cursor() as cursor:
        relation = cursor.sql(query, params={"files": parquet_list(list(most_rows))})
        if relation.columns != column_names(columns):  # DuckDB takes 'ACTION' for 'action'
            raise FramesError(f"columns are named {', '.join(relation.columns)}, not {names}")
        reader = relation.to_arrow_reader(min(resources.rows_from_duckdb, rows_at_once))
        values = values_per_row(columns)
        for table in _tables(reader, rows_at_once, sum(most_rows.values()), values):
            table = pa.concat_tables([*rest, table])
            episode = whole_numbers(table, "episode_index")
            begun = int(np.flatnonzero(np.diff(episode, prepend=episode[0] - 1))[-1])
            finished = _finished(finished, np.unique(episode[:begun]), int(episode[-1]))
            rest = [table.slice(begun)]
            if begun:
                yield frames_of_table(table.slice(0, begun), columns)
    for table in rest:
        yield frames_of_table(table, columns)


def _tables(
    reader: pa.RecordBatchReader, rows: int, rows_left: int, values: Mapping[str, int]
) -> Iterator[pa.Table]:
    batches: list[pa.RecordBatch] = []
    collected = 0
    for batch in reader:
        check_lengths(batch, values)
        batches.append(batch)
        collected += len(batch)
        rows_left -= len(batch)
        if rows_left < 0:
            raise FramesError("there are more rows than the files claim to have")
        if collected >= rows:
            yield pa.Table.from_batches(batches)
            batches, collected = [], 0
    if any(map(len, batches)):
        yield pa.Table.from_batches(batches)


def _finished(finished: np.ndarray, episodes: np.ndarray, begun: int) -> np.ndarray:
    """Episodes that are done with once `episodes` are; raises where one of them, or the one begun, came before."""
    if np.isin([*episodes, begun], finished).any() or begun in episodes:
        raise _OutOfOrderError
    return np.concatenate([finished, episodes])


def _one_by_one(
    files: Sequence[str], columns: Columns, resources: Resources, unreadable: dict[str, str]
) -> Iterator[Frames]:
    rows_at_once = resources.rows_at_once(len(columns.state) + len(columns.action))
    parts: list[Frames] = []
    for file in files:
        try:
            parts.append(read_frames(Path(file), columns))
        except FramesError as error:
            unreadable[file] = str(error)
        if sum(len(part.frame) for part in parts) >= rows_at_once:
            yield concatenate(parts)
            parts = []
    if parts:
        yield concatenate(parts)
