"""How the arm's position servos lag behind their commands, so that collisions are judged where the arm will be.

A soft servo trails a moving target by its damping-to-stiffness ratio (0.1 s for an SO-100), which cuts corners.
"""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from blm.schemas.embodiment import Embodiment

SUBSTEPS = 5
"""Integration steps per control tick."""
KEEP_EVERY = 2


@dataclass(frozen=True)
class Servos:
    """Independent position servos M q̈ = k (u − q) − d q̇, by axis: k / M and d / M, shape (A,)."""

    stiffness: np.ndarray
    damping: np.ndarray

    @classmethod
    def of(cls, model: mujoco.MjModel, embodiment: Embodiment) -> Servos:
        """From the model's position actuators and the joints' inertia in the reference pose."""
        actuators = [model.actuator(name).id for name in embodiment.joints]
        dofs = [model.jnt_dofadr[model.joint(name).id] for name in embodiment.joints]
        inertia = np.maximum(model.dof_M0[dofs], 1e-6)
        stiffness = model.actuator_gainprm[actuators, 0] / inertia
        damping = (model.dof_damping[dofs] - model.actuator_biasprm[actuators, 2]) / inertia
        return cls(stiffness, damping)

    def follow(self, commands: np.ndarray, start: np.ndarray, rate_hz: float) -> np.ndarray:
        """Where the axes will be, (M, A), as targets ramp from `start` (A,), at rest, through `commands` (N, A).

        Implicit Euler, so that stiff servos stay stable.
        """
        step = 1.0 / (rate_hz * SUBSTEPS)
        divisor = 1.0 + step * self.damping + step**2 * self.stiffness
        gain = step * self.stiffness / divisor
        shares = (np.arange(1, SUBSTEPS + 1) / SUBSTEPS)[:, None]
        before = np.concatenate([start[None], commands[:-1]])
        targets = (before[:, None] + (commands - before)[:, None] * shares).reshape(-1, len(start))
        place, velocity = start.copy(), np.zeros_like(start)
        places = np.empty_like(targets)
        for index, target in enumerate(targets):
            velocity = velocity / divisor + gain * (target - place)
            place = place + step * velocity
            places[index] = place
        return places[KEEP_EVERY - 1 :: KEEP_EVERY]
