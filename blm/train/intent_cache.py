"""Hidden states of the frozen backbone, read from the cache that `intent_cache_build` makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from blm.schemas.errors import DatasetError
from blm.train.backbone import IntentEncoder, IntentTokens
from blm.train.intent_cache_files import (
    CHANNELS_FILE,
    CacheManifest,
    Layouts,
    cache_identity,
    cache_key,
    load_array,
    read_manifest,
    read_shard,
)
from blm.train.shard_reader import ShardBuild


@dataclass(frozen=True)
class _Place:
    shard: int
    first: int
    frames: int
    layout: int


class IntentCache:
    """Reads a complete cache. Safe to use from several threads.

    Attributes:
        manifest: what the cache was made from.
    """

    def __init__(self, folder: Path, manifest: CacheManifest) -> None:
        self.folder, self.manifest = folder, manifest
        mean, std = load_array(folder / CHANNELS_FILE, mapped=False)
        self._mean, self._std = torch.from_numpy(mean), torch.from_numpy(std)
        self._layouts = Layouts.read(folder)
        self._tokens = [load_array(folder / f"{name}.tokens.npy") for name in manifest.shards]
        self._scales = [load_array(folder / f"{name}.scales.npy") for name in manifest.shards]
        wordings = {wording: i for i, wording in enumerate(self._layouts.wordings)}
        self._places = {
            sample.key: _Place(index, sample.first, sample.frames, wordings[sample.instruction])
            for index, name in enumerate(manifest.shards)
            for sample in read_shard(folder, name).samples
        }

    @classmethod
    def open(
        cls,
        folder: Path,
        backbone: IntentEncoder,
        cameras: Sequence[str],
        *,
        build: ShardBuild,
        frame_stride: int = 1,
    ) -> IntentCache:
        """Open the cache under `folder` that fits the backbone, build, cameras and stride.

        Raises:
            DatasetError: there is none, it is unfinished, or its manifest speaks of something else.
        """
        wanted = cache_identity(backbone, build, cameras, frame_stride)
        place = folder / cache_key(wanted)
        manifest = read_manifest(place)
        for name, value in wanted.items():
            found = manifest.model_dump(mode="json")[name]
            if found != value:
                raise DatasetError(
                    f"{place} was made with {name} {found}, not {value}.",
                    "Delete that folder; it will be made anew.",
                )
        return cls(place, manifest)

    def read(self, key: str, frames: Sequence[int] | np.ndarray, view: int = 0) -> IntentTokens:
        """H_k of some frames of one sample; see `gather`."""
        return self.gather([key] * len(frames), frames, view)

    def gather(self, keys: Sequence[str], frames: Sequence[int] | np.ndarray, view: int = 0) -> IntentTokens:
        """H_k of B frames: frame `frames[i]` of sample `keys[i]`; on the CPU, as `Backbone.intent` would give it.

        Raises:
            DatasetError: a sample that is not in the cache, or a frame it does not hold; names them.
        """
        places = [self._place(key) for key in keys]
        rows = np.array([self._row(*item) for item in zip(keys, places, frames, strict=True)])
        layouts, prefix = self._layouts, self._layouts.prefix_length
        layout = torch.tensor([place.layout for place in places])
        longest = int(layouts.length[layout].max())
        tokens, scales = self._stored(np.array([p.shard for p in places]), rows, longest - prefix, view)
        hidden = torch.empty(len(rows), longest, self.manifest.width)
        hidden[:, :prefix] = layouts.prefix[layout]
        values = hidden[:, prefix:]
        torch.mul(tokens, scales[..., None], out=values)
        values.mul_(self._std).add_(self._mean)
        mask = torch.arange(longest) < layouts.length[layout, None]
        hidden.masked_fill_(~mask[..., None], 0.0)
        return IntentTokens(
            hidden, mask, layouts.segment[layout, :longest], layouts.position[layout, :longest]
        )

    def _stored(
        self, shards: np.ndarray, rows: np.ndarray, count: int, view: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The first `count` tokens of rows of shards, (B, count, d) int8, and their scales, zero where none are."""
        tokens = np.zeros((len(rows), count, self.manifest.width), np.int8)
        scales = np.zeros((len(rows), count), np.float32)
        for shard in np.unique(shards):
            of_shard = np.flatnonzero(shards == shard)
            held = min(count, self._tokens[shard].shape[2])
            tokens[of_shard, :held] = self._tokens[shard][view, rows[of_shard], :held]
            scales[of_shard, :held] = self._scales[shard][view, rows[of_shard], :held]
        return torch.from_numpy(tokens), torch.from_numpy(scales)

    def _place(self, key: str) -> _Place:
        place = self._places.get(key)
        if place is None:
            raise DatasetError(f"sample '{key}' is not in the intent cache {self.folder}.", "Build it again.")
        return place

    def _row(self, key: str, place: _Place, frame: int) -> int:
        row, rest = divmod(int(frame), self.manifest.frame_stride)
        if rest or not 0 <= frame < place.frames:
            raise DatasetError(
                f"frame {frame} of sample '{key}' is not in the intent cache {self.folder}: it holds every "
                f"{self.manifest.frame_stride}. frame of {place.frames}."
            )
        return place.first + row
