"""Noise with corrective labels: bursts that push the arm off its commands, which are recorded as they were sent.

The servos' targets get a smooth offset that comes and goes; the action on record stays the clean command. So the state
wanders off the demonstration and the labels lead back to it, which is what a policy needs to learn to recover. Noise
injected into the supervisor's execution is from Laskey et al., "DART: Noise Injection for Robust Imitation Learning",
CoRL 2017. There is none where a task needs precision: close to objects, and where a carried object is put down.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic import Field

from blm.collect.sim.variety import stream
from blm.schemas.yaml_model import FrozenModel

_DAMPING_M = 0.05
_LARGEST_OFFSET_RAD = 0.25
_LONGEST_EPISODE_S = 120.0


class Disturbance(FrozenModel):
    """How strong bursts are and how often they come; ranges are drawn from evenly.

    Attributes:
        scale: factor on the displacement; 0 for none.
        peak_m: how far a burst would move a stiffly held tool, metres.
        duration_s: from its beginning to its end.
        pause_s: from the end of one to the beginning of the next.
        near_m, far_m: distances of the tool from an object at which bursts vanish, and from which on they are whole.
    """

    scale: float = Field(default=1.0, ge=0.0, le=3.0)
    peak_m: tuple[float, float] = (0.01, 0.02)
    duration_s: tuple[float, float] = (0.4, 0.8)
    pause_s: tuple[float, float] = (0.2, 0.8)
    near_m: float = Field(default=0.05, gt=0)
    far_m: float = Field(default=0.12, gt=0)


@dataclass(frozen=True)
class Surroundings:
    """What decides how much noise is bearable now; world frame, metres.

    Attributes:
        tool: (3,).
        others: positions of objects that are not carried, (n, 3).
        carried: positions of objects that are, (m, 3).
        goal: (3,) or None.
    """

    tool: np.ndarray
    others: np.ndarray
    carried: np.ndarray
    goal: np.ndarray | None


class Bursts:
    """The bursts of one episode, decided by its seed alone."""

    def __init__(self, disturbance: Disturbance, seed: int) -> None:
        self._disturbance = disturbance
        generator = stream(seed, "disturbance")
        count = int(np.ceil(_LONGEST_EPISODE_S / (disturbance.duration_s[0] + disturbance.pause_s[0])))
        self._durations = generator.uniform(*disturbance.duration_s, count)
        pauses = generator.uniform(*disturbance.pause_s, count)
        self._starts = np.cumsum(pauses + self._durations) - self._durations
        directions = generator.normal(size=(count, 3))
        # Never downwards: the table is there.
        directions[:, 2] = np.abs(directions[:, 2])
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        peaks = disturbance.scale * generator.uniform(*disturbance.peak_m, count)
        self._peaks = peaks[:, None] * directions

    def displacement(self, time_s: float) -> np.ndarray:
        """Where a burst wants the tool, relative to its command, shape (3,), metres, world frame."""
        index = int(np.searchsorted(self._starts, time_s, side="right")) - 1
        if index < 0:
            return np.zeros(3)
        share = (time_s - self._starts[index]) / self._durations[index]
        return np.zeros(3) if share >= 1 else self._peaks[index] * (0.5 - 0.5 * np.cos(2 * np.pi * share))

    def weight(self, around: Surroundings) -> float:
        """How much of a burst is let through, 0..1: none near objects, near the table with something carried, or
        near the goal with it."""
        near, far = self._disturbance.near_m, self._disturbance.far_m
        weight = 1.0
        if len(around.others):
            nearest = float(np.linalg.norm(around.others - around.tool, axis=1).min())
            weight = _ramp(nearest, near, far)
        for position in around.carried:
            weight = min(weight, _ramp(float(position[2]), near, far))
            if around.goal is not None:
                weight = min(weight, _ramp(float(np.linalg.norm(position - around.goal)), near, far))
        return weight


def joint_offset(displacement: np.ndarray, jacobian: np.ndarray) -> np.ndarray:
    """Axis offsets (A,) that move the tool by about `displacement` (3,), given its linear Jacobian (3, A)."""
    square = jacobian @ jacobian.T + _DAMPING_M**2 * np.eye(3)
    offset = jacobian.T @ np.linalg.solve(square, displacement)
    return offset * min(1.0, _LARGEST_OFFSET_RAD / max(float(np.abs(offset).max()), 1e-9))


def _ramp(value: float, none: float, full: float) -> float:
    """0 up to `none`, 1 from `full` on."""
    return float(np.clip((value - none) / (full - none), 0.0, 1.0))
