"""What an episode's metadata say about its scene, as JSON-ready data (see `EpisodeMetadata`)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import mujoco
import numpy as np

from blm.collect.sim.base_frame import BaseFrame
from blm.schemas.embodiment import Camera
from blm.schemas.task import Goal, TaskObject


def describe_objects(
    things: Mapping[str, TaskObject], distractors: Collection[str]
) -> tuple[dict[str, Any], ...]:
    """One description per thing, in slot order."""
    return tuple(
        {
            "name": name,
            "shape": thing.shape,
            "colour_name": thing.colour_name,
            "half_size": list(thing.half_size),
            "role": "distractor" if name in distractors else "task",
        }
        for name, thing in things.items()
    )


def describe_camera(
    model: mujoco.MjModel, camera: Camera, base: BaseFrame, mounted: np.ndarray
) -> dict[str, Any]:
    """The camera as it is in the model now; `mounted` is its pose (7,) on its mount, where it has one."""
    index = model.camera(camera.name).id
    pose = mounted
    if camera.mount is None:
        pose = base.pose(model.cam_pos[index], model.cam_quat[index])
    return {
        "name": camera.name,
        "width": camera.width,
        "height": camera.height,
        "vertical_fov_deg": float(model.cam_fovy[index]),
        "position": pose[:3].tolist(),
        "quaternion": pose[3:].tolist(),
        "mount": camera.mount,
    }


def describe_goal(goal: Goal | None, position: np.ndarray | None, base: BaseFrame) -> dict[str, Any] | None:
    """The goal at a world `position` (3,); None where there is none."""
    if goal is None or position is None:
        return None
    return {"shape": goal.shape, "position": base.point(position).tolist(), "radius_m": goal.radius_m}
