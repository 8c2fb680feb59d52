"""Simulated time at the pace of a clock, for people: a simulator alone would run as fast as it can."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from blm.schemas.embodiment import Embodiment
from blm.schemas.rollout import Environment, EpisodeStart, Observation, Transition
from blm.schemas.task import Task

_PAUSE_POLL_S = 0.01


class PacedEnvironment:
    """Waits out each control period on an absolute schedule, so that lateness does not add up.

    A tick that ends late is followed by the next one at once; after more than a period of lateness the schedule
    starts anew. While `paused` returns true, time stands still. `late_ticks` counts the ticks of this episode that
    ended more than half a period late.
    """

    def __init__(
        self,
        environment: Environment,
        paused: Callable[[], bool] = lambda: False,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.inner = environment
        self.late_ticks = 0
        self._paused = paused
        self._clock = clock
        self._sleep = sleep
        self._period_s = 1.0 / environment.embodiment.control_rate_hz
        self._due: float | None = None

    @property
    def embodiment(self) -> Embodiment:
        return self.inner.embodiment

    @property
    def task(self) -> Task:
        return self.inner.task

    def reset(self, seed: int) -> Observation:
        self.late_ticks, self._due = 0, None
        return self.inner.reset(seed)

    def describe(self) -> EpisodeStart:
        return self.inner.describe()

    def step(self, values: np.ndarray) -> Transition:
        while self._paused():
            self._due = None
            self._sleep(_PAUSE_POLL_S)
        if self._due is None:
            self._due = self._clock()
        self._due += self._period_s
        transition = self.inner.step(values)
        left = self._due - self._clock()
        if left > 0:
            self._sleep(left)
        self.late_ticks += left < -self._period_s / 2
        if left < -self._period_s:
            self._due = None
        return transition

    def close(self) -> None:
        self.inner.close()
