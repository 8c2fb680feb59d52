"""One H.264 stream per camera and episode: frames in, an MP4 file out, and never a frame less than was given.

Frames pass through a bounded queue to an encoder thread. When the queue is full the caller waits, so memory stays
bounded and no frame is dropped. The same frames give the same bytes on the same machine: one x264 thread, no
wall-clock metadata.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from queue import Queue
from typing import Any, Literal

import av
import numpy as np
from pydantic import Field

from blm.schemas.errors import DatasetError
from blm.schemas.yaml_model import FrozenModel

Preset = Literal["ultrafast", "superfast", "veryfast", "faster", "fast", "medium"]


class VideoConfig(FrozenModel):
    """How images are encoded.

    `group_of_pictures` is the distance of key frames: a reader that wants one frame decodes at most that many.
    `crf` is x264's constant rate factor (lower is better and larger). `queue_frames` bounds the frames that wait for
    the encoder, per camera.

    At the same `crf`, `ultrafast` takes 0.6 of the time of `veryfast`, decodes a quarter faster and comes out 1.3 dB
    nearer to the picture, for 2.3 times the bytes (1.9 kB a picture of 256², of simulated scenes).
    """

    preset: Preset = "ultrafast"
    group_of_pictures: int = Field(default=10, ge=1, le=250)
    crf: int = Field(default=23, ge=0, le=51)
    queue_frames: int = Field(default=32, ge=1)

    def codec_options(self) -> dict[str, str]:
        """Options of libx264. Without B-frames the frames lie in the file in the order in which they were taken."""
        return {
            "preset": self.preset,
            "g": str(self.group_of_pictures),
            "crf": str(self.crf),
            "bf": "0",
            "threads": "1",
        }

    def describe(self, width: int, height: int, fps: int) -> dict[str, Any]:
        """The `info` block of a LeRobot video feature."""
        return {
            "video.height": height,
            "video.width": width,
            "video.codec": "h264",
            "video.pix_fmt": "yuv420p",
            "video.fps": fps,
            "video.channels": 3,
            "has_audio": False,
            "video.g": self.group_of_pictures,
            "video.crf": self.crf,
            "video.preset": self.preset,
            "video.fast_decode": 0,
            "video.video_backend": "pyav",
            "video.extra_options": {"bf": 0},
            "is_depth_map": False,
        }


class VideoEncoder:
    """Encodes the frames of one camera during one episode to `path`."""

    def __init__(self, path: Path, width: int, height: int, fps: int, config: VideoConfig) -> None:
        """Open the file and start the encoder thread.

        Raises:
            DatasetError: width or height is odd, which yuv420p cannot hold.
        """
        if width % 2 or height % 2:
            raise DatasetError(
                f"images of {width}×{height} pixels cannot be stored as video.",
                "Use an even width and an even height.",
            )
        self.path = path
        self.frames = 0
        self._shape = (height, width, 3)
        self._queue: Queue[av.VideoFrame | None] = Queue(maxsize=config.queue_frames)
        self._error: BaseException | None = None
        self._thread = threading.Thread(
            target=self._encode, args=(width, height, fps, config), name=f"encode {path.name}", daemon=True
        )
        self._thread.start()

    def add(self, image: np.ndarray) -> None:
        """Queue one (height, width, 3) uint8 RGB image; the pixels are copied before this returns.

        Raises:
            DatasetError: the image has another shape or type, or the encoder has failed.
        """
        self._check(image)
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame.pts = self.frames
        self.frames += 1
        self._queue.put(frame)

    def finish(self) -> Path:
        """Encode what is left, close the file and check that it holds every frame that was added.

        Raises:
            DatasetError: encoding failed, or the file holds another number of frames.
        """
        self._stop()
        if self._error is not None:
            self._raise()
        written = count_frames(self.path)
        if written != self.frames:
            raise DatasetError(f"{self.path} holds {written} frames; {self.frames} were recorded.")
        return self.path

    def discard(self) -> None:
        """Stop and remove the file."""
        self._stop()
        self.path.unlink(missing_ok=True)

    def _stop(self) -> None:
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    def _check(self, image: np.ndarray) -> None:
        if image.shape != self._shape or image.dtype != np.uint8:
            raise DatasetError(
                f"{self.path.name}: an image of {image.shape} {image.dtype} came; {self._shape} uint8 was announced."
            )
        if self._error is not None:
            self._raise()

    def _raise(self) -> None:
        raise DatasetError(f"{self.path}: encoding failed: {self._error}") from self._error

    def _encode(self, width: int, height: int, fps: int, config: VideoConfig) -> None:
        all_taken = False
        try:
            with av.open(
                str(self.path), mode="w", format="mp4", options={"fflags": "+bitexact"}
            ) as container:
                stream = container.add_stream("libx264", rate=fps, options=config.codec_options())
                stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
                stream.time_base = Fraction(1, fps)
                for frame in self._waiting():
                    container.mux(stream.encode(frame))
                all_taken = True
                container.mux(stream.encode())
        except Exception as error:  # handed to the recording thread, which raises it
            self._error = error
            if not all_taken:
                self._drain()

    def _drain(self) -> None:
        """Take what is added, to the end, so that nobody waits for room."""
        while self._queue.get() is not None:
            pass

    def _waiting(self) -> Iterator[av.VideoFrame]:
        """What was added, as it comes, until there is no more."""
        while (frame := self._queue.get()) is not None:
            yield frame


def count_frames(path: Path) -> int:
    """Number of frames the MP4 file's index lists."""
    container = av.open(str(path))
    try:
        return container.streams.video[0].frames
    finally:
        container.close()


def read_frames(path: Path, indices: Sequence[int]) -> list[np.ndarray]:
    """The frames with these numbers, each (height, width, 3) uint8 RGB; decodes from the key frame before each.

    Raises:
        DatasetError: the video has no such frame.
    """
    container = av.open(str(path))
    try:
        stream = container.streams.video[0]
        rate, base = stream.average_rate, stream.time_base
        if rate is None or base is None:
            raise DatasetError(f"{path} does not say how fast it plays.", "Record the episode again.")
        return [_frame(container, stream, index, round(index / rate / base)) for index in indices]
    finally:
        container.close()


def _frame(container: Any, stream: Any, index: int, timestamp: int) -> np.ndarray:
    container.seek(timestamp, stream=stream)
    for frame in container.decode(stream):
        if frame.pts is not None and frame.pts >= timestamp:
            return frame.to_ndarray(format="rgb24")
    raise DatasetError(f"{container.name} has no frame {index}.", "Record the episode again.")
