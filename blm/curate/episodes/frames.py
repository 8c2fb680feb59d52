"""The low-dimensional part of recorded frames as NumPy arrays, axes in the embodiment's order."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from blm.schemas.episode import ACTION, STATE, SUBTASK_INDEX, SUCCESS


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
    """

    episode: np.ndarray
    frame: np.ndarray
    state: np.ndarray
    action: np.ndarray
    subtask: np.ndarray
    success: np.ndarray | None

    def span(self, episode: int) -> slice:
        """Where an episode's frames lie; empty if it has none."""
        first, last = np.searchsorted(self.episode, [episode, episode + 1])
        return slice(int(first), int(last))


@dataclass(frozen=True)
class Columns:
    """How a dataset stores its vectors: the columns of `observation.state` and `action` that are the axes."""

    state: tuple[int, ...]
    action: tuple[int, ...]
    subtask: bool
    success: bool


@lru_cache(maxsize=4)
def read_frames(path: Path, columns: Columns) -> Frames:
    """Read one data file.

    Raises:
        FramesError: says what is wrong with which file.
    """
    names = ["episode_index", "frame_index", STATE, ACTION]
    names += [SUBTASK_INDEX] if columns.subtask else []
    names += [SUCCESS] if columns.success else []
    try:
        table = pq.ParquetFile(path).read(columns=names)
        if missing := set(names) - set(table.column_names):
            raise FramesError(f"{path} lacks the columns {', '.join(sorted(missing))}")
        frames = Frames(
            episode=_scalars(table, "episode_index").astype(np.int64),
            frame=_scalars(table, "frame_index").astype(np.int64),
            state=_vectors(table, STATE, columns.state),
            action=_vectors(table, ACTION, columns.action),
            subtask=_scalars(table, SUBTASK_INDEX).astype(np.int64)
            if columns.subtask
            else np.zeros(len(table), np.int64),
            success=_scalars(table, SUCCESS).astype(bool) if columns.success else None,
        )
    except (OSError, pa.ArrowException, ValueError) as error:
        raise FramesError(f"{path} is not readable: {error}") from error
    return _ordered(frames)


def concatenate(parts: Sequence[Frames]) -> Frames:
    """Frames of several files of one dataset, ordered by episode and frame."""
    success = None
    if all(part.success is not None for part in parts):
        success = np.concatenate([part.success for part in parts if part.success is not None])
    return _ordered(
        Frames(
            episode=np.concatenate([part.episode for part in parts]),
            frame=np.concatenate([part.frame for part in parts]),
            state=np.concatenate([part.state for part in parts]),
            action=np.concatenate([part.action for part in parts]),
            subtask=np.concatenate([part.subtask for part in parts]),
            success=success,
        )
    )


def content_hash(frames: Frames, span: slice) -> str:
    """SHA-256 of an episode's states and actions as float32: the same wherever and in whichever file it lies."""
    digest = hashlib.sha256()
    for values in (frames.state[span], frames.action[span]):
        digest.update(np.ascontiguousarray(values, dtype="<f4"))
    return digest.hexdigest()


def _ordered(frames: Frames) -> Frames:
    order = np.lexsort((frames.frame, frames.episode))
    if (np.diff(order) == 1).all():
        return frames
    return Frames(
        *(getattr(frames, name)[order] for name in ("episode", "frame", "state", "action", "subtask")),
        success=None if frames.success is None else frames.success[order],
    )


def _scalars(table: pa.Table, name: str) -> np.ndarray:
    """A column of numbers, also where it is stored as lists of one."""
    return _numpy(_flat(table[name].combine_chunks()), name)


def _vectors(table: pa.Table, name: str, wanted: tuple[int, ...]) -> np.ndarray:
    values = _numpy(_flat(table[name].combine_chunks()), name).astype(np.float32, copy=False)
    if len(table) and len(values) % len(table):
        raise ValueError(f"'{name}' has vectors of differing lengths")
    values = values.reshape(len(table), -1)
    if len(table) and values.shape[1] <= max(wanted):
        raise ValueError(f"'{name}' has {values.shape[1]} values a frame; {max(wanted) + 1} are needed")
    return (
        np.ascontiguousarray(values[:, list(wanted)])
        if len(table)
        else np.zeros((0, len(wanted)), np.float32)
    )


def _numpy(column: pa.Array, name: str) -> np.ndarray:
    """Absent numbers become NaN in a column of floats, and are an error elsewhere."""
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.uint8())
    if column.null_count:
        if not pa.types.is_floating(column.type):
            raise ValueError(f"'{name}' has absent values")
        column = column.fill_null(float("nan"))
    return np.from_dlpack(column)


def _flat(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """The column's numbers one after the other, also where it is stored as lists."""
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    kind = column.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return pc.call_function("list_flatten", [column])
    return column
