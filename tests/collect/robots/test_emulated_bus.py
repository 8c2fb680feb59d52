"""The emulated servos behave like servos towards LeRobot's own drivers."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.collect.robots.emulated_bus import NAMES, EmulatedBus

pytest.importorskip("lerobot")


def _follower(bus: EmulatedBus, folder: Path):
    from lerobot.robots.so_follower import SO100Follower, SO100FollowerConfig

    bus.write_calibration(folder / "arm.json")
    return SO100Follower(SO100FollowerConfig(port=bus.port, id="arm", calibration_dir=folder))


def test_stock_follower_connects_observes_and_acts(tmp_path: Path) -> None:
    with EmulatedBus() as bus:
        robot = _follower(bus, tmp_path)
        robot.connect()
        assert all(bus.torque_on().values())
        robot.send_action({f"{name}.pos": 20.0 for name in NAMES})
        time.sleep(0.6)
        observed = robot.get_observation()
        assert observed == pytest.approx({f"{name}.pos": 20.0 for name in NAMES}, abs=0.2)
        robot.disconnect()
        assert not any(bus.torque_on().values())


def test_stock_leader_reads_what_a_hand_does(tmp_path: Path) -> None:
    from lerobot.teleoperators.so_leader import SO100Leader, SO100LeaderConfig

    with EmulatedBus() as bus:
        bus.write_calibration(tmp_path / "arm.json")
        leader = SO100Leader(SO100LeaderConfig(port=bus.port, id="arm", calibration_dir=tmp_path))
        leader.connect()
        bus.place(bus.ticks({"elbow_flex": -30.0, "gripper": 75.0}))
        action = leader.get_action()
        assert action["elbow_flex.pos"] == pytest.approx(-30.0, abs=0.1)
        assert action["gripper.pos"] == pytest.approx(75.0, abs=0.1)
        leader.disconnect()


def test_a_silent_servo_and_a_corrupted_answer_are_errors_to_the_driver(tmp_path: Path) -> None:
    with EmulatedBus() as bus:
        robot = _follower(bus, tmp_path)
        robot.connect()
        bus.corrupt(1, "gripper")
        with pytest.raises(ConnectionError, match="Incorrect status packet"):
            robot.bus.sync_read("Present_Position")
        bus.silence("elbow_flex")
        with pytest.raises(ConnectionError, match="no status packet"):
            robot.bus.sync_read("Present_Position")
        robot.bus.disconnect(disable_torque=False)


def test_motion_is_a_lag_with_limited_speed() -> None:
    with EmulatedBus({"elbow_flex": 1000.0}) as bus:
        servo = bus.servos["elbow_flex"]
        servo.registers[40] = 1
        servo.put(42, 2, 3000)
        servo.advance(servo._updated + 0.1)
        assert servo.position == pytest.approx(1000 + 0.1 * servo.max_speed)
        servo.advance(servo._updated + 5.0)
        assert servo.position == pytest.approx(3000)
