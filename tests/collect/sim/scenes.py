"""Which embodiments and tasks the simulation tests run on, and a pinhole camera to check pictures against."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from blm.collect.sim.environment import SimulatedEnvironment
from blm.collect.sim.models import model_path
from blm.schemas.embodiment import embodiment_names, load_embodiment
from blm.schemas.task import load_task, task_names

EMBODIMENTS = [name for name in embodiment_names() if model_path(load_embodiment(name).model).is_file()]
PAIRS = [(embodiment, task) for embodiment in EMBODIMENTS for task in task_names()]


@cache
def environment(embodiment: str, task: str) -> SimulatedEnvironment:
    """A shared environment without pictures; every test resets it first."""
    return SimulatedEnvironment(load_embodiment(embodiment), load_task(task, embodiment), render=False)


def rotation(quaternion: Any) -> np.ndarray:
    """Rotation matrix (3, 3) of a quaternion wxyz."""
    w, x, y, z = quaternion
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def project(
    camera: Mapping[str, Any], position: Any, orientation: np.ndarray, point: np.ndarray
) -> np.ndarray:
    """Pixel (column, row), from the image's upper left corner, of a point given in the camera pose's frame."""
    local = orientation.T @ (point - np.asarray(position))
    focal = camera["height"] / 2 / np.tan(np.deg2rad(camera["vertical_fov_deg"]) / 2)
    column = camera["width"] / 2 + focal * local[0] / -local[2]
    row = camera["height"] / 2 - focal * local[1] / -local[2]
    return np.array([column, row])
