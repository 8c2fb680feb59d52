"""Watching a plan while it is carried out, and coming to rest when the world no longer is what was planned for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from blm.collect.planning.failure import Failure, FailureCause
from blm.collect.planning.motion import Motion
from blm.collect.planning.path import SmoothPath
from blm.collect.planning.primitives import Primitive
from blm.collect.planning.scene import PlannableEnvironment
from blm.collect.planning.timing import Limits
from blm.schemas.embodiment import Embodiment

MOVED_M = 0.008
"""Before a step that may touch it, an object that moved further than this is no longer where it was planned for."""
LOST_TICKS = 3
_BRAKING_TICKS = (4, 6, 8, 12, 16, 24, 32)


class Monitor:
    """Knows where the objects of a task were when a plan was made, and which of them it may have touched since."""

    def __init__(self, environment: PlannableEnvironment) -> None:
        self._environment = environment
        self._names = tuple(environment.task.objects)
        self.begin()

    def begin(self) -> None:
        """A plan was just made for the present scene."""
        self._places = {name: self._environment.object_pose(name)[0] for name in self._names}
        self._reached: set[str] = set()
        self._lost_for = 0

    def look(self, step: Primitive) -> Failure | None:
        """What went wrong, if anything, while `step` is under way. Asked once per tick."""
        self._reached |= step.may_touch
        for name in self._names:
            # A finger that brushes the object on the last centimetres may still grasp it: the grasp's check tells.
            if step.free and name not in self._reached and self._moved(name) > MOVED_M:
                return Failure(FailureCause.OBJECT_LOST, f"{name} moved before it was reached")
        carried = step.holding.name if step.holding else None
        dropped = carried is not None and not self._environment.touching(carried)
        self._lost_for = self._lost_for + 1 if dropped else 0
        if self._lost_for >= LOST_TICKS:
            return Failure(FailureCause.OBJECT_LOST, f"{carried} fell out of the gripper")
        return None

    def _moved(self, name: str) -> float:
        return float(np.linalg.norm(self._environment.object_pose(name)[0] - self._places[name]))


def braked(motion: Motion, sent: int, embodiment: Embodiment) -> Motion:
    """Come to rest along a motion of which `sent` ≥ 1 commands were sent, as soon as the axes' limits allow."""
    ahead = SmoothPath.through(embodiment.to_model(motion.commands[sent - 1 :]), 1.0)
    before = embodiment.to_model(motion.commands[max(0, sent - 3) : sent])
    stop = motion
    for ticks in _BRAKING_TICKS:
        share = (np.arange(ticks) + 1.0) / (ticks + 1)
        pace = 1 - share**2 * (3 - 2 * share)
        along = np.minimum(np.cumsum(pace), ahead.length)
        commands = ahead.at(along)
        index = np.minimum(sent - 1 + np.ceil(along).astype(int), len(motion.steps) - 1)
        stop = replace(
            motion,
            commands=embodiment.clip(embodiment.from_model(commands)),
            steps=tuple(motion.steps[tick] for tick in index),
            check=None,
        )
        if _within_limits(np.concatenate([before, commands, commands[-1:], commands[-1:]]), embodiment):
            break
    return stop


def _within_limits(path: np.ndarray, embodiment: Embodiment) -> bool:
    limits = Limits.of(embodiment)
    return all(
        bool(np.all(np.abs(np.diff(path, n=order, axis=0)) * embodiment.control_rate_hz**order <= bound))
        for order, bound in enumerate((limits.velocity, limits.acceleration, limits.jerk), start=1)
    )
