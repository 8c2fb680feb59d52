"""The workspace as simple shapes that a page can draw: what they are, once; where they are, tick by tick."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np

from blm.collect.planning.kinematics import JointMap
from blm.collect.sim.base_frame import BaseFrame
from blm.schemas.embodiment import Embodiment
from blm.schemas.rollout import Observation

_SHAPES = {
    int(mujoco.mjtGeom.mjGEOM_BOX): "box",
    int(mujoco.mjtGeom.mjGEOM_CYLINDER): "cylinder",
    int(mujoco.mjtGeom.mjGEOM_CAPSULE): "capsule",
    int(mujoco.mjtGeom.mjGEOM_SPHERE): "sphere",
    int(mujoco.mjtGeom.mjGEOM_ELLIPSOID): "sphere",
    int(mujoco.mjtGeom.mjGEOM_MESH): "box",
}
_SHOWN_GROUPS = 3
_AWAY_M = 100.0


class SceneView:
    """The visible geoms of a model; poses are in the frame of the robot's base, metres, quaternions wxyz.

    With `data` the view follows a simulator. Without, it is of the arm alone, where its measured axes put it.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        embodiment: Embodiment,
        base_pose: np.ndarray,
        data: mujoco.MjData | None = None,
    ) -> None:
        self._model = model
        self._embodiment = embodiment
        self._base_pose = base_pose
        self._base = BaseFrame(base_pose)
        self._live = data
        self._data = _without_objects(model) if data is None else data
        self._joints = JointMap.of(model, embodiment)
        self._shown = [
            geom
            for geom in range(model.ngeom)
            if model.geom_group[geom] < _SHOWN_GROUPS
            and model.geom_type[geom] in _SHAPES
            and not (data is None and self._of_task(geom))
        ]

    def description(self) -> dict[str, Any]:
        """JSON-ready: every geom's shape, half sizes (3,) and colour (4,); the table's height; a point to look at."""
        return {
            "geoms": [self._geom(geom) for geom in self._shown],
            "focus": [round(float(value), 5) for value in self._base.point(np.zeros(3))],
            "table": round(-float(self._base_pose[2, 3]), 5),
        }

    def poses(self, observation: Observation) -> bytes:
        """Little-endian float32 (geoms, 7), position and quaternion in the base frame."""
        if self._live is None:
            values = self._embodiment.to_model(observation.state)
            self._joints.write(self._data.qpos, values)
            mujoco.mj_kinematics(self._model, self._data)
        poses = np.empty((len(self._shown), 7), dtype="<f4")
        quaternion = np.empty(4)
        for row, geom in enumerate(self._shown):
            mujoco.mju_mat2Quat(quaternion, self._data.geom_xmat[geom])
            poses[row] = self._base.pose(self._data.geom_xpos[geom], quaternion)
        return poses.tobytes()

    def _geom(self, geom: int) -> dict[str, Any]:
        model = self._model
        kind, size = mujoco.mjtGeom(int(model.geom_type[geom])), model.geom_size[geom]
        half = size.copy()
        if kind in (mujoco.mjtGeom.mjGEOM_CYLINDER, mujoco.mjtGeom.mjGEOM_CAPSULE):
            half = np.array([size[0], size[0], size[1]])
        elif kind == mujoco.mjtGeom.mjGEOM_SPHERE:
            half = np.full(3, size[0])
        elif kind == mujoco.mjtGeom.mjGEOM_MESH:
            half = model.geom_aabb[geom, 3:]
        return {
            "shape": _SHAPES[kind],
            "size": [round(float(value), 5) for value in half],
            "colour": [round(float(value), 3) for value in self._colour(geom)],
        }

    def _colour(self, geom: int) -> np.ndarray:
        material = self._model.geom_matid[geom]
        return self._model.geom_rgba[geom] if material < 0 else self._model.mat_rgba[material]

    def _of_task(self, geom: int) -> bool:
        """Whether a geom is of an object or a goal, which only a simulator knows the place of."""
        body = int(self._model.geom_bodyid[geom])
        free = self._model.body_dofnum[self._model.body_rootid[body]] == 6
        return bool(free or self._model.body_mocapid[body] >= 0)


def _without_objects(model: mujoco.MjModel) -> mujoco.MjData:
    data = mujoco.MjData(model)
    for joint in range(model.njnt):
        if model.jnt_type[joint] == mujoco.mjtJoint.mjJNT_FREE:
            data.qpos[model.jnt_qposadr[joint]] += _AWAY_M
    mujoco.mj_kinematics(model, data)
    return data
