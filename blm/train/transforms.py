"""Between axis units and what the network sees: the same frozen objects in training and at inference.

    training   state, action ──relative──▶ ──normalise──▶ ──pad──▶ network
    inference  network ──cut──▶ ──denormalise──▶ ──absolute──▶ action in axis units

They are built once from the training split, saved with the weights as `transforms.json`, and never change what they
are given. Arrays carry a leading batch; `embodiment` (B,) says which robot each row belongs to.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
from pydantic import Field

from blm.schemas.errors import CheckpointError, UnknownNameError
from blm.schemas.manifest import EmbodimentStatistics, write_atomically
from blm.schemas.yaml_model import FrozenModel, validate
from blm.train.shard_reader import Windows

TRANSFORMS_FILE = "transforms.json"

FLAT = 0.02
"""An axis that moves less than this share of its robot's widest axis is scaled as if it moved this much: otherwise
the jitter of a still axis would be blown up to the full range and the policy would spend its capacity on noise."""


class Ranges(FrozenModel):
    """What maps to −1 (`low`) and to +1 (`high`), per axis, axis units."""

    low: tuple[float, ...]
    high: tuple[float, ...]


class AxisTransform(FrozenModel):
    """Everything about one embodiment that the transforms need."""

    embodiment: str
    axis_names: tuple[str, ...]
    gripper_index: int
    rate_hz: float
    state: Ranges
    action: Ranges = Field(description="of action minus state on the arm's axes where `relative`")


class Transforms(FrozenModel):
    """State and action transforms of all embodiments of a run.

    Attributes:
        relative: arm actions are predicted as differences from the state at the start of the chunk; the gripper's
            always absolutely.
        clip: normalised values are limited to ±clip on the way in (never on the way out).
    """

    embodiments: tuple[AxisTransform, ...]
    relative: bool = True
    clip: float = Field(default=1.5, gt=0)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(each.embodiment for each in self.embodiments)

    @cached_property
    def axes(self) -> int:
        """The largest axis count A: the width everything is padded to."""
        return max(len(each.axis_names) for each in self.embodiments)

    def index(self, embodiment: str) -> int:
        """Position of an embodiment; raises UnknownNameError listing those the run was trained on."""
        if embodiment not in self.names:
            raise UnknownNameError("embodiment", embodiment, self.names)
        return self.names.index(embodiment)

    def pad(self, values: np.ndarray) -> np.ndarray:
        """(…, axes of one robot) → (…, A): zeros after its own axes."""
        width = [(0, 0)] * (values.ndim - 1) + [(0, self.axes - values.shape[-1])]
        return np.pad(np.asarray(values, dtype=np.float32), width)

    def cut(self, values: np.ndarray, embodiment: int) -> np.ndarray:
        """(…, A) → (…, axes of that robot): the inverse of `pad`."""
        return values[..., : len(self.embodiments[embodiment].axis_names)].copy()

    def encode_state(self, state: np.ndarray, embodiment: np.ndarray) -> np.ndarray:
        """(B, A) axis units → (B, A) float32, about −1..1."""
        low, high = self._table("state")
        return self._normalise(state, low[embodiment], high[embodiment])

    def encode_action(self, action: np.ndarray, state: np.ndarray, embodiment: np.ndarray) -> np.ndarray:
        """(B, H, A) axis units, and the state (B, A) the chunk starts from → (B, H, A) float32, about −1..1."""
        low, high = self._table("action")
        base = self._base(state, embodiment)[:, None]
        return self._normalise(action - base, low[embodiment][:, None], high[embodiment][:, None])

    def decode_action(self, encoded: np.ndarray, state: np.ndarray, embodiment: np.ndarray) -> np.ndarray:
        """The inverse of `encode_action`: (B, H, A) → (B, H, A) float32 in axis units."""
        low, high = (table[embodiment][:, None] for table in self._table("action"))
        values = (np.asarray(encoded, dtype=np.float64) + 1) / 2 * (high - low) + low
        return (values + self._base(state, embodiment)[:, None]).astype(np.float32)

    def write(self, folder: Path) -> Path:
        path = folder / TRANSFORMS_FILE
        write_atomically(path, self.model_dump_json(indent=1).encode() + b"\n")
        return path

    def _normalise(self, values: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        scaled = (np.asarray(values, dtype=np.float64) - low) / (high - low) * 2 - 1
        return np.clip(scaled, -self.clip, self.clip).astype(np.float32)

    def _base(self, state: np.ndarray, embodiment: np.ndarray) -> np.ndarray:
        """What actions are relative to, (B, A) float64."""
        return np.asarray(state, dtype=np.float64) * self._relative_axes[embodiment]

    @cached_property
    def _relative_axes(self) -> np.ndarray:
        """(E, A) 1.0 where actions are relative to the state."""
        axes = np.zeros((len(self.embodiments), self.axes))
        for row, each in zip(axes, self.embodiments, strict=True):
            row[: len(each.axis_names)] = self.relative
            row[each.gripper_index] = 0.0
        return axes

    def _table(self, quantity: str) -> tuple[np.ndarray, np.ndarray]:
        return self._tables[quantity]

    @cached_property
    def _tables(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """(E, A) low and high per quantity; padded axes map 0 to 0."""
        tables = {}
        for quantity in ("state", "action"):
            low = np.full((len(self.embodiments), self.axes), -1.0)
            high = np.full_like(low, 1.0)
            for row, each in enumerate(self.embodiments):
                ranges: Ranges = getattr(each, quantity)
                low[row, : len(ranges.low)], high[row, : len(ranges.high)] = ranges.low, ranges.high
            tables[quantity] = (low, high)
        return tables


def fit_transforms(
    windows: Windows, *, relative: bool = True, clip: float = 1.5, seed: int = 0
) -> Transforms:
    """Transforms for a training split: q01..q99 of states and actions map to −1..1.

    Absolute ranges come from the build's manifest. Relative ones depend on the horizon, which the manifest cannot
    know, and are taken from (at most 50,000) windows; no image is touched.
    """
    statistics = windows.build.manifest.statistics
    offsets = _relative_quantiles(windows, seed) if relative else {}
    return Transforms(
        embodiments=tuple(
            _axis_transform(name, statistics[name], offsets.get(name)) for name in windows.embodiments
        ),
        relative=relative,
        clip=clip,
    )


def read_transforms(folder: Path) -> Transforms:
    """Read `transforms.json` of a run.

    Raises:
        CheckpointError: missing or not JSON.
        ConfigError: a wrong key.
    """
    path = folder / TRANSFORMS_FILE
    try:
        content: Mapping = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is not readable: {error}", "Is the run complete?") from error
    return validate(Transforms, content, str(path))


def _axis_transform(
    name: str, statistics: EmbodimentStatistics, offsets: tuple[np.ndarray, np.ndarray] | None
) -> AxisTransform:
    state = np.array(statistics.state.q01), np.array(statistics.state.q99)
    low, high = np.array(statistics.action.q01), np.array(statistics.action.q99)
    if offsets is not None:
        arm = np.arange(len(low)) != statistics.gripper_index
        low, high = np.where(arm, offsets[0][: len(low)], low), np.where(arm, offsets[1][: len(low)], high)
    return AxisTransform(
        embodiment=name,
        axis_names=statistics.axis_names,
        gripper_index=statistics.gripper_index,
        rate_hz=statistics.rate_hz,
        state=_widened(*state),
        action=_widened(low, high),
    )


def _widened(low: np.ndarray, high: np.ndarray) -> Ranges:
    """Ranges in which no axis is flat."""
    widest = max(float((high - low).max()), 1e-6)
    missing = np.maximum(FLAT * widest - (high - low), 0) / 2
    return Ranges(low=tuple((low - missing).tolist()), high=tuple((high + missing).tolist()))


def _relative_quantiles(windows: Windows, seed: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Per embodiment the 1 % and 99 % quantiles, (A,) each, of action − state within a chunk, axis units."""
    count = len(windows)
    chosen = np.arange(count)
    if count > 50_000:
        chosen = np.sort(np.random.default_rng(seed).choice(count, 50_000, replace=False))
    batch = windows.batch(chosen)
    offsets = batch.action - batch.state[:, None]
    quantiles = {}
    for index, name in enumerate(windows.embodiments):
        mine = batch.embodiment == index
        if mine.any():
            values = offsets[mine][batch.step_mask[mine]]
            quantiles[name] = (np.quantile(values, 0.01, axis=0), np.quantile(values, 0.99, axis=0))
    return quantiles
