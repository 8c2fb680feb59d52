"""Simulated workspaces for a person: one per task, at the pace of the clock, each with a view for pages."""

from __future__ import annotations

from blm.collect.controls import Controls
from blm.collect.live_config import LiveCollectConfig
from blm.collect.operators.scene_view import SceneView
from blm.collect.operators.tool_driver import ToolDriver
from blm.collect.pacing import PacedEnvironment
from blm.collect.safety import EmergencyStop, SafeEnvironment, Safety
from blm.collect.sim.environment import SimulatedEnvironment
from blm.schemas.embodiment import Embodiment
from blm.schemas.rollout import Environment
from blm.schemas.task import load_task


class SimulatedCell:
    """Where a simulated arm works: watched as a real one is, limits, emergency stop and watchdog included."""

    simulated = True

    def __init__(self, config: LiveCollectConfig, controls: Controls) -> None:
        self.embodiment: Embodiment = config.embodiment()
        self._config = config
        self._controls = controls
        self._stop = EmergencyStop()
        controls.on_emergency.append(lambda: self._stop.press("emergency stop"))
        controls.on_release.append(self._stop.release)
        self._simulations: dict[str, SimulatedEnvironment] = {}
        self._environments: dict[str, SafeEnvironment] = {}
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
            self._simulations[task] = simulation
            self._environments[task] = SafeEnvironment(
                PacedEnvironment(simulation, lambda: self._controls.paused),
                Safety(self.embodiment, stop=self._stop),
                watched=True,
            )
            self._views[simulation.task.name] = SceneView(
                simulation.model, self.embodiment, simulation.base_pose, simulation.data
            )
        return self._environments[task]

    def view(self, task: str) -> SceneView:
        """What a page shows of the workspace of a task, by the task's name."""
        return self._views[task]

    def driver(self) -> ToolDriver:
        """Makes axis targets of wishes for the gripper."""
        first = self._config.all_tasks[0]
        self.environment(first)
        simulation = self._simulations[first]
        return ToolDriver(simulation.model, self.embodiment, simulation.base_pose)

    def park(self) -> None:
        """Nothing falls in a simulation."""

    def close(self) -> None:
        for environment in self._environments.values():
            environment.close()
