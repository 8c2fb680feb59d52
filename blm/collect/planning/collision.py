"""Collision checks of configurations in a scene, on private copies of the model and its state."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import mujoco
import numpy as np

from blm.collect.planning.kinematics import JointMap
from blm.collect.planning.pose import Pose
from blm.schemas.embodiment import Embodiment

PENETRATION_M = 1e-3
"""Overlap that does not count: contact geometry is only as exact as this."""
CLEARANCE_M = 0.004
"""Kept from objects by motions through open space."""
WIDE_CLEARANCE_M = 0.012
"""Kept from objects, where there is room, by ways found by sampling, whose corners are still to be rounded."""
ENVIRONMENT = "table"


class CollisionChecker:
    """Which bodies would touch if the robot stood in a configuration (A,) (model coordinates of every axis).

    Contacts that are there in the reference configuration (a base on its table) and contacts inside the gripper
    (closed fingers) do not count. Objects are all bodies but the robot's and the world's; `objects` maps the names
    of the task's to the names of their bodies. They stay where `update` found them, except one that is held: it
    moves with the tool.
    """

    def __init__(
        self, model: mujoco.MjModel, embodiment: Embodiment, objects: Mapping[str, str] | None = None
    ) -> None:
        self._model = copy.copy(model)
        self._objects = {self._model.body(body).id: name for name, body in (objects or {}).items()}
        self._data = mujoco.MjData(self._model)
        self._scene_qpos = self._data.qpos.copy()
        self._joints = JointMap.of(self._model, embodiment)
        self._tool = self._model.site("tool").id
        base, hand = self._model.body("base").id, self._model.body("hand").id
        self._robot = _bodies_below(self._model, base)
        self._of_object = ~np.isin(self._model.geom_bodyid, [0, *self._robot])
        self._model.geom_margin[self._of_object] = WIDE_CLEARANCE_M
        self._gripper = _bodies_below(self._model, hand)
        self._ignored: frozenset[tuple[int, int]] = frozenset()
        self._held: tuple[int, int, Pose] | None = None
        self.checks = 0

    def update(self, data: mujoco.MjData, reference: np.ndarray) -> None:
        """Take over the scene from live data; contacts at `reference` (A,) between robot and world are allowed."""
        self._scene_qpos[:] = data.qpos
        self._data.mocap_pos[:], self._data.mocap_quat[:] = data.mocap_pos, data.mocap_quat
        self.restart()
        self._ignored = frozenset()
        self._place(reference)
        self._ignored = frozenset(
            pair for pair in self._touching_bodies() if self._inside_robot_or_world(pair)
        )

    def restart(self) -> None:
        """Put all objects back to where `update` found them."""
        self._held = None
        self._data.qpos[:] = self._scene_qpos

    def hold(self, name: str | None, grasp: Pose | None = None) -> None:
        """Let an object move with the tool at pose `grasp` in the tool frame; None leaves it where it is then."""
        if name is None or grasp is None:
            self._held = None
            return
        body = next(body for body, known in self._objects.items() if known == name)
        self._held = (body, int(self._model.jnt_qposadr[self._model.body_jntadr[body]]), grasp)

    def cause(
        self,
        configuration: np.ndarray,
        may_touch: frozenset[str] = frozenset(),
        clearance_m: float = -PENETRATION_M,
    ) -> str | None:
        """What collides, e.g. 'left_finger with cube'; None if nothing does.

        `may_touch`: objects that the gripper (and a held object) may touch; 'table' allows the table too. Coming
        within `clearance_m`, at most `WIDE_CLEARANCE_M`, of an object counts; the table may be neared.
        """
        self.checks += 1
        self._place(configuration)
        for pair in self._touching_bodies(clearance_m):
            if pair not in self._ignored and not self._allowed(pair, may_touch):
                return " with ".join(self._name(body) for body in pair)
        return None

    def first_collision(
        self,
        configurations: np.ndarray,
        may_touch: frozenset[str] = frozenset(),
        clearance_m: float = -PENETRATION_M,
    ) -> str | None:
        """The first cause along configurations (N, A); None if all are free."""
        for configuration in configurations:
            if cause := self.cause(configuration, may_touch, clearance_m):
                return cause
        return None

    def _place(self, configuration: np.ndarray) -> None:
        self._joints.write(self._data.qpos, configuration)
        mujoco.mj_kinematics(self._model, self._data)
        if self._held is not None:
            _, address, grasp = self._held
            tool = Pose(self._data.site_xpos[self._tool], self._data.site_xmat[self._tool].reshape(3, 3))
            pose = tool @ grasp
            self._data.qpos[address : address + 3] = pose.position
            mujoco.mju_mat2Quat(self._data.qpos[address + 3 : address + 7], pose.rotation.ravel())
            mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_collision(self._model, self._data)

    def _touching_bodies(self, clearance_m: float = -PENETRATION_M) -> list[tuple[int, int]]:
        contact = self._data.contact
        objects = self._of_object[contact.geom].any(axis=1)
        counts = contact.dist < np.where(objects, clearance_m, -PENETRATION_M)
        bodies = self._model.geom_bodyid[contact.geom[counts]]
        return [(int(min(a, b)), int(max(a, b))) for a, b in bodies]

    def _inside_robot_or_world(self, pair: tuple[int, int]) -> bool:
        return all(body in self._robot or body == 0 for body in pair)

    def _allowed(self, pair: tuple[int, int], may_touch: frozenset[str]) -> bool:
        in_gripper = [body in self._gripper for body in pair]
        if all(in_gripper):
            return True
        if any(in_gripper):
            return self._name(pair[0 if in_gripper[1] else 1]) in may_touch
        if any(body in self._robot for body in pair):
            return False
        held = self._held[0] if self._held else None
        return held not in pair or all(self._name(body) in may_touch for body in pair)

    def _name(self, body: int) -> str:
        if body == 0:
            return ENVIRONMENT
        return self._objects.get(body) or str(self._model.body(body).name)


def _bodies_below(model: mujoco.MjModel, root: int) -> frozenset[int]:
    bodies = {root}
    for body in range(root + 1, model.nbody):
        if int(model.body_parentid[body]) in bodies:
            bodies.add(body)
    return frozenset(bodies)
