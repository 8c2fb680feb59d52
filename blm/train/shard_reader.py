"""Read a Stage II build: dictionaries of arrays or tensors, batch by batch, from one process or several.

    reader = ShardReader("splits", "train", batch_size=64, cameras=("top",), image_size=224)
    with reader.loader(workers=4) as loader:
        for batch in loader:
            batch["images"], batch["state"], batch["action"], batch["step_mask"]

`docs/reader.md` explains epochs, mixtures, resuming and what is in a batch. The parts can be used on their own:

    ShardBuild   whole episodes and single images of a build, by seeking
    Windows      a map-style view of a split: frame + action chunk + masks
    EpochOrder   each window once per epoch, in a seeded order
    MixtureOrder groups of windows in given shares
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from blm.schemas.embodiment import load_embodiment
from blm.schemas.errors import ConfigError, UnknownNameError
from blm.train.epoch_order import BatchOrder, EpochOrder, permuted
from blm.train.loader import Batch, Loader
from blm.train.mixture_order import MixtureOrder
from blm.train.relative_actions import RelativeActions
from blm.train.shard_build import Member, Segment, ShardBuild
from blm.train.window_order import window_order
from blm.train.windows import WindowBatch, Windows

__all__ = [
    "BatchOrder",
    "EpochOrder",
    "Loader",
    "Member",
    "MixtureOrder",
    "RelativeActions",
    "Segment",
    "ShardBuild",
    "ShardReader",
    "WindowBatch",
    "Windows",
    "permuted",
    "window_order",
]

Augment = Callable[[np.ndarray, np.random.Generator], np.ndarray | None]
"""Changes one window's images, (cameras, H, W, 3) uint8, in place or by returning others of the same shape."""

AUGMENT_STREAM = 0x61756700
"""Keeps the random numbers of augmentation apart from those of the order."""


class ShardReader:
    """An endless (or `epochs` long) stream of batches from one split of a Stage II build.

    Args:
        build: folder or fsspec URL of the build, or one that is open already.
        split: 'train', 'val', …
        horizon: steps of an action chunk.
        batch_size: windows per batch and rank.
        cameras: default: those that all samples have. A sample without one of them gets a black image.
        image_size: (width, height) or one number, pixels; default: as stored.
        seed: of the order and of augmentation.
        rank, world_size: this process among those that train together; they draw different windows.
        mixture: see `window_order`.
        actions: 'absolute', or 'relative' to the window's state (grippers stay absolute; `absolute_actions` undoes it).
        augment: called per window with its images and a generator that depends on the seed and the place in the
            stream alone, so that the result is the same with any number of workers.
        future: also give the images this many frames ahead, at most to the episode's end.
        layout: 'HWC', or 'CHW' as a transposed view (channels last in memory).
        frame_stride: every n-th frame starts a window.
        embodiments: names whose places are the embodiment ids; default: those with training samples, sorted, and then
            those that only this split holds (a held-out robot).
        epochs: end after so many; the last batch may then be smaller. Default: never end.
        cache: folder for whole copies of the shards of a remote build; default: read ranges of bytes.

    Raises:
        DatasetError: the build is missing, unfinished or damaged, or has nothing in the split.
        UnknownNameError: no such split, camera, embodiment or mixture group; lists those there are.
        ConfigError: an argument makes no sense; says which.
    """

    def __init__(
        self,
        build: str | Path | ShardBuild,
        split: str = "train",
        *,
        horizon: int = 16,
        batch_size: int = 64,
        cameras: Sequence[str] | None = None,
        image_size: int | tuple[int, int] | None = None,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        mixture: Mapping[str, float] | Literal["manifest"] | None = "manifest",
        actions: Literal["absolute", "relative"] = "absolute",
        augment: Augment | None = None,
        future: int | None = None,
        layout: Literal["HWC", "CHW"] = "HWC",
        frame_stride: int = 1,
        embodiments: Sequence[str] | None = None,
        epochs: int | None = None,
        cache: str | Path | None = None,
    ) -> None:
        _one_of("actions", actions, ("absolute", "relative"))
        _one_of("layout", layout, ("HWC", "CHW"))
        if seed < 0:
            raise ConfigError(f"seed ({seed}) must be at least 0.")
        self.build = build if isinstance(build, ShardBuild) else ShardBuild(build, cache=cache)
        self.windows = Windows(
            self.build,
            split,
            horizon,
            frame_stride=frame_stride,
            future_offset=future,
            embodiments=embodiments,
        )
        self.order = window_order(
            self.windows, batch_size, seed, mixture=mixture, part=rank, parts=world_size
        )
        self.cameras = _cameras(self.windows, cameras)
        self.image_size = _image_size(self.windows, image_size)
        self.batch_size, self.seed, self.rank, self.world_size = batch_size, seed, rank, world_size
        self.actions, self.augment, self.layout, self.epochs = actions, augment, layout, epochs
        self.with_future = future is not None
        if actions == "relative":
            self._relative  # noqa: B018 - says now what is missing, not at the first batch
        self._has_camera = np.array(
            [[camera in segment.meta.cameras for camera in self.cameras] for segment in self.windows.segments]
        ).reshape(len(self.windows.segments), len(self.cameras))

    def __len__(self) -> int:
        """Batches per epoch of this rank; with `epochs`, all of this rank's batches."""
        epochs = 1 if self.epochs is None else self.epochs
        return self._batches_below(epochs * self.order.count)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if self.epochs is not None and self.order.batches >= len(self):
            raise StopIteration
        batch = self.batch_at(self.order.batches)
        self.order.batches += 1
        return batch

    def loader(
        self, workers: int = 2, *, prefetch: int = 2, tensors: bool = True, pin_memory: bool = False
    ) -> Loader:
        """The same stream from where it is now, decoded ahead by `workers` processes; see `Loader`."""
        return Loader(self, workers, prefetch=prefetch, tensors=tensors, pin_memory=pin_memory)

    def batch_at(self, number: int, images: np.ndarray | None = None) -> Batch:
        """Batch `number` of this rank: depends on nothing that was read before. `images` as `fill` gives them."""
        indices = self.order.indices(number)[: len(self._positions(number))]
        windows = self.windows.batch(indices)
        if images is None:
            images = np.empty((len(indices), *self.images_shape[1:]), np.uint8)
            self.fill(number, images)
        action = windows.action
        if self.actions == "relative":
            action = self._relative.relative(action, windows.state, windows.embodiment)
        shown = images.transpose(0, 1, 2, 5, 3, 4) if self.layout == "CHW" else images
        batch: Batch = {
            "images": shown[:, 0],
            "camera_mask": self._has_camera[windows.segment],
            "state": windows.state,
            "action": action,
            "step_mask": windows.step_mask,
            "axis_mask": windows.axis_mask,
            "embodiment": windows.embodiment,
            "instruction": [self.windows.instructions[segment] for segment in windows.segment],
            "window": indices,
            "segment": windows.segment,
            "frame": windows.frame,
        }
        if self.with_future:
            batch["future_images"] = shown[:, 1]
        return batch

    @property
    def images_shape(self) -> tuple[int, ...]:
        """(batch, 1 or with the future 2, cameras, H, W, 3): how the images of a whole batch lie in memory."""
        width, height = self.image_size
        return self.batch_size, 1 + self.with_future, len(self.cameras), height, width, 3

    def fill(self, number: int, images: np.ndarray) -> int:
        """Decode and augment the images of batch `number` into the first rows of `images`; returns how many rows."""
        positions = self._positions(number)
        windows = self.windows.batch(self.order.indices(number)[: len(positions)])
        rows = images[: len(positions)]
        for view in range(rows.shape[1]):
            self.windows.decode_into(rows[:, view], windows, self.cameras, future=view == 1)
        if self.augment is not None:
            for position, row in zip(positions.tolist(), rows, strict=True):
                self._augmented(row, position)
        return len(positions)

    def absolute_actions(self, action: Any, state: Any, embodiment: Any) -> np.ndarray:
        """Relative chunks (B, H, A) back in axis units, from the batch's state (B, A) and embodiment (B,)."""
        arrays = (np.asarray(values) for values in (action, state, embodiment))
        return self._relative.absolute(*arrays)

    def state_dict(self) -> dict[str, int]:
        """The place in the stream: which batch comes next. Small, JSON-ready, and independent of workers."""
        shape = {"batch_size": self.batch_size, "world_size": self.world_size}
        return {**self.order.state_dict(), **shape}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go to a saved place at once, also with another batch size or world size where the place falls on a batch.

        Raises:
            ConfigError: it belongs to another split, seed or mixture, or falls within a batch.
        """
        drawn = state["batches"] * state["batch_size"] * state["world_size"]
        batches, within = divmod(drawn, self.batch_size * self.world_size)
        if within:
            raise ConfigError(
                f"The saved place is after {drawn} windows, which is no whole number of "
                f"{self.world_size} × {self.batch_size}.",
                "Resume with the saved batch size and world size, or choose ones that divide it.",
            )
        self.order.load_state_dict({**state, "batches": batches})

    @cached_property
    def _relative(self) -> RelativeActions:
        return RelativeActions([_gripper_index(self.windows, name) for name in self.windows.embodiments])

    def _positions(self, number: int) -> np.ndarray:
        positions = self.order.positions(number)
        if self.epochs is not None:
            positions = positions[positions < self.epochs * self.order.count]
        return positions

    def _batches_below(self, positions: int) -> int:
        """How many of this rank's batches begin below an absolute position."""
        batches = -(-positions // self.batch_size)
        return max(0, -(-(batches - self.rank) // self.world_size))

    def _augmented(self, images: np.ndarray, position: int) -> None:
        """Augment one window's images, (1 or 2, cameras, H, W, 3); the future ones get the same random numbers."""
        assert self.augment is not None
        for view in images:
            generator = np.random.default_rng((AUGMENT_STREAM, self.seed, position))
            changed = self.augment(view, generator)
            if changed is None:
                continue
            if changed.shape != view.shape or changed.dtype != np.uint8:
                raise ConfigError(
                    f"augment returned {changed.shape} {changed.dtype}; it must keep {view.shape} uint8."
                )
            view[:] = changed


def _cameras(windows: Windows, asked: Sequence[str] | None) -> tuple[str, ...]:
    every = [segment.meta.cameras for segment in windows.segments]
    if asked is not None:
        known = set().union(*every)
        for camera in asked:
            if camera not in known:
                raise UnknownNameError("camera", camera, known)
        return tuple(asked)
    common = set(every[0]).intersection(*every)
    if not common:
        raise ConfigError(
            f"No camera is common to all samples; there are: {', '.join(sorted(set().union(*every)))}.",
            "Give cameras=(…); a sample without one gets a black image.",
        )
    return tuple(camera for camera in every[0] if camera in common)


def _gripper_index(windows: Windows, embodiment: str) -> int:
    """As the build's statistics say; of a robot without training samples as the robot's own description says."""
    statistics = windows.build.manifest.statistics
    if embodiment in statistics:
        return statistics[embodiment].gripper_index
    try:
        return load_embodiment(embodiment).gripper_index
    except UnknownNameError as error:
        raise ConfigError(
            f"'{embodiment}' has no training samples in {windows.build.folder}, and no description says which of its "
            "axes is the gripper.",
            "Read absolute actions.",
        ) from error


def _image_size(windows: Windows, asked: int | tuple[int, int] | None) -> tuple[int, int]:
    if asked is None:
        return windows.image_size()
    width, height = (asked, asked) if isinstance(asked, int) else asked
    if width < 1 or height < 1:
        raise ConfigError(f"image_size ({width} × {height}) must be at least 1 × 1.")
    return width, height


def _one_of(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise UnknownNameError(name, value, known)
