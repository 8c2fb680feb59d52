"""Ticks on an absolute schedule, on a clock that is only advanced by sleeping and by work; simulators that keep it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blm.collect.episode_part import late_ticks_and_jitter
from blm.collect.pacing import PacedEnvironment, Pacer
from blm.schemas.rollout import Transition
from tests.collect.workcell import counting_environment


class _Clock:
    """Time that only passes when somebody waits or works."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.slept.append(seconds)
        self.now += seconds


def _pacer(rate_hz: float = 50.0) -> tuple[Pacer, _Clock]:
    clock = _Clock()
    return Pacer(rate_hz, clock, clock.sleep), clock


@given(work=st.lists(st.floats(0.0, 0.019), min_size=1, max_size=200))
def test_work_within_a_period_never_shifts_the_schedule(work: list[float]) -> None:
    pacer, clock = _pacer()
    start = pacer.start()
    for tick, seconds in enumerate(work, start=1):
        clock.now += seconds
        assert pacer.wait() - start == pytest.approx(tick * 0.02)
    assert pacer.late == 0


@given(stall=st.floats(0.031, 5.0))
def test_a_stall_is_one_late_tick_and_what_was_missed_is_skipped(stall: float) -> None:
    pacer, clock = _pacer()
    start = pacer.start()
    pacer.wait()
    clock.now += stall
    began = pacer.wait()
    following = pacer.wait()
    assert pacer.late == 1
    assert 0 < following - began <= 0.02 + 1e-9
    ticks = (following - start) / 0.02
    assert ticks == pytest.approx(round(ticks), abs=1e-6)


def test_a_wanted_pause_is_not_late_and_no_time_that_passes() -> None:
    pacer, clock = _pacer()
    pacer.start()
    clock.now += 0.005
    with pacer.standing_still():
        clock.now += 60.0
    assert pacer.elapsed(pacer.wait()) == pytest.approx(0.02)
    assert pacer.late == 0


def _paced(clock: _Clock, work_s: list[float], **options: Any) -> PacedEnvironment:
    """A simulator whose ticks take so long, in a scene of 20 Hz."""
    environment = counting_environment()
    step = environment.step

    def slow(values: np.ndarray) -> Transition:
        clock.now += work_s.pop(0)
        return step(values)

    environment.step = slow
    return PacedEnvironment(environment, clock=clock, sleep=clock.sleep, **options)


def _times(environment: PacedEnvironment, ticks: int) -> list[float]:
    first = environment.reset(0)
    return [first.time_s, *(environment.step(first.state).observation.time_s for _ in range(ticks))]


def test_a_simulator_keeps_to_the_schedule() -> None:
    clock = _Clock()
    environment = _paced(clock, [0.01, 0.02, 0.03, 0.04])
    assert _times(environment, 4) == pytest.approx([0.0, 0.05, 0.1, 0.15, 0.2])
    assert clock.slept == pytest.approx([0.04, 0.03, 0.02, 0.01])
    assert environment.late_ticks == 0


def test_times_are_those_at_which_ticks_really_ended() -> None:
    """So that what is stored about lateness and jitter is what there was."""
    clock = _Clock()
    environment = _paced(clock, [0.08, 0.01, 0.2, 0.01])
    times = _times(environment, 4)
    assert times == pytest.approx([0.0, 0.08, 0.1, 0.3, 0.35]), "after a stall the missed ticks are skipped"
    late, jitter_ms = late_ticks_and_jitter(np.array(times), 20)
    assert late == environment.late_ticks == environment.metrics()["late_ticks"] == 2
    assert jitter_ms > 50


def test_time_stands_still_while_paused() -> None:
    clock = _Clock()
    answers = [True] * 50
    environment = _paced(clock, [0.01, 0.01], paused=lambda: bool(answers) and answers.pop())
    began = clock.now
    assert _times(environment, 2) == pytest.approx([0.0, 0.05, 0.1])
    assert clock.now - began > 0.5
    assert environment.late_ticks == 0
