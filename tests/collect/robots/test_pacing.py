"""Ticks on an absolute schedule, on a clock that is only advanced by sleeping and by work."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blm.collect.robots.pacing import Pacer


class _Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds


def _pacer(rate_hz: float = 50.0) -> tuple[Pacer, _Clock]:
    clock = _Clock()
    return Pacer(rate_hz, lambda: clock.now, clock.sleep), clock


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


def test_a_wanted_pause_is_not_late() -> None:
    pacer, clock = _pacer()
    pacer.start()
    clock.now += 60.0
    pacer.resume()
    pacer.wait()
    assert pacer.late == 0
