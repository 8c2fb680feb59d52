"""A real arm for a person: one connection for all tasks, the emergency stop wired to the controls."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from blm.collect.controls import Controls
from blm.collect.live_config import LiveCollectConfig
from blm.collect.robots.cameras import requests
from blm.collect.robots.devices import PREFIX, choose_robot
from blm.collect.robots.hardware import HardwareEnvironment
from blm.schemas.embodiment import Embodiment, load_embodiment
from blm.schemas.errors import HardwareError, UsageError
from blm.schemas.rollout import Environment, EpisodeStart, Observation, Transition
from blm.schemas.task import Task, load_task


class HardwareCell:
    """Where a real arm works. `simulated` is false: nobody but the person can judge an episode."""

    simulated = False

    def __init__(
        self, config: LiveCollectConfig, controls: Controls, announce: Callable[[str], None]
    ) -> None:
        """Connect to the arm; it stays where it is.

        Raises:
            UsageError, HardwareError, MissingExtraError: see `choose_robot`.
        """
        self._config = config
        chosen = choose_robot(
            config.robot, port=config.port, cameras=tuple(requests(config.cameras).values())
        )
        self.embodiment: Embodiment = chosen.embodiment
        self._arm = HardwareEnvironment(
            chosen.embodiment,
            config.all_tasks[0],
            chosen.robot,
            links=chosen.links,
            notify=announce,
            paused=lambda: controls.paused,
        )
        stop = self._arm.safety.stop
        controls.on_emergency.append(lambda: stop.press("emergency stop"))
        controls.on_release.append(stop.release)
        self._views: dict[str, Any] = {}

    def environment(self, task: str) -> Environment:
        """The arm, working at a task."""
        if task == self._config.all_tasks[0]:
            return self._arm
        return AtTask(self._arm, load_task(task, self.embodiment.name))

    def view(self, task: str) -> Any:
        """What a page shows: the arm where it was measured; where objects are only the cameras know."""
        from blm.collect.operators.scene_view import SceneView

        if not self._views:
            model, base_pose = self._twin()
            self._views["arm"] = SceneView(model, self.embodiment, base_pose)
        return self._views["arm"]

    def driver(self) -> Any:
        """Makes axis targets of wishes for the gripper."""
        from blm.collect.operators.tool_driver import ToolDriver

        model, base_pose = self._twin()
        return ToolDriver(model, self.embodiment, base_pose)

    def close(self) -> None:
        """Lead the arm back to where it lay, unless it was stopped, and let go of it."""
        if not self._arm.safety.stop.pressed:
            with contextlib.suppress(HardwareError):
                self._arm.park()
        self._arm.close()

    def _twin(self) -> tuple[Any, np.ndarray]:
        """The arm's model on its table, and the pose of its base."""
        from blm.collect.sim.scene import build_scene

        if self._config.robot.startswith(PREFIX):
            raise UsageError(
                f"'{self._config.robot}' has no model, which --operator {self._config.device} needs.",
                "Use --operator leader.",
            )
        known = load_embodiment(self._config.robot)
        scene = build_scene(known, load_task("push-cube", known.name), self._config.models)
        return scene.model, scene.base_pose


class AtTask:
    """An environment under another task: the words change, the arm does not."""

    def __init__(self, environment: HardwareEnvironment, task: Task) -> None:
        self._environment = environment
        self.task = task
        self._instruction = task.instructions[0]

    @property
    def embodiment(self) -> Embodiment:
        return self._environment.embodiment

    @property
    def late_ticks(self) -> int:
        return self._environment.metrics()["late_ticks"]

    def reset(self, seed: int) -> Observation:
        self._instruction = self.task.instructions[seed % len(self.task.instructions)]
        return replace(self._environment.reset(seed), instruction=self._instruction)

    def describe(self) -> EpisodeStart:
        return replace(self._environment.describe(), task=self.task, instruction=self._instruction)

    def step(self, values: np.ndarray) -> Transition:
        transition = self._environment.step(values)
        return replace(transition, observation=replace(transition.observation, instruction=self._instruction))

    def close(self) -> None:
        """The arm is closed by who opened it."""
