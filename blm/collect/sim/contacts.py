"""What the gripper touches, and how hard."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import mujoco
import numpy as np


class GripperContacts:
    """Normal forces between the gripper and numbered slots of things, from the contacts MuJoCo has found.

    A slot may be empty, and slots can be assigned anew from episode to episode.
    """

    def __init__(self, model: mujoco.MjModel, gripper_geoms: Iterable[int]) -> None:
        self._model = model
        self._of_gripper = np.zeros(model.ngeom, dtype=bool)
        self._of_gripper[list(gripper_geoms)] = True
        self._slot = np.full(model.ngeom, -1)
        self._wrench = np.empty(6)

    def assign(self, slots: Sequence[Iterable[int]]) -> None:
        """Say which geoms make up the thing in each slot."""
        self._slot[:] = -1
        for slot, geoms in enumerate(slots):
            self._slot[list(geoms)] = slot

    def forces_n(self, data: mujoco.MjData, slots: int) -> np.ndarray:
        """Summed normal force per slot, newtons, shape (slots,); 0 without contact."""
        forces = np.zeros(slots)
        pairs = data.contact.geom
        if not len(pairs):
            return forces
        first, second = pairs[:, 0], pairs[:, 1]
        slot = np.where(
            self._of_gripper[first],
            self._slot[second],
            np.where(self._of_gripper[second], self._slot[first], -1),
        )
        for contact in np.flatnonzero(slot >= 0):
            mujoco.mj_contactForce(self._model, data, int(contact), self._wrench)
            forces[slot[contact]] += self._wrench[0]
        return forces
