"""A workcell without physics: seconds instead of minutes, and every pixel and every outcome is known.

The image at tick t of an episode is grey of brightness 40 + 3 t (at most 250). Seeds ending in 3 cannot be planned,
seeds ending in 7 never succeed, all others succeed after a number of ticks that depends on the seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from blm.collect.attempts import CollectConfig
from blm.schemas.embodiment import Embodiment, load_embodiment
from blm.schemas.episode import environment_state_names, gripper_contact_names
from blm.schemas.errors import PlanningError
from blm.schemas.rollout import Command, EpisodeStart, Observation, Transition
from blm.schemas.task import Task, load_task

HOLD_TICKS = 3


def brightness(tick: int) -> int:
    return min(250, 40 + 3 * tick)


class CountingEnvironment:
    """The arm is where it was told to be; the task is solved from tick `success_at` on."""

    def __init__(self, embodiment: Embodiment, task: Task) -> None:
        self.embodiment = embodiment
        self.task = task
        self.closed = False
        self.tick = 0
        self.seed = 0
        self.success_at: int | None = None
        self._state = embodiment.column("home")

    def reset(self, seed: int) -> Observation:
        self.seed, self.tick = seed, 0
        self.success_at = None if seed % 10 == 7 else 6 + seed % 5
        self._state = self.embodiment.column("home") + np.random.default_rng(seed).normal(
            size=len(self.embodiment.axes)
        )
        return self._observe()

    def describe(self) -> EpisodeStart:
        return EpisodeStart(
            embodiment=self.embodiment,
            task=self.task,
            seed=self.seed,
            operator="",
            instruction=self._instruction(),
            objects=({"name": "cube", "half_size": np.array([0.01, 0.01, 0.01])},),
            cameras=tuple({"name": camera.name} for camera in self.embodiment.cameras),
            goal={"shape": "disc", "position": [0.3, 0.0, 0.0], "radius_m": 0.04},
        )

    def step(self, values: np.ndarray) -> Transition:
        action = self.embodiment.clip(values).astype(np.float32)
        self._state, self.tick = action, self.tick + 1
        success = self.success_at is not None and self.tick >= self.success_at
        return Transition(action, self._observe(), success)

    def close(self) -> None:
        self.closed = True

    def _instruction(self) -> str:
        return self.task.instructions[self.seed % len(self.task.instructions)]

    def _observe(self) -> Observation:
        images = {
            camera.name: np.full((camera.height, camera.width, 3), brightness(self.tick), dtype=np.uint8)
            for camera in self.embodiment.cameras
        }
        return Observation(
            state=np.asarray(self._state, dtype=np.float32),
            images=images,
            ee_pose=np.array([0.2, 0.0, 0.1, 1.0, 0.0, 0.0, 0.0], dtype=np.float32),
            time_s=self.tick / self.embodiment.control_rate_hz,
            instruction=self._instruction(),
            environment_state=np.full(len(environment_state_names()), self.tick, dtype=np.float32),
            gripper_contact=np.zeros(len(gripper_contact_names()), dtype=np.float32),
        )


class SteadyAgent:
    """Asks for a little more of every axis each tick, beyond the limits in the end."""

    operator = "planner"

    def __init__(self) -> None:
        self.acted = 0

    def reset(self, start: EpisodeStart, observation: Observation) -> None:
        self.acted = 0
        if start.seed % 10 == 3:
            raise PlanningError(f"approach: no way past the cube after {start.seed} tries")

    def act(self, observation: Observation) -> Command:
        self.acted += 1
        return Command(
            values=np.asarray(observation.state, dtype=np.float64) + 10.0,
            subtask="approach" if self.acted <= 4 else "push",
        )

    def metrics(self) -> Mapping[str, Any]:
        return {"ik_solves": np.int64(self.acted), "failure": None}


def small_robot(image_size: int = 32) -> Embodiment:
    return load_embodiment("so100").with_image_size(image_size, image_size)


def counting_environment() -> CountingEnvironment:
    robot = small_robot()
    return CountingEnvironment(robot, load_task("push-cube", robot.name))


def open_counting(config: CollectConfig) -> tuple[CountingEnvironment, SteadyAgent]:
    """An `OpenWorkcell`."""
    robot = config.embodiment()
    return CountingEnvironment(robot, load_task(config.task, robot.name)), SteadyAgent()
