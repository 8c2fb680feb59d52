"""Read a Stage II build: whole episodes in tars, windows (frame + action chunk) drawn from them.

`index.parquet` says where each member of each sample lies, so every read is one `os.pread`; no tar is scanned.
States and actions of a split are kept in memory (48 bytes a frame for six axes); images stay on disk.

    build = ShardBuild("splits")
    windows = Windows(build, split="train", horizon=16)
    order = EpochOrder(len(windows), batch_size=64, seed=0)
    batch = windows.batch(next(order))                        # states, action chunks, masks
    images = windows.images(batch, cameras=("top",))          # (B, 1, H, W, 3) uint8
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow.parquet as parquet
import simplejpeg

from blm.schemas.errors import ConfigError, DatasetError, UnknownNameError
from blm.schemas.manifest import INDEX_FILE, SHARD_TABLE_FILE, Manifest, read_manifest
from blm.schemas.shard import (
    ACTION_SUFFIX,
    META_SUFFIX,
    STATE_SUFFIX,
    SegmentMeta,
    images_suffix,
    offsets_suffix,
)


@dataclass(frozen=True)
class Member:
    """Where one member of a sample lies: shard file name, byte offset and size of its content."""

    shard: str
    offset: int
    size: int


@dataclass(frozen=True)
class Segment:
    """One sample: its key, what is known about it, and where its members lie (suffix → Member)."""

    key: str
    meta: SegmentMeta
    members: Mapping[str, Member]


class ShardBuild:
    """A complete Stage II build on disk, read by seeking. Safe to use from several threads.

    Raises:
        DatasetError: the folder holds no finished Stage II build, or a file of it is missing or damaged.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.manifest: Manifest = read_manifest(self.folder, "stage2-splits")
        self._files: dict[str, int] = {}
        self._offsets: dict[tuple[str, str], np.ndarray] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the shard files; reading opens them again."""
        for descriptor in self._files.values():
            os.close(descriptor)
        self._files = {}

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(sorted(self.manifest.splits))

    def segments(self, split: str | None = None) -> tuple[Segment, ...]:
        """All samples of a split (or of the whole build), in index order.

        Raises:
            UnknownNameError: no such split; lists those there are.
        """
        if split is None:
            return self._segments
        if split not in self.manifest.splits:
            raise UnknownNameError("split", split, self.splits)
        return tuple(segment for segment in self._segments if segment.meta.split == split)

    def state(self, segment: Segment) -> np.ndarray:
        """Measured axis values of a whole sample, (T, A) float32, axis units."""
        return self._array(segment, STATE_SUFFIX)

    def action(self, segment: Segment) -> np.ndarray:
        """Axis targets as sent, (T, A) float32, axis units."""
        return self._array(segment, ACTION_SUFFIX)

    def images(self, segment: Segment, camera: str, frames: Sequence[int] | np.ndarray) -> np.ndarray:
        """Decode some frames of one camera, (len(frames), H, W, 3) uint8 RGB.

        Raises:
            UnknownNameError: the sample has no such camera; lists those it has.
        """
        if camera not in segment.meta.cameras:
            raise UnknownNameError("camera", camera, segment.meta.cameras)
        member = segment.members[images_suffix(camera)]
        offsets = self._image_offsets(segment, camera)
        decoded = []
        for frame in frames:
            start, stop = int(offsets[frame]), int(offsets[frame + 1])
            jpeg = self._pread(Member(member.shard, member.offset + start, stop - start))
            decoded.append(self._decode(jpeg, f"{segment.key} camera {camera} frame {frame}"))
        return np.stack(decoded)

    @cached_property
    def _segments(self) -> tuple[Segment, ...]:
        members: dict[str, dict[str, Member]] = {}
        table = self._table(INDEX_FILE)
        for row in table:
            member = Member(row["shard"], row["offset"], row["size"])
            members.setdefault(row["key"], {})[row["suffix"]] = member
        return tuple(
            Segment(key, SegmentMeta.model_validate_json(self._pread(found[META_SUFFIX])), found)
            for key, found in members.items()
        )

    def _table(self, name: str) -> list[dict]:
        path = self.folder / name
        if not path.is_file():
            raise DatasetError(f"{path} does not exist.", "Build the splits again.")
        return parquet.read_table(path).to_pylist()

    def shard_names(self) -> tuple[str, ...]:
        """File names of the build's shards, in order."""
        return tuple(row["name"] for row in self._table(SHARD_TABLE_FILE))

    def _array(self, segment: Segment, suffix: str) -> np.ndarray:
        return np.load(io.BytesIO(self._pread(segment.members[suffix])), allow_pickle=False)

    def _image_offsets(self, segment: Segment, camera: str) -> np.ndarray:
        label = (segment.key, camera)
        if label not in self._offsets:
            self._offsets[label] = self._array(segment, offsets_suffix(camera))
        return self._offsets[label]

    def _pread(self, member: Member) -> bytes:
        content = os.pread(self._descriptor(member.shard), member.size, member.offset)
        if len(content) != member.size:
            raise DatasetError(
                f"{self.folder / member.shard} ends before byte {member.offset + member.size}.",
                "Build the splits again, or copy them again.",
            )
        return content

    def _descriptor(self, shard: str) -> int:
        if shard not in self._files:
            try:
                self._files[shard] = os.open(self.folder / shard, os.O_RDONLY)
            except OSError as error:
                raise DatasetError(
                    f"Cannot open {self.folder / shard}: {error.strerror}.", "Copy it again."
                ) from error
        return self._files[shard]

    @staticmethod
    def _decode(jpeg: bytes, where: str) -> np.ndarray:
        try:
            return simplejpeg.decode_jpeg(jpeg, colorspace="RGB")
        except ValueError as error:
            raise DatasetError(
                f"{where} is not a readable JPEG: {error}", "Build the splits again."
            ) from error


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
    ) -> None:
        if horizon < 1 or frame_stride < 1:
            raise ConfigError(f"horizon ({horizon}) and frame_stride ({frame_stride}) must be at least 1.")
        self.build, self.split, self.horizon, self.frame_stride = build, split, horizon, frame_stride
        self.future_offset = horizon if future_offset is None else future_offset
        self.segments = build.segments(split)
        if not self.segments:
            raise DatasetError(f"{build.folder}: split '{split}' has no samples.", "Collect more episodes.")
        self.embodiments = tuple(embodiments or sorted(build.manifest.statistics))
        self._read()

    def __len__(self) -> int:
        return len(self._window_segment)

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
        segment = self._window_segment[indices]
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
        """Decode the windows' frames (or their future frames): (B, cameras, H, W, 3) uint8 RGB."""
        frames = batch.future if future else batch.frame
        return np.stack(
            [
                np.stack([self.build.images(self.segments[s], camera, [f])[0] for camera in cameras])
                for s, f in zip(batch.segment, frames, strict=True)
            ]
        )

    def _read(self) -> None:
        known = {name: i for i, name in enumerate(self.embodiments)}
        for segment in self.segments:
            if segment.meta.embodiment not in known:
                raise UnknownNameError("embodiment", segment.meta.embodiment, known)
        statistics = self.build.manifest.statistics
        counts = [len(statistics[name].axis_names) for name in self.embodiments]
        axes = max(counts)
        self._axis_mask = np.arange(axes) < np.array(counts)[:, None]
        self._embodiment = np.array([known[s.meta.embodiment] for s in self.segments], dtype=np.int64)
        states = [self.build.state(segment) for segment in self.segments]
        # Not meta.stop − meta.start: a build may have kept only every n-th frame of the source episode.
        self._length = np.array([len(values) for values in states], dtype=np.int64)
        self._first = np.concatenate([[0], np.cumsum(self._length)[:-1]])
        self._state = np.zeros((int(self._length.sum()), axes), dtype=np.float32)
        self._action = np.zeros_like(self._state)
        for segment, first, state in zip(self.segments, self._first, states, strict=True):
            action = self.build.action(segment)
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
        self._window_segment = np.repeat(np.arange(len(starts)), [len(s) for s in starts])


class EpochOrder:
    """An endless seeded order over `count` items in batches, each item once per epoch, resumable in O(1).

    The order of an epoch is a keyed permutation that is computed, not stored (a Feistel network with cycle walking;
    Black & Rogaway 2002). Positions run on through all epochs; batch b of part p of `parts` holds the positions
    (b · parts + p) · batch_size …, so parts (ranks × workers) never share an item within an epoch and none is left
    out. The last batch of an epoch is filled from the next epoch.
    """

    def __init__(self, count: int, batch_size: int, seed: int, *, part: int = 0, parts: int = 1) -> None:
        if not 0 <= part < parts:
            raise ConfigError(f"part {part} is not within 0..{parts - 1}.")
        if count < 1 or batch_size < 1:
            raise ConfigError(f"count ({count}) and batch_size ({batch_size}) must be at least 1.")
        self.count, self.batch_size, self.seed, self.part, self.parts = count, batch_size, seed, part, parts
        self.batches = 0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> np.ndarray:
        """Indices of the next batch, (batch_size,) int64."""
        first = (self.batches * self.parts + self.part) * self.batch_size
        self.batches += 1
        return self.at(np.arange(first, first + self.batch_size))

    def at(self, positions: np.ndarray) -> np.ndarray:
        """Indices at absolute positions (position // count is the epoch)."""
        indices = np.empty(len(positions), dtype=np.int64)
        epochs = positions // self.count
        for epoch in np.unique(epochs):
            chosen = epochs == epoch
            indices[chosen] = permuted(positions[chosen] % self.count, self.count, (self.seed, int(epoch)))
        return indices

    def state_dict(self, behind: int = 0) -> dict[str, int]:
        """The place `behind` batches ago: what to save where so many were drawn but not used yet."""
        batches = self.batches - behind
        position = batches * self.parts * self.batch_size
        return {
            "batches": batches,
            "epoch": position // self.count,
            "position": position % self.count,
            "count": self.count,
            "seed": self.seed,
        }

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go to a saved place.

        Raises:
            ConfigError: the saved order was over another number of items, or had another seed.
        """
        for name in ("count", "seed"):
            if state[name] != getattr(self, name):
                raise ConfigError(
                    f"The saved reader position is for {name} {state[name]}, not {getattr(self, name)}.",
                    "Resume with the same splits and seed.",
                )
        self.batches = state["batches"]


def permuted(positions: np.ndarray, count: int, key: tuple[int, ...], rounds: int = 4) -> np.ndarray:
    """Images of `positions` (each in 0..count − 1) under a permutation of 0..count − 1 chosen by `key`."""
    half = max(1, ((count - 1).bit_length() + 1) // 2)
    mask = np.uint64((1 << half) - 1)
    keys = np.random.SeedSequence(key).generate_state(rounds, np.uint64)
    values = positions.astype(np.uint64)
    outside = np.ones(len(values), dtype=bool)
    while outside.any():
        values[outside] = _feistel(values[outside], keys, np.uint64(half), mask)
        outside = values >= count
    return values.astype(np.int64)


def _feistel(values: np.ndarray, keys: np.ndarray, half: np.uint64, mask: np.uint64) -> np.ndarray:
    left, right = values >> half, values & mask
    for key in keys:
        mixed = (right ^ key) * np.uint64(0x9E3779B97F4A7C15)  # wraps around on purpose
        mixed ^= mixed >> np.uint64(29)
        mixed *= np.uint64(0xBF58476D1CE4E5B9)
        mixed ^= mixed >> np.uint64(32)
        left, right = right, left ^ (mixed & mask)
    return (left << half) | right
