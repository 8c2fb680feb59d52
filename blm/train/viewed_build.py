"""A Stage II build as the viewer shows it: sample by sample, read as training reads it."""

from __future__ import annotations

import json
from collections import Counter
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from blm.pages.viewer.curves import axis_curves, bands
from blm.pages.viewer.signals import EpisodeSignals, axis_paths, column_signals
from blm.pages.viewer.source import PictureStream, Stream
from blm.schemas.embodiment import load_embodiment
from blm.schemas.errors import BlmError, DatasetError, UsageError
from blm.schemas.shard import SUBTASK_SUFFIX, SegmentMeta
from blm.train.shard_build import Segment, ShardBuild

STATE, ACTION = "state", "action"


class ViewedBuild:
    """The samples of a build in its shards' order, numbered from 0; those of a split lie together."""

    def __init__(self, build: ShardBuild) -> None:
        """Read what is known about every sample.

        Raises:
            DatasetError: a file of the build is missing or damaged.
        """
        self.build = build
        self.samples: tuple[Segment, ...] = build.segments()

    @property
    def name(self) -> str:
        location = str(self.build.folder).rstrip("/")
        return location if "://" in location else Path(location).resolve().name

    def numbers(self) -> range:
        return range(len(self.samples))

    def check(self, episode: int) -> None:
        """Raises UsageError if there is no such sample."""
        self.sample(episode)

    def sample(self, episode: int) -> Segment:
        """The sample of that number.

        Raises:
            UsageError: no such sample; names those there are.
        """
        if not 0 <= episode < len(self.samples):
            there = f"0 to {len(self.samples) - 1}" if self.samples else "none"
            raise UsageError(f"sample {episode} not found; {self.name} has: {there}.", "Choose one of these.")
        return self.samples[episode]

    def overview(self) -> dict[str, Any]:
        """The heading, and a list per column of the samples' table."""
        metas = [sample.meta for sample in self.samples]
        nothing = [None] * len(metas)
        return {
            "name": self.name,
            "about": self._about(metas),
            "noun": "sample",
            "episodes": {
                "index": list(self.numbers()),
                "seconds": [round(meta.frames / meta.rate_hz, 3) for meta in metas],
                "instruction": [meta.instruction for meta in metas],
                "task": [meta.task for meta in metas],
                "success": [meta.success for meta in metas],
                "operator": nothing,
                "seed": [meta.seed if meta.seed >= 0 else None for meta in metas],
                "late": nothing,
                "repeated": nothing,
                "split": [meta.split for meta in metas],
                "robot": [meta.embodiment for meta in metas],
                "source": [f"{meta.dataset}, episode {meta.episode}" for meta in metas],
            },
        }

    def content(self, episode: int) -> dict[str, Any]:
        """Curves, bands and lineage of a sample.

        Raises:
            UsageError: no such sample.
            DatasetError: its shard is missing or cut short.
        """
        sample = self.sample(episode)
        meta, values = sample.meta, self._arrays(sample)
        names = {STATE: meta.axis_names, ACTION: meta.axis_names}
        return {
            "index": episode,
            "fps": meta.rate_hz,
            "frames": meta.frames,
            "axes": axis_curves(names, values, _units(meta.embodiment)),
            "groups": [],
            "bands": self._bands(sample),
            "interventions": [],
            "success_from": None,
            "facts": self._lineage(sample),
            "objects": [],
        }

    def signals(self, episode: int) -> EpisodeSignals:
        """As `content`, in full."""
        sample = self.sample(episode)
        meta, names = sample.meta, sample.meta.axis_names
        units = _units(meta.embodiment)
        signals = [
            signal
            for kind, values in self._arrays(sample).items()
            for signal in column_signals(kind, names, values.astype(np.float64), units)
        ]
        kinds = {STATE: STATE, ACTION: ACTION}
        told = (
            "dataset",
            "episode",
            "start",
            "stop",
            "split",
            "embodiment",
            "task",
            "instruction",
            "success",
        )
        facts = {"sample": sample.key} | {name: getattr(meta, name) for name in told}
        paths = axis_paths(kinds, dict.fromkeys(kinds, names))
        return EpisodeSignals(meta.rate_hz, meta.frames, signals, paths, self._bands(sample), None, facts)

    def streams(self, episode: int) -> list[Stream]:
        """The sample's cameras: pictures as they are stored."""
        sample = self.sample(episode)
        ending = "webp" if sample.meta.image_format == "webp" else "jpg"
        return [
            PictureStream(
                camera, sample.meta.frames, ending, partial(self.build.encoded_image, sample, camera)
            )
            for camera in sample.meta.cameras
        ]

    def _about(self, metas: list[SegmentMeta]) -> str:
        splits = Counter(meta.split for meta in metas)
        counted = ", ".join(f"{count:,} {split}" for split, count in splits.items())
        counts = self.build.manifest.counts
        dropped = ", ".join(f"{count:,} {reason}" for reason, count in sorted(counts.dropped.items()))
        frames = sum(meta.frames for meta in metas)
        left_out = f"; left out: {dropped}" if dropped else ""
        return f"build of {counts.inputs:,} episodes: {counted}; {frames:,} frames{left_out}"

    def _arrays(self, sample: Segment) -> dict[str, np.ndarray]:
        """State and action, (frames, axes) each, held against what the sample says about itself."""
        try:
            arrays = {STATE: self.build.state(sample), ACTION: self.build.action(sample)}
        except KeyError as error:
            raise DatasetError(f"{sample.key} has no member {error}.", "Build the splits again.") from error
        wanted = sample.meta.frames, len(sample.meta.axis_names)
        for kind, values in arrays.items():
            if values.shape != wanted:
                raise DatasetError(
                    f"{sample.key}: {kind} has the shape {values.shape}, not {wanted}.",
                    "Build the splits again.",
                )
        return arrays

    def _bands(self, sample: Segment) -> list[dict[str, Any]]:
        if not sample.meta.subtasks or SUBTASK_SUFFIX not in sample.members:
            return []
        (track,) = self.build.arrays([sample], SUBTASK_SUFFIX)
        return bands(track, dict(enumerate(sample.meta.subtasks)))

    def _lineage(self, sample: Segment) -> list[list[str]]:
        """Where the sample comes from and how it is stored, as lines of a small table."""
        meta = sample.meta
        stored = sum(member.size for member in sample.members.values())
        width, height = meta.image_size
        facts = {
            "split": meta.split,
            "dataset": meta.dataset,
            "episode there": str(meta.episode),
            "frames of it": f"{meta.start} to {meta.stop - 1}"
            + (f", every {meta.stride}." if meta.stride > 1 else ""),
            "length": f"{meta.frames} frames at {meta.rate_hz:g} Hz, {meta.frames / meta.rate_hz:.2f} s",
            "instruction as recorded": meta.recorded_instruction
            if meta.recorded_instruction != meta.instruction
            else "",
            "pictures": f"{width} × {height}, {'lossless WebP' if meta.image_format == 'webp' else 'JPEG'}",
            "warnings": _warnings(meta),
            "sample": sample.key,
            "shard": ", ".join(sorted({member.shard for member in sample.members.values()})),
            "size": f"{stored / 1e6:.2f} MB",
        }
        return [[name, value] for name, value in facts.items() if value]


@cache
def _units(embodiment: str) -> dict[str, str]:
    """By axis; empty for robots that were inferred from a dataset."""
    try:
        return {axis.name: axis.unit for axis in load_embodiment(embodiment).axes}
    except BlmError:
        return {}


def _warnings(meta: SegmentMeta) -> str:
    """What was found about the pictures, in words."""
    try:
        found = json.loads(meta.picture_findings or "[]")
        return ", ".join(f"{reason} ({camera})" for reason, _, camera in found)
    except (ValueError, TypeError):
        return meta.picture_findings
