"""A real arm for a person: one connection for all tasks, the emergency stop wired to the controls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from blm.collect.controls import Controls
from blm.collect.live_config import LiveCollectConfig
from blm.collect.operators.terminal import confirmed
from blm.collect.robots.cameras import requests
from blm.collect.robots.devices import PREFIX, choose_robot
from blm.collect.robots.hardware import HardwareEnvironment
from blm.collect.robots.tool_pose import NO_MODEL
from blm.schemas.embodiment import Embodiment, load_embodiment
from blm.schemas.errors import HardwareError, UsageError
from blm.schemas.rollout import Environment
from blm.schemas.task import load_task


class HardwareCell:
    """Where a real arm works. `simulated` is false: nobody but the person can judge an episode."""

    simulated = False

    def __init__(
        self, config: LiveCollectConfig, controls: Controls, announce: Callable[[str], None]
    ) -> None:
        """Connect to the arm; it stays where it is.

        Raises:
            UsageError: the robot has no model, and the operator's device needs one; or see `choose_robot`.
            HardwareError, MissingExtraError: see `choose_robot`.
        """
        self._config = config
        self._announce = announce
        self._refuse_device_without_model()
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
            confirm_torque_off=lambda: confirmed("Is the arm supported, and may it let go?"),
        )
        stop = self._arm.safety.stop
        controls.on_emergency.append(lambda: stop.press("emergency stop"))
        controls.on_release.append(stop.release)
        self._views: dict[str, Any] = {}

    def environment(self, task: str) -> Environment:
        """The arm, working at a task: the name of one, or an instruction in words."""
        return self._arm.with_task(task)

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

    def park(self) -> None:
        """Lead the arm back to where it lay when it was connected, unless it was stopped. The stop still stops it."""
        if self._arm.safety.stop.pressed:
            return
        self._announce("The arm goes back slowly to where it lay; the emergency stop still holds it.")
        try:
            self._arm.park()
        except HardwareError as error:  # what was recorded is safe; the arm is held on closing
            self._announce(f"It did not get there: {error}")

    def close(self) -> None:
        """Let go of the arm. Torque goes off where it lies at rest; else it holds itself."""
        self._arm.close()

    def _refuse_device_without_model(self) -> None:
        """Before the arm is touched: a gripper is only led through a model of the arm."""
        if self._config.device not in ("browser", "gamepad"):
            return
        robot = self._config.robot
        if robot.startswith(PREFIX) or load_embodiment(robot).model == NO_MODEL:
            raise UsageError(
                f"'{robot}' has no model, which --operator {self._config.device} needs.",
                "Use --operator leader, or lerobot:TYPE for another of LeRobot's teleoperators.",
            )

    def _twin(self) -> tuple[Any, np.ndarray]:
        """The arm's model on its table, and the pose of its base."""
        from blm.collect.sim.scene import build_scene

        known = load_embodiment(self._config.robot)
        scene = build_scene(known, load_task("push-cube", known.name), self._config.models)
        return scene.model, scene.base_pose
