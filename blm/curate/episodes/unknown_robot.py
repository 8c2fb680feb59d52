"""An embodiment for a robot that nobody has described, so that any dataset can be built.

Names and rate come from the dataset, ranges from what it holds; units are 'native', whatever the recorder used.
Velocity limits are unknown and set so wide that no check can find them exceeded. Such an embodiment serves curation
and training; to simulate or drive the robot, describe it in a YAML file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from blm.curate.episodes.config import DatasetSource
from blm.curate.episodes.frame_batches import Resources, read_batches
from blm.curate.episodes.frames import Columns, Frames
from blm.curate.episodes.lerobot_files import CameraStream, file_of_episode
from blm.schemas.embodiment import Axis, Camera, Embodiment, Gripper, embodiment_names
from blm.schemas.errors import DatasetError

_GRIPPER = re.compile(r"gripper|jaw|finger|claw|hand_open")
_UNLIMITED = 1e6
"""Limits in axis ranges per second, per second squared and per second cubed."""


def describe_robot(
    source: DatasetSource,
    info: dict[str, Any],
    meta: pa.Table,
    axes: Sequence[str],
    columns: Columns,
    cameras: Sequence[CameraStream],
    resources: Resources,
) -> Embodiment:
    """The embodiment that a dataset implies.

    The gripper is the first axis with such a name; of a robot without one it is the last axis, which has no effect
    but that this axis stays absolute where actions are made relative.

    Raises:
        DatasetError: there are too few axes, or no frame holds numbers.
    """
    if len(axes) < 2:
        raise DatasetError(f"{source.path}: one axis is not a robot.", "Name others under `features`.")
    low, high = _ranges(source, info, meta, columns, resources)
    gripper = next((place for place, name in enumerate(axes) if _GRIPPER.search(name)), len(axes) - 1)
    shown = [
        Camera(name=one.name, width=max(32, one.width), height=max(32, one.height), mount="unknown")
        for one in cameras
    ]
    return Embodiment(
        name=robot_name(source, info),
        title=str(info.get("robot_type") or source.path.name),
        model="unknown",
        control_rate_hz=float(info["fps"]),
        base_position=(0.0, 0.0, 0.0),
        gripper=Gripper(open=float(high[gripper]), closed=float(low[gripper]), max_opening_m=1.0),
        axes=tuple(
            _axis(name, float(low[place]), float(high[place]), gripper=place == gripper)
            for place, name in enumerate(axes)
        ),
        cameras=tuple(shown) or (Camera(name="none", mount="unknown"),),
    )


def robot_name(source: DatasetSource, info: dict[str, Any]) -> str:
    """From the robot type, told apart from robots that are described; from the dataset where that is not known."""
    robot = _slug(str(info.get("robot_type") or ""))
    if robot in ("", "unknown", "none"):
        robot = _slug(source.name or source.path.resolve().name) or "robot"
    return f"{robot}_native" if robot in embodiment_names() else robot


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")


def _axis(name: str, low: float, high: float, *, gripper: bool) -> Axis:
    limit = _UNLIMITED * (high - low)
    return Axis(
        name=name,
        role="gripper" if gripper else "arm",
        unit="native",
        joint=name.removesuffix(".pos"),
        scale=1.0,
        lower=low,
        upper=high,
        home=(low + high) / 2,
        max_velocity=limit,
        max_acceleration=limit,
        max_jerk=limit,
    )


def _ranges(
    source: DatasetSource, info: dict[str, Any], meta: pa.Table, columns: Columns, resources: Resources
) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest value (A,) of state or action on each axis; an axis that never moves gets a range of 1."""
    found = _told_ranges(source, columns)
    if found is None:
        files = {file_of_episode(source.path, info["data_path"], row, "data") for row in meta.to_pylist()}
        found = _measured_ranges(sorted(files), columns, resources)
    low, high = found
    if not np.isfinite([low, high]).all():
        raise DatasetError(
            f"{source.path}: no frame with numbers on every axis can be read.", "Restore its data files."
        )
    still = high - low < 1e-9 * np.maximum(1, np.abs(low))
    return np.where(still, low - 0.5, low), np.where(still, high + 0.5, high)


def _told_ranges(source: DatasetSource, columns: Columns) -> tuple[np.ndarray, np.ndarray] | None:
    """As the dataset's own statistics say, where they are whole."""
    try:
        stats = json.loads((source.path / "meta/stats.json").read_text(encoding="utf-8"))
        ends = {
            end: [
                np.array(stats[feature][end], dtype=np.float64)[list(places)]
                for feature, places in (
                    (columns.state_feature, columns.state),
                    (columns.action_feature, columns.action),
                )
            ]
            for end in ("min", "max")
        }
        low, high = np.minimum(*ends["min"]), np.maximum(*ends["max"])
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None
    return (low, high) if np.isfinite([low, high]).all() and (low <= high).all() else None


def _measured_ranges(
    files: list[str], columns: Columns, resources: Resources
) -> tuple[np.ndarray, np.ndarray]:
    def ends(batches: Iterator[Frames]) -> tuple[np.ndarray, np.ndarray]:
        low, high = np.full(len(columns.state), np.inf), np.full(len(columns.state), -np.inf)
        for frames in batches:
            for values in (frames.state, frames.action):
                usable = values[np.isfinite(values).all(axis=1)]
                if len(usable):
                    low, high = np.minimum(low, usable.min(axis=0)), np.maximum(high, usable.max(axis=0))
        return low, high

    return read_batches(files, columns, resources, ends)[0]
