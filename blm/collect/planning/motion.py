"""From a decomposition to motions: configurations for every primitive, checked paths, commands at the control rate.

The whole plan is found before anything moves. Primitives that pass into each other share one smooth path.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from blm.collect.planning.collision import (
    CLEARANCE_M,
    PENETRATION_M,
    WIDE_CLEARANCE_M,
    CollisionChecker,
)
from blm.collect.planning.failure import Failure, FailureCause
from blm.collect.planning.kinematics import Kinematics
from blm.collect.planning.path import SmoothPath, joint_paces, smooth
from blm.collect.planning.pose import Pose, ToolTarget, tool_rotation
from blm.collect.planning.primitives import Check, Primitive
from blm.collect.planning.scene import Variation
from blm.collect.planning.servo import KEEP_EVERY, SUBSTEPS, Servos
from blm.collect.planning.timing import Limits, progress_at_rate
from blm.collect.planning.torque import TorqueModel
from blm.schemas.errors import PlanningError

_BLENDS_S = (0.3, 0.2, 0.12, 0.06)
_STRAIGHT_STEP_M = 0.01
_STRAIGHT_STEP_RAD = 0.1
_CHECK_STEP = 0.04
_RAISES_M = (0.05, 0.1)
_SLOWER = (1.0, 0.7, 0.45)
"""Shares of the speed at which a motion is tried that needs more torque than there is."""
_CAREFUL = 1.5
"""How much slower to go close by obstacles, where a servo's error matters."""


@dataclass(frozen=True)
class Motion:
    """A stretch from rest to rest.

    Attributes:
        commands: (N, A), axis units, one per control tick.
        steps: the primitive that each tick is part of, (N,).
        check: looked at after its end.
        length_rad: of the arm's path in joint space.
        peak_torque_share: the largest share of a joint's torque limit that it needs; 0 where none is known.
    """

    commands: np.ndarray
    steps: tuple[Primitive, ...] = ()
    check: Check | None = None
    length_rad: float = 0.0
    peak_torque_share: float = 0.0


class InfeasibleError(PlanningError):
    """A decomposition cannot be carried out; `primitive` and `failure` say where and why."""

    def __init__(self, primitive: str, failure: Failure) -> None:
        super().__init__(f"{primitive}: {failure.detail}.")
        self.primitive, self.failure = primitive, failure


@dataclass(frozen=True)
class _Leg:
    """One primitive's part of a path: points (n, A) from where the one before ended, with their paces (n − 1,).

    `cornered`: it has corners of its own that want rounding.
    """

    primitive: Primitive
    points: np.ndarray
    paces: np.ndarray
    cornered: bool = False


class MotionPlanner:
    """Turns decompositions into motions for one robot in one scene.

    Attributes:
        rejected_targets: targets that turned out to be infeasible so far.
        searches_left: how many more searches by sampling may be made; 0 at first.
        sampled_paths: how many ways of the last plan they found.
        blocked_ways: how often nothing simpler led to a free configuration so far.
    """

    def __init__(
        self,
        kinematics: Kinematics,
        checker: CollisionChecker,
        servos: Servos,
        torques: TorqueModel,
        generator: np.random.Generator,
    ) -> None:
        self._kinematics = kinematics
        self._checker = checker
        self._generator = generator
        self._embodiment = kinematics.embodiment
        self._servos = servos
        self._torques = torques
        self._limits = Limits.of(self._embodiment)
        self.rejected_targets = self.sampled_paths = self.searches_left = self.blocked_ways = 0

    def plan(
        self, decomposition: Sequence[Primitive], start: np.ndarray, variation: Variation
    ) -> list[Motion]:
        """Motions that carry out the primitives from configuration `start` (A,), model coordinates.

        Raises:
            InfeasibleError: no target of some primitive can be reached, or not without a collision.
        """
        self._checker.restart()
        self.sampled_paths = 0
        groups: list[list[_Leg]] = [[]]
        here = start
        for index, primitive in enumerate(decomposition):
            leg = self._leg(primitive, here, variation if index == 0 else None)
            groups[-1].append(leg)
            here = leg.points[-1]
            if not primitive.through and index < len(decomposition) - 1:
                groups.append([])
        self._checker.restart()
        return [self._motion(legs, variation) for legs in groups]

    def _leg(self, primitive: Primitive, here: np.ndarray, variation: Variation | None) -> _Leg:
        """The first feasible way to carry out a primitive from configuration `here` (A,)."""
        self._enter(primitive)
        if not primitive.targets:
            points = np.stack([here, self._with_gripper(here, primitive)])
            return _Leg(primitive, points, joint_paces(points, self._limits.velocity))
        failure = Failure(
            FailureCause.NO_IK_SOLUTION, "no solution of the inverse kinematics within the joint limits"
        )
        for target in primitive.targets:
            leg = self._straight(primitive, target, here) if primitive.straight else None
            if not primitive.straight:
                leg = self._through_joint_space(primitive, target, here, variation)
            if isinstance(leg, _Leg):
                return leg
            self.rejected_targets += 1
            failure = Failure(FailureCause.COLLISION, leg) if leg else failure
        raise InfeasibleError(primitive.name, failure)

    def _straight(self, primitive: Primitive, target: ToolTarget, here: np.ndarray) -> _Leg | str | None:
        """Along a straight line of the tool; None without an IK solution, a text on collision."""
        start = self._kinematics.forward(here)
        line = _line(start, target)
        solved = self._kinematics.follow(line, here)
        if solved is None:
            return None
        points = np.concatenate([here[None], solved])
        points[:, self._embodiment.gripper_index] = np.linspace(
            here[self._embodiment.gripper_index],
            self._with_gripper(here, primitive)[self._embodiment.gripper_index],
            len(points),
        )
        if cause := self._checker.first_collision(points[1:], primitive.may_touch):
            return cause
        step_m = float(np.linalg.norm(target.position - start.position)) / len(line)
        paces = np.maximum(joint_paces(points, self._limits.velocity), step_m / primitive.speed_m_s)
        return _Leg(primitive, points, paces)

    def _through_joint_space(
        self, primitive: Primitive, target: ToolTarget, here: np.ndarray, variation: Variation | None
    ) -> _Leg | str | None:
        """Straight in joint space, or over raised points where that collides."""
        starts = self._kinematics.starts(here, self._generator)
        end = self._kinematics.solve(target, starts)
        if end is None:
            return None
        end = self._with_gripper(end, primitive)
        cause = self._checker.cause(end, primitive.may_touch)
        if cause is not None:
            return cause
        for way in self._ways_around(here, end, primitive):
            points = _dense(way)
            if variation is not None:
                points = points + _bow(len(points)) * variation.bow
                points = self._kinematics.clip(points)
            cause = self._checker.first_collision(points[1:], primitive.may_touch)
            if cause is None:
                return _Leg(primitive, points, joint_paces(points, self._limits.velocity), len(way) > 2)
        self.blocked_ways += primitive.free
        return self._searched(here, end, primitive) or cause

    def _searched(self, here: np.ndarray, end: np.ndarray, primitive: Primitive) -> _Leg | None:
        """A way from `here` to `end` found by sampling, where that is asked for, allowed, and successful.

        Objects are kept clear of where both ends do so, since that is what the motion will be held to.
        """
        if not primitive.free or self.searches_left <= 0:
            return None
        from blm.collect.planning.sampling import way_around

        self.searches_left -= 1
        arm, touch = list(self._embodiment.arm_indices), primitive.may_touch
        whole = here if self._opening(here) > self._opening(end) else end
        whole = whole.copy()
        ends = (here[arm], end[arm])

        def configuration(joints: np.ndarray) -> np.ndarray:
            whole[arm] = joints
            return whole

        clearance = -PENETRATION_M
        for wanted in (CLEARANCE_M, WIDE_CLEARANCE_M):
            if all(self._checker.cause(configuration(joints), touch, wanted) is None for joints in ends):
                clearance = wanted
        way = way_around(
            *ends,
            bounds=(self._kinematics.lower[arm], self._kinematics.upper[arm]),
            free=lambda joints: self._checker.cause(configuration(joints), touch, clearance) is None,
            seed=int(self._generator.integers(1, 2**31)),
        )
        if way is None:
            return None
        points = np.repeat(here[None], len(way), axis=0)
        points[:, arm] = way
        shares = np.linalg.norm(np.diff(way, axis=0), axis=1).cumsum()
        gripper = self._embodiment.gripper_index
        points[1:, gripper] += (end - here)[gripper] * shares / max(shares[-1], 1e-9)
        points = _dense(points)
        if self._checker.first_collision(points[1:], touch) is not None:
            return None
        self.sampled_paths += 1
        paces = _CAREFUL * joint_paces(points, self._limits.velocity)
        return _Leg(primitive, points, paces, cornered=True)

    def _opening(self, configuration: np.ndarray) -> float:
        """How far the gripper is open, 0 (closed) to 1."""
        gripper, index = self._embodiment.gripper, self._embodiment.gripper_index
        value = self._embodiment.from_model(configuration)[index]
        return float((value - gripper.closed) / (gripper.open - gripper.closed))

    def _ways_around(self, here: np.ndarray, end: np.ndarray, primitive: Primitive):
        """Polylines (m, A) from `here` to `end` to try in turn: direct, then over raised points.

        `_searched` looks further, for what these cannot pass.
        """
        yield np.stack([here, end])
        if not primitive.free:
            return
        for height in _RAISES_M:
            raised = [self._raised(configuration, height) for configuration in (here, end)]
            for first, second in ((raised[0], None), (None, raised[1]), (raised[0], raised[1])):
                via = [point for point in (first, second) if point is not None]
                if via:
                    yield np.stack([here, *via, end])

    def _raised(self, configuration: np.ndarray, height: float) -> np.ndarray | None:
        pose = self._kinematics.forward(configuration)
        target = ToolTarget.from_pose(pose).shifted(np.array([0.0, 0.0, height]))
        return self._kinematics.solve(target, [configuration])

    def _motion(self, legs: Sequence[_Leg], variation: Variation) -> Motion:
        """Smooth, time and check a run of legs; with less rounding if the arm would touch something.

        Slower where that would take more torque than the motors have.
        """
        points, paces, at_least = _joined(legs)
        cause = ""
        cornered = len(legs) > 1 or legs[0].cornered
        for blend in _BLENDS_S if cornered else (0.0,):
            path = smooth(points, paces, self._limits.acceleration, blend)
            targets, stages, share = self._within_torque(path, variation.speed, at_least, legs)
            cause = self._collision_underway(targets, points[0, :-1], stages, legs)
            if cause is None:
                return self._as_commands(targets, stages, legs, share)
        raise InfeasibleError(legs[0].primitive.name, Failure(FailureCause.COLLISION, f"{cause} on the way"))

    def _within_torque(
        self, path: SmoothPath, speed: float, at_least_s: float, legs: Sequence[_Leg]
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """Configurations (N, A) of successive ticks along a path, the leg (N,) of each, and the torque share."""
        rate, share = self._embodiment.control_rate_hz, np.inf
        start = path.at(np.zeros(1))[0, :-1]
        for slower in _SLOWER:
            sampled = path.at(progress_at_rate(path, self._limits, rate, slower * speed, at_least_s))
            stages = np.clip(np.ceil(sampled[:, -1] - 1e-6).astype(int) - 1, 0, len(legs) - 1)
            targets = self._kinematics.clip(sampled[:, :-1])
            held = [legs[stage].primitive.holding for stage in stages]
            share = self._torques.peak_share(targets, start, rate, held)
            if share <= 1.0:
                return targets, stages, share
        detail = f"{share:.0%} of a motor's torque is needed"
        raise InfeasibleError(legs[0].primitive.name, Failure(FailureCause.TORQUE_LIMIT, detail))

    def _as_commands(
        self, targets: np.ndarray, stages: np.ndarray, legs: Sequence[_Leg], torque_share: float
    ) -> Motion:
        arm = np.diff(targets[:, list(self._embodiment.arm_indices)], axis=0)
        return Motion(
            commands=self._embodiment.from_model(targets),
            steps=tuple(legs[stage].primitive for stage in stages),
            check=legs[-1].primitive.check,
            length_rad=float(np.linalg.norm(arm, axis=1).sum()),
            peak_torque_share=torque_share,
        )

    def _collision_underway(
        self, targets: np.ndarray, start: np.ndarray, stages: np.ndarray, legs: Sequence[_Leg]
    ) -> str | None:
        """The first collision of the arm as it trails `targets` (N, A), judged by the primitive of each tick."""
        if len(targets) == 0:
            return None
        places = self._servos.follow(targets, start, self._embodiment.control_rate_hz)
        ticks = np.arange(KEEP_EVERY - 1, len(targets) * SUBSTEPS, KEEP_EVERY) // SUBSTEPS
        entered = -1
        for place, stage in zip(places, stages[ticks], strict=True):
            primitive = legs[stage].primitive
            if stage != entered:
                self._enter(primitive)
                entered = stage
            clearance = CLEARANCE_M if primitive.free else -PENETRATION_M
            if cause := self._checker.cause(place, primitive.may_touch, clearance):
                return cause
        return None

    def _enter(self, primitive: Primitive) -> None:
        """Tell the collision checker what is held during a primitive."""
        holding = primitive.holding
        self._checker.hold(*(holding.name, holding.grasp) if holding else (None, None))

    def _with_gripper(self, configuration: np.ndarray, primitive: Primitive) -> np.ndarray:
        if primitive.gripper is None:
            return configuration
        index = self._embodiment.gripper_index
        values = self._embodiment.from_model(configuration)
        values[index] = primitive.gripper
        changed = configuration.copy()
        changed[index] = self._kinematics.clip(self._embodiment.to_model(values))[index]
        return changed


def _joined(legs: Sequence[_Leg]) -> tuple[np.ndarray, np.ndarray, float]:
    """One polyline (m, A + 1) whose last column counts the legs passed, its paces, and its shortest duration."""
    rows, paces = [], []
    for stage, leg in enumerate(legs):
        counted = np.column_stack([leg.points, np.linspace(stage, stage + 1, len(leg.points))])
        rows.append(counted if stage == 0 else counted[1:])
        paces.append(leg.paces)
    return np.concatenate(rows), np.concatenate(paces), max(leg.primitive.at_least_s for leg in legs)


def _line(start: Pose, target: ToolTarget) -> list[ToolTarget]:
    """Targets on the straight line from a pose to a target, the turn spread evenly; the start itself left out."""
    distance = float(np.linalg.norm(target.position - start.position))
    opening = start.rotation[:, 1] if target.opening is None else target.opening
    end = tool_rotation(target.approach, opening)
    turn = float(np.arccos(np.clip((np.trace(start.rotation.T @ end) - 1) / 2, -1.0, 1.0)))
    steps = max(2, int(np.ceil(max(distance / _STRAIGHT_STEP_M, turn / _STRAIGHT_STEP_RAD))))
    line = []
    for share in np.arange(1, steps + 1) / steps:
        approach = (1 - share) * start.rotation[:, 2] + share * end[:, 2]
        along = (1 - share) * start.rotation[:, 1] + share * end[:, 1]
        position = (1 - share) * start.position + share * target.position
        approach = approach / np.linalg.norm(approach)
        line.append(ToolTarget(position, approach, None if target.opening is None else along))
    return line


def _dense(points: np.ndarray) -> np.ndarray:
    """A polyline (m, A) with points at most `_CHECK_STEP` apart in any axis."""
    rows = [points[:1]]
    for first, second in pairwise(points):
        count = max(2, int(np.ceil(np.max(np.abs(second - first)) / _CHECK_STEP)))
        rows.append(first + (second - first) * (np.arange(1, count + 1) / count)[:, None])
    return np.concatenate(rows)


def _bow(count: int) -> np.ndarray:
    """Weights (count, 1) that rise from 0 to 1 and fall back, flat at both ends."""
    return (np.sin(np.pi * np.linspace(0.0, 1.0, count)) ** 2)[:, None]
