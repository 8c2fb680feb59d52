"""The files of a LeRobot v3.0 dataset: where they lie and what they look like.

data/chunk-000/file-007.parquet                       rows of episode 7, one file per episode
videos/<image key>/chunk-000/file-007.mp4             its frames
meta/episodes/chunk-000/file-000.parquet              one row per episode, 50 episodes a file
meta/{tasks,subtasks,attempts}.parquet, meta/{info,stats,blm}.json
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from blm.collect.statistics import STATISTIC_NAMES, Statistics
from blm.schemas.manifest import write_atomically

CODEBASE_VERSION = "v3.0"
CHUNK_FILES = 1000
EPISODES_PER_FILE = 50

INFO_FILE = "meta/info.json"
STATISTICS_FILE = "meta/stats.json"
TASKS_FILE = "meta/tasks.parquet"
LOCK_FILE = ".lock"
STAGING_FOLDER = ".staging"
"""Where episodes wait until they are committed; gone when nobody records."""

_FILE = "chunk-{chunk_index:03d}/file-{file_index:03d}"
DATA_PATH = f"data/{_FILE}.parquet"
VIDEO_PATH = f"videos/{{video_key}}/{_FILE}.mp4"
EPISODES_PATH = f"meta/episodes/{_FILE}.parquet"

INDEX_FEATURES: dict[str, dict[str, Any]] = {
    "timestamp": {"dtype": "float32", "shape": (1,), "names": None},
    "frame_index": {"dtype": "int64", "shape": (1,), "names": None},
    "episode_index": {"dtype": "int64", "shape": (1,), "names": None},
    "index": {"dtype": "int64", "shape": (1,), "names": None},
    "task_index": {"dtype": "int64", "shape": (1,), "names": None},
}
"""LeRobot's own columns. `timestamp` is frame_index / fps; the measured time is `timing.monotonic_s`."""


def chunk_and_file(number: int) -> tuple[int, int]:
    """Chunk and file index of the n-th file of a kind."""
    return divmod(number, CHUNK_FILES)


def data_file(root: Path, episode: int) -> Path:
    chunk, file = chunk_and_file(episode)
    return root / DATA_PATH.format(chunk_index=chunk, file_index=file)


def video_file(root: Path, key: str, episode: int) -> Path:
    chunk, file = chunk_and_file(episode)
    return root / VIDEO_PATH.format(video_key=key, chunk_index=chunk, file_index=file)


def episodes_file(root: Path, group: int) -> Path:
    chunk, file = chunk_and_file(group)
    return root / EPISODES_PATH.format(chunk_index=chunk, file_index=file)


def write_parquet(path: Path, table: pa.Table) -> None:
    """Write a table beside `path` and rename it in.

    Without dictionaries and column statistics, which cost time and help nobody in tables of many narrow columns.
    """
    buffer = BytesIO()
    pq.write_table(table, buffer, compression="snappy", use_dictionary=False, write_statistics=False)
    write_atomically(path, buffer.getvalue())


def write_json(path: Path, content: Any, indent: int | None = 4) -> None:
    write_atomically(path, json.dumps(content, indent=indent, ensure_ascii=False).encode() + b"\n")


def data_table(columns: Mapping[str, np.ndarray]) -> pa.Table:
    """Numeric columns as Arrow: (T,) as scalars, (T, D) as lists of fixed length D."""
    arrays = {}
    for key, values in columns.items():
        flat = pa.array(values.ravel())
        arrays[key] = pa.FixedSizeListArray.from_arrays(flat, values.shape[1]) if values.ndim == 2 else flat
    return pa.table(arrays)


def read_columns(path: Path) -> dict[str, np.ndarray]:
    """The inverse of `data_table`, from a file."""
    table = pq.read_table(path)
    columns = {}
    for name in table.column_names:
        column = table[name].combine_chunks()
        if pa.types.is_fixed_size_list(column.type):
            columns[name] = column.flatten().to_numpy().reshape(-1, column.type.list_size)
        else:
            columns[name] = column.to_numpy(zero_copy_only=False)
    return columns


def names_table(column: str, names: Sequence[str], index_of: str | None = None) -> pa.Table:
    """A table of names and their numbers: `<column>_index`, `<column>`.

    With `index_of`, pandas reads that column as the frame's index, as LeRobot expects of its tasks.
    """
    table = pa.table(
        {f"{column}_index": pa.array(range(len(names)), pa.int64()), column: pa.array(names, pa.string())}
    )
    if index_of is None:
        return table
    described = [
        {
            "name": f"{column}_index",
            "field_name": f"{column}_index",
            "pandas_type": "int64",
            "numpy_type": "int64",
        },
        {"name": column, "field_name": column, "pandas_type": "unicode", "numpy_type": "object"},
    ]
    pandas = {
        "index_columns": [index_of],
        "column_indexes": [],
        "columns": described,
        "pandas_version": "2.2.0",
    }
    return table.replace_schema_metadata({"pandas": json.dumps(pandas)})


def statistics_columns(statistics: Mapping[str, Statistics]) -> dict[str, pa.Array]:
    """One episode's statistics as columns `stats/<feature>/<statistic>` of one row."""
    columns = {}
    for key, values in statistics.items():
        for name in STATISTIC_NAMES:
            kind = list_type(values[name].ndim, pa.int64() if name == "count" else pa.float64())
            columns[f"stats/{key}/{name}"] = pa.array([values[name].tolist()], kind)
    return columns


@cache
def list_type(depth: int, scalar: pa.DataType) -> pa.DataType:
    """Lists of `depth` levels; with Parquet's name for the elements, so that a table read back is the same type."""
    return scalar if depth == 0 else pa.list_(pa.field("element", list_type(depth - 1, scalar)))


def read_statistics(table: pa.Table, row: int, features: Sequence[str]) -> dict[str, Statistics]:
    """The inverse of `statistics_columns` for one row of `meta/episodes`."""
    return {
        key: {name: np.array(table[f"stats/{key}/{name}"][row].as_py()) for name in STATISTIC_NAMES}
        for key in features
    }


def json_statistics(statistics: Mapping[str, Statistics]) -> dict[str, Any]:
    return {
        key: {name: value.tolist() for name, value in values.items()} for key, values in statistics.items()
    }
