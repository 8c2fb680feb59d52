"""Forward and inverse kinematics of one arm on private copies: mink tasks, daqp as the solver.

A configuration is the model coordinates of every axis (A,), radians or metres, in axis order. Poses are of the
model's site `tool` in the frame of its body `base`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import mink
import mujoco
import numpy as np

from blm.collect.planning.pose import Pose, ToolTarget, angle_between, tool_rotation
from blm.schemas.embodiment import Embodiment

_ITERATIONS = 40
_STALLED_AFTER = 8
_LARGEST_STEP_RAD = 0.5
_LIMIT_MARGIN = 1e-3
_WELL_WITHIN = 0.1
"""Share of the tolerance at which a solution is good enough to stop early."""
_ORIENTATION_COST = 0.05
_POSTURE_COST = 1e-3


@dataclass(frozen=True)
class Tolerance:
    """How near a solution must come to its target: metres, radians of approach, radians of opening."""

    position_m: float = 5e-4
    approach_rad: float = 0.05
    opening_rad: float = 0.05


@dataclass(frozen=True)
class JointMap:
    """Where the axes live in a model's qpos and qvel, and the joints that follow an axis through an equality."""

    qpos: np.ndarray
    dof: np.ndarray
    followers: tuple[tuple[int, int, np.ndarray], ...]

    @classmethod
    def of(cls, model: mujoco.MjModel, embodiment: Embodiment) -> JointMap:
        joints = [model.joint(name).id for name in embodiment.joints]
        return cls(
            qpos=np.array([model.jnt_qposadr[joint] for joint in joints]),
            dof=np.array([model.jnt_dofadr[joint] for joint in joints]),
            followers=_followers(model, set(joints)),
        )

    def write(self, qpos: np.ndarray, configuration: np.ndarray) -> None:
        """Set the axes in a full qpos (nq,), and the joints coupled to them."""
        qpos[self.qpos] = configuration
        for follower, leader, coefficients in self.followers:
            qpos[follower] = np.polynomial.polynomial.polyval(qpos[leader], coefficients)


def _followers(model: mujoco.MjModel, axes: set[int]) -> tuple[tuple[int, int, np.ndarray], ...]:
    """(qpos of the follower, qpos of its leader, polynomial) of every joint equality with an axis on one side."""
    found = []
    for equality in range(model.neq):
        if model.eq_type[equality] != mujoco.mjtEq.mjEQ_JOINT or model.eq_obj2id[equality] < 0:
            continue
        follower, leader = int(model.eq_obj1id[equality]), int(model.eq_obj2id[equality])
        coefficients = model.eq_data[equality, :5].copy()
        if follower in axes and leader not in axes:
            slope = coefficients[1]
            follower, leader = leader, follower
            coefficients = np.array([-coefficients[0] / slope, 1.0 / slope])
        found.append((int(model.jnt_qposadr[follower]), int(model.jnt_qposadr[leader]), coefficients))
    return tuple(found)


class Kinematics:
    """Kinematics of the robot in `model`, which may hold other things too; `model` itself is left alone.

    Attributes:
        lower, upper: joint limits (A,), the narrower of model and embodiment.
        home: the ready pose (A,).
        shoulder: a point (3,) on the first arm joint's axis, base frame.
        reach_m: the arm's length when stretched out, from the shoulder to the tool.
        solves: Gauss-Newton steps taken so far.
    """

    def __init__(self, model: mujoco.MjModel, embodiment: Embodiment) -> None:
        self.embodiment = embodiment
        self._model = copy.copy(model)
        self._joints = JointMap.of(self._model, embodiment)
        self._arm = np.array(embodiment.arm_indices)
        self.lower, self.upper = self._narrowed_limits()
        self._configuration = mink.Configuration(self._model)
        self._tool = self._model.site("tool").id
        self._base = self._model.body("base").id
        self._base_pose = self._body_pose(self._base)
        self._to_base = self._base_pose.inverse()
        first = self._model.joint(embodiment.joints[self._arm[0]]).id
        self.shoulder = (self._to_base @ Pose(self._configuration.data.xanchor[first], np.eye(3))).position
        self.reach_m = self._chain_length()
        self._frame_task = mink.FrameTask("tool", "site", 1.0, _ORIENTATION_COST)
        self._posture_task = mink.PostureTask(self._model, self._posture_cost())
        self._limits = [mink.ConfigurationLimit(self._model, gain=1.0)]
        self._rest = self._configuration.q.copy()
        self.home = self.clip(embodiment.to_model(embodiment.column("home")))
        self.solves = 0

    def clip(self, configuration: np.ndarray) -> np.ndarray:
        """The nearest configuration (A,) within the joint limits."""
        return np.clip(configuration, self.lower, self.upper)

    def forward(self, configuration: np.ndarray) -> Pose:
        """Tool pose in the base frame."""
        self._set(configuration)
        return self._tool_pose()

    def jacobian(self, configuration: np.ndarray) -> np.ndarray:
        """Tool velocity per axis velocity, shape (6, A): linear then angular, in the base frame."""
        self._set(configuration)
        linear, angular = np.zeros((3, self._model.nv)), np.zeros((3, self._model.nv))
        mujoco.mj_jacSite(self._model, self._configuration.data, linear, angular, self._tool)
        to_base = self._base_pose.rotation.T
        return np.concatenate([to_base @ linear, to_base @ angular])[:, self._joints.dof]

    def solve(
        self, target: ToolTarget, starts: Iterable[np.ndarray], tolerance: Tolerance | None = None
    ) -> np.ndarray | None:
        """The first solution found from `starts` (each (A,)), tried in turn; None if none leads to one.

        The gripper keeps the value it has in the start. Redundant arms stay near the start's posture.
        """
        if np.linalg.norm(target.position - self.shoulder) > self.reach_m:
            return None
        for start in starts:
            solution = self._solve_from(target, start, tolerance or Tolerance())
            if solution is not None:
                return solution
        return None

    def follow(
        self, targets: Sequence[ToolTarget], start: np.ndarray, tolerance: Tolerance | None = None
    ) -> np.ndarray | None:
        """Configurations (n, A) along a line of nearby targets, each solved from the one before; None if one fails."""
        configurations = []
        for target in targets:
            solution = self.solve(target, [start], tolerance)
            if solution is None or np.max(np.abs(solution - start)) > _LARGEST_STEP_RAD:
                return None
            configurations.append(solution)
            start = solution
        return np.array(configurations)

    def starts(self, first: np.ndarray, generator: np.random.Generator, count: int = 4) -> list[np.ndarray]:
        """Start configurations to search from: `first`, home, then seeded ones spread ever further from home."""
        middle, half = (self.lower + self.upper) / 2, (self.upper - self.lower) / 2
        half = np.minimum(half, np.pi)
        found = [first, self._with_gripper(self.home, first)]
        for k in range(count - 2):
            spread = (k + 1) / (count - 2)
            centre = self.home + spread * 0.5 * (np.clip(middle, -np.pi, np.pi) - self.home)
            drawn = centre + spread * half * generator.uniform(-1, 1, len(half))
            found.append(self._with_gripper(self.clip(drawn), first))
        return found

    def _solve_from(self, target: ToolTarget, start: np.ndarray, tolerance: Tolerance) -> np.ndarray | None:
        self._set(self.clip(start))
        self._posture_task.set_target(self._configuration.q)
        free = target.opening is None
        turn_cost = 0.0 if free else _ORIENTATION_COST
        self._frame_task.set_orientation_cost([_ORIENTATION_COST, _ORIENTATION_COST, turn_cost])
        best, since_best = np.inf, 0
        for _ in range(_ITERATIONS):
            pose = self._tool_pose()
            opening = pose.rotation[:, 1] if target.opening is None else target.opening
            wanted = self._base_pose @ Pose(target.position, tool_rotation(target.approach, opening))
            self._frame_task.set_target(_se3(wanted))
            if not self._step():
                return None
            excess = self._excess(target, tolerance)
            best, since_best = (excess, 0) if excess < 0.9 * best else (best, since_best + 1)
            if excess < _WELL_WITHIN or since_best >= (_STALLED_AFTER if best > 1.0 else 3):
                break
        return self._solution(start) if self._excess(target, tolerance) <= 1.0 else None

    def _step(self) -> bool:
        """Move by one Gauss-Newton step within the joint limits; False if the solver gives up."""
        self.solves += 1
        tasks = [self._frame_task, self._posture_task]
        try:
            velocity = mink.solve_ik(
                self._configuration, tasks, dt=1.0, solver="daqp", damping=1e-8, limits=self._limits
            )
        except mink.NoSolutionFound:
            return False
        arm = self._joints.dof[self._arm]
        step = np.zeros_like(velocity)
        step[arm] = velocity[arm] * min(1.0, _LARGEST_STEP_RAD / max(np.max(np.abs(velocity[arm])), 1e-12))
        self._configuration.integrate_inplace(step, 1.0)
        return True

    def _excess(self, target: ToolTarget, tolerance: Tolerance) -> float:
        """The largest of the errors, each as a multiple of its tolerance."""
        pose = self._tool_pose()
        distance = float(np.linalg.norm(pose.position - target.position))
        lean = angle_between(pose.rotation[:, 2], target.approach)
        excess = max(distance / tolerance.position_m, lean / tolerance.approach_rad)
        if target.opening is None:
            return excess
        wanted = tool_rotation(pose.rotation[:, 2], target.opening)[:, 1]
        return max(excess, angle_between(pose.rotation[:, 1], wanted) / tolerance.opening_rad)

    def _solution(self, start: np.ndarray) -> np.ndarray:
        # The solver keeps to limits but for its own tolerance.
        found = np.clip(self._configuration.q[self._joints.qpos], self.lower, self.upper)
        return self._with_gripper(found, start)

    def _with_gripper(self, configuration: np.ndarray, source: np.ndarray) -> np.ndarray:
        index = self.embodiment.gripper_index
        configuration = configuration.copy()
        configuration[index] = source[index]
        return configuration

    def _set(self, configuration: np.ndarray) -> None:
        qpos = self._rest.copy()
        self._joints.write(qpos, configuration)
        self._configuration.update(qpos)

    def _tool_pose(self) -> Pose:
        data = self._configuration.data
        world = Pose(data.site_xpos[self._tool], data.site_xmat[self._tool].reshape(3, 3))
        return self._to_base @ world

    def _body_pose(self, body: int) -> Pose:
        data = self._configuration.data
        return Pose(data.xpos[body].copy(), data.xmat[body].reshape(3, 3).copy())

    def _chain_length(self) -> float:
        data = self._configuration.data
        joints = [self._model.joint(self.embodiment.joints[axis]).id for axis in self._arm]
        points = np.concatenate([data.xanchor[joints], data.site_xpos[self._tool][None]])
        return float(np.linalg.norm(np.diff(points, axis=0), axis=1).sum())

    def _posture_cost(self) -> np.ndarray:
        cost = np.zeros(self._model.nv)
        cost[self._joints.dof[self._arm]] = _POSTURE_COST
        return cost

    def _narrowed_limits(self) -> tuple[np.ndarray, np.ndarray]:
        """Axis limits as model coordinates (A,), also written into the private model, so that IK keeps to them."""
        ends = np.sort(
            [self.embodiment.to_model(self.embodiment.column(name)) for name in ("lower", "upper")], axis=0
        )
        lower, upper = ends
        for axis, name in enumerate(self.embodiment.joints):
            joint = self._model.joint(name)
            if joint.limited[0]:
                lower[axis] = max(lower[axis], joint.range[0])
                upper[axis] = min(upper[axis], joint.range[1])
            if axis != self.embodiment.gripper_index:
                lower[axis] += _LIMIT_MARGIN
                upper[axis] -= _LIMIT_MARGIN
            self._model.jnt_limited[joint.id] = 1
            self._model.jnt_range[joint.id] = lower[axis], upper[axis]
        return lower, upper


def _se3(pose: Pose) -> mink.SE3:
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = pose.rotation, pose.position
    return mink.SE3.from_matrix(matrix)
