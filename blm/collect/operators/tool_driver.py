"""From wishes for the gripper to axis targets that are safe to send, one small step per control tick.

    ToolWish ──speed limits──▶ ToolWish ──damped least squares──▶ axes ──joint speeds, limits, collisions──▶ targets

What is out of reach is neared as far as it goes: a person sees where the arm ends up and corrects.
"""

from __future__ import annotations

from dataclasses import replace

import mujoco
import numpy as np

from blm.collect.operators.tool_wish import Reach, ToolWish, wrapped
from blm.collect.planning.collision import CollisionChecker
from blm.collect.planning.kinematics import Kinematics
from blm.collect.planning.pose import Pose
from blm.schemas.embodiment import Embodiment

TOOL_SPEED_M_S = 0.25
TURN_SPEED_RAD_S = 2.0
OPENING_SPEED_1_S = 2.0
_JOINT_SPEED_SHARE = 0.8
_DAMPING_M = 0.01
_DAMPING_RAD = 0.1
_POSTURE_GAIN = 0.02
_STEPS_PER_TICK = 3
_FLOOR_M = 0.004
_REACH_SHARE = 0.97
_AWAY_M = 100.0


class ToolDriver:
    """Drives one arm; `start` it where the arm is, then call `step` once per control tick.

    Attributes:
        wish: what is asked for now, within speed limits on its way to what was asked last.
        reach: where wishes may lie.
        period_s: one control tick.
    """

    APPROACH_SHARE = 0.4
    """Of the way to the wish that is gone per tick at most, so that the tool slows down before it arrives."""

    def __init__(self, model: mujoco.MjModel, embodiment: Embodiment, base_pose: np.ndarray) -> None:
        """`model` holds the robot and its table; `base_pose` (4, 4) is the robot's base in the model's world."""
        self._embodiment = embodiment
        self._kinematics = Kinematics(model, embodiment)
        self._arm = np.array(embodiment.arm_indices)
        self.period_s = 1.0 / embodiment.control_rate_hz
        self._joint_step = _JOINT_SPEED_SHARE * embodiment.column("max_velocity") * self.period_s
        self.reach = Reach(
            self._kinematics.shoulder,
            _REACH_SHARE * self._kinematics.reach_m,
            _FLOOR_M - float(base_pose[2, 3]),
        )
        self._collisions = CollisionChecker(model, embodiment)
        self._collisions.update(_emptied(model), self._kinematics.home)
        self._command = self._kinematics.home.copy()
        self.wish = self._wish_at(self._command)

    def start(self, state: np.ndarray) -> ToolWish:
        """Take over from measured axis values (A,); returns the wish that leaves the arm where it is."""
        self._command = self._kinematics.clip(self._embodiment.to_model(state))
        self.wish = self._wish_at(self._command)
        return self.wish

    def step(self, wanted: ToolWish) -> np.ndarray:
        """Axis targets (A,), axis units, a tick nearer to `wanted`."""
        before = self.wish
        direct = self._limited(wanted.within(self.reach))
        level = np.array([*direct.position[:2], max(direct.position[2], before.position[2])])
        # Where the way down would press something into the table, the way along it may be free.
        for wish in (direct, replace(direct, position=level, tilt=before.tilt)):
            target = self._solved(wish)
            if not self._collides(target):
                self.wish = wish
                break
        else:
            target = self._gripper_only(direct.opening)
            self.wish = replace(before, opening=direct.opening)
        self._command = target
        return self.targets

    @property
    def targets(self) -> np.ndarray:
        """The axis targets (A,) of the last step, axis units."""
        return self._embodiment.clip(self._embodiment.from_model(self._command))

    def tool_pose(self, state: np.ndarray) -> Pose:
        """Tool pose in the base frame at axis values (A,)."""
        return self._kinematics.forward(self._embodiment.to_model(state))

    def _limited(self, wanted: ToolWish) -> ToolWish:
        """A tick's way from the present wish to `wanted`."""
        now = self.wish
        offset = wanted.position - now.position
        distance = float(np.linalg.norm(offset))
        longest = TOOL_SPEED_M_S * self.period_s
        share = 1.0 if distance < 1e-9 else min(self.APPROACH_SHARE, longest / distance)
        return ToolWish(
            now.position + share * offset,
            now.tilt + self._turned(wanted.tilt - now.tilt),
            wrapped(now.turn + self._turned(wrapped(wanted.turn - now.turn))),
            now.opening + _bounded(wanted.opening - now.opening, OPENING_SPEED_1_S * self.period_s),
        )

    def _turned(self, angle: float) -> float:
        return _bounded(self.APPROACH_SHARE * angle, TURN_SPEED_RAD_S * self.period_s)

    def _solved(self, wish: ToolWish) -> np.ndarray:
        """Axes (A,), model coordinates, at most a tick's joint travel from the last command."""
        target = wish.pose(self._kinematics.shoulder)
        configuration = self._command.copy()
        for _ in range(_STEPS_PER_TICK):
            configuration[self._arm] += self._towards(target, configuration)
            configuration = self._kinematics.clip(configuration)
        configuration[self._embodiment.gripper_index] = self._gripper(wish.opening)
        step = configuration - self._command
        arm_excess = np.max(np.abs(step[self._arm]) / self._joint_step[self._arm])
        step[self._arm] /= max(arm_excess, 1.0)
        return self._kinematics.clip(self._command + np.clip(step, -self._joint_step, self._joint_step))

    def _towards(self, target: Pose, configuration: np.ndarray) -> np.ndarray:
        """One damped least-squares step (arm joints,): position first, orientation with the freedom that is left.

        A joint that would be driven out of its range is left out: what it cannot do the others must not undo.
        """
        pose = self._kinematics.forward(configuration)
        error = np.concatenate(
            [target.position - pose.position, _rotation_vector(target.rotation @ pose.rotation.T)]
        )
        homewards = self._kinematics.home - configuration
        jacobian = self._kinematics.jacobian(configuration)[:, self._arm]
        lower, upper = self._kinematics.lower[self._arm], self._kinematics.upper[self._arm]
        place = configuration[self._arm]
        step = _prioritised(jacobian, error, homewards[self._arm])
        stuck = (place + step > upper) | (place + step < lower)
        if stuck.any():
            jacobian = np.where(stuck, 0.0, jacobian)
            step = np.where(stuck, 0.0, _prioritised(jacobian, error, homewards[self._arm]))
        return step

    def _gripper_only(self, opening: float) -> np.ndarray:
        target = self._command.copy()
        index = self._embodiment.gripper_index
        step = self._gripper(opening) - target[index]
        target[index] += _bounded(step, self._joint_step[index])
        return target

    def _gripper(self, opening: float) -> float:
        gripper = self._embodiment.gripper
        values = self._embodiment.column("home")
        values[self._embodiment.gripper_index] = gripper.closed + opening * (gripper.open - gripper.closed)
        return float(self._embodiment.to_model(values)[self._embodiment.gripper_index])

    def _collides(self, target: np.ndarray) -> bool:
        """Whether the arm would run into itself or the table; an arm that already does may move."""
        return self._collisions.cause(target) is not None and self._collisions.cause(self._command) is None

    def _wish_at(self, configuration: np.ndarray) -> ToolWish:
        pose = self._kinematics.forward(configuration)
        gripper = self._embodiment.gripper
        value = self._embodiment.from_model(configuration)[self._embodiment.gripper_index]
        opening = float(np.clip((value - gripper.closed) / (gripper.open - gripper.closed), 0.0, 1.0))
        return ToolWish.of(pose, opening, self._kinematics.shoulder)


def _emptied(model: mujoco.MjModel) -> mujoco.MjData:
    """A state in which everything that lies about is far away: touching objects is what the arm is there for."""
    data = mujoco.MjData(model)
    for joint in range(model.njnt):
        if model.jnt_type[joint] == mujoco.mjtJoint.mjJNT_FREE:
            data.qpos[model.jnt_qposadr[joint]] += _AWAY_M * (joint + 1)
    return data


def _prioritised(jacobian: np.ndarray, error: np.ndarray, homewards: np.ndarray) -> np.ndarray:
    """Joint step (n,) that serves the position, then the orientation, then the way home; `jacobian` is (6, n)."""
    move, spare = _damped_inverse(jacobian[:3], _DAMPING_M)
    step = move @ error[:3]
    turn, rest = _damped_inverse(jacobian[3:] @ spare, _DAMPING_RAD)
    step = step + spare @ turn @ (error[3:] - jacobian[3:] @ step)
    return step + spare @ rest @ (_POSTURE_GAIN * homewards) if jacobian.shape[1] > 6 else step


def _damped_inverse(jacobian: np.ndarray, damping: float) -> tuple[np.ndarray, np.ndarray]:
    """The pseudo-inverse (n, m) of an (m, n) matrix, and the projection (n, n) onto what it leaves free."""
    rows, columns = jacobian.shape
    inverse = jacobian.T @ np.linalg.inv(jacobian @ jacobian.T + damping**2 * np.eye(rows))
    return inverse, np.eye(columns) - np.linalg.pinv(jacobian, rcond=1e-2) @ jacobian


def _bounded(value: float, largest: float) -> float:
    return max(-largest, min(largest, value))


def _rotation_vector(rotation: np.ndarray) -> np.ndarray:
    """Axis times angle (3,) of a rotation matrix."""
    quaternion, vector = np.empty(4), np.empty(3)
    mujoco.mju_mat2Quat(quaternion, np.ascontiguousarray(rotation).ravel())
    mujoco.mju_quat2Vel(vector, quaternion, 1.0)
    return vector
