"""A real arm as an environment, on emulated servos: what is sent, when, and what happens when parts fail."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from blm.collect.robots.hardware import HardwareEnvironment
from blm.collect.robots.servo_health import HealthConfig
from blm.collect.robots.servo_line import OVERLOAD
from blm.collect.safety import EmergencyStop, SafetyConfig
from blm.schemas.errors import HardwareError
from blm.schemas.rollout import Transition
from tests.collect.robots.emulated_bus import NAMES, EmulatedBus
from tests.collect.robots.emulated_camera import unplug

Open = Callable[..., HardwareEnvironment]

MIDDLE = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 50.0])
"""Where the emulated servos stand at first, axis values."""


def _steps(environment: HardwareEnvironment, values: np.ndarray, count: int) -> Transition:
    for _ in range(count - 1):
        environment.step(values)
    return environment.step(values)


def test_a_step_sends_what_safety_admits_and_says_so(bus: EmulatedBus, open_environment: Open) -> None:
    environment = open_environment()
    first = environment.reset(0)
    assert first.state == pytest.approx(MIDDLE, abs=0.1)
    assert first.images["top"].shape == (48, 64, 3)
    wanted = MIDDLE + np.array([90.0, 1.0, 0.0, 0.0, 0.0, 0.0])
    transition = environment.step(wanted)
    step = environment.safety.max_step
    assert transition.action == pytest.approx(first.state + np.array([step[0], 1.0, 0, 0, 0, 0]), abs=0.1)
    sent = bus.ticks(dict(zip(NAMES, transition.action.tolist(), strict=True)))
    assert bus.goals[-1][1] == pytest.approx(sent, abs=1.5)
    for _ in range(60):
        transition = environment.step(wanted)
    assert transition.observation.state[0] == pytest.approx(90.0, abs=2.0)
    assert environment.metrics()["limited_ticks"] > 10


def test_a_stall_is_counted_and_times_are_measured(open_environment: Open) -> None:
    environment = open_environment()
    times = [environment.reset(0).time_s]
    for tick in range(10):
        if tick == 5:
            time.sleep(0.05)
        observation = environment.step(MIDDLE).observation
        times.append(observation.time_s)
        assert observation.image_times_s is not None
        assert abs(observation.time_s - observation.image_times_s["top"]) < 0.5
    assert environment.late_ticks == environment.metrics()["late_ticks"] >= 1
    assert times[6] - times[5] > 0.05
    assert (np.diff(times) > 0).all()


def test_while_paused_the_arm_holds_and_time_stands_still(open_environment: Open) -> None:
    paused = threading.Event()
    environment = open_environment(paused=paused.is_set)
    environment.reset(0)
    paused.set()
    threading.Timer(0.4, paused.clear).start()
    began = time.monotonic()
    environment.step(MIDDLE + 30.0)
    assert time.monotonic() - began >= 0.4
    assert environment.late_ticks == 0


def test_one_robot_serves_several_tasks(open_environment: Open) -> None:
    environment = open_environment()
    other = environment.with_task("fold the towel")
    assert environment.reset(0).instruction in environment.describe().task.instructions
    assert other.reset(0).instruction == "fold the towel"
    assert other.describe().task.name == "fold-the-towel"
    assert other.step(MIDDLE).action.shape == (6,)


def test_reset_leads_the_arm_home_slowly(bus: EmulatedBus, open_environment: Open) -> None:
    environment = open_environment(start="home", safety=SafetyConfig(ramp_share=0.4))
    observation = environment.reset(0)
    home = environment.embodiment.column("home")
    assert observation.state == pytest.approx(home, abs=7.0)
    goals = np.array([[goal[name] for name in NAMES] for _, goal in bus.goals])
    fastest = np.abs(np.diff(goals[:, :5], axis=0)).max() * 360 / 4095 * 50.0
    assert fastest <= 1.1 * 0.4 * np.rad2deg(2.5)


def test_the_tool_pose_is_that_of_the_simulated_arm(open_environment: Open) -> None:
    from blm.collect.sim.environment import SimulatedEnvironment
    from blm.schemas.task import load_task

    environment = open_environment(start="home")
    pose = environment.reset(0).ee_pose
    simulated = SimulatedEnvironment(
        environment.embodiment, load_task("pick-cube", "so100"), render=False, home_perturbation_deg=0.0
    )
    expected = simulated.reset(0).ee_pose
    assert pose[:3] == pytest.approx(expected[:3], abs=0.03)
    assert abs(pose[3:] @ expected[3:]) > 0.99
    assert pose[3:] @ expected[3:] > 0


def test_a_silent_servo_is_named_and_the_others_hold(bus: EmulatedBus, open_environment: Open) -> None:
    environment = open_environment()
    environment.reset(0)
    for _ in range(5):
        environment.step(MIDDLE + 20.0)
    bus.silence("elbow_flex")
    with pytest.raises(HardwareError, match=r"'elbow_flex' \(number 3\) on /dev/\S+ does not answer"):
        environment.step(MIDDLE + 20.0)
    time.sleep(0.3)
    held, resting = bus.goals[-1][1], bus.positions()
    for name in ("shoulder_pan", "shoulder_lift", "wrist_flex", "wrist_roll"):
        assert resting[name] == pytest.approx(held[name], abs=3)
        assert abs(held[name] - bus.ticks({name: 20.0})[name]) > 30
    assert all(on for name, on in bus.torque_on().items() if name != "elbow_flex")


def test_corrupted_packets_are_retried_and_counted(bus: EmulatedBus, open_environment: Open) -> None:
    environment = open_environment()
    environment.reset(0)
    for _ in range(4):
        bus.corrupt(1)
        environment.step(MIDDLE)
    assert environment.metrics()["bus_corrupted"] >= 4


def test_an_overload_warns_then_stops(bus: EmulatedBus, open_environment: Open) -> None:
    said: list[str] = []
    environment = open_environment(notify=said.append, health=HealthConfig(fault_s=0.15))
    environment.reset(0)
    bus.servos["shoulder_lift"].status = OVERLOAD
    environment.step(MIDDLE)
    assert said == ["servo 'shoulder_lift': overloaded."]
    with pytest.raises(HardwareError, match="'shoulder_lift' is overloaded"):
        _steps(environment, MIDDLE, 20)


def test_a_hot_servo_warns_then_stops(bus: EmulatedBus, open_environment: Open) -> None:
    said: list[str] = []
    environment = open_environment(notify=said.append, health=HealthConfig(temperature_period_s=0.02))
    environment.reset(0)
    bus.servos["elbow_flex"].temperature = 60
    environment.step(MIDDLE)
    assert said == ["servo 'elbow_flex' is at 60 °C."]
    bus.servos["elbow_flex"].temperature = 68
    with pytest.raises(HardwareError, match="'elbow_flex' is at 68 °C"):
        _steps(environment, MIDDLE, 5)


def test_an_unplugged_camera_is_named(open_environment: Open) -> None:
    environment = open_environment()
    environment.reset(0)
    unplug()
    with pytest.raises(HardwareError, match="camera 'top' is unplugged"):
        environment.step(MIDDLE)


def test_an_unplugged_bus_is_named(bus: EmulatedBus, open_environment: Open) -> None:
    environment = open_environment()
    environment.reset(0)
    bus.unplug()
    with pytest.raises(HardwareError, match=r"port /dev/\S+ is gone"):
        environment.step(MIDDLE)


def test_a_hanging_operator_makes_the_arm_hold(bus: EmulatedBus, open_environment: Open) -> None:
    environment = open_environment()
    environment.reset(0)
    bus.servos["shoulder_pan"].blocked = True
    for _ in range(20):
        environment.step(MIDDLE + np.array([80.0, 0, 0, 0, 0, 0]))
    ahead = bus.goals[-1][1]["shoulder_pan"]
    time.sleep(0.4)
    held = bus.goals[-1][1]["shoulder_pan"]
    assert environment.metrics()["watchdog_holds"] >= 1
    assert held < ahead - 100
    bus.servos["shoulder_pan"].blocked = False
    after = environment.step(MIDDLE + np.array([80.0, 0, 0, 0, 0, 0])).action[0]
    assert after <= 3 * environment.safety.max_step[0]


def test_an_emergency_stop_holds_from_any_thread(bus: EmulatedBus, open_environment: Open) -> None:
    stop = EmergencyStop()
    environment = open_environment(stop=stop)
    environment.reset(0)
    for _ in range(5):
        environment.step(MIDDLE + 30.0)
    presser = threading.Thread(target=stop.press, args=("button",))
    presser.start()
    presser.join()
    held = environment.step(MIDDLE + 30.0).action
    observation = _steps(environment, MIDDLE + 30.0, 10).observation
    assert observation.state[:5] == pytest.approx(held[:5], abs=1.0)
    assert all(bus.torque_on().values())
    with pytest.raises(HardwareError, match="button"):
        environment.reset(1)
    stop.press(torque_off=True)
    assert not any(bus.torque_on().values())


def test_a_blocked_arm_is_said_to_be_blocked(bus: EmulatedBus, open_environment: Open) -> None:
    environment = open_environment(start="home")
    bus.servos["elbow_flex"].blocked = True
    with pytest.raises(HardwareError, match=r"did not arrive: elbow_flex\.pos"):
        environment.reset(0)


def test_torque_goes_off_at_rest_and_stays_on_elsewhere(bus: EmulatedBus, open_environment: Open) -> None:
    said: list[str] = []
    environment = open_environment(notify=said.append)
    environment.reset(0)
    for _ in range(30):
        environment.step(MIDDLE + np.array([40.0, 0, 0, 0, 0, 0]))
    environment.close()
    assert all(bus.torque_on().values())
    assert "goes on holding itself" in said[0]

    again = open_environment()
    assert again.arm.held_itself
    assert bus.positions()["shoulder_pan"] == pytest.approx(
        bus.ticks({"shoulder_pan": 40.0})["shoulder_pan"], abs=20
    )
    assert not again.park()
    again.close()
    assert all(bus.torque_on().values())

    confirmed = open_environment(confirm_torque_off=lambda: True)
    confirmed.close()
    assert not any(bus.torque_on().values())

    parked = open_environment(start="home")
    parked.reset(0)
    assert parked.park()
    parked.close()
    assert not any(bus.torque_on().values())


def test_the_operator_marks_success(open_environment: Open) -> None:
    environment = open_environment(task="put the red cube into the box")
    observation = environment.reset(7)
    assert observation.instruction == "put the red cube into the box"
    assert environment.task.name == "put-the-red-cube-into-the-box"
    assert environment.describe().seed == -1
    assert not environment.step(MIDDLE).success
    environment.mark(True)
    assert environment.step(MIDDLE).success


def test_an_arm_that_is_not_calibrated_says_how_to(
    bus: EmulatedBus, open_environment: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = open_environment()
    environment.close()
    bus.servos["elbow_flex"].homing_offset += 7
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    with pytest.raises(HardwareError, match=r"lerobot-calibrate --robot\.type=so100_follower"):
        environment.arm.connect()
    assert not environment.arm.robot.is_connected
