"""Watch the physics of an episode at every physics step: what objects touch, how deep, how hard, how fast they move."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import mujoco
import numpy as np

from blm.collect.sim.environment import SimulatedEnvironment
from blm.schemas.rollout import EpisodeEnd, EpisodeStart, Step


@dataclass
class Extremes:
    """The largest values seen in an episode.

    Attributes:
        object_step_m: how far an object's centre came in one physics step.
        teleport_m: how much further that was than its speed before or after the step explains.
        object_speed_m_s, arm_speed_rad_s: speeds of objects and of arm joints.
        in_table_m, in_gripper_m, in_object_m: how deep an object was in the table, the gripper, another object, metres.
        grip_n: normal force of one finger on an object, at the moment it closed (an impact) or later.
        steady_grip_n: the median of that force over the ticks in which there was one.
        table_n: normal force between an object and the table.
        kinetic_j: kinetic energy of everything.
        torque_share: largest joint torque as a share of its limit.
    """

    object_step_m: float = 0.0
    teleport_m: float = 0.0
    object_speed_m_s: float = 0.0
    arm_speed_rad_s: float = 0.0
    in_table_m: float = 0.0
    in_gripper_m: float = 0.0
    in_object_m: float = 0.0
    grip_n: float = 0.0
    steady_grip_n: float = 0.0
    table_n: float = 0.0
    kinetic_j: float = 0.0
    torque_share: float = 0.0
    subtasks: list[str] = field(default_factory=list)

    def raise_to(self, **values: float) -> None:
        for name, value in values.items():
            setattr(self, name, max(getattr(self, name), float(value)))


class PhysicsProbe:
    """A subscriber; between `watching` and its end it also looks at every physics step."""

    def __init__(self, world: SimulatedEnvironment) -> None:
        self.world = world
        self.extremes = Extremes()
        model = world.model
        self._objects = {name: model.body(f"object/{name}").id for name in world.task.objects}
        owner = np.full(model.nbody, -1)
        for index, body in enumerate(self._objects.values()):
            owner[body] = index
        self._owner = owner[model.geom_bodyid]
        self._table = model.geom("table").id
        self._hand = below(model, model.body("hand").id)[model.geom_bodyid]
        self._finger = np.where(self._hand, model.geom_bodyid, -1)
        embodiment = world.embodiment
        self._dofs = np.array([model.joint(joint).dofadr[0] for joint in embodiment.joints])
        self._arm = self._dofs[list(embodiment.arm_indices)]
        self._limits = embodiment.torque_limits()
        self._before: tuple[np.ndarray, np.ndarray] | None = None
        self._grips: list[float] = []

    @contextmanager
    def watching(self) -> Iterator[None]:
        mujoco.set_mjcb_control(self._on_physics_step)
        try:
            yield
        finally:
            mujoco.set_mjcb_control(None)

    def on_start(self, start: EpisodeStart) -> None:
        self.extremes, self._before, self._grips = Extremes(), None, []

    def on_step(self, step: Step) -> None:
        """Forces, once a tick: they are known after the environment's last forward pass."""
        model, data, extremes = self.world.model, self.world.data, self.extremes
        if extremes.subtasks[-1:] != [step.subtask]:
            extremes.subtasks.append(step.subtask)
        momentum = np.zeros(model.nv)
        mujoco.mj_mulM(model, data, momentum, data.qvel)
        torques = np.abs(data.qfrc_actuator[self._dofs]) / self._limits
        extremes.raise_to(kinetic_j=0.5 * data.qvel @ momentum, torque_share=torques.max())
        pressing: dict[tuple[int, int], float] = {}
        wrench = np.zeros(6)
        for index, (first, second) in enumerate(data.contact.geom):
            for thing, other in ((first, second), (second, first)):
                if self._owner[thing] < 0:
                    continue
                mujoco.mj_contactForce(model, data, index, wrench)
                assert np.isfinite(wrench).all()
                if self._hand[other]:
                    key = (int(self._owner[thing]), int(self._finger[other]))
                    pressing[key] = pressing.get(key, 0.0) + float(wrench[0])
                elif other == self._table:
                    extremes.raise_to(table_n=wrench[0])
        if pressing:
            self._grips.append(max(pressing.values()))

    def on_end(self, end: EpisodeEnd) -> None:
        if self._grips:
            self.extremes.raise_to(grip_n=max(self._grips), steady_grip_n=float(np.median(self._grips)))

    def _on_physics_step(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        extremes = self.extremes
        bodies = list(self._objects.values())
        positions = data.xpos[bodies].copy()
        velocities = np.array(
            [data.qvel[model.body_dofadr[b] :][:3] if model.body_dofnum[b] else np.zeros(3) for b in bodies]
        )
        speeds = np.linalg.norm(velocities, axis=1)
        extremes.raise_to(
            object_speed_m_s=speeds.max(), arm_speed_rad_s=np.abs(data.qvel[self._arm]).max(initial=0.0)
        )
        if self._before is not None:
            moved = np.linalg.norm(positions - self._before[0], axis=1)
            explained = model.opt.timestep * np.maximum(speeds, self._before[1])
            extremes.raise_to(object_step_m=moved.max(), teleport_m=(moved - explained).max())
        self._before = (positions, speeds)
        geoms, depths = data.contact.geom, -data.contact.dist
        for (first, second), depth in zip(geoms, depths, strict=True):
            for thing, other in ((first, second), (second, first)):
                if self._owner[thing] >= 0 and depth > 0:
                    self._note_depth(int(other), float(depth))

    def _note_depth(self, other: int, depth: float) -> None:
        if other == self._table:
            self.extremes.raise_to(in_table_m=depth)
        elif self._hand[other]:
            self.extremes.raise_to(in_gripper_m=depth)
        elif self._owner[other] >= 0:
            self.extremes.raise_to(in_object_m=depth)


def below(model: mujoco.MjModel, root: int) -> np.ndarray:
    """Whether each body is `root` or hangs below it, shape (nbody,)."""
    result = np.zeros(model.nbody, dtype=bool)
    result[root] = True
    for body in range(root + 1, model.nbody):
        result[body] = result[model.body_parentid[body]]
    return result
