"""Making the cache of hidden states: one pass of the frozen backbone over every frame of a Stage II build."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from blm.schemas.errors import DatasetError
from blm.schemas.manifest import write_atomically
from blm.schemas.progress import Progress, silent
from blm.schemas.shard import META_SUFFIX
from blm.train.backbone import IntentEncoder
from blm.train.intent_cache import IntentCache
from blm.train.intent_cache_files import (
    CHANNELS_FILE,
    MANIFEST_FILE,
    CachedSample,
    CachedShard,
    CacheManifest,
    Layouts,
    cache_identity,
    cache_key,
    load_array,
)
from blm.train.shard_reader import Segment, ShardBuild

STATISTICS_FRAMES = 64
"""Frames over which the channels of hidden states are standardised."""


def build_intent_cache(
    backbone: IntentEncoder,
    build: ShardBuild,
    folder: Path,
    cameras: Sequence[str],
    *,
    frame_stride: int = 1,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> IntentCache:
    """Make the cache under `folder` that fits, or finish it, or find it there, and open it.

    Killed at any time, it goes on with the first shard that is missing. Caches of other backbones, builds or cameras
    lie beside each other under `folder`; delete those you no longer need.

    Raises:
        DatasetError: a sample lacks a camera, images differ in size, or a file is damaged.
    """
    identity = cache_identity(backbone, build, cameras, frame_stride)
    place = Path(folder) / cache_key(identity)
    if not (place / MANIFEST_FILE).is_file():
        place.mkdir(parents=True, exist_ok=True)
        maker = _Maker(backbone, build, place, tuple(cameras), frame_stride, batch_size, progress or silent)
        maker.run(identity)
    return IntentCache.open(folder, backbone, cameras, build=build, frame_stride=frame_stride)


class _Maker:
    """Makes one cache; the parameters are those of `build_intent_cache`."""

    def __init__(
        self,
        backbone: IntentEncoder,
        build: ShardBuild,
        folder: Path,
        cameras: tuple[str, ...],
        stride: int,
        batch_size: int,
        progress: Progress,
    ) -> None:
        self.backbone, self.build, self.folder, self.cameras = backbone, build, folder, cameras
        self.stride, self.batch_size, self.progress = stride, batch_size, progress
        every = (segment for segment in build.segments() if {*cameras} <= {*segment.meta.cameras})
        self.segments = tuple(every)  # a held-out robot may lack the cameras that training looks through
        self.lengths = {segment.key: len(build.state(segment)) for segment in self.segments}
        self.total = sum(self._count(segment) for segment in self.segments)
        if not self.total:
            raise DatasetError(
                f"{build.folder} holds no frames of {', '.join(cameras)}.",
                "Choose other cameras, or collect more.",
            )
        self.done = 0

    def run(self, identity: dict[str, Any]) -> None:
        self.layouts = self._made_layouts()
        self._write_channels()
        by_shard: dict[str, list[Segment]] = {}
        for segment in self.segments:
            by_shard.setdefault(Path(segment.members[META_SUFFIX].shard).stem, []).append(segment)
        for name, segments in by_shard.items():
            if not (self.folder / f"{name}.json").is_file():
                self._write_shard(name, segments)
            self.done += sum(map(self._count, segments))
        arrays = [self.folder / f"{name}.{kind}.npy" for name in by_shard for kind in ("tokens", "scales")]
        manifest = CacheManifest(
            **identity,
            views=1,
            width=self.backbone.width,
            frames=self.total,
            bytes_per_frame=round(sum(path.stat().st_size for path in arrays) / self.total),
            shards=tuple(by_shard),
        )
        content = json.dumps(manifest.model_dump(mode="json"), indent=1, sort_keys=True)
        write_atomically(self.folder / MANIFEST_FILE, content.encode() + b"\n")

    def _count(self, segment: Segment) -> int:
        return -(-self.lengths[segment.key] // self.stride)

    def _images(self, segment: Segment, frames: Sequence[int]) -> np.ndarray:
        """(frames, cameras, H, W, 3) uint8."""
        views = [self.build.images(segment, camera, frames) for camera in self.cameras]
        if len({view.shape for view in views}) > 1:
            shapes = ", ".join(f"{c} {v.shape[1:3]}" for c, v in zip(self.cameras, views, strict=True))
            raise DatasetError(f"sample '{segment.key}': cameras differ in size ({shapes}).")
        return np.stack(views, axis=1)

    def _made_layouts(self) -> Layouts:
        """One frame of each wording shows where its tokens are, and gives those before the first image."""
        first: dict[str, Segment] = {}
        for segment in self.segments:
            first.setdefault(segment.meta.instruction, segment)
        seen = [
            self.backbone.intent(self._images(segment, [0]), [wording]).to("cpu")
            for wording, segment in first.items()
        ]
        length = torch.tensor([int(tokens.mask.sum()) for tokens in seen])
        count = min(int((tokens.segment[0] > 0).int().argmax()) for tokens in seen)
        segment = torch.zeros(len(seen), int(length.max()), dtype=torch.int64)
        position = torch.zeros(len(seen), int(length.max()), 2)
        for row, tokens in enumerate(seen):
            segment[row, : length[row]] = tokens.segment[0]
            position[row, : length[row]] = tokens.position[0]
        prefix = torch.stack([tokens.hidden[0, :count] for tokens in seen])
        layouts = Layouts(list(first), length, prefix, segment, position)
        layouts.write(self.folder)
        return layouts

    def _write_channels(self) -> None:
        """Mean and spread of H_k's channels over frames spread evenly over the build."""
        if (self.folder / CHANNELS_FILE).is_file():
            return
        segments = self.segments
        picks = np.unique(np.linspace(0, len(segments) - 1, STATISTICS_FRAMES).round().astype(int))
        per_segment = -(-STATISTICS_FRAMES // len(picks))
        seen: list[torch.Tensor] = []
        for pick in picks:
            segment = segments[pick]
            frames = np.unique(np.linspace(0, self.lengths[segment.key] - 1, per_segment).astype(int))
            tokens = self.backbone.intent(
                self._images(segment, [int(f) for f in frames]), [segment.meta.instruction] * len(frames)
            )
            seen.append(tokens.hidden[:, self.layouts.prefix_length :].flatten(0, 1).cpu())
        every = torch.cat(seen)
        std = every.std(dim=0).clamp_min(1e-6 * float(every.std()))
        self._save(CHANNELS_FILE, torch.stack([every.mean(dim=0), std]).numpy())

    def _write_shard(self, name: str, segments: list[Segment]) -> None:
        mean, std = (torch.from_numpy(row) for row in load_array(self.folder / CHANNELS_FILE, mapped=False))
        rows = sum(map(self._count, segments))
        prefix, wordings = self.layouts.prefix_length, self.layouts.wordings
        lengths = [self.layouts.length[wordings.index(segment.meta.instruction)] for segment in segments]
        longest = int(max(lengths)) - prefix
        tokens = self._mapped(f"{name}.tokens.npy", np.int8, (1, rows, longest, self.backbone.width))
        scales = self._mapped(f"{name}.scales.npy", np.float32, (1, rows, longest))
        done = 0
        for images, instructions in self._batches(segments):
            hidden = self.backbone.intent(images, instructions).hidden.cpu()[:, prefix:]
            quantised, scale = quantise((hidden - mean) / std)
            batch = slice(done, done + len(images))
            tokens[0, batch, : hidden.shape[1]] = quantised.numpy()
            scales[0, batch, : hidden.shape[1]] = scale.numpy()
            done += len(images)
            self.progress("caching intent", self.done + done, self.total, "frames")
        for array, kind in ((tokens, "tokens"), (scales, "scales")):
            array.flush()
            os.replace(self.folder / f"{name}.{kind}.npy.tmp", self.folder / f"{name}.{kind}.npy")
        content = CachedShard(samples=tuple(self._samples(segments))).model_dump_json()
        write_atomically(self.folder / f"{name}.json", content.encode())

    def _samples(self, segments: list[Segment]) -> Iterator[CachedSample]:
        first = 0
        for segment in segments:
            count = self._count(segment)
            yield CachedSample(
                key=segment.key,
                instruction=segment.meta.instruction,
                first=first,
                count=count,
                frames=self.lengths[segment.key],
            )
            first += count

    def _batches(self, segments: list[Segment]) -> Iterator[tuple[np.ndarray, list[str]]]:
        """All frames of some samples in order, `batch_size` at a time, across the samples' ends."""
        images: list[np.ndarray] = []
        instructions: list[str] = []
        for segment in segments:
            frames = range(0, self.lengths[segment.key], self.stride)
            for start in range(0, len(frames), self.batch_size):
                images.extend(self._images(segment, frames[start : start + self.batch_size]))
                if images[-1].shape != images[0].shape:
                    raise DatasetError(
                        f"sample '{segment.key}' has images of {images[-1].shape[1:3]}, others before it of "
                        f"{images[0].shape[1:3]}.",
                        "Build the splits with one image size.",
                    )
                instructions += [segment.meta.instruction] * (len(images) - len(instructions))
                while len(images) >= self.batch_size:
                    yield np.stack(images[: self.batch_size]), instructions[: self.batch_size]
                    images, instructions = images[self.batch_size :], instructions[self.batch_size :]
        if images:
            yield np.stack(images), instructions

    def _mapped(self, name: str, kind: type, shape: tuple[int, ...]) -> np.memmap:
        return np.lib.format.open_memmap(self.folder / f"{name}.tmp", mode="w+", dtype=kind, shape=shape)

    def _save(self, name: str, array: np.ndarray) -> None:
        beside = self.folder / f"{name}.tmp"
        with beside.open("wb") as stream:
            np.save(stream, array)
        os.replace(beside, self.folder / name)


def quantise(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Int8 with one scale per token: (…, d) float to (…, d) int8 and (…,) float32, values ≈ int8 · scale."""
    scale = values.abs().amax(dim=-1).clamp_min(1e-12) / 127
    return torch.round(values / scale[..., None]).to(torch.int8), scale
