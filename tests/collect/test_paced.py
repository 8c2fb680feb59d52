"""A simulator at the pace of a clock."""

from __future__ import annotations

import numpy as np
import pytest

from blm.collect.paced import PacedEnvironment
from tests.collect.workcell import counting_environment


class Clock:
    """Time that only passes when somebody waits or works."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def paced(clock: Clock, work_s: list[float], **options: object) -> PacedEnvironment:
    environment = counting_environment()
    step = environment.step

    def slow(values: np.ndarray):
        clock.now += work_s.pop(0)
        return step(values)

    environment.step = slow
    return PacedEnvironment(environment, clock=clock, sleep=clock.sleep, **options)  # type: ignore[arg-type]


def test_ticks_end_on_an_absolute_schedule():
    clock = Clock()
    environment = paced(clock, [0.01, 0.02, 0.03, 0.04])
    values = environment.reset(0).state
    for _ in range(4):
        environment.step(values)
    assert clock.slept == pytest.approx([0.04, 0.03, 0.02, 0.01])
    assert clock.now == pytest.approx(100.2)
    assert environment.late_ticks == 0


def test_a_late_tick_is_made_up_for_and_counted():
    clock = Clock()
    environment = paced(clock, [0.08, 0.01, 0.2, 0.01])
    values = environment.reset(0).state
    environment.step(values)
    environment.step(values)
    assert clock.now == pytest.approx(100.1)
    assert environment.late_ticks == 1
    environment.step(values)
    began = clock.now
    environment.step(values)
    assert clock.now == pytest.approx(began + 0.05), "after a stall the schedule starts anew"
    assert environment.late_ticks == 2


def test_time_stands_still_while_paused():
    clock = Clock()
    answers = [True] * 50
    environment = paced(clock, [0.01, 0.01], paused=lambda: bool(answers) and answers.pop())
    values = environment.reset(0).state
    environment.step(values)
    assert clock.now == pytest.approx(100.55)
    assert environment.late_ticks == 0
