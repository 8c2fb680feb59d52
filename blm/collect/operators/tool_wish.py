"""Where a person wants the gripper: few numbers, all reachable by an arm with five joints or more.

The approach direction leans from straight down by `tilt`, outwards in the vertical plane through the arm's first axis:
an arm with five joints has no other freedom there. `turn` is the direction in which the fingers open, seen from above.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from blm.collect.planning.pose import UP, Pose

LARGEST_TILT_RAD = 1.5
SMALLEST_TILT_RAD = -0.5
_NEAR_AXIS_M = 0.02


@dataclass(frozen=True)
class ToolWish:
    """A wanted tool pose in the base frame.

    Attributes:
        position: (3,), metres.
        tilt: lean of the approach direction from straight down, outwards, radians.
        turn: horizontal angle from +y to the opening direction, radians; where the gripper leans, it leans along.
        opening: of the gripper, 0 closed to 1 open.
    """

    position: np.ndarray
    tilt: float
    turn: float
    opening: float

    def pose(self, shoulder: np.ndarray) -> Pose:
        """The tool pose, for an arm whose first axis passes through `shoulder` (3,)."""
        outward, lateral = _plane(self.position, shoulder)
        approach = -np.cos(self.tilt) * UP + np.sin(self.tilt) * outward
        angle = self.turn - _azimuth(outward)
        y = np.cos(angle) * lateral - np.sin(angle) * np.cross(approach, lateral)
        return Pose(self.position, np.stack([np.cross(y, approach), y, approach], axis=1))

    @classmethod
    def of(cls, pose: Pose, opening: float, shoulder: np.ndarray) -> ToolWish:
        """The wish that is nearest to being fulfilled by `pose`."""
        outward, lateral = _plane(pose.position, shoulder)
        approach, y = pose.rotation[:, 2], pose.rotation[:, 1]
        tilt = float(np.arctan2(approach @ outward, -(approach @ UP)))
        angle = float(np.arctan2(-(y @ np.cross(approach, lateral)), y @ lateral))
        return cls(pose.position.copy(), tilt, wrapped(angle + _azimuth(outward)), opening)

    def within(self, reach: Reach) -> ToolWish:
        """The nearest wish that the arm can be asked for."""
        position = np.array(self.position, dtype=np.float64)
        position[2] = max(position[2], reach.floor_m)
        arm = position - reach.shoulder
        length = float(np.linalg.norm(arm))
        if length > reach.radius_m:
            position = reach.shoulder + arm * (reach.radius_m / length)
            position[2] = max(position[2], reach.floor_m)
        return replace(
            self,
            position=position,
            tilt=float(np.clip(self.tilt, SMALLEST_TILT_RAD, LARGEST_TILT_RAD)),
            turn=wrapped(self.turn),
            opening=float(np.clip(self.opening, 0.0, 1.0)),
        )


@dataclass(frozen=True)
class Reach:
    """Where wishes may lie, base frame: in a ball around the shoulder (3,), above the table; metres."""

    shoulder: np.ndarray
    radius_m: float
    floor_m: float


def wrapped(angle: float) -> float:
    """The same direction within ±π."""
    return float((angle + np.pi) % (2 * np.pi) - np.pi)


def _plane(position: np.ndarray, shoulder: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Horizontal unit vectors: from the arm's first axis outwards to `position`, and to the left of that."""
    away = (position - shoulder)[:2]
    distance = np.linalg.norm(away)
    x, y = away / distance if distance > _NEAR_AXIS_M else (1.0, 0.0)
    return np.array([x, y, 0.0]), np.array([-y, x, 0.0])


def _azimuth(outward: np.ndarray) -> float:
    return float(np.arctan2(outward[1], outward[0]))
