"""A paced workcell without a robot: pictures say which tick they belong to, clocks and cameras can be disturbed."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from blm.collect.live_recorder import LIVE_VIDEO
from blm.collect.recording import Recording
from blm.schemas.embodiment import Embodiment
from blm.schemas.rollout import Command, Observation, Step, Transition
from blm.schemas.task import load_task
from tests.collect.workcell import CountingEnvironment, SteadyAgent, small_robot


class LiveWorkcell(CountingEnvironment):
    """`CountingEnvironment` on the wall clock: measured times, cameras that can stop.

    Attributes:
        stopped: camera → tick from which it gives the same picture again and again.
    """

    def __init__(self, robot: Embodiment | None = None, rate_hz: float = 200.0) -> None:
        robot = (robot or small_robot()).model_copy(update={"control_rate_hz": rate_hz})
        super().__init__(robot, load_task("push-cube", robot.name))
        self.stopped: dict[str, int] = {}
        self.stalls_s: dict[int, float] = {}
        self._period_s = 1 / rate_hz
        self._began_s = time.monotonic()

    def reset(self, seed: int) -> Observation:
        self._began_s = time.monotonic()
        return super().reset(seed)

    def step(self, values: np.ndarray) -> Transition:
        due = self._began_s + (self.tick + 1) * self._period_s
        time.sleep(max(0.0, due - time.monotonic()) + self.stalls_s.get(self.tick, 0.0))
        return super().step(values)

    def _observe(self) -> Observation:
        seen = super()._observe()
        now = time.monotonic() - self._began_s
        times, images = {}, dict(seen.images)
        for camera in images:
            tick = min(self.tick, self.stopped.get(camera, self.tick))
            times[camera] = tick * self._period_s - 0.25 * self._period_s
        return replace(seen, time_s=now, images=images, image_times_s=times)


def live(robot: Embodiment) -> Recording:
    """How a real arm is recorded."""
    return Recording(robot, simulated=False, video=LIVE_VIDEO)


class EndlessAgent(SteadyAgent):
    """Stays where it is until `ticks` are over."""

    operator = "leader"

    def __init__(self, ticks: int) -> None:
        super().__init__()
        self.ticks = ticks

    def act(self, observation: Observation) -> Command:
        self.acted += 1
        return Command(np.asarray(observation.state, dtype=np.float64), "move", done=self.acted >= self.ticks)


class Stopwatch:
    """Subscriber that measures how long another one keeps the control loop waiting, seconds per step."""

    def __init__(self, inner) -> None:
        self.inner = inner
        self.step_s: list[float] = []
        self.end_s: list[float] = []

    def on_start(self, start) -> None:
        self.inner.on_start(start)

    def on_step(self, step: Step) -> None:
        began = time.perf_counter()
        self.inner.on_step(step)
        self.step_s.append(time.perf_counter() - began)

    def on_end(self, end) -> None:
        began = time.perf_counter()
        self.inner.on_end(end)
        self.end_s.append(time.perf_counter() - began)
