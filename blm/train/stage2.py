"""Stage II: train the policy on top of a frozen backbone.

splits ──▶ windows ──┬─ states, action chunks ──transforms──▶ ┐
                     └─ frames ──backbone (cached)──▶ H_k ──▶ ┴ policy ──▶ RUN/

RUN/
  config.json          the whole configuration
  policy.json          shape of the network, cameras, image size, robot × task pairs, backbone and its fingerprint
  policy.safetensors   weights
  average.safetensors  their moving average: what inference uses
  transforms.json      state and action transforms
  losses.jsonl         one row per logged step
  checkpoints/         for --resume
  summary.json         written last
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field

from blm.schemas.errors import CheckpointError, ConfigError, DatasetError, OutputExistsError, UnknownNameError
from blm.schemas.manifest import read_manifest, write_atomically
from blm.schemas.progress import Progress, silent
from blm.train.backbone import Backbone, load_backbone
from blm.train.batches import CachedIntent, LiveIntent, PolicyBatches
from blm.train.checkpoint import latest_checkpoint, trainable_tensors, write_tensors
from blm.train.flow_matching import FlowPolicy, PolicyBatch, PolicyConfig, PolicyShape
from blm.train.intent_cache import IntentCache
from blm.train.intent_cache_build import build_intent_cache
from blm.train.loop import (
    CONFIG_FILE,
    LoopConfig,
    TrainLoop,
    TrainSummary,
    check_device,
    forgotten_unless_begun,
)
from blm.train.policy import (
    AVERAGE_FILE,
    POLICY_FILE,
    WEIGHTS_FILE,
    BackboneReference,
    Policy,
    PolicyCard,
    load_policy,
    read_card,
)
from blm.train.shard_reader import BatchOrder, EpochOrder, ShardBuild, Windows, window_order
from blm.train.transforms import Transforms, fit_transforms

__all__ = ["Policy", "Stage2Config", "load_policy", "train_stage2", "trained_pairs", "training_actions"]


MAY_CHANGE = frozenset(
    {"output", "device", "workers", "resume", "log_every", "checkpoint_every", "keep_checkpoints"}
)
"""Settings that a resumed run may have otherwise than the run it continues."""


class Stage2Config(LoopConfig):
    """One Stage II run. `blm.train.recipes.stage2_config` fills it from a named recipe."""

    splits: Path = Field(description="folder of a Stage II build")
    output: Path = Field(description="folder of the run")
    recipe: str = Field(default="tiny", description="the recipe this came from; for the record")
    backbone: str = Field(default="tiny", description="tiny, a folder in Hugging Face form, or a hub id")
    tap: int | None = Field(
        default=None, ge=1, description="block whose output is H_k; default: half the depth"
    )
    policy: PolicyConfig = PolicyConfig()
    horizon: int = Field(default=16, ge=1, description="steps in an action chunk")
    frame_stride: int = Field(default=1, ge=1, description="every n-th frame starts a window")
    mixture: dict[str, float] | Literal["natural"] | None = Field(
        default=None,
        description="share of the windows by group or pattern, '*/panda/*'; natural: each window once per epoch; "
        "default: what the splits were built with",
    )
    cameras: tuple[str, ...] | None = Field(default=None, description="default: those that all robots have")
    relative_actions: bool = Field(default=True, description="arm actions as differences from the state")
    clip: float = Field(default=1.5, gt=0, description="limit of normalised values; 1 is the 1–99 % range")
    batch_size: int = Field(default=64, ge=1)
    intent_cache: bool = Field(
        default=True, description="run the frozen backbone once per frame, not per step"
    )
    cache_folder: Path | None = Field(default=None, description="default: next to the shards")
    validation_windows: int = Field(default=512, ge=0, description="at most this many are sampled at the end")
    workers: int = Field(default=0, ge=0, description="threads that prepare batches ahead")
    device: str = "cpu"
    resume: bool = Field(default=False, description="go on from the newest checkpoint in `output`")


def train_stage2(config: Stage2Config, progress: Progress | None = None) -> TrainSummary:
    """Train a policy and write its run.

    Raises:
        OutputExistsError: `output` holds a run already and `resume` is not set.
        CheckpointError: `resume` is set and the run there had other settings; names the first.
        DatasetError, UnknownNameError, ConfigError: the splits or a setting do not fit.
    """
    began, progress = time.monotonic(), progress or silent
    read_manifest(config.splits, "stage2-splits")  # fails before anything is written
    check_device(config.device)
    _prepare_output(config)
    torch.manual_seed(config.seed)
    with forgotten_unless_begun(config.output), ShardBuild(config.splits) as build:
        windows = _windows(config, build, "train")
        cameras = _cameras(config, windows)
        size, order = _image_size(windows), _order(config, windows)
        backbone = load_backbone(config.backbone, tap=config.tap, device=config.device)
        source = _intent_source(config, backbone, build, cameras, progress)
        transforms = fit_transforms(
            windows, relative=config.relative_actions, clip=config.clip, seed=config.seed
        )
        card = _card(config, windows, cameras, size, backbone)
        transforms.write(config.output)
        model = FlowPolicy(config.policy, card.shape).to(config.device)
        batches = _batches(config, windows, order, source, transforms)
        loop = TrainLoop(
            model, batches, config, config.output, samples_per_batch=config.batch_size, progress=progress
        )
        if config.resume:
            loop.resume()
        losses = _train(config, loop)
        _write_policy(config.output, card, model, loop)
        averaged = loop.average.model if loop.average is not None else model
        validation = _validate(config, build, averaged, source, transforms, cameras, progress)
    summary = TrainSummary(
        config.output, loop.step, losses, validation, loop.samples_per_second, time.monotonic() - began
    )
    summary.write()
    return summary


def trained_pairs(run: Path) -> tuple[tuple[str, str], ...]:
    """The (robot, task) pairs that a run's training split held, sorted.

    Raises:
        CheckpointError: `run` is no finished Stage II run.
    """
    return read_card(Path(run)).pairs


def training_actions(run: Path, robot: str, task: str) -> list[np.ndarray]:
    """Actions (T, A), axis units, of every training episode of a pair.

    Raises:
        CheckpointError: `run` is no finished Stage II run.
        DatasetError: its splits are not there any more, or hold nothing of that pair.
    """
    card = read_card(Path(run))
    with ShardBuild(card.splits) as build:
        found = [
            build.action(segment)
            for segment in build.segments("train")
            if (segment.meta.embodiment, segment.meta.task) == (robot, task)
        ]
    if not found:
        raise DatasetError(f"{card.splits} holds no training episode of {robot} × {task}.")
    return found


def _prepare_output(config: Stage2Config) -> None:
    """Refuse to mix runs; write config.json."""
    path = config.output / CONFIG_FILE
    content = config.model_dump(mode="json")
    if path.is_file():
        if not config.resume:
            raise OutputExistsError(
                f"{config.output} holds a run already.", "Choose another --output, or add --resume."
            )
        before = json.loads(path.read_text(encoding="utf-8"))
        if latest_checkpoint(config.output) is not None:
            _same_settings(config.output, before, content)
    write_atomically(path, json.dumps(content, indent=1, sort_keys=True).encode() + b"\n")


def _same_settings(run: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    for key in sorted((before.keys() | now.keys()) - MAY_CHANGE):
        if before.get(key) != now.get(key):
            raise CheckpointError(
                f"{run} was trained with {key} = {before.get(key)!r}, not {now.get(key)!r}.",
                "Resume with the same settings, or choose another --output.",
            )


def _windows(config: Stage2Config, build: ShardBuild, split: str) -> Windows:
    return Windows(build, split, config.horizon, frame_stride=config.frame_stride)


def _cameras(config: Stage2Config, windows: Windows) -> tuple[str, ...]:
    """The cameras to look through: those asked for, or all that every sample has, in the first sample's order."""
    first = windows.segments[0].meta.cameras
    common = set(first).intersection(*(segment.meta.cameras for segment in windows.segments))
    for camera in config.cameras or ():
        if camera not in common:
            raise UnknownNameError("camera", camera, common)
    cameras = config.cameras or tuple(camera for camera in first if camera in common)
    if not cameras:
        raise ConfigError(f"{config.splits}: no camera is common to all samples.", "Give --set cameras=[…].")
    return cameras


def _intent_source(
    config: Stage2Config,
    backbone: Backbone,
    build: ShardBuild,
    cameras: tuple[str, ...],
    progress: Progress,
) -> CachedIntent | LiveIntent:
    if not config.intent_cache:
        return LiveIntent(backbone, cameras)
    folder = config.cache_folder or config.splits / "intent"
    cache: IntentCache = build_intent_cache(
        backbone, build, folder, cameras, frame_stride=config.frame_stride, progress=progress
    )
    return CachedIntent(cache)


def _image_size(windows: Windows) -> tuple[int, int]:
    """(width, height) of all stored images, pixels."""
    sizes = {segment.meta.image_size for segment in windows.segments}
    if len(sizes) != 1:
        listed = ", ".join(f"{width} × {height}" for width, height in sorted(sizes))
        raise DatasetError(
            f"{windows.build.folder} holds images of several sizes: {listed}.",
            "Build the splits with one size: blm curate build-splits … --image-size PIXELS",
        )
    return sizes.pop()


def _card(
    config: Stage2Config,
    windows: Windows,
    cameras: tuple[str, ...],
    image_size: tuple[int, int],
    backbone: Backbone,
) -> PolicyCard:
    metas = [segment.meta for segment in windows.segments]
    return PolicyCard(
        config=config.policy,
        shape=PolicyShape(
            horizon=config.horizon,
            axes=windows.axes,
            embodiments=len(windows.embodiments),
            intent_width=backbone.width,
            segments=1 + len(cameras),
        ),
        cameras=cameras,
        image_size=image_size,
        pairs=tuple(sorted({(meta.embodiment, meta.task) for meta in metas})),
        splits=config.splits.resolve(),
        backbone=BackboneReference(
            spec=str(Path(config.backbone).resolve()) if Path(config.backbone).is_dir() else config.backbone,
            tap=backbone.tap,
            fingerprint=backbone.fingerprint,
        ),
    )


def _order(config: Stage2Config, windows: Windows) -> BatchOrder:
    mixture = "manifest" if config.mixture is None else config.mixture
    return window_order(
        windows, config.batch_size, config.seed, mixture=None if mixture == "natural" else mixture
    )


def _batches(
    config: Stage2Config,
    windows: Windows,
    order: BatchOrder,
    source: CachedIntent | LiveIntent,
    transforms: Transforms,
) -> PolicyBatches:
    return PolicyBatches(
        windows,
        order,
        source,
        transforms,
        device=config.device,
        future=config.policy.future_weight > 0,
        workers=config.workers,
    )


def _train(config: Stage2Config, loop: TrainLoop[PolicyBatch]) -> dict[str, float]:
    model = loop.model
    assert isinstance(model, FlowPolicy)
    averaged = loop.average.model if loop.average is not None else model
    assert isinstance(averaged, FlowPolicy)

    def loss(batch: PolicyBatch, draw: int) -> dict[str, torch.Tensor]:
        # Noise depends on the seed and the draw alone: the same after a resume, whatever the device.
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + draw)
        return model.loss(batch, generator, averaged.bridge)

    return loop.run(loss)


def _write_policy(output: Path, card: PolicyCard, model: FlowPolicy, loop: TrainLoop[PolicyBatch]) -> None:
    write_tensors(output / WEIGHTS_FILE, trainable_tensors(model))
    averaged = loop.average.state_dict() if loop.average is not None else trainable_tensors(model)
    write_tensors(output / AVERAGE_FILE, averaged)
    write_atomically(output / POLICY_FILE, card.model_dump_json(indent=1).encode() + b"\n")


def _validate(
    config: Stage2Config,
    build: ShardBuild,
    model: torch.nn.Module,
    source: CachedIntent | LiveIntent,
    transforms: Transforms,
    cameras: tuple[str, ...],
    progress: Progress,
) -> dict[str, float]:
    """Mean absolute error of sampled chunks on the validation split, in axis units, beside that of holding still."""
    assert isinstance(model, FlowPolicy)
    if not config.validation_windows or not build.manifest.splits.get("val"):
        return {}
    metas = [segment.meta for segment in build.segments("val")]
    if not any(one.embodiment in transforms.names and {*cameras} <= {*one.cameras} for one in metas):
        return {}
    windows = Windows(
        build,
        "val",
        config.horizon,
        frame_stride=config.frame_stride,
        embodiments=transforms.names,
        others="leave",
        cameras=cameras,
    )
    count = min(len(windows), config.validation_windows)
    chosen = EpochOrder(len(windows), count, config.seed).at(np.arange(count))
    model.eval()
    errors, still = [], []
    for first in range(0, count, config.batch_size):
        indices = chosen[first : first + config.batch_size]
        raw = windows.batch(indices)
        encoded = torch.from_numpy(transforms.encode_state(raw.state, raw.embodiment)).to(config.device)
        intent = source.finish(source.prepare(windows, raw, future=False)).to(config.device)
        generator = torch.Generator().manual_seed(config.seed + first)
        noise = torch.randn(len(indices), config.horizon, windows.axes, generator=generator)
        embodiment = torch.from_numpy(raw.embodiment).to(config.device)
        chunk = model.sample(intent, encoded, embodiment, noise=noise, limit=transforms.clip).cpu().numpy()
        valid = raw.step_mask[:, :, None] & raw.axis_mask[:, None]
        errors.append(np.abs(transforms.decode_action(chunk, raw.state, raw.embodiment) - raw.action)[valid])
        still.append(np.abs(raw.state[:, None] - raw.action)[valid])
        progress("validation", min(count, first + config.batch_size), count)
    return {
        "action_error": float(np.concatenate(errors).mean()),
        "holding_still_error": float(np.concatenate(still).mean()),
        "windows": count,
    }
