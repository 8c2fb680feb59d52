"""Simulated workspaces for a person: one per task, at the pace of the clock, each with a view for pages."""

from __future__ import annotations

from typing import Any

from blm.collect.controls import Controls
from blm.collect.live_config import LiveCollectConfig
from blm.collect.operators.scene_view import SceneView
from blm.collect.operators.tool_driver import ToolDriver
from blm.collect.paced import PacedEnvironment
from blm.collect.sim.environment import SimulatedEnvironment
from blm.schemas.embodiment import Embodiment
from blm.schemas.rollout import Environment
from blm.schemas.task import load_task


class SimulatedCell:
    """Where a simulated arm works."""

    simulated = True

    def __init__(self, config: LiveCollectConfig, controls: Controls) -> None:
        self.embodiment: Embodiment = config.embodiment()
        self._config = config
        self._controls = controls
        self._environments: dict[str, PacedEnvironment] = {}
        self._views: dict[str, SceneView] = {}

    def environment(self, task: str) -> Environment:
        """The workspace for a task (a name or a file); the same one each time."""
        if task not in self._environments:
            simulation = SimulatedEnvironment(
                self.embodiment,
                load_task(task, self.embodiment.name),
                models=self._config.models,
                shadows=self._config.shadows,
                variety=self._config.variety,
            )
            self._environments[task] = PacedEnvironment(simulation, lambda: self._controls.paused)
            self._views[simulation.task.name] = SceneView(
                simulation.model, self.embodiment, simulation.base_pose, simulation.data
            )
        return self._environments[task]

    def view(self, task: str) -> SceneView:
        """What a page shows of the workspace of a task, by the task's name."""
        return self._views[task]

    def driver(self) -> ToolDriver:
        """Makes axis targets of wishes for the gripper."""
        first: Any = self.environment(self._config.all_tasks[0])
        return ToolDriver(first.inner.model, self.embodiment, first.inner.base_pose)

    def close(self) -> None:
        for environment in self._environments.values():
            environment.close()
