"""One episode's frames of one camera as single images: JPEG straight from the video's own planes, or lossless WebP.

Recorded video holds half-resolution chroma, and so does JPEG in its usual 4:2:0 form: converting the planes (range
and size only) and encoding them skips the way through RGB, which costs about half of the time and adds nothing.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import av
import av.error
import numpy as np
import simplejpeg
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from PIL import Image

MAX_PIXELS = 8192 * 4320
"""Of a picture: the largest that cameras make."""

_TRUSTED = {
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi",
    "codec_whitelist": "h264,hevc,libdav1d,av1,vp8,vp9,libvpx,libvpx-vp9,mpeg4,mjpeg,ffv1",
    "protocol_whitelist": "file",
}
"""FFmpeg also reads playlists, which name other files and addresses, and hundreds of rarely tried codecs."""


class VideoError(Exception):
    """A video cannot be read, or does not hold the frames the dataset says it does."""


@dataclass(frozen=True)
class Clip:
    """Frames `start`, `start + stride`, … below `stop` of the episode that begins at `from_s` seconds of a file."""

    path: Path
    from_s: float
    rate_hz: float
    start: int
    stop: int
    stride: int = 1

    @property
    def frames(self) -> range:
        return range(self.start, self.stop, self.stride)

    def decoded(self) -> Iterator[VideoFrame]:
        """The frames, in order; raises VideoError where the file is unreadable or lacks one."""
        return _wanted_frames(self)


@dataclass(frozen=True)
class Stills:
    """Single frames, in ascending order, of the episode that begins at `from_s` seconds of a file."""

    path: Path
    from_s: float
    rate_hz: float
    frames: tuple[int, ...]

    @property
    def start(self) -> int:
        return self.frames[0]

    def decoded(self) -> Iterator[VideoFrame]:
        """As `Clip.decoded`."""
        return _wanted_frames(self)


class Pictures(Protocol):
    """Frames of one camera, wherever they are stored."""

    @property
    def path(self) -> Path: ...

    def decoded(self) -> Iterator[VideoFrame]: ...


def encode_clip(
    clip: Pictures,
    size: tuple[int, int],
    quality: int | None,
    watch: Callable[[VideoFrame], None] | None = None,
) -> list[bytes]:
    """Images of a clip's frames, decoded once and in order; `size` is (width, height) in pixels.

    They are JPEG of this quality, or lossless WebP where it is None. `watch` is shown each frame as decoded.

    Raises:
        VideoError: the file is unreadable, or has no frame within half a period of one asked for.
    """
    reformatter = VideoReformatter()
    images = []
    for frame in clip.decoded():
        try:
            if watch is not None:
                watch(frame)
            if quality is None:
                images.append(_webp(frame, reformatter, size))
            else:
                images.append(_jpeg(frame, reformatter, size, quality))
        except (av.error.FFmpegError, ValueError) as error:
            raise VideoError(
                f"{clip.path}: its pictures ({frame.format.name}) cannot be read: {error}"
            ) from error
    return images


def watch_clip(clip: Pictures, watch: Callable[[VideoFrame], None]) -> None:
    """Decode a clip's frames as `encode_clip` does, and only show them.

    Raises:
        VideoError: as `encode_clip`.
    """
    for frame in clip.decoded():
        try:
            watch(frame)
        except (av.error.FFmpegError, ValueError) as error:
            raise VideoError(
                f"{clip.path}: its pictures ({frame.format.name}) cannot be read: {error}"
            ) from error


def _wanted_frames(clip: Clip | Stills) -> Iterator[VideoFrame]:
    wanted = iter(clip.frames)
    index = next(wanted)
    for frame in _decoded(clip.path, clip.from_s + clip.start / clip.rate_hz):
        if frame.time is None:
            raise VideoError(f"{clip.path} does not say when its frames are shown")
        ahead = (frame.time - clip.from_s) * clip.rate_hz - index
        if ahead < -0.5:
            continue
        if ahead > 0.5:
            raise VideoError(f"{clip.path} has no frame at {clip.from_s + index / clip.rate_hz:.3f} s")
        yield frame
        try:
            index = next(wanted)
        except StopIteration:
            return
    raise VideoError(f"{clip.path} ends before {clip.from_s + index / clip.rate_hz:.3f} s")


def _decoded(path: Path, from_s: float) -> Iterator[VideoFrame]:
    """Decode from the last key frame at or before `from_s`."""
    try:
        with av.open(f"file:{path}", options=_TRUSTED, metadata_errors="replace") as container:
            stream = container.streams.video[0]
            if getattr(stream, "codec_context", None) is None:  # PyAV's types do not say so
                raise VideoError(f"{path} is coded in a way that no decoder here knows")
            stream.codec_context.thread_count = 1
            stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
            if stream.width * stream.height > MAX_PIXELS:
                raise VideoError(f"{path} claims {stream.width} × {stream.height} pixels")
            if from_s > 0 and stream.time_base is not None:
                container.seek(int(from_s / stream.time_base), stream=stream)
            size = None
            for frame in container.decode(stream):
                if size is not None and (frame.width, frame.height) != size:
                    raise VideoError(f"{path} changes its size at {frame.time} s")
                size = (frame.width, frame.height)
                yield frame
    except (av.error.FFmpegError, IndexError, OverflowError) as error:
        raise VideoError(f"{path} cannot be decoded: {error}") from error


def _jpeg(frame: VideoFrame, reformatter: VideoReformatter, size: tuple[int, int], quality: int) -> bytes:
    if frame.colorspace == Colorspace.ITU709 or frame.format.name == "rgb24":
        return _jpeg_through_rgb(frame, reformatter, size, quality)
    width, height = size
    planar = reformatter.reformat(
        frame,
        width=width,
        height=height,
        format="yuvj420p",  # with plain yuv420p, FFmpeg leaves the range alone where the size stays the same
        dst_color_range=ColorRange.JPEG,
        interpolation=Interpolation.AREA,
    )
    luma, blue, red = (_plane(plane) for plane in planar.planes)
    return simplejpeg.encode_jpeg_yuv_planes(luma, blue, red, quality=quality)


def _jpeg_through_rgb(
    frame: VideoFrame, reformatter: VideoReformatter, size: tuple[int, int], quality: int
) -> bytes:
    """For video in BT.709 colours, where JPEG knows those of BT.601 only, and for pictures that are RGB already."""
    image = np.ascontiguousarray(_rgb(frame, reformatter, size))
    return simplejpeg.encode_jpeg(image, quality=quality, colorsubsampling="420")


def _webp(frame: VideoFrame, reformatter: VideoReformatter, size: tuple[int, int]) -> bytes:
    """Lossless, with the least effort: more of it takes 3 times as long for 5 % fewer bytes."""
    buffer = io.BytesIO()
    Image.fromarray(_rgb(frame, reformatter, size)).save(buffer, "WEBP", lossless=True, method=0, quality=20)
    return buffer.getvalue()


def _rgb(frame: VideoFrame, reformatter: VideoReformatter, size: tuple[int, int]) -> np.ndarray:
    """(height, width, 3) uint8."""
    width, height = size
    return reformatter.reformat(
        frame, width=width, height=height, format="rgb24", interpolation=Interpolation.AREA
    ).to_ndarray()


def _plane(plane: VideoPlane) -> np.ndarray:
    """(height, width) uint8, without the padding at the end of its lines."""
    lines = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
    return np.ascontiguousarray(lines[:, : plane.width])
