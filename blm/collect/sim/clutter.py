"""Lays a scene's distractors out at the start of an episode, and parks those that it does not use."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import mujoco
import numpy as np

from blm.collect.sim.distractors import draw_distractors, drawn_colours
from blm.collect.sim.objects import Placement
from blm.collect.sim.scene import Scene, SceneObject, put
from blm.schemas.embodiment import Embodiment
from blm.schemas.task import Task, TaskObject


class Clutter:
    """The distractors of one compiled scene; `kinds` says what they are, in the order of their slots."""

    def __init__(
        self, scene: Scene, embodiment: Embodiment, task: Task, kinds: Mapping[str, TaskObject]
    ) -> None:
        self._scene = scene
        self._embodiment = embodiment
        self._task = task
        self._kinds = kinds

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._kinds)

    def scatter(
        self,
        data: mujoco.MjData,
        placements: Mapping[str, Placement],
        goal: np.ndarray | None,
        generator: np.random.Generator,
    ) -> dict[str, TaskObject]:
        """Lay distractors out around task objects that lie at `placements`; returns those used, in their colours.

        What would touch the robot is left out.
        """
        if not self._kinds:
            return {}
        model, scene = self._scene.model, self._scene
        kinds = drawn_colours(self._task, self._kinds, generator)
        places = draw_distractors(self._embodiment, self._task, kinds, placements, goal, generator)
        for name, placement in places.items():
            put(data, scene.distractors[name], kinds[name], placement)
        mujoco.mj_fwdPosition(model, data)
        used = {}
        for name, handle in scene.distractors.items():
            if name in places and not _touches(data, handle, scene.robot_geoms):
                model.body_gravcomp[handle.body] = 0.0
                used[name] = kinds[name]
            else:
                self._park(data, handle)
        return used

    def _park(self, data: mujoco.MjData, handle: SceneObject) -> None:
        assert handle.joint is not None, "distractors are movable"
        self._scene.model.body_gravcomp[handle.body] = 1.0
        where = slice(handle.joint.qpos, handle.joint.qpos + 7)
        data.qpos[where] = self._scene.home_qpos[where]


def _touches(data: mujoco.MjData, handle: SceneObject, others: Collection[int]) -> bool:
    pairs = data.contact.geom.tolist()
    return any((a in handle.geoms and b in others) or (b in handle.geoms and a in others) for a, b in pairs)
