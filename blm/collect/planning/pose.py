"""Rigid poses, and the tool frame that skills think in: z is the approach direction, y the opening direction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

UP = np.array([0.0, 0.0, 1.0])
DOWN = -UP


@dataclass(frozen=True)
class Pose:
    """Position (3,) in metres and rotation matrix (3, 3), of a frame in some other frame."""

    position: np.ndarray
    rotation: np.ndarray

    @classmethod
    def from_matrix(cls, matrix: np.ndarray) -> Pose:
        """From a homogeneous transform (4, 4)."""
        return cls(np.array(matrix[:3, 3]), np.array(matrix[:3, :3]))

    @classmethod
    def from_quaternion(cls, position: np.ndarray, quaternion: np.ndarray) -> Pose:
        """From a position (3,) and a unit quaternion (4,), w first."""
        w, x, y, z = np.asarray(quaternion, dtype=np.float64) / np.linalg.norm(quaternion)
        rotation = np.array(
            [
                [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
                [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
                [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
            ]
        )
        return cls(np.array(position, dtype=np.float64), rotation)

    def __matmul__(self, other: Pose) -> Pose:
        return Pose(self.position + self.rotation @ other.position, self.rotation @ other.rotation)

    def inverse(self) -> Pose:
        return Pose(-self.rotation.T @ self.position, self.rotation.T)


@dataclass(frozen=True)
class ToolTarget:
    """Where the tool should be, in the base frame.

    Attributes:
        position: (3,), metres.
        approach: unit vector (3,), the tool's z axis.
        opening: unit vector (3,) that the tool's y axis should follow as far as `approach` allows; None leaves the
            turn about the approach direction free.
    """

    position: np.ndarray
    approach: np.ndarray
    opening: np.ndarray | None = None

    def shifted(self, offset: np.ndarray) -> ToolTarget:
        """The same orientation, moved by `offset` (3,), metres."""
        return ToolTarget(self.position + offset, self.approach, self.opening)

    @classmethod
    def from_pose(cls, pose: Pose) -> ToolTarget:
        return cls(pose.position, pose.rotation[:, 2], pose.rotation[:, 1])


def tool_rotation(approach: np.ndarray, opening: np.ndarray) -> np.ndarray:
    """Rotation (3, 3) with z along `approach` and y as near to `opening` as a right angle allows."""
    z = approach / np.linalg.norm(approach)
    y = opening - z * (opening @ z)
    y = y / np.linalg.norm(y)
    return np.stack([_cross(y, z), y, z], axis=1)


def horizontal(angle: float) -> np.ndarray:
    """Unit vector (3,) in the table plane at `angle` radians from x."""
    return np.array([np.cos(angle), np.sin(angle), 0.0])


def angle_between(a: np.ndarray, b: np.ndarray) -> float:
    """Angle between two vectors (3,), radians; exact near zero, where arccos of a dot product is not."""
    return float(np.arctan2(np.linalg.norm(_cross(a, b)), a @ b))


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """`np.cross` for single vectors, without its cost, which inverse kinematics would feel."""
    return np.array([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])
