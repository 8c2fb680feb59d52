"""Faults on the servo line: each fails or misleads the stock bus, and is mended and counted by the guard."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from blm.collect.robots.servo_health import ServoHealth
from blm.collect.robots.servo_line import OVERHEAT, OVERLOAD, VOLTAGE, ServoLine, describe_status
from blm.schemas.errors import HardwareError
from tests.collect.robots.arms import so100_follower
from tests.collect.robots.emulated_bus import EmulatedBus

pytest.importorskip("lerobot")


def _moving(bus: EmulatedBus) -> None:
    began = time.monotonic()
    bus.guide({"elbow_flex": lambda now: 1500 + 1000 * (now - began)})


def _age_s(bus: EmulatedBus, robot) -> float:
    """How old a read of a steadily moving joint is when it arrives: 1,000 ticks a second."""
    read = robot.bus.sync_read("Present_Position", normalize=False)["elbow_flex"]
    return (bus.positions()["elbow_flex"] - read) / 1000


def test_a_late_answer_makes_the_stock_bus_stale_for_good_and_ours_not(tmp_path: Path) -> None:
    ages = {}
    for guarded in (False, True):
        with EmulatedBus() as bus:
            robot = so100_follower(bus, tmp_path)
            line = ServoLine(robot.bus) if guarded else None
            robot.bus.connect()
            _moving(bus)
            bus.delay(0.12)
            robot.bus.sync_read("Present_Position", num_retry=2)
            reads = []
            for _ in range(5):
                time.sleep(0.05)
                reads.append(_age_s(bus, robot))
            ages[guarded] = min(reads)
            if line is not None:
                assert line.counts.timeouts >= 1
                assert line.counts.stale_bytes > 0
            robot.bus.disconnect(disable_torque=False)
    assert ages[False] > 0.03
    assert ages[True] < 0.03


def test_a_lossy_line_connects(tmp_path: Path) -> None:
    with EmulatedBus(seed=3) as bus:
        robot = so100_follower(bus, tmp_path)
        line = ServoLine(robot.bus, retries=3)
        bus.loss = 0.02
        robot.connect()
        assert bus.lost > 0
        assert line.counts.timeouts >= bus.lost
        bus.loss = 0.0
        robot.disconnect()


def test_a_corrupted_answer_is_asked_for_again(tmp_path: Path) -> None:
    with EmulatedBus() as bus:
        robot = so100_follower(bus, tmp_path)
        line = ServoLine(robot.bus)
        robot.bus.connect()
        bus.corrupt(2, "gripper")
        assert len(robot.bus.sync_read("Present_Position")) == 6
        assert (line.counts.corrupted, bus.corrupted) == (2, 2)
        bus.corrupt(1)
        robot.bus.write("Torque_Enable", "elbow_flex", 0)
        assert line.counts.corrupted == 3
        robot.bus.disconnect(disable_torque=False)


def test_a_late_answer_to_a_ping_is_not_taken_for_a_read(tmp_path: Path) -> None:
    with EmulatedBus() as bus:
        robot = so100_follower(bus, tmp_path)
        line = ServoLine(robot.bus)
        robot.bus.connect()
        for late_s in (0.06, 0.08, 0.12):
            bus.delay(late_s)
            assert line.silent() == []
            assert line.bus.read("Model_Number", "elbow_flex") == 777
        robot.bus.disconnect(disable_torque=False)


def test_status_bits_are_seen_and_do_not_keep_torque_on(tmp_path: Path) -> None:
    with EmulatedBus() as bus:
        robot = so100_follower(bus, tmp_path)
        line = ServoLine(robot.bus)
        robot.connect()
        bus.servos["shoulder_pan"].status = OVERLOAD
        robot.get_observation()
        assert line.status["shoulder_pan"] == OVERLOAD
        robot.disconnect()
        assert not any(bus.torque_on().values())


def test_torque_comes_on_without_a_leap(tmp_path: Path) -> None:
    with EmulatedBus({"elbow_flex": 1200.0}) as bus:
        bus.servos["elbow_flex"].put(42, 2, 2900)
        robot = so100_follower(bus, tmp_path)
        ServoLine(robot.bus)
        robot.connect()
        time.sleep(0.1)
        assert bus.positions()["elbow_flex"] == pytest.approx(1200, abs=2)
        robot.disconnect()


def test_silent_servos_are_named(tmp_path: Path) -> None:
    with EmulatedBus() as bus:
        robot = so100_follower(bus, tmp_path)
        line = ServoLine(robot.bus, retries=0)
        robot.bus.connect()
        bus.silence("wrist_flex")
        assert line.silent() == ["wrist_flex"]
        robot.bus.disconnect(disable_torque=False)


def test_faults_warn_once_and_stop_when_they_last() -> None:
    said: list[str] = []
    health = ServoHealth(said.append)
    health.check_status({"elbow_flex": VOLTAGE}, 0.0)
    health.check_status({"elbow_flex": OVERLOAD}, 0.5)
    health.check_status({"elbow_flex": 0}, 0.8)
    health.check_status({"elbow_flex": OVERLOAD, "gripper": OVERLOAD}, 1.0)
    assert said[0] == "servo 'elbow_flex': supply voltage out of range."
    assert len(said) == 3
    with pytest.raises(HardwareError, match="'elbow_flex' is overloaded"):
        health.check_status({"elbow_flex": OVERLOAD, "gripper": OVERLOAD}, 2.1)
    health.check_status({"elbow_flex": 0, "gripper": OVERLOAD}, 9.0)


def test_heat_warns_before_it_stops() -> None:
    said: list[str] = []
    health = ServoHealth(said.append)
    health.check_temperatures({"elbow_flex": 54})
    assert not said
    health.check_temperatures({"elbow_flex": 58})
    health.check_temperatures({"elbow_flex": 59})
    assert said == ["servo 'elbow_flex' is at 58 °C."]
    with pytest.raises(HardwareError, match="66 °C"):
        health.check_temperatures({"elbow_flex": 66})
    assert describe_status(OVERHEAT | OVERLOAD) == "overheated, overloaded"
