"""Windows of a split: a frame, the action chunk that begins there, and the images, gathered in batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from blm.schemas.errors import ConfigError, DatasetError, UnknownNameError
from blm.schemas.shard import ACTION_SUFFIX, STATE_SUFFIX
from blm.train.shard_build import ImageAddress, Segment, ShardBuild


@dataclass(frozen=True)
class WindowBatch:
    """B windows. A is the largest axis count of the split; shorter embodiments are padded with zeros at the end.

    Attributes:
        segment: (B,) int64, index into `Windows.segments`.
        frame: (B,) int64, frame within the sample at which the window starts.
        future: (B,) int64, frame of the future observation, within the same sample.
        embodiment: (B,) int64, index into `Windows.embodiments`.
        state: (B, A) float32, axis units.
        action: (B, horizon, A) float32, axis units; past the episode's end its last action repeated.
        step_mask: (B, horizon) bool, False past the episode's end.
        axis_mask: (B, A) bool, False on padded axes.
    """

    segment: np.ndarray
    frame: np.ndarray
    future: np.ndarray
    embodiment: np.ndarray
    state: np.ndarray
    action: np.ndarray
    step_mask: np.ndarray
    axis_mask: np.ndarray


class Windows:
    """Map-style view of a split: every `frame_stride`-th frame of every sample starts one window.

    The future frame lies `future_offset` frames ahead (default: the horizon), is limited to the sample, and is
    rounded down to a multiple of `frame_stride`, so that only every `frame_stride`-th frame is ever looked at.
    States and actions of the split are kept in memory (48 bytes a frame for six axes); images stay where they are.

    Args:
        embodiments: names whose places are the embodiment ids; default: those with training samples, sorted, and then
            those that only this split holds, so that a robot has the same id in every split.
        others: what becomes of samples of embodiments that are not listed: 'refuse', or 'leave' them out.
        cameras: samples that lack one of these are left out.

    Raises:
        ConfigError: the horizon or the stride is below 1.
        UnknownNameError: the build has no such split, or the split an embodiment that is not listed.
        DatasetError: the split is empty, or a shard of it is missing or damaged.
    """

    def __init__(
        self,
        build: ShardBuild,
        split: str,
        horizon: int,
        *,
        frame_stride: int = 1,
        future_offset: int | None = None,
        embodiments: Sequence[str] | None = None,
        others: Literal["refuse", "leave"] = "refuse",
        cameras: Sequence[str] = (),
    ) -> None:
        if horizon < 1 or frame_stride < 1:
            raise ConfigError(f"horizon ({horizon}) and frame_stride ({frame_stride}) must be at least 1.")
        self.build, self.split, self.horizon, self.frame_stride = build, split, horizon, frame_stride
        self.future_offset = horizon if future_offset is None else future_offset
        self.segments = tuple(one for one in build.segments(split) if {*cameras} <= {*one.meta.cameras})
        if embodiments is not None and others == "leave":
            self.segments = tuple(one for one in self.segments if one.meta.embodiment in embodiments)
        if not self.segments:
            raise DatasetError(f"{build.folder}: split '{split}' has no samples.", "Collect more episodes.")
        self.embodiments = tuple(embodiments or _embodiments(build, self.segments))
        self._read()

    def __len__(self) -> int:
        return len(self.window_segment)

    def __getitem__(self, index: int) -> WindowBatch:
        """One window, as a batch of one."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        return self.batch(np.array([index % len(self)]))

    @property
    def axes(self) -> int:
        """The largest axis count."""
        return self._state.shape[1]

    @property
    def frames(self) -> int:
        """Frames of the split, whether or not a window starts there."""
        return len(self._state)

    @cached_property
    def instructions(self) -> tuple[str, ...]:
        """The wording of each segment."""
        return tuple(segment.meta.instruction for segment in self.segments)

    def batch(self, indices: np.ndarray) -> WindowBatch:
        """Gather windows by index (B,): a few array look-ups, no file is touched."""
        segment = self.window_segment[indices]
        frame = self._window_frame[indices]
        length, first = self._length[segment], self._first[segment]
        steps = frame[:, None] + np.arange(self.horizon)
        future = np.minimum(frame + self.future_offset, length - 1) // self.frame_stride * self.frame_stride
        embodiment = self._embodiment[segment]
        return WindowBatch(
            segment=segment,
            frame=frame,
            future=np.maximum(future, frame),
            embodiment=embodiment,
            state=self._state[first + frame],
            action=self._action[first[:, None] + np.minimum(steps, length[:, None] - 1)],
            step_mask=steps < length[:, None],
            axis_mask=self._axis_mask[embodiment],
        )

    def images(self, batch: WindowBatch, cameras: Sequence[str], *, future: bool = False) -> np.ndarray:
        """Decode the windows' frames (or their future frames): (B, cameras, H, W, 3) uint8 RGB.

        Raises:
            UnknownNameError: a sample lacks a camera; lists those it has.
            ConfigError: the samples' images differ in size.
        """
        for segment in np.unique(batch.segment):
            meta = self.segments[segment].meta
            for camera in cameras:
                if camera not in meta.cameras:
                    raise UnknownNameError("camera", camera, meta.cameras)
        width, height = self.image_size(batch.segment)
        images = np.empty((len(batch.frame), len(cameras), height, width, 3), np.uint8)
        self.decode_into(images, batch, cameras, future=future)
        return images

    def decode_into(
        self, images: np.ndarray, batch: WindowBatch, cameras: Sequence[str], *, future: bool = False
    ) -> None:
        """Decode into (B, cameras, H, W, 3) uint8, resizing where H × W is not the stored size.

        Where a sample lacks a camera, its image is black.
        """
        wanted, places = [], []
        frames = batch.future if future else batch.frame
        for row, (number, frame) in enumerate(zip(batch.segment.tolist(), frames.tolist(), strict=True)):
            segment = self.segments[number]
            for column, camera in enumerate(cameras):
                if camera in segment.meta.cameras:
                    wanted.append(ImageAddress(segment, camera, frame))
                    places.append(images[row, column])
                else:
                    images[row, column] = 0
        self.build.decode(wanted, places)

    def image_size(self, segments: np.ndarray | None = None) -> tuple[int, int]:
        """(width, height) of the stored images of some segments (default: all), in pixels.

        Raises:
            ConfigError: there are several sizes.
        """
        chosen = range(len(self.segments)) if segments is None else np.unique(segments)
        sizes = {self.segments[number].meta.image_size for number in chosen}
        if len(sizes) != 1:
            raise ConfigError(
                f"{self.build.folder}: images of several sizes: {sorted(sizes)}.", "Ask for one image size."
            )
        return sizes.pop()

    def _read(self) -> None:
        known = {name: i for i, name in enumerate(self.embodiments)}
        for segment in self.segments:
            if segment.meta.embodiment not in known:
                raise UnknownNameError("embodiment", segment.meta.embodiment, known)
        axis_names = {segment.meta.embodiment: segment.meta.axis_names for segment in self.segments}
        axis_names |= {name: one.axis_names for name, one in self.build.manifest.statistics.items()}
        counts = [len(axis_names.get(name, ())) for name in self.embodiments]
        axes = max(counts)
        self._axis_mask = np.arange(axes) < np.array(counts)[:, None]
        self._embodiment = np.array([known[s.meta.embodiment] for s in self.segments], dtype=np.int64)
        states = self.build.arrays(self.segments, STATE_SUFFIX)
        actions = self.build.arrays(self.segments, ACTION_SUFFIX)
        # Not meta.stop − meta.start: a build may have kept only every n-th frame of the source episode.
        self._length = np.array([len(values) for values in states], dtype=np.int64)
        self._first = np.concatenate([[0], np.cumsum(self._length)[:-1]])
        self._state = np.zeros((int(self._length.sum()), axes), dtype=np.float32)
        self._action = np.zeros_like(self._state)
        for segment, first, state, action in zip(self.segments, self._first, states, actions, strict=True):
            if action.shape != state.shape or state.shape[1] != counts[known[segment.meta.embodiment]]:
                raise DatasetError(
                    f"{segment.key}: states {state.shape} and actions {action.shape} do not fit the "
                    f"{counts[known[segment.meta.embodiment]]} axes of {segment.meta.embodiment}.",
                    "Build the splits again.",
                )
            rows = slice(first, first + len(state))
            self._state[rows, : state.shape[1]], self._action[rows, : state.shape[1]] = state, action
        starts = [np.arange(0, length, self.frame_stride) for length in self._length]
        self._window_frame = np.concatenate(starts).astype(np.int64)
        self.window_segment = np.repeat(np.arange(len(starts)), [len(s) for s in starts])


def _embodiments(build: ShardBuild, segments: Sequence[Segment]) -> list[str]:
    trained = sorted(build.manifest.statistics)
    return trained + sorted({segment.meta.embodiment for segment in segments} - set(trained))
