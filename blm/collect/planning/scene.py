"""What a skill knows about the world: objects, goal and gripper in the base frame, and how to vary a demonstration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import mujoco
import numpy as np

from blm.collect.planning.kinematics import Kinematics
from blm.collect.planning.pose import DOWN, Pose
from blm.schemas.embodiment import Embodiment
from blm.schemas.rollout import Environment
from blm.schemas.task import Task, TaskObject


class PlannableEnvironment(Environment, Protocol):
    """A simulated environment that lets a planner see the whole state; world-frame metres and quaternions wxyz."""

    model: mujoco.MjModel
    data: mujoco.MjData
    base_pose: np.ndarray

    @property
    def obstacles(self) -> tuple[str, ...]:
        """Things in the model, besides the task's objects, that the arm has to stay clear of."""
        ...

    def object_pose(self, name: str) -> tuple[np.ndarray, np.ndarray]: ...

    def goal_position(self) -> np.ndarray | None: ...

    def touching(self, name: str) -> bool: ...

    @property
    def largest_push_m(self) -> float: ...

    def succeeded(self) -> bool: ...


@dataclass(frozen=True)
class SceneObject:
    """A task object: its pose in the base frame, and what it is."""

    pose: Pose
    thing: TaskObject

    @property
    def position(self) -> np.ndarray:
        return self.pose.position


@dataclass(frozen=True)
class GripperShape:
    """The gripper's outline in the tool frame, metres.

    Attributes:
        corners_open, corners_closed: corners (N, 3) of the boxes around its solid parts.
        gaps: distance between the finger pads at several openings, ascending, shape (K,).
        middles: where along the opening direction the middle between the pads then is, shape (K,); 0 unless one
            jaw is fixed.
    """

    corners_open: np.ndarray
    corners_closed: np.ndarray
    gaps: np.ndarray
    middles: np.ndarray

    @property
    def tip_m(self) -> float:
        """How far the gripper reaches beyond the tool point along the approach direction, at any opening."""
        return float(max(self.corners_open[:, 2].max(), self.corners_closed[:, 2].max()))

    def middle_m(self, width_m: float) -> float:
        """Where along the opening direction an object of this width ends up when the gripper closes on it."""
        return float(np.interp(width_m, self.gaps, self.middles))

    def reach_m(self, direction: np.ndarray, above_tip_m: float) -> float:
        """How far the closed gripper's lowest `above_tip_m` reaches along a tool-frame `direction` (3,)."""
        low = self.corners_closed[:, 2] > self.corners_closed[:, 2].max() - above_tip_m
        return float((self.corners_closed[low] @ direction).max())


@dataclass(frozen=True)
class Variation:
    """How one demonstration differs from the plainest one.

    Attributes:
        speed: pace as a share of the embodiment's limits (0..1].
        approach_height: factor on how far above or behind an object an approach begins.
        sideways: offset of a push across its direction, as a share of the object's half width (−1..1).
        bow: bends free motions: peak offset of each arm axis, shape (A,), model units.
        tilt: lean of the preferred grasp from straight down, in the arm's plane, radians.
        turn: of a grasp about the vertical where the object's symmetry allows any, radians.
        other_faces: whether to grasp a cube across the two faces that are the second best to reach.
    """

    speed: float
    approach_height: float
    sideways: float
    bow: np.ndarray
    tilt: float = 0.0
    turn: float = 0.0
    other_faces: bool = False

    @classmethod
    def none(cls, axes: int) -> Variation:
        return cls(speed=0.85, approach_height=1.0, sideways=0.0, bow=np.zeros(axes))

    @classmethod
    def drawn(cls, generator: np.random.Generator, embodiment: Embodiment) -> Variation:
        """Speed 0.7–1, approach height ±20 %, pushes up to 20 % off the middle, motions bent by up to 0.06 rad.

        Grasps lean by up to 8°, turn by up to 35° about a ball, and one in four takes a cube by its other faces.
        These are numbers of their own, so that motions without a grasp are not touched by them.
        """
        grasps = generator.spawn(1)[0]
        bow = np.zeros(len(embodiment.axes))
        arm = list(embodiment.arm_indices)
        bow[arm] = generator.uniform(-0.06, 0.06, len(arm))
        return cls(
            speed=float(generator.uniform(0.7, 1.0)),
            approach_height=float(generator.uniform(0.8, 1.2)),
            sideways=float(generator.uniform(-0.2, 0.2)),
            bow=bow,
            tilt=float(grasps.uniform(-1, 1) * np.deg2rad(8.0)),
            turn=float(grasps.uniform(-1, 1) * np.deg2rad(35.0)),
            other_faces=bool(grasps.random() < 0.25),
        )


@dataclass(frozen=True)
class Scene:
    """The workspace as a skill sees it; everything in the base frame, metres.

    Attributes:
        tool: the tool's pose now.
        shoulder: a point on the vertical axis of the first joint.
        home_opening: horizontal direction (3,) along which the gripper opens at home.
        goal: (3,) or None.
        table_height: of the table's surface.
    """

    embodiment: Embodiment
    task: Task
    objects: Mapping[str, SceneObject]
    goal: np.ndarray | None
    tool: Pose
    shoulder: np.ndarray
    home_opening: np.ndarray
    gripper: GripperShape
    table_height: float

    def outwards(self, position: np.ndarray) -> np.ndarray:
        """Horizontal unit vector (3,) from the shoulder's axis to `position` (3,)."""
        away = (position - self.shoulder) * [1.0, 1.0, 0.0]
        return away / np.linalg.norm(away)

    def approach(self, position: np.ndarray, tilt: float) -> np.ndarray:
        """Approach direction that leans `tilt` radians from straight down, outwards (0: down, π/2: level).

        The lean stays in the vertical plane through the shoulder's axis and `position`: an arm with a pan joint and
        a planar chain can lean in no other.
        """
        return np.cos(tilt) * DOWN + np.sin(tilt) * self.outwards(position)

    def home_opening_at(self, position: np.ndarray) -> np.ndarray:
        """The direction in which the gripper opens at home, after the shoulder has turned towards `position`."""
        (x, y, _), (along, across, height) = self.outwards(position), self.home_opening
        return np.array([x * along - y * across, y * along + x * across, height])


def observe_scene(
    environment: PlannableEnvironment,
    kinematics: Kinematics,
    gripper: GripperShape,
    configuration: np.ndarray,
) -> Scene:
    """Take the environment's present state into the base frame; the robot is at `configuration` (A,)."""
    base = Pose.from_matrix(environment.base_pose)
    to_base = base.inverse()
    objects = {
        name: SceneObject(to_base @ Pose.from_quaternion(*environment.object_pose(name)), thing)
        for name, thing in environment.task.objects.items()
    }
    goal = environment.goal_position()
    return Scene(
        embodiment=environment.embodiment,
        task=environment.task,
        objects=objects,
        goal=None if goal is None else to_base.position + to_base.rotation @ goal,
        tool=kinematics.forward(configuration),
        shoulder=kinematics.shoulder,
        home_opening=kinematics.forward(kinematics.home).rotation[:, 1],
        gripper=gripper,
        table_height=float(to_base.position[2]),
    )
