"""The tool's pose from measured joints, by the forward kinematics of our own robot models."""

from __future__ import annotations

import numpy as np

from blm.schemas.embodiment import Embodiment
from blm.schemas.errors import MissingExtraError

NO_MODEL = "none"
"""`Embodiment.model` of a robot that nobody has modelled."""


class ToolPose:
    """Tool poses in the base frame, (7,) float32: metres, then a unit quaternion wxyz.

    Of the two signs of a quaternion the one nearer to the home pose's is taken, as in simulation. Without a model the
    pose is zeros and the identity.
    """

    def __init__(self, embodiment: Embodiment) -> None:
        """Load the embodiment's model.

        Raises:
            MissingExtraError: MuJoCo is not installed.
            UnknownNameError: there is no such model.
        """
        self._embodiment = embodiment
        self._kinematics = None
        if embodiment.model == NO_MODEL:
            return
        try:
            from blm.collect.planning.kinematics import Kinematics
            from blm.collect.sim.scene import compile_robot
        except ImportError:
            raise MissingExtraError("mujoco", "sim") from None
        self._kinematics = Kinematics(compile_robot(embodiment), embodiment)
        home = _quaternion(self._kinematics.forward(self._kinematics.home).rotation)
        self._reference = home * np.sign(home[np.abs(home).argmax()])

    def of(self, state: np.ndarray) -> np.ndarray:
        """The pose (7,) at axis values (A,)."""
        if self._kinematics is None:
            return np.array([0, 0, 0, 1, 0, 0, 0], dtype=np.float32)
        pose = self._kinematics.forward(self._embodiment.to_model(state))
        quaternion = _quaternion(pose.rotation)
        if quaternion @ self._reference < 0:
            quaternion = -quaternion
        return np.concatenate([pose.position, quaternion]).astype(np.float32)


def _quaternion(rotation: np.ndarray) -> np.ndarray:
    """Rotation matrix (3, 3) → unit quaternion (4,), w first."""
    import mujoco

    quaternion = np.empty(4)
    mujoco.mju_mat2Quat(quaternion, np.ascontiguousarray(rotation).ravel())
    return quaternion
