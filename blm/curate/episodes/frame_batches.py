"""All low-dimensional frames of a dataset, a bounded number at a time, in as few passes over the files as possible.

DuckDB reads the Parquet files (only the columns asked for) and hands over Arrow batches; no file is opened and no
frame is touched in Python. Where a file cannot be read, the files are gone through one by one to find out which.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from blm.curate.episodes.footers import footer_bytes, parquet_list, row_problems, table_problems
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
from blm.curate.episodes.resources import READERS, Resources

_MEMORY_PER_FOOTER_BYTE = 512
"""Where a reader's footers are smaller, they are kept, not parsed for each query. Parsed, they are ten times as large,
and 254 times where someone means harm."""


class _OutOfOrderError(Exception):
    """The frames of an episode do not lie together."""


class _ReadingError(Exception):
    """What went wrong in reading, not in making use of what was read."""


_UNREADABLE = (duckdb.Error, pa.ArrowException, FramesError, ValueError, OSError, RuntimeError)


def read_batches[Result](
    most_rows: Mapping[str, int],
    columns: Columns,
    resources: Resources,
    consume: Callable[[Iterator[Frames]], Result],
    database: duckdb.DuckDBPyConnection | None = None,
) -> tuple[Result, dict[str, str]]:
    """What `consume` makes of all frames, and the files that cannot be read, with why.

    Batches hold whole episodes, within them ordered by episode and frame; no episode comes twice. They are read a few
    ahead, beside what `consume` does, also before it asks for the first. Where reading turns out to be impossible on
    the way, or an episode in several places, `consume` is called again from the start: it must not keep anything.

    Args:
        most_rows: the files, and how many rows each may have; one that claims more is not read.
        database: of one thread, which the first attempt reads with, and closes; opening one takes 25 ms.
    """
    unreadable: dict[str, str] = {}

    def consumed(
        groups: Sequence[Mapping[str, int]],
        in_order: bool,
        opened: duckdb.DuckDBPyConnection | None = None,
    ) -> Result:
        # Each group is read in a thread of its own: threads of DuckDB's wait for each other among small groups of rows.
        # A database anew for each attempt: DuckDB gives one up for good where a damaged file breaks what it takes for
        # granted.
        with opened or resources.connect(threads=1) as connection:
            streams = [
                _streamed(connection.cursor(), group, columns, resources, unreadable, in_order)
                for group in groups
            ]
            with _read_ahead(streams, resources.threads) as batches:
                return consume(_each_once(batches))

    try:
        return consumed(_groups(most_rows), True, database), unreadable
    except (_OutOfOrderError, _ReadingError) as error:
        in_order = not isinstance(error, _OutOfOrderError)
    # Sorting holds everything, on disk if need be, and pyarrow knows no limit at all: so footers come first.
    for judge in (_by_footers, _by_reading):
        unreadable |= judge(_without(most_rows, unreadable), columns, resources)
        readable = _without(most_rows, unreadable)
        for order in (True, False) if in_order else (False,):
            try:
                return consumed([readable], order), unreadable
            except _OutOfOrderError:
                in_order = False
            except _ReadingError:
                break
    return consume(_one_by_one(list(readable), columns, resources, unreadable)), unreadable


def _by_footers(most_rows: Mapping[str, int], columns: Columns, resources: Resources) -> dict[str, str]:
    with resources.connect() as connection:
        unreadable = row_problems(connection, most_rows)
        return unreadable | table_problems(
            connection, _without(most_rows, unreadable), values_per_row(columns)
        )


def _by_reading(files: Iterable[str], columns: Columns, _: Resources) -> dict[str, str]:
    unreadable = {}
    for file in files:
        try:
            read_frames(Path(file), columns)
        except FramesError as error:
            unreadable[file] = str(error)
    return unreadable


def _without(most_rows: Mapping[str, int], unreadable: Mapping[str, str]) -> dict[str, int]:
    return {file: most for file, most in sorted(most_rows.items()) if file not in unreadable}


def _groups(most_rows: Mapping[str, int]) -> list[dict[str, int]]:
    """The files in order, cut into as many groups as there are readers, of about as many rows."""
    files = sorted(most_rows.items())
    until = accumulate(most for _, most in files)
    total = sum(most_rows.values())
    groups: list[dict[str, int]] = [{} for _ in range(READERS)]
    for (file, most), end in zip(files, until, strict=True):
        groups[(2 * end - most) * READERS // (2 * total + 1)][file] = most
    return [group for group in groups if group]


@contextmanager
def _read_ahead(streams: Sequence[Generator[Frames]], threads: int) -> Iterator[Iterator[Frames]]:
    """One batch of each stream, again and again. The first are being read when the block begins, and while one is made
    use of, those that come next.

    Raises:
        _ReadingError: from the iterator, if a stream fails.
    """
    with ThreadPoolExecutor(min(threads, READERS)) as pool:
        ahead = deque((stream, pool.submit(next, stream, None)) for stream in streams)
        try:
            yield _in_turn(ahead, pool)
        finally:
            pool.shutdown(cancel_futures=True)
            for stream in streams:
                stream.close()


def _in_turn(
    ahead: deque[tuple[Generator[Frames], Future[Frames | None]]], pool: ThreadPoolExecutor
) -> Iterator[Frames]:
    while ahead:
        stream, batch = ahead.popleft()
        try:
            frames = batch.result()
        except _UNREADABLE as error:
            raise _ReadingError from error
        if frames is not None:
            ahead.append((stream, pool.submit(next, stream, None)))
            yield frames


def _each_once(batches: Iterator[Frames]) -> Iterator[Frames]:
    """The batches, as long as no episode comes again."""
    seen: set[int] = set()
    for frames in batches:
        episodes = frames.episodes()[0].tolist()
        if not seen.isdisjoint(episodes):
            raise _OutOfOrderError
        seen.update(episodes)
        yield frames


def _streamed(
    connection: duckdb.DuckDBPyConnection,
    most_rows: Mapping[str, int],
    columns: Columns,
    resources: Resources,
    unreadable: dict[str, str],
    in_order: bool,
) -> Generator[Frames]:
    """Frames of files that claim no more rows than they may have; says in `unreadable` of the others why."""
    with connection:
        if footer_bytes(most_rows) <= resources.memory_bytes // _MEMORY_PER_FOOTER_BYTE:
            connection.execute("set session parquet_metadata_cache = true")
        unreadable |= row_problems(connection, most_rows)
        if readable := _without(most_rows, unreadable):
            yield from _frames_of_files(connection, readable, columns, resources, in_order)


def _frames_of_files(
    connection: duckdb.DuckDBPyConnection,
    most_rows: Mapping[str, int],
    columns: Columns,
    resources: Resources,
    in_order: bool,
) -> Iterator[Frames]:
    values = values_per_row(columns)
    rows_at_once = resources.rows_at_once(sum(values.values()))
    names = ", ".join(f'"{name}"' for name in column_names(columns))
    order = "" if in_order else " order by episode_index, frame_index"
    query = f"select {names} from read_parquet($files, hive_partitioning = false){order}"
    rest: list[pa.Table] = []
    relation = connection.sql(query, params={"files": parquet_list(list(most_rows))})
    if relation.columns != column_names(columns):  # DuckDB takes 'ACTION' for 'action'
        raise FramesError(f"columns are named {', '.join(relation.columns)}, not {names}")
    reader = relation.to_arrow_reader(min(resources.rows_from_duckdb, rows_at_once))
    for table in _tables(reader, rows_at_once, sum(most_rows.values()), values):
        table = pa.concat_tables([*rest, table])
        episode = whole_numbers(table, "episode_index")
        begun = int(np.flatnonzero(np.diff(episode, prepend=episode[0] - 1))[-1])
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


def _one_by_one(
    files: Sequence[str], columns: Columns, resources: Resources, unreadable: dict[str, str]
) -> Iterator[Frames]:
    """An episode that goes on in a later file is given without that part: it then has fewer rows than announced, which
    a check tells."""
    rows_at_once = resources.rows_at_once(sum(values_per_row(columns).values()))
    parts: list[Frames] = []
    seen = np.zeros(0, np.int64)
    for file in files:
        try:
            frames = read_frames(Path(file), columns)
        except FramesError as error:
            unreadable[file] = str(error)
            continue
        if (again := np.isin(frames.episode, seen)).any():
            frames = frames.chosen(~again)
        seen = np.union1d(seen, frames.episode)
        parts.append(frames)
        if sum(len(part.frame) for part in parts) >= rows_at_once:
            yield concatenate(parts)
            parts = []
    if parts:
        yield concatenate(parts)
