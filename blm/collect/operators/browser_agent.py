"""A person with a browser as the operator: the page's wishes become safe axis targets, and the page sees the arm."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from blm.collect.live_session import SessionStatus
from blm.collect.operators.browser_link import BrowserLink
from blm.collect.operators.scene_view import SceneView
from blm.collect.operators.tool_driver import ToolDriver
from blm.schemas.rollout import Command, EpisodeStart, Observation


class BrowserAgent:
    """Follows the page's wishes; while no page is steering, the arm holds still. Also the page's console."""

    operator = "browser"

    def __init__(
        self,
        link: BrowserLink,
        driver: ToolDriver,
        view_of: Callable[[str], SceneView],
        features: Mapping[str, Any] | None = None,
    ) -> None:
        """`view_of` gives the workspace to show for a task's name. `features` tell the page which buttons make sense:
        `can_take_over`, `several_tasks`; and, as `keys`, which key means which control."""
        self._link = link
        self._driver = driver
        self._view_of = view_of
        self._features = dict(features or {})
        self._view: SceneView | None = None
        self._ticks = self._held_ticks = 0

    def ready(self, start: EpisodeStart, observation: Observation) -> None:
        view = self._view_of(start.task.name)
        if view is not self._view:
            self._view = view
            self._link.publish(scene=view.description())
        self._link.begin(self._driver.start(observation.state))
        self._publish(observation)

    def show(self, status: SessionStatus) -> None:
        self._link.publish(status=asdict(status) | self._features)

    def fail(self, reason: str) -> None:
        """The session ends because something is wrong: say what."""
        self._link.publish(status={"phase": "failed", "note": reason})

    def reset(self, start: EpisodeStart, observation: Observation) -> None:
        self._ticks = self._held_ticks = 0
        self._link.begin(self._driver.start(observation.state))
        self._publish(observation)

    def act(self, observation: Observation) -> Command:
        self._ticks += 1
        self._publish(observation)
        wish = self._link.wanted()
        if wish is None:
            self._held_ticks += 1
            return Command(self._driver.targets)
        return Command(self._driver.step(wish))

    def watch(self, observation: Observation) -> None:
        """Show a tick in which somebody else drives."""
        self._publish(observation)

    def metrics(self) -> Mapping[str, Any]:
        return {"ticks": self._ticks, "held_ticks": self._held_ticks}

    def _publish(self, observation: Observation) -> None:
        if self._view is not None:
            tool = [round(float(value), 5) for value in observation.ee_pose]
            self._link.publish(tool=tool, poses=self._view.poses(observation), images=observation.images)
