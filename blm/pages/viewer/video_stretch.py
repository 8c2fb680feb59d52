"""An episode's stretch of a video file as a file of its own, without encoding it again."""

from __future__ import annotations

import shutil
from contextlib import closing
from fractions import Fraction
from pathlib import Path

from blm.pages.viewer.source import VideoStream
from blm.schemas.errors import DatasetError


def write_stretch(stream: VideoStream, target: Path) -> tuple[float, float]:
    """Write the episode's video to a file of its own; returns from when to when the episode plays in it, seconds.

    Raises:
        DatasetError: the video is missing or cannot be read.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    source = stream.locate()
    if stream.shared:
        return _cut(source, target, stream.begin, stream.end)
    shutil.copyfile(source, target)
    return stream.begin, stream.end


def _cut(source: Path, target: Path, begin: float, end: float) -> tuple[float, float]:
    """Copy the packets from the last key frame before `begin` until `end`; returns the span within the copy.

    Raises:
        DatasetError: the video cannot be read.
    """
    import av

    try:
        return _copy_packets(source, target, begin, end)
    except (av.FFmpegError, IndexError, OSError) as error:
        raise DatasetError(
            f"{source} is not a readable video: {error}.", "Restore it from a copy."
        ) from error


def _copy_packets(source: Path, target: Path, begin: float, end: float) -> tuple[float, float]:
    import av

    first: int | None = None
    with closing(av.open(str(source))) as read:
        stream = read.streams.video[0]
        base = stream.time_base or Fraction(1, 90_000)
        half_frame = 1 / (2 * (stream.average_rate or 30))
        read.seek(int(begin / base), stream=stream)
        with closing(av.open(str(target), "w", options={"movflags": "faststart"})) as write:
            copy = write.add_stream_from_template(
                stream, opaque=True
            )  # also codecs that cannot be encoded here
            for packet in read.demux(stream):
                if packet.pts is None or packet.dts is None:
                    continue
                first = packet.dts if first is None else first
                if packet.dts * base + half_frame >= end:
                    break
                packet.pts, packet.dts, packet.stream = packet.pts - first, packet.dts - first, copy
                write.mux(packet)
    shift = float((first or 0) * base)
    return max(0.0, begin - shift), max(0.0, end - shift)
