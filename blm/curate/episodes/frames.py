"""The low-dimensional part of recorded frames as NumPy arrays, axes in the embodiment's order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from blm.curate.episodes.footers import TOO_MANY, values_that_may_be
from blm.schemas.episode import ACTION, MONOTONIC_TIME, STATE, SUBTASK_INDEX, SUCCESS
from blm.schemas.printable import printable

TIMESTAMP = "timestamp"
"""LeRobot's own time of a frame in its episode, seconds."""


class FramesError(Exception):
    """A data file is missing, truncated or lacks a column."""


@dataclass(frozen=True)
class Frames:
    """N frames, ordered by episode and frame.

    Attributes:
        episode, frame: (N,) int64.
        state, action: (N, A) float32, axis units.
        subtask: (N,) int64, zeros where the dataset has none.
        success: (N,) bool, or None where the dataset does not record it.
        time: (N,) float64 seconds: as measured where the dataset records that, else LeRobot's timestamps, else None.
    """

    episode: np.ndarray
    frame: np.ndarray
    state: np.ndarray
    action: np.ndarray
    subtask: np.ndarray
    success: np.ndarray | None
    time: np.ndarray | None = None

    def episodes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(E,) numbers of the episodes, first row of each, and how many it has."""
        begins = np.ones(len(self.episode), bool)
        begins[1:] = self.episode[1:] != self.episode[:-1]
        starts = np.flatnonzero(begins)
        return self.episode[starts], starts, np.diff(starts, append=len(begins))

    def chosen(self, rows: np.ndarray) -> Frames:
        """Those at the given places, or where a mask is set."""
        return Frames(
            *(getattr(self, name)[rows] for name in ("episode", "frame", "state", "action", "subtask")),
            success=None if self.success is None else self.success[rows],
            time=None if self.time is None else self.time[rows],
        )

    def span(self, episode: int) -> slice:
        """Where an episode's frames lie; empty if it has none."""
        first, last = np.searchsorted(self.episode, [episode, episode + 1])
        return slice(int(first), int(last))


@dataclass(frozen=True)
class Columns:
    """How a dataset stores its vectors: which values of the state's and the action's feature are the axes.

    `time` names the column with the best known time of each frame, if there is one. The features have `state_length`
    and `action_length` values, or as many as are needed where that is not known.
    """

    state: tuple[int, ...]
    action: tuple[int, ...]
    subtask: bool
    success: bool
    time: str | None = None
    state_feature: str = STATE
    action_feature: str = ACTION
    state_length: int = 0
    action_length: int = 0


def time_column(features: Iterable[str]) -> str | None:
    """The measured time where it is recorded, else LeRobot's own."""
    return next((name for name in (MONOTONIC_TIME, TIMESTAMP) if name in features), None)


def read_frames(path: Path, columns: Columns) -> Frames:
    """Read one data file; the last ones are kept as long as they do not change.

    Raises:
        FramesError: says what is wrong with which file.
    """
    try:
        state = path.stat()
    except OSError as error:
        raise FramesError(f"{path} is not readable: {printable(str(error), 200)}") from error
    return _read_frames(path, columns, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=4)
def _read_frames(path: Path, columns: Columns, changed_ns: int, size: int) -> Frames:
    names = column_names(columns)
    try:
        file = pq.ParquetFile(path)
        # pyarrow takes the field 'state' of a column 'observation' for 'observation.state'.
        if nested := [
            one for one in file.schema_arrow.names if any(name.startswith(f"{one}.") for name in names)
        ]:
            raise FramesError(f"{path} has a column '{printable(nested[0], 80)}' where names begin with it")
        table = file.read(columns=names)
        if missing := set(names) - set(table.column_names):
            raise FramesError(f"{path} lacks the columns {', '.join(sorted(missing))}")
        return frames_of_table(table, columns)
    except (OSError, pa.ArrowException, ValueError) as error:
        raise FramesError(f"{path} is not readable: {printable(str(error), 200)}") from error


def column_names(columns: Columns) -> list[str]:
    """The columns of a data file that make up `Frames`."""
    names = ["episode_index", "frame_index", columns.state_feature, columns.action_feature]
    names += [SUBTASK_INDEX] if columns.subtask else []
    names += [SUCCESS] if columns.success else []
    names += [columns.time] if columns.time else []
    return names


def values_per_row(columns: Columns) -> dict[str, int]:
    """The columns of a data file that make up `Frames`, with the values that a row is expected to have."""
    return dict.fromkeys(column_names(columns), 1) | {
        columns.state_feature: columns.state_length or max(columns.state) + 1,
        columns.action_feature: columns.action_length or max(columns.action) + 1,
    }


def frames_of_table(table: pa.Table, columns: Columns) -> Frames:
    """Frames of a table with the columns `column_names`, ordered by episode and frame.

    Raises:
        ValueError: a column's values are absent, or vectors differ in length or are too short.
    """
    if len(set(table.column_names)) < len(table.column_names):
        raise ValueError("columns come twice")
    return _ordered(
        Frames(
            episode=whole_numbers(table, "episode_index"),
            frame=whole_numbers(table, "frame_index"),
            state=vectors(table, columns.state_feature, columns.state, columns.state_length),
            action=vectors(table, columns.action_feature, columns.action, columns.action_length),
            subtask=whole_numbers(table, SUBTASK_INDEX)
            if columns.subtask
            else np.zeros(len(table), np.int64),
            success=_scalars(table, SUCCESS).astype(bool) if columns.success else None,
            time=_scalars(table, columns.time).astype(np.float64) if columns.time else None,
        )
    )


def check_lengths(batch: pa.RecordBatch, values: Mapping[str, int]) -> None:
    """Raise FramesError where a column of lists holds many times the values that a row should have."""
    for name, most in values.items():
        column = batch.column(name)
        if isinstance(column, pa.ListArray | pa.LargeListArray | pa.FixedSizeListArray):
            found = len(column.values)  # what DuckDB hands out begins at 0; `flatten` would copy
            if found > values_that_may_be(len(batch), most):
                raise FramesError(
                    f"'{name}' has {found} values in {len(batch)} rows; {most} a row are announced"
                )


def no_frames(columns: Columns) -> Frames:
    """Frames of a dataset of which nothing can be read."""
    nothing = np.zeros(0, np.int64)
    return Frames(
        episode=nothing,
        frame=nothing,
        state=np.zeros((0, len(columns.state)), np.float32),
        action=np.zeros((0, len(columns.action)), np.float32),
        subtask=nothing,
        success=None,
    )


def concatenate(parts: Sequence[Frames]) -> Frames:
    """Frames of several files of one dataset, ordered by episode and frame."""
    return _ordered(
        Frames(
            episode=np.concatenate([part.episode for part in parts]),
            frame=np.concatenate([part.frame for part in parts]),
            state=np.concatenate([part.state for part in parts]),
            action=np.concatenate([part.action for part in parts]),
            subtask=np.concatenate([part.subtask for part in parts]),
            success=_joined([part.success for part in parts]),
            time=_joined([part.time for part in parts]),
        )
    )


def _joined(parts: Sequence[np.ndarray | None]) -> np.ndarray | None:
    present = [part for part in parts if part is not None]
    return np.concatenate(present) if len(present) == len(parts) else None


def _ordered(frames: Frames) -> Frames:
    step = np.diff(frames.episode)
    if ((step > 0) | ((step == 0) & (np.diff(frames.frame) >= 0))).all():
        return frames
    return frames.chosen(np.lexsort((frames.frame, frames.episode)))


def _scalars(table: pa.Table, name: str) -> np.ndarray:
    """A column of numbers, also where it is stored as lists of one."""
    column = table[name].combine_chunks()
    values = _numpy(_flat(column), name)
    if len(values) != len(table) or not _all_of_length(column, 1):
        raise ValueError(f"'{name}' has {len(values)} values in {len(table)} rows")
    return values


def whole_numbers(table: pa.Table, name: str) -> np.ndarray:
    """(N,) int64; raises ValueError where a column holds anything else."""
    values = _scalars(table, name)
    whole = values.astype(np.int64, copy=False) if values.dtype.kind in "iub" else None
    if whole is None or (values.dtype.kind == "u" and (whole < 0).any()):
        raise ValueError(f"'{name}' holds {values.dtype}, not whole numbers of 64 bits")
    return whole


def vectors(table: pa.Table, name: str, wanted: tuple[int, ...], announced: int = 0) -> np.ndarray:
    """(N, len(wanted)) float32; a view of the table's memory where that will do.

    Raises:
        ValueError: vectors differ in length, are too short, or far longer than announced.
    """
    if not len(table):
        return np.zeros((0, len(wanted)), np.float32)
    column = table[name].combine_chunks()
    values = _as_float32(_numpy(_flat(column), name))
    if len(values) % len(table) or not _all_of_length(column, len(values) // len(table)):
        raise ValueError(f"'{name}' has vectors of differing lengths")
    values = values.reshape(len(table), -1)
    if values.shape[1] <= max(wanted):
        raise ValueError(f"'{name}' has {values.shape[1]} values a frame; {max(wanted) + 1} are needed")
    if announced and values.shape[1] > TOO_MANY * announced:
        raise ValueError(f"'{name}' has {values.shape[1]} values a frame; {announced} are announced")
    if wanted == tuple(range(values.shape[1])):
        return values
    return np.ascontiguousarray(values[:, list(wanted)])


def _as_float32(values: np.ndarray) -> np.ndarray:
    """What is too large for it is infinite."""
    with np.errstate(over="ignore"):
        return values.astype(np.float32, copy=False)


def _all_of_length(column: pa.Array | pa.ChunkedArray, length: int) -> bool:
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    return all(
        not chunk.null_count
        and (
            pa.types.is_fixed_size_list(chunk.type)
            or (np.diff(np.from_dlpack(chunk.offsets)) == length).all()
        )
        for chunk in chunks
        if pa.types.is_nested(chunk.type)
    )


def _numpy(column: pa.Array, name: str) -> np.ndarray:
    """Absent numbers become NaN in a column of floats, and are an error elsewhere."""
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.uint8())
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise ValueError(f"'{name}' holds {column.type}, not numbers")
    if column.null_count:
        if not pa.types.is_floating(column.type):
            raise ValueError(f"'{name}' has absent values")
        column = column.fill_null(float("nan"))
    return np.from_dlpack(column)


def _flat(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """The column's numbers one after the other, also where it is stored as lists."""
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return pc.call_function("list_flatten", [column])
    return column
