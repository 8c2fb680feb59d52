"""Which order a split's windows are drawn in: that of the build's mixture, of given weights, or each once per epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from blm.train.epoch_order import BatchOrder, EpochOrder
from blm.train.mixture_order import MixtureOrder, group_items, mixture_weights
from blm.train.shard_build import Segment
from blm.train.windows import Windows

TRAINING_SPLIT = "train"
"""Mixtures are of training windows; what is evaluated is not weighted unless that is asked for."""


def window_order(
    windows: Windows,
    batch_size: int,
    seed: int,
    *,
    mixture: Mapping[str, float] | Literal["manifest"] | None = "manifest",
    part: int = 0,
    parts: int = 1,
) -> BatchOrder:
    """The order in which a split's windows are drawn.

    `mixture` is None (each window once per epoch), weights by `<dataset>/<embodiment>/<task>` or by patterns of that
    (`*/panda/*`), or 'manifest': what the build was made with, for its training split. Another split, a build without
    a mixture, or with the natural one, has each window once per epoch.

    Raises:
        UnknownNameError, ConfigError: the weights do not fit the split's groups.
    """
    stored = windows.build.manifest.mixture
    if mixture == "manifest":
        shared = stored is not None and stored.strategy != "natural" and windows.split == TRAINING_SPLIT
        mixture = stored.weights if stored is not None and shared else None
    if mixture is None:
        return EpochOrder(len(windows), batch_size, seed, part=part, parts=parts)
    groups = group_items([_group(segment) for segment in windows.segments], windows.window_segment)
    weights = mixture_weights(groups, mixture)
    return MixtureOrder(groups, weights, batch_size, seed, part=part, parts=parts)


def _group(segment: Segment) -> str:
    meta = segment.meta
    return f"{meta.dataset}/{meta.embodiment}/{meta.task}"
