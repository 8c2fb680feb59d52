"""Keeping a control rate on the wall clock, by an absolute schedule: for real arms, and for simulators with a person.

A simulator alone would run as fast as it can; `PacedEnvironment` lets it take the time that a real arm takes.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from blm.schemas.embodiment import Embodiment
from blm.schemas.rollout import Environment, EpisodeStart, Observation, Transition
from blm.schemas.task import Task

_LATE_SHARE = 0.5
"""Of a period: a tick that begins later than that counts as late."""
PAUSE_POLL_S = 0.01


class Pacer:
    """Ticks at `start + k × period`: a tick that comes late does not shift those after it.

    After a stall the ticks that were missed are skipped, never made up for in a burst. `late` counts ticks that began
    late by more than half a period.
    """

    def __init__(
        self,
        rate_hz: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.period_s = 1.0 / rate_hz
        self.late = 0
        self._clock = clock
        self._sleep = sleep
        self._start = 0.0
        self._tick = 0
        self._spared = False

    def start(self) -> float:
        """Begin a schedule now; returns the time of its tick 0."""
        if not self._spared:  # recorder and operator, made after the environment, are there by now
            _spare_garbage_collection()
            self._spared = True
        self._start, self._tick, self.late = self._clock(), 0, 0
        return self._start

    def elapsed(self, time_s: float) -> float:
        """Seconds from the start of the schedule to a time on the clock, without the pauses until now."""
        return time_s - self._start

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """A pause that was wanted: the schedule waits meanwhile, and nothing is late."""
        began = self._clock()
        try:
            yield
        finally:
            self._start += self._clock() - began

    def wait(self) -> float:
        """Wait for the next tick of the schedule; returns the time it really began, clock seconds."""
        self._tick += 1
        due = self._start + self._tick * self.period_s
        left = due - self._clock()
        if left > 0:
            self._sleep(left)
        now = self._clock()
        behind = now - due
        if behind > _LATE_SHARE * self.period_s:
            self.late += 1
            self._tick += int(behind / self.period_s + 1e-6)
        return now


def _spare_garbage_collection() -> None:
    """Collect garbage now, and never again look through what lives now.

    With the libraries of a robot loaded, looking through all objects takes a tenth of a second with everything else at
    a halt: three control periods. What is made later is still collected, in well under a millisecond.
    """
    gc.collect()
    gc.freeze()


class PacedEnvironment:
    """A simulator at the pace of a clock; implements `blm.schemas.rollout.Environment`.

    `time_s` of its observations is measured, as on a real arm: late ticks and jitter are those that a person had.
    While `paused` returns true, time stands still.
    """

    def __init__(
        self,
        environment: Environment,
        paused: Callable[[], bool] = lambda: False,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._environment = environment
        self._paused = paused
        self._sleep = sleep
        self._pacer = Pacer(environment.embodiment.control_rate_hz, clock, sleep)

    @property
    def embodiment(self) -> Embodiment:
        return self._environment.embodiment

    @property
    def task(self) -> Task:
        return self._environment.task

    @property
    def late_ticks(self) -> int:
        """Ticks of this episode that ended late by more than half a period."""
        return self._pacer.late

    def reset(self, seed: int) -> Observation:
        observation = self._environment.reset(seed)
        self._pacer.start()
        return replace(observation, time_s=0.0)

    def describe(self) -> EpisodeStart:
        return self._environment.describe()

    def step(self, values: np.ndarray) -> Transition:
        if self._paused():
            with self._pacer.standing_still():
                while self._paused():
                    self._sleep(PAUSE_POLL_S)
        transition = self._environment.step(values)
        reached = self._pacer.elapsed(self._pacer.wait())
        return replace(transition, observation=replace(transition.observation, time_s=reached))

    def metrics(self) -> Mapping[str, Any]:
        return {"late_ticks": self.late_ticks}

    def close(self) -> None:
        self._environment.close()
