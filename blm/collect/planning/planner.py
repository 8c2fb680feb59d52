"""The planner as an operator: plans an episode from the scene, streams commands, watches, and recovers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np

from blm.collect.planning.collision import CollisionChecker
from blm.collect.planning.failure import Failure, FailureCause
from blm.collect.planning.gripper import gripper_shape
from blm.collect.planning.kinematics import Kinematics
from blm.collect.planning.monitor import Monitor, braked
from blm.collect.planning.motion import InfeasibleError, Motion, MotionPlanner
from blm.collect.planning.pose import ToolTarget
from blm.collect.planning.primitives import Primitive, retract
from blm.collect.planning.scene import PlannableEnvironment, Scene, Variation, observe_scene
from blm.collect.planning.servo import Servos
from blm.collect.planning.skills import find_skill
from blm.collect.planning.torque import TorqueModel
from blm.collect.sim.objects import object_element
from blm.schemas.errors import PlanningError
from blm.schemas.rollout import Command, EpisodeStart, Observation

MAX_DECOMPOSITIONS = 60
MAX_IK_SOLVES = 2500
"""Budget of one plan, most of a second; a usual plan takes 30 to 400."""
MAX_SEARCHES = 8
"""Searches by sampling in one plan, made only after everything simpler has failed."""
MAX_RECOVERIES = 3
SETTLE_S = 0.75
SUCCESS_TICKS = 3
_MISSED = Failure(FailureCause.GOAL_NOT_REACHED, "the goal was not reached")
_UNFINISHED = Failure(FailureCause.GOAL_NOT_REACHED, "the episode ended before the goal was reached")


class PlannerAgent:
    """Plans with full knowledge of a simulated scene; implements `blm.schemas.rollout.Agent`.

    The same environment state and seed give the same commands. With `vary` each demonstration differs a little in
    pace, heights and curvature, drawn from the episode's seed; without it, all take the plainest way.
    """

    operator = "planner"

    def __init__(self, environment: PlannableEnvironment, *, vary: bool = True) -> None:
        self._environment = environment
        self._vary = vary
        self._embodiment = environment.embodiment
        self._skill = find_skill(environment.task.name)
        self._kinematics = Kinematics(environment.model, self._embodiment)
        bodies = {name: object_element(name) for name in (*environment.task.objects, *environment.obstacles)}
        self._checker = CollisionChecker(environment.model, self._embodiment, bodies)
        self._servos = Servos.of(environment.model, self._embodiment)
        self._torques = TorqueModel(environment.model, self._embodiment, bodies)
        self._gripper = gripper_shape(environment.model, self._embodiment)
        self._monitor = Monitor(environment)
        self._generator = np.random.default_rng(0)
        self._begin()

    def reset(self, start: EpisodeStart, observation: Observation) -> None:
        """Plan the episode from the present scene.

        Raises:
            PlanningError: nothing feasible was found; names the primitive and the cause of the last try.
        """
        self._generator = np.random.default_rng([start.seed if start.seed >= 0 else 0, 0x706C616E])
        self._begin()
        self._last = np.asarray(observation.state, dtype=np.float64)
        self._plan(self._vary)

    def act(self, observation: Observation) -> Command:
        """The next command; plans anew when a check has failed, and is done when success has held for a while."""
        self._held = self._held + 1 if self._environment.succeeded() else 0
        self._watch()
        if self._tick == len(self._motion.commands):
            self._next_motion(observation)
        if self._tick < len(self._motion.commands):
            return self._streamed()
        return self._waiting(observation)

    def metrics(self) -> Mapping[str, Any]:
        """Numbers about the episode so far, the same on every machine.

        `failure_cause` is None or a `FailureCause`, as if the episode ended now; `failure` is the sentence for it.
        """
        failure = None if self._environment.succeeded() else self._failure or _UNFINISHED
        return {
            "ik_solves": self._kinematics.solves,
            "resampled_poses": self._resampled,
            "collision_checks": self._checker.checks,
            "sampled_paths": self._sampled,
            "path_length_rad": round(self._length, 4),
            "planned_time_s": round(self._planned_ticks / self._embodiment.control_rate_hz, 3),
            "recoveries": self._recoveries,
            "peak_torque_share": round(self._torque_share, 4),
            "largest_push_m": round(self._environment.largest_push_m, 4),
            "failure_cause": failure.cause.value if failure else None,
            "failure": failure.detail if failure else None,
        }

    def _begin(self) -> None:
        self._kinematics.solves = self._checker.checks = 0
        self._resampled = self._sampled = self._recoveries = self._planned_ticks = 0
        self._length = self._torque_share = 0.0
        self._failure: Failure | None = None
        self._interrupted: Failure | None = None
        self._motions: list[Motion] = []
        self._motion = Motion(np.zeros((0, len(self._embodiment.axes))))
        self._tick = self._waited = self._held = 0
        self._last, self._name = np.zeros(len(self._embodiment.axes)), ""

    def _plan(self, vary: bool, leaving: bool = False) -> None:
        """Fill the queue of motions from the present scene and the last command; `leaving`: back away first."""
        start = self._kinematics.clip(self._embodiment.to_model(self._last))
        self._checker.hold(None)
        self._checker.update(self._environment.data, start)
        scene = observe_scene(self._environment, self._kinematics, self._gripper, start)
        axes = len(self._embodiment.axes)
        variation = Variation.drawn(self._generator, self._embodiment) if vary else Variation.none(axes)
        planner = MotionPlanner(self._kinematics, self._checker, self._servos, self._torques, self._generator)
        away = self._backing_away(scene, planner, start) if leaving else []
        failure: InfeasibleError | None = None
        for searches in (0, MAX_SEARCHES):
            if searches and not planner.blocked_ways:
                break
            planner.searches_left = searches
            try:
                self._motions = self._first_feasible(planner, scene, variation, away, start)
            except InfeasibleError as cause:
                failure = failure or cause
                continue
            self._count(planner)
            self._monitor.begin()
            return
        assert failure is not None
        self._failure = failure.failure
        raise PlanningError(
            f"no feasible plan for task '{self._environment.task.name}' with '{self._embodiment.name}': {failure}",
            "Bring the objects nearer, or use an arm with more reach.",
        )

    def _first_feasible(
        self,
        planner: MotionPlanner,
        scene: Scene,
        variation: Variation,
        away: list[Primitive],
        start: np.ndarray,
    ) -> list[Motion]:
        """The motions of the first decomposition that is feasible; raises InfeasibleError of the preferred one."""
        failure = InfeasibleError("plan", Failure(FailureCause.NO_IK_SOLUTION, "the skill proposed nothing"))
        budget = self._kinematics.solves + MAX_IK_SOLVES
        for index, decomposition in enumerate(islice(self._skill(scene, variation), MAX_DECOMPOSITIONS)):
            if self._kinematics.solves > budget:
                break
            try:
                return planner.plan([*away, *decomposition], start, variation)
            except InfeasibleError as cause:
                failure = cause if index == 0 else failure
                self._resampled += 1
        raise failure

    def _count(self, planner: MotionPlanner) -> None:
        """Add up what the plan just made took."""
        self._resampled += planner.rejected_targets
        self._sampled += planner.sampled_paths
        self._length += sum(motion.length_rad for motion in self._motions)
        self._torque_share = max(self._torque_share, *(motion.peak_torque_share for motion in self._motions))
        self._planned_ticks += sum(len(motion.commands) for motion in self._motions)

    def _watch(self) -> None:
        """Come to rest, to plan anew from there, if the motion under way has lost its purpose."""
        if self._interrupted is not None or not 0 < self._tick < len(self._motion.commands):
            return
        self._interrupted = self._monitor.look(self._motion.steps[self._tick])
        if self._interrupted is not None:
            self._motion = braked(self._motion, self._tick, self._embodiment)
            self._motions, self._tick = [], 0

    def _next_motion(self, observation: Observation) -> None:
        """Judge the motion just finished and take the next one, from a new plan if it failed."""
        failure = self._motion.check(self._environment, observation) if self._motion.check else None
        failure, self._interrupted = self._interrupted or failure, None
        self._motion = replace(self._motion, check=None)
        if failure is not None:
            self._recover(failure)
        if self._motions:
            self._motion, self._tick, self._waited = self._motions.pop(0), 0, 0

    def _recover(self, failure: Failure) -> None:
        """Plan again from here; after `MAX_RECOVERIES`, or if no plan is found, give up with the first cause."""
        self._motions = []
        if self._recoveries >= MAX_RECOVERIES:
            self._failure = failure
            return
        self._recoveries += 1
        try:
            self._plan(vary=False, leaving=True)
        except PlanningError as error:
            self._failure = Failure(failure.cause, f"{failure.detail}; {error.message}")

    def _backing_away(self, scene: Scene, planner: MotionPlanner, start: np.ndarray) -> list[Primitive]:
        """Open the gripper and rise from wherever a failure left it; nothing where the arm can rise no further."""
        everything = frozenset({*scene.objects, *self._environment.obstacles, "table"})
        target = ToolTarget.from_pose(scene.tool)
        higher = tuple(target.shifted(np.array([0.0, 0.0, height])) for height in (0.05, 0.03, 0.015))
        away = retract(higher, everything, self._embodiment.gripper.open)
        try:
            planner.plan([away], start, Variation.none(len(self._embodiment.axes)))
        except InfeasibleError:
            return []
        return [away]

    def _streamed(self) -> Command:
        values, name = self._motion.commands[self._tick], self._motion.steps[self._tick].name
        self._tick += 1
        self._last, self._name = values, name
        finished = self._tick == len(self._motion.commands) and not self._motions
        return Command(values, name, done=finished and self._held >= SUCCESS_TICKS)

    def _waiting(self, observation: Observation) -> Command:
        """Hold still after the plan's end until success has held, then be done; recover if it does not come."""
        self._waited += 1
        if self._failure is None and self._waited > SETTLE_S * self._embodiment.control_rate_hz:
            self._recover(_MISSED)
            if self._motions:
                self._next_motion(observation)
                return self._streamed()
        done = self._held >= SUCCESS_TICKS or self._failure is not None
        return Command(self._last, self._name, done=done)
