"""Success criteria: one function per measure of `blm.schemas.task`, on a plain state of the scene.

Everything is in metres, seconds and radians, in the workspace (world) frame.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from blm.schemas.errors import ConfigError
from blm.schemas.task import Criterion, Measure, Task


@dataclass(frozen=True)
class ObjectState:
    """An object's motion now.

    Attributes:
        position: of its centre, shape (3,), m.
        quaternion: wxyz, shape (4,).
        velocity: shape (3,), m/s.
        angular_velocity: shape (3,), rad/s.
        gripper_contacts: contact points between it and the gripper.
    """

    position: np.ndarray
    quaternion: np.ndarray
    velocity: np.ndarray = field(default_factory=lambda: np.zeros(3))
    angular_velocity: np.ndarray = field(default_factory=lambda: np.zeros(3))
    gripper_contacts: int = 0


@dataclass(frozen=True)
class SceneState:
    """What success is judged by: objects by name, the goal (3,) or None, arm joint velocities (n,) in rad/s."""

    objects: Mapping[str, ObjectState]
    goal: np.ndarray | None = None
    arm_joint_velocities: np.ndarray = field(default_factory=lambda: np.zeros(1))


def object_to_goal_distance_m(task: Task, criterion: Criterion, state: SceneState) -> float:
    return float(np.linalg.norm(_object(criterion, state).position - _goal(state)))


def object_to_goal_xy_distance_m(task: Task, criterion: Criterion, state: SceneState) -> float:
    return float(np.linalg.norm((_object(criterion, state).position - _goal(state))[:2]))


def object_height_m(task: Task, criterion: Criterion, state: SceneState) -> float:
    """Height of the object's centre above the table."""
    return float(_object(criterion, state).position[2])


def object_height_error_m(task: Task, criterion: Criterion, state: SceneState) -> float:
    return abs(object_height_m(task, criterion, state) - criterion.expected)


def object_tilt_rad(task: Task, criterion: Criterion, state: SceneState) -> float:
    """Angle between vertical and the object's axis (x of a peg, z of anything else), either end up: 0..π/2."""
    peg = criterion.object is not None and task.objects[criterion.object].shape == "peg"
    w, x, y, z = _object(criterion, state).quaternion
    vertical_part = 2 * (x * z - w * y) if peg else 1 - 2 * (x * x + y * y)
    return float(np.arccos(np.clip(abs(vertical_part), 0.0, 1.0)))


def object_speed_m_s(task: Task, criterion: Criterion, state: SceneState) -> float:
    return float(np.linalg.norm(_object(criterion, state).velocity))


def object_angular_speed_rad_s(task: Task, criterion: Criterion, state: SceneState) -> float:
    return float(np.linalg.norm(_object(criterion, state).angular_velocity))


def objects_xy_distance_m(task: Task, criterion: Criterion, state: SceneState) -> float:
    difference = _object(criterion, state).position - _target(criterion, state).position
    return float(np.linalg.norm(difference[:2]))


def objects_height_difference_error_m(task: Task, criterion: Criterion, state: SceneState) -> float:
    """How far the object's height above the target is from the expected one."""
    difference = _object(criterion, state).position - _target(criterion, state).position
    return abs(float(difference[2]) - criterion.expected)


def arm_joint_speed_rad_s(task: Task, criterion: Criterion, state: SceneState) -> float:
    """The fastest arm joint's speed; the gripper does not count."""
    return float(np.abs(state.arm_joint_velocities).max())


def gripper_contacts(task: Task, criterion: Criterion, state: SceneState) -> float:
    """Contact points between the object and the gripper: 0 once it is released."""
    return float(_object(criterion, state).gripper_contacts)


MEASURES: Mapping[Measure, Callable[[Task, Criterion, SceneState], float]] = {
    "object_to_goal_distance_m": object_to_goal_distance_m,
    "object_to_goal_xy_distance_m": object_to_goal_xy_distance_m,
    "object_height_m": object_height_m,
    "object_height_error_m": object_height_error_m,
    "object_tilt_rad": object_tilt_rad,
    "object_speed_m_s": object_speed_m_s,
    "object_angular_speed_rad_s": object_angular_speed_rad_s,
    "objects_xy_distance_m": objects_xy_distance_m,
    "objects_height_difference_error_m": objects_height_difference_error_m,
    "arm_joint_speed_rad_s": arm_joint_speed_rad_s,
    "gripper_contacts": gripper_contacts,
}


def evaluate_success(task: Task, state: SceneState) -> dict[str, tuple[float, bool]]:
    """Criterion name → (value in its measure's unit, whether it holds). The task succeeds when all hold.

    Raises:
        ConfigError: a criterion lacks the object, target or goal that its measure is about.
    """
    result = {}
    for name, criterion in task.success.items():
        value = MEASURES[criterion.measure](task, criterion, state)
        result[name] = (value, value <= criterion.at_most)
    return result


def _object(criterion: Criterion, state: SceneState) -> ObjectState:
    return _named(criterion, "object", state)


def _target(criterion: Criterion, state: SceneState) -> ObjectState:
    return _named(criterion, "target", state)


def _named(criterion: Criterion, key: str, state: SceneState) -> ObjectState:
    name = getattr(criterion, key)
    if name is None:
        raise ConfigError(f"success measure '{criterion.measure}' needs the key '{key}'.", "Name an object.")
    return state.objects[name]


def _goal(state: SceneState) -> np.ndarray:
    if state.goal is None:
        raise ConfigError("a success criterion needs a goal, and the task has none.", "Define `goal`.")
    return state.goal
