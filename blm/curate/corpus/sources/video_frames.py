"""A few still frames of a video that somebody else may have made, as JPEG.

Only files of the common containers are opened, and no other file or address on their behalf: a playlist that poses as
a video would otherwise make the decoder read whatever it names.
"""

from __future__ import annotations

import io
from pathlib import Path

import av
import av.error
from av.container import InputContainer
from av.video.frame import VideoFrame

from blm.curate.corpus.config import Limits
from blm.curate.corpus.sources.rows import RowError

_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts"
_MOST_DECODED = 3000
"""Frames that are decoded between two that are wanted, before the video counts as broken."""


def video_frames(path: Path, count: int, quality: int, limits: Limits, field: str) -> list[bytes]:
    """JPEG images of `count` frames at equal distances, the first and last included; fewer of a shorter video.

    Raises:
        RowError: 'bad_media', 'media_too_large'.
    """
    options = {"format_whitelist": _FORMATS, "protocol_whitelist": "file"}
    frames: list[VideoFrame] = []
    try:
        with (
            path.open("rb") as stream,
            av.open(stream, "r", options=options, metadata_errors="replace") as container,
        ):
            frames = _spread(container, count, limits, field)
    except (av.error.FFmpegError, OSError, ValueError, IndexError, MemoryError) as error:
        raise RowError("bad_media", field, f"{path.name}: no readable video: {error}"[:300]) from error
    if not frames:
        raise RowError("bad_media", field, f"{path.name}: no frame decodes")
    return [_jpeg(frame, quality) for frame in frames]


def _spread(container: InputContainer, count: int, limits: Limits, field: str) -> list[VideoFrame]:
    stream = container.streams.video[0]
    if getattr(stream, "codec_context", None) is None:  # PyAV's types do not say so
        raise RowError("bad_media", field, "a video coded in a way that no decoder here knows")
    width, height = stream.codec_context.width, stream.codec_context.height
    if max(width, height) > limits.max_side:
        raise RowError("media_too_large", field, f"{width} × {height} pixels, a side above {limits.max_side}")
    wanted = _indices(stream.frames, count) if stream.frames > 0 else None
    frames: list[VideoFrame] = []
    stride = 1
    for number, frame in enumerate(container.decode(stream)):
        if number > _MOST_DECODED * count:
            raise RowError("media_too_large", field, f"more than {number} frames")
        if number in wanted if wanted is not None else number % stride == 0:
            frames.append(frame)
        if wanted is None and len(frames) > 4 * count:
            # The length is not known beforehand: of what was kept, keep every other frame.
            frames, stride = frames[::2], 2 * stride
        if wanted is not None and number >= max(wanted):
            break
    return [frames[index] for index in sorted(_indices(len(frames), count))]


def _indices(length: int, count: int) -> set[int]:
    if length <= 0:
        return set()
    if count == 1:
        return {0}
    return {round(number * (length - 1) / (count - 1)) for number in range(min(count, length))}


def _jpeg(frame: VideoFrame, quality: int) -> bytes:
    stream = io.BytesIO()
    frame.to_image().save(stream, "JPEG", quality=quality)
    return stream.getvalue()
