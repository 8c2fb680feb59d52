"""Pictures that lie in a dataset's table rather than in videos, one encoded image per row."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from blm.schemas.errors import DatasetError

_KEPT_COLUMNS = 8
"""Encoded pictures of so many cameras stay in memory: those of the episode shown, and of the one before."""


class TablePictures:
    """Reads a camera's pictures an episode at a time and keeps the latest few. Safe to use from several threads."""

    def __init__(self) -> None:
        self._columns: OrderedDict[tuple[Path, str, int], pa.ChunkedArray] = OrderedDict()
        self._lock = threading.Lock()

    def picture(self, path: Path, key: str, episode: int, frame: int) -> bytes:
        """The encoded picture of the camera `key` at a frame (counted from 0) of an episode.

        Raises:
            DatasetError: the file cannot be read, or holds no such picture.
        """
        column = self._column(path, key, episode)
        value = column[frame].as_py() if 0 <= frame < len(column) else None
        content = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(content, bytes):
            raise DatasetError(
                f"{path} holds no picture of {key} for frame {frame} of episode {episode}.",
                "Store the pictures in the table itself, as LeRobot does.",
            )
        return content

    def _column(self, path: Path, key: str, episode: int) -> pa.ChunkedArray:
        place = (path, key, episode)
        with self._lock:
            if place not in self._columns:
                self._columns[place] = _read(path, key, episode)
            self._columns.move_to_end(place)
            while len(self._columns) > _KEPT_COLUMNS:
                self._columns.popitem(last=False)
            return self._columns[place]


def _read(path: Path, key: str, episode: int) -> pa.ChunkedArray:
    try:
        names = pq.read_schema(path).names
        wanted = [name for name in (key, "frame_index") if name in names]
        table = pq.read_table(path, columns=wanted, filters=[("episode_index", "=", episode)])
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(f"{path} is not readable: {error}", "Restore it from a copy.") from error
    if key not in wanted:
        raise DatasetError(f"{path} has no column '{key}'.", "Restore the file.")
    return (table.sort_by("frame_index") if "frame_index" in wanted else table)[key]
