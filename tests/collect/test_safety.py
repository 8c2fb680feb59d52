"""Safety below the operator: what is admitted is within every limit whatever is asked, and hangs end in a hold."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from blm.collect.safety import EmergencyStop, SafeEnvironment, Safety, SafetyConfig, Watchdog, ramp
from blm.schemas.embodiment import embodiment_names, load_embodiment
from blm.schemas.errors import HardwareError
from tests.collect.workcell import counting_environment

SO100 = load_embodiment("so100")
HOME = SO100.column("home")

_anything = arrays(np.float64, 6, elements=st.floats(-1e6, 1e6))
_within = arrays(np.float64, 6, elements=st.floats(0.0, 1.0)).map(
    lambda share: SO100.column("lower") + share * (SO100.column("upper") - SO100.column("lower"))
)


def _begun(at: np.ndarray, config: SafetyConfig | None = None) -> Safety:
    safety = Safety(SO100, config)
    safety.begin(at)
    return safety


@given(start=_within, wanted=st.lists(_anything, min_size=1, max_size=20))
def test_admitted_values_stay_within_limits_and_steps(start: np.ndarray, wanted: list[np.ndarray]) -> None:
    safety = _begun(start)
    last = start
    for values in wanted:
        admitted = safety.admit(values, last).values
        assert (admitted >= SO100.column("lower") - 1e-9).all()
        assert (admitted <= SO100.column("upper") + 1e-9).all()
        assert (np.abs(admitted - last) <= safety.max_step + 1e-9).all()
        last = admitted


@given(start=_within, goal=_within)
def test_a_target_within_reach_is_reached_and_left_alone(start: np.ndarray, goal: np.ndarray) -> None:
    safety = _begun(start)
    admitted = safety.admit(goal, start)
    for _ in range(int(np.max(np.abs(goal - start) / safety.max_step)) + 1):
        admitted = safety.admit(goal, safety.last if safety.last is not None else start)
    assert np.allclose(admitted.values, goal)
    assert safety.admit(goal, goal).limited == ()


@given(start=_anything)
def test_an_arm_outside_its_limits_is_led_back_step_by_step(start: np.ndarray) -> None:
    safety = _begun(start)
    admitted = safety.admit(HOME, start).values
    assert (np.abs(admitted - start) <= safety.max_step + 1e-6).all()
    assert (np.abs(admitted - HOME) <= np.abs(start - HOME) + 1e-6).all()


@given(start=_within, wanted=_within)
@settings(max_examples=30)
def test_targets_do_not_run_away_from_a_blocked_arm(start: np.ndarray, wanted: np.ndarray) -> None:
    safety = _begun(start)
    admitted = np.array([safety.admit(wanted, start).values for _ in range(60)])
    lead = safety.max_speed * safety.config.lead_s
    assert (np.abs(admitted - start) <= lead + 1e-9).all()


def test_nothing_is_admitted_that_is_not_a_number() -> None:
    safety = _begun(HOME)
    with pytest.raises(HardwareError, match=r"elbow_flex\.pos"):
        safety.admit(np.where(np.arange(6) == 2, np.nan, HOME), HOME)
    with pytest.raises(HardwareError, match="shape"):
        safety.admit(np.zeros(5), HOME)
    assert safety.last == pytest.approx(HOME)


def test_the_axes_held_back_are_named() -> None:
    wanted = HOME.copy()
    wanted[0] = 400.0
    assert _begun(HOME).admit(wanted, HOME).limited == ("shoulder_pan.pos",)


@given(wanted=_anything)
def test_an_emergency_stop_holds_until_it_is_released(wanted: np.ndarray) -> None:
    safety = _begun(HOME)
    safety.stop.press("space bar")
    safety.stop.press("another")
    for _ in range(3):
        assert np.array_equal(safety.admit(wanted, HOME).values, HOME)
    assert (safety.stop.reason, safety.stop.torque_off) == ("space bar", False)
    safety.stop.release()
    towards = HOME + np.array([5.0, 0, 0, 0, 0, 0])
    assert safety.admit(towards, HOME).values[0] > HOME[0]


def test_torque_off_must_be_asked_for() -> None:
    stop = EmergencyStop()
    stop.press()
    assert not stop.torque_off
    stop.press(torque_off=True)
    assert stop.torque_off


@given(last=_within, measured=_within)
def test_hold_stops_the_arm_near_where_it_is_and_keeps_the_grip(
    last: np.ndarray, measured: np.ndarray
) -> None:
    safety = _begun(last)
    held = safety.hold(measured)
    arm = list(SO100.arm_indices)
    assert (np.abs(held - measured)[arm] <= safety.max_step[arm] + 1e-9).all()
    assert held[SO100.gripper_index] == last[SO100.gripper_index]


@pytest.mark.parametrize("name", embodiment_names())
def test_a_ramp_ends_at_its_goal_and_is_never_fast(name: str) -> None:
    embodiment = load_embodiment(name)
    start, goal = embodiment.column("lower"), embodiment.column("home")
    path = np.vstack([start, ramp(start, goal, embodiment, 0.2)])
    speed = np.abs(np.diff(path, axis=0)) * embodiment.control_rate_hz * np.abs(embodiment.column("scale"))
    assert np.allclose(path[-1], goal)
    assert (speed <= 0.2 * embodiment.column("max_velocity") * 1.001).all()
    assert len(ramp(goal, goal, embodiment, 0.2)) == 1


def test_the_watchdog_holds_once_when_the_commands_stop() -> None:
    held: list[float] = []
    fired = threading.Event()

    def hold() -> None:
        held.append(time.monotonic())
        fired.set()

    watchdog = Watchdog(hold, 0.1)
    began = time.monotonic()
    watchdog.feed()
    assert fired.wait(5.0)
    assert held[0] - began >= 0.1
    time.sleep(0.25)
    assert watchdog.trips == len(held) == 1
    fired.clear()
    watchdog.feed()
    assert fired.wait(5.0)
    watchdog.feed()
    watchdog.rest()
    time.sleep(0.2)
    assert watchdog.trips == 2
    watchdog.close()


def test_the_watchdog_survives_a_hold_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    tried = threading.Semaphore(0)

    def hold() -> None:
        tried.release()
        raise HardwareError("the line is dead")

    watchdog = Watchdog(hold, 0.02)
    for _ in range(2):
        watchdog.feed()
        assert tried.acquire(timeout=5.0)
    watchdog.close()
    assert "could not make the robot hold" in caplog.text


def test_a_simulated_arm_is_held_to_the_same_limits() -> None:
    environment = SafeEnvironment(counting_environment())
    state = environment.reset(0).state
    action = environment.step(np.full(6, 1e6)).action
    assert np.abs(action - state).max() <= environment.safety.max_step.max() + 1e-4
    assert (action > state).all()
    with pytest.raises(HardwareError, match="finite"):
        environment.step(np.full(6, np.nan))
    environment.safety.stop.press()
    assert environment.step(np.full(6, 1e6)).action == pytest.approx(action)
    assert environment.metrics() == {"limited_ticks": 1}
    environment.reset(1)
    assert environment.metrics() == {"limited_ticks": 0}
    environment.close()


def test_an_operator_that_hangs_finds_the_simulated_arm_holding() -> None:
    """Its target had run ahead of the arm; after the hang the arm starts from where it is."""
    inner = counting_environment()
    environment = SafeEnvironment(inner, Safety(SO100, SafetyConfig(watchdog_s=0.3)), watched=True)
    state = environment.reset(0).state
    inner._observe = lambda observe=inner._observe: replace(observe(), state=state)  # an arm that is blocked
    ahead = [environment.step(state + 50.0).action for _ in range(4)][-1]
    deadline = time.monotonic() + 5
    while not environment.metrics()["watchdog_holds"] and time.monotonic() < deadline:
        time.sleep(0.01)
    after = environment.step(state + 50.0).action
    assert after[0] < ahead[0]
    assert environment.metrics()["watchdog_holds"] >= 1
    environment.close()
