"""World poses in the frame of the robot's base, in which everything is recorded."""

from __future__ import annotations

import mujoco
import numpy as np


class BaseFrame:
    """The base frame of a robot whose base is at `pose` (4×4) in the world; metres, quaternions wxyz."""

    def __init__(self, pose: np.ndarray) -> None:
        self._rotation, self._origin = pose[:3, :3], pose[:3, 3]
        base = np.empty(4)
        mujoco.mju_mat2Quat(base, self._rotation.ravel())
        self._inverse = np.empty(4)
        mujoco.mju_negQuat(self._inverse, base)

    def point(self, position: np.ndarray) -> np.ndarray:
        """World position (3,) → base frame (3,)."""
        return self._rotation.T @ (position - self._origin)

    def pose(self, position: np.ndarray, quaternion: np.ndarray) -> np.ndarray:
        """World pose → base-frame pose (7,): position, then quaternion."""
        rotated = np.empty(4)
        mujoco.mju_mulQuat(rotated, self._inverse, quaternion)
        return np.concatenate([self.point(position), rotated])
