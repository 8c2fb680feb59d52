"""A video encoder for a control loop that must not wait: what it cannot keep, it repeats and counts.

    add ──copy──▶ bounded queue ──▶ encoder thread ──▶ MP4
     └─ queue full: 'once more' instead of the picture

A video therefore has exactly as many frames as `add` and `repeat` were called, so rows and pictures never shift; a
picture that came too fast for the encoder costs its place in the video, not its neighbours theirs.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue

import av
import numpy as np

from blm.collect.statistics import ImageStatistics, Statistics
from blm.collect.video import VideoConfig, VideoEncoder

_NICENESS = 5


class LiveVideoEncoder(VideoEncoder):
    """Encodes the frames of one camera during one episode to `path`, and never makes the caller wait.

    Attributes:
        repeated: frames that are the one before once more.
        repeated_in_a_row: how many of those the last frames were; 0 after a fresh one.
    """

    def __init__(self, path: Path, width: int, height: int, fps: int, config: VideoConfig) -> None:
        self.repeated = 0
        self.repeated_in_a_row = 0
        self._pictures: SimpleQueue[np.ndarray | None] = SimpleQueue()
        self._room = threading.Semaphore(config.queue_frames)
        self._ended = False
        self._statistics = ImageStatistics()
        super().__init__(path, width, height, fps, config)

    @property
    def waiting(self) -> int:
        """Frames the encoder has not begun yet."""
        return self._pictures.qsize()

    def add(self, image: np.ndarray) -> None:
        """Queue one (height, width, 3) uint8 RGB image, or a repeat of the last one if the queue is full.

        The pixels are copied before this returns.

        Raises:
            DatasetError: the image has another shape or type, or the encoder has failed.
        """
        self._check(image)
        if self.frames and not self._room.acquire(blocking=False):
            self.repeat()
            return
        if not self.frames:
            self._room.acquire()
        self.frames += 1
        self.repeated_in_a_row = 0
        self._pictures.put(np.array(image, order="C"))

    def repeat(self) -> None:
        """Let the next frame be the last one once more.

        Raises:
            DatasetError: the encoder has failed.
            ValueError: there is no frame yet.
        """
        if self._error is not None:
            self._raise()
        if not self.frames:
            raise ValueError("the first frame of a video cannot be a repeat")
        self.frames += 1
        self.repeated += 1
        self.repeated_in_a_row += 1
        self._pictures.put(_ONCE_MORE)

    def image_statistics(self) -> Statistics:
        """Statistics of the frames; to be called after `finish`."""
        return self._statistics.result()

    def end(self) -> None:
        """No more frames will come; returns at once, while `finish` waits for the encoder."""
        if not self._ended:
            self._ended = True
            self._pictures.put(None)

    def _stop(self) -> None:
        self.end()
        self._thread.join()

    def _drain(self) -> None:
        while self._pictures.get() is not None:
            pass

    def _waiting(self) -> Iterator[av.VideoFrame]:
        with contextlib.suppress(
            OSError, AttributeError
        ):  # what is recorded can wait; the control loop cannot
            thread = threading.get_native_id()
            nicer = os.getpriority(os.PRIO_PROCESS, thread) + _NICENESS
            os.setpriority(os.PRIO_PROCESS, thread, nicer)
        last: np.ndarray = _ONCE_MORE
        frame: av.VideoFrame | None = None
        number = 0
        while (picture := self._pictures.get()) is not None:
            if picture is not _ONCE_MORE or frame is None:
                last = picture
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
                self._room.release()
            self._statistics.add(last)
            frame.pts = number
            number += 1
            yield frame


_ONCE_MORE = np.empty(0, dtype=np.uint8)
