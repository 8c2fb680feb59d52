"""An embodiment for a robot that nobody has described, so that any dataset can be built.

Names and rate come from the dataset, ranges from what it holds; units are 'native', whatever the recorder used.
Velocity limits are unknown and set so wide that no check can find them exceeded. Such an embodiment serves curation
and training; to simulate or drive the robot, describe it in a YAML file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import ValidationError

from blm.curate.episodes.boundaries import MAX_NAME_LENGTH, read_json
from blm.curate.episodes.config import DatasetSource
from blm.curate.episodes.frame_batches import read_batches
from blm.curate.episodes.frames import Columns, Frames
from blm.curate.episodes.lerobot_files import CameraStream
from blm.curate.episodes.recorded_episodes import located_episodes, rows_of_data_files
from blm.curate.episodes.resources import Resources
from blm.schemas.embodiment import Axis, Camera, Embodiment, Gripper, embodiment_names
from blm.schemas.errors import DatasetError
from blm.schemas.printable import plain_text

_GRIPPER = re.compile(r"gripper|jaw|finger|claw|hand_open")
_LONGEST_NAME = 40
_LARGEST = 1e9
"""No axis has such a value, in whatever unit."""
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
        Camera(name=one.name, width=_side(one.width), height=_side(one.height), mount="unknown")
        for one in cameras
    ]
    try:
        return _described(source, info, axes, low, high, gripper, shown)
    except ValidationError as error:
        raise DatasetError(
            f"{source.path}: its features describe no robot ({error.errors()[0]['msg']}).",
            "Describe it in a YAML file and name that as `embodiment` under this dataset in splits.yaml.",
        ) from error


def _described(
    source: DatasetSource,
    info: dict[str, Any],
    axes: Sequence[str],
    low: np.ndarray,
    high: np.ndarray,
    gripper: int,
    shown: Sequence[Camera],
) -> Embodiment:
    return Embodiment(
        name=robot_name(source, info),
        title=plain_text(str(info.get("robot_type") or source.path.name))[:MAX_NAME_LENGTH],
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


def _side(pixels: int) -> int:
    """Within what a description of a camera allows."""
    return min(4096, max(32, pixels))


def robot_name(source: DatasetSource, info: dict[str, Any]) -> str:
    """From the robot type, told apart from robots that are described; from the dataset where that is not known."""
    robot = _slug(str(info.get("robot_type") or ""))
    if robot in ("", "unknown", "none"):
        robot = _slug(source.name or source.path.resolve().name) or "robot"
    return f"{robot}_native" if robot in embodiment_names() else robot


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")[:_LONGEST_NAME].strip("_")


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
        files = rows_of_data_files(located_episodes(source.path, info, meta))
        found = _measured_ranges(files, columns, resources)
    low, high = found
    if not (np.abs([low, high]) < _LARGEST).all():
        raise DatasetError(
            f"{source.path}: no frame with numbers on every axis can be read.", "Restore its data files."
        )
    still = high - low < 1e-9 * np.maximum(1, np.abs(low))
    return np.where(still, low - 0.5, low), np.where(still, high + 0.5, high)


def _told_ranges(source: DatasetSource, columns: Columns) -> tuple[np.ndarray, np.ndarray] | None:
    """As the dataset's own statistics say, where they are whole."""
    try:
        stats = read_json(source.path / "meta/stats.json")
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
    except (DatasetError, ValueError, KeyError, TypeError, IndexError, OverflowError):
        return None
    usable = low.shape == high.shape == (len(columns.state),) and (np.abs([low, high]) < _LARGEST).all()
    return (low, high) if usable and (low <= high).all() else None


def _measured_ranges(
    most_rows: dict[str, int], columns: Columns, resources: Resources
) -> tuple[np.ndarray, np.ndarray]:
    def ends(batches: Iterator[Frames]) -> tuple[np.ndarray, np.ndarray]:
        low, high = np.full(len(columns.state), np.inf), np.full(len(columns.state), -np.inf)
        for frames in batches:
            for values in (frames.state, frames.action):
                usable = values[np.isfinite(values).all(axis=1)]
                if len(usable):
                    low, high = np.minimum(low, usable.min(axis=0)), np.maximum(high, usable.max(axis=0))
        return low, high

    return read_batches(most_rows, columns, resources, ends)[0]
