"""Frames of a camera whose pictures lie in a dataset's table, one encoded image per row, instead of in a video."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from av.video.frame import VideoFrame
from PIL import Image

from blm.curate.episodes.video import MAX_PIXELS, VideoError
from blm.curate.parquet_files import open_in_batches
from blm.schemas.printable import printable

_FORMATS = ("PNG", "JPEG", "WEBP")
_MODES = ("RGB", "RGBA", "L", "P")
"""Eight bits a channel; what has more is no picture but a measurement."""

_ROWS_AT_ONCE = 16
_BYTES_PER_PIXEL, _BYTES_PER_PICTURE = 4, 65_536
"""An encoded picture takes at most so many, whatever the table claims: it is refused before it is read."""


@dataclass(frozen=True)
class TableClip:
    """Frames, in ascending order, of an episode whose pictures are the column `feature` of the data file `path`.

    `pixels` is how many a picture has by the dataset's description.
    """

    path: Path
    feature: str
    episode: int
    frames: Sequence[int]
    pixels: int

    def decoded(self) -> Iterator[VideoFrame]:
        """The frames, as `Clip.decoded`.

        Raises:
            VideoError: the table does not hold them in order, or a picture cannot be decoded.
        """
        wanted = iter(self.frames)
        due = next(wanted)
        size = None
        try:
            for frame, content in _pictures(self):
                if frame < due:
                    continue
                if frame > due:
                    break
                picture = _decoded(self, frame, content)
                if size is not None and (picture.width, picture.height) != size:
                    raise VideoError(f"{self._place(frame)} changes its size")
                size = picture.width, picture.height
                yield picture
                try:
                    due = next(wanted)
                except StopIteration:
                    return
        except (OSError, pa.ArrowException, LookupError, ValueError, TypeError, OverflowError) as error:
            raise VideoError(f"{self.path} is not readable: {printable(str(error), 200)}") from error
        raise VideoError(f"{self._place(due)} is not there, or not in order")

    def _place(self, frame: int) -> str:
        return f"{self.path}: '{self.feature}' of frame {frame} of episode {self.episode}"


def _pictures(clip: TableClip) -> Iterator[tuple[int, bytes | None]]:
    """(frame, encoded picture) of the episode's rows, as they lie in the file."""
    with open_in_batches(clip.path) as file:
        for group in range(file.num_row_groups):
            if not _may_hold(clip.episode, file, group):
                continue
            numbers = file.read_row_group(group, columns=["episode_index", "frame_index"])
            mine = np.flatnonzero(numbers["episode_index"].to_numpy() == clip.episode)
            if not len(mine):
                continue
            _check_claims(clip, file, group)
            frames = numbers["frame_index"].to_numpy()
            row = 0
            for batch in file.iter_batches(
                _ROWS_AT_ONCE, row_groups=[group], columns=[clip.feature], use_threads=False
            ):
                column = batch.column(clip.feature)
                for place in mine[(mine >= row) & (mine < row + len(column))]:
                    value = column[int(place - row)].as_py()
                    yield int(frames[place]), value.get("bytes") if isinstance(value, dict) else value
                row += len(column)


def _may_hold(episode: int, file: pq.ParquetFile, group: int) -> bool:
    """By the extremes that a row group keeps of each column: a file holds many episodes."""
    claims = file.metadata.row_group(group)
    for column in map(claims.column, range(claims.num_columns)):
        if column.path_in_schema == "episode_index" and column.is_stats_set and column.statistics.has_min_max:
            return column.statistics.min <= episode <= column.statistics.max
    return True


def _check_claims(clip: TableClip, file: pq.ParquetFile, group: int) -> None:
    claims = file.metadata.row_group(group)
    allowed = claims.num_rows * (min(clip.pixels, MAX_PIXELS) * _BYTES_PER_PIXEL + _BYTES_PER_PICTURE)
    for column in map(claims.column, range(claims.num_columns)):
        name = column.path_in_schema
        if (name == clip.feature or name.startswith(f"{clip.feature}.")) and (
            column.total_uncompressed_size > allowed
        ):
            raise VideoError(
                f"{clip.path} claims {column.total_uncompressed_size} bytes of '{clip.feature}' in "
                f"{claims.num_rows} rows"
            )


def _decoded(clip: TableClip, frame: int, content: object) -> VideoFrame:
    if not isinstance(content, bytes):  # a path may stand beside, which leads to another machine or anywhere
        raise VideoError(f"{clip._place(frame)} is not in the table")
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise VideoError(f"{clip._place(frame)} claims {image.width} × {image.height} pixels")
            if image.mode not in _MODES:
                raise VideoError(f"{clip._place(frame)} is coded as {image.mode}, not as a picture of 8 bits")
            values = np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise VideoError(f"{clip._place(frame)} cannot be decoded: {printable(str(error), 200)}") from error
    return VideoFrame.from_ndarray(np.ascontiguousarray(values), format="rgb24")
