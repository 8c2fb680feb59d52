"""Torques that a planned motion needs, by inverse dynamics on a private copy of the model, against what motors give."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import mujoco
import numpy as np

from blm.collect.planning.kinematics import JointMap
from blm.collect.planning.pose import Pose
from blm.collect.planning.primitives import Holding
from blm.schemas.embodiment import Embodiment


class TorqueModel:
    """Joint torques of the arm along a motion: inertia, Coriolis forces and gravity, and of a held object's mass.

    Gravity counts in full: what a simulated arm's gravity compensation carries, a real motor must. Friction does not
    count; makers publish what is left at the joint. A held object is a point mass at its centre.
    """

    def __init__(self, model: mujoco.MjModel, embodiment: Embodiment, objects: Mapping[str, str]) -> None:
        self._model = copy.copy(model)
        self._data = mujoco.MjData(self._model)
        self._joints = JointMap.of(self._model, embodiment)
        self._arm = list(embodiment.arm_indices)
        self._limits = embodiment.torque_limits()[self._arm]
        self._dof = self._joints.dof[self._arm]
        self._tool, self._hand = self._model.site("tool").id, self._model.body("hand").id
        self._masses = {name: float(self._model.body(body).mass[0]) for name, body in objects.items()}

    @property
    def known(self) -> bool:
        """Whether any joint's limit is."""
        return bool(np.isfinite(self._limits).any())

    def peak_share(
        self, targets: np.ndarray, start: np.ndarray, rate_hz: float, held: Sequence[Holding | None]
    ) -> float:
        """The largest share of any arm joint's limit that a motion needs; 0 where no limit is known.

        Args:
            targets: (N, A) model coordinates of successive ticks.
            start: (A,), at rest.
            held: what the tool carries at each tick, (N,).
        """
        if not self.known or len(targets) == 0:
            return 0.0
        return float(np.max(np.abs(self.torques(targets, start, rate_hz, held)) / self._limits))

    def torques(
        self, targets: np.ndarray, start: np.ndarray, rate_hz: float, held: Sequence[Holding | None]
    ) -> np.ndarray:
        """Torques (N, K) of the K arm joints at each tick, N·m; arguments as for `peak_share`."""
        path = np.concatenate([start[None], start[None], targets, targets[-1:]])
        velocities = (path[2:] - path[:-2])[1:] * (rate_hz / 2)
        accelerations = np.diff(path, n=2, axis=0)[1:] * rate_hz**2
        torques = np.empty((len(targets), len(self._arm)))
        for tick, moving in enumerate(zip(targets, velocities, accelerations, strict=True)):
            torques[tick] = self._unloaded(*moving) + self._load(*moving[1:], held[tick])
        return torques

    def _unloaded(
        self, configuration: np.ndarray, velocity: np.ndarray, acceleration: np.ndarray
    ) -> np.ndarray:
        model, data, joints = self._model, self._data, self._joints
        joints.write(data.qpos, configuration)
        data.qvel[joints.dof], data.qacc[joints.dof] = velocity, acceleration
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_comVel(model, data)
        torque = np.zeros(model.nv)
        mujoco.mj_rne(model, data, 1, torque)
        return (torque + model.dof_armature * data.qacc)[self._dof]

    def _load(
        self, velocity: np.ndarray, acceleration: np.ndarray, holding: Holding | None
    ) -> np.ndarray | float:
        """What a held object adds, (K,); the kinematics are those of the last `_unloaded`."""
        if holding is None:
            return 0.0
        model, data = self._model, self._data
        tool = Pose(data.site_xpos[self._tool], data.site_xmat[self._tool].reshape(3, 3))
        point = (tool @ holding.grasp).position
        jacobian, rate = np.zeros((3, model.nv)), np.zeros((3, model.nv))
        mujoco.mj_jac(model, data, jacobian, None, point, self._hand)
        mujoco.mj_jacDot(model, data, rate, None, point, self._hand)
        dofs = self._joints.dof
        lifted = jacobian[:, dofs] @ acceleration + rate[:, dofs] @ velocity - model.opt.gravity
        return self._masses[holding.name] * jacobian[:, self._dof].T @ lifted
