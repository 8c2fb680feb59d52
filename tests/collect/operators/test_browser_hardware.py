"""The page drives an SO-100 on emulated servos, through the real drivers: it moves, and the stop holds it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("lerobot")
pytest.importorskip("playwright.sync_api")
pytest.importorskip("aiohttp")

from blm.collect.live_config import LiveCollectConfig
from blm.schemas.embodiment import load_embodiment
from blm.schemas.errors import HardwareError
from tests.collect.operators.page_person import Person, Session, at_page, needs_chromium, wait_until
from tests.collect.robots.emulated_bus import NAMES, EmulatedBus
from tests.collect.robots.emulated_camera import plug_in

pytestmark = [needs_chromium, pytest.mark.slow]
STILL_TICKS = 12
"""Encoder ticks within which an arm that holds may settle: about a degree."""


def _patient(port: Any, packet_length: int) -> None:
    """Servos answer within milliseconds; a thread that emulates them on a busy machine may take a second."""
    port.packet_start_time = port.getCurrentTime()
    port.packet_timeout = 1000.0


@pytest.fixture
def follower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EmulatedBus]:
    """Calibrated, and lying where its home pose is, so that nobody waits for it to get there."""
    plug_in()
    monkeypatch.setattr("lerobot.motors.feetech.feetech.patch_setPacketTimeout", _patient)
    calibration = tmp_path / "calibration"
    for module in ("lerobot.robots.robot", "lerobot.teleoperators.teleoperator"):
        monkeypatch.setattr(f"{module}.HF_LEROBOT_CALIBRATION", calibration)
    so100 = load_embodiment("so100")
    home = {name: float(value) for name, value in zip(so100.joints, so100.column("home"), strict=True)}
    with EmulatedBus() as bus:
        bus.write_calibration(calibration / "robots/so_follower/arm.json")
        bus.place(bus.ticks(home))
        yield bus


def positions(bus: EmulatedBus) -> np.ndarray:
    """Encoder ticks of the arm's joints now, without the gripper."""
    now = bus.positions()
    return np.array([now[name] for name in NAMES[:-1]])


def test_the_page_moves_a_real_arm_and_stops_it(follower: EmulatedBus, tmp_path: Path):
    session = Session(
        LiveCollectConfig(
            robot="so100",
            task="push-cube",
            episodes=2,
            output=tmp_path / "data",
            operator="browser",
            port=follower.port,
            cameras=("top=emulated:source=moving@64x48",),
        )
    )
    with at_page(session.wait_for_url()) as person:
        person.phase_is("ready")
        _record_one(person, follower)
        _stop_with(lambda: person.press("Space"), person, follower)
        person.click("Release the stop")
        person.phase_is("ready")
        _stop_with(lambda: person.click("Stop the robot"), person, follower)
        person.click("Finish")
        person.phase_is("done")
    summary = session.result()
    assert (summary.kept, summary.dropped) == (1, 2)
    assert any("goes on holding itself" in line for line in session.told), "a stopped arm is not let go"
    assert all(servo.torque for servo in follower.servos.values())
    _check_dataset(tmp_path / "data")


def _record_one(person: Person, follower: EmulatedBus) -> None:
    """Drag the handle aside, then lower it with a key; the servos follow through the inverse kinematics."""
    before = positions(follower)
    person.click("Start")
    person.phase_is("recording")
    aside = person.tool()[:2] + np.array([0.0, 0.05])
    person.drag(aside)
    person.arrive(aside)
    turned = positions(follower)
    assert abs(turned - before)[0] > 100, "ticks of 4096: the base turned"
    height = person.tool()[2]
    person.hold("k", until=lambda: person.tool()[2] < height - 0.02)
    assert abs(positions(follower) - turned)[1:].max() > 20, "shoulder, elbow or wrist bent"
    person.press("ArrowRight")
    person.phase_is("review")
    person.click("Keep")
    person.phase_is("ready")


def _stop_with(press, person: Person, follower: EmulatedBus) -> None:
    """Stop in the middle of a motion: the arm holds, whatever the page wants afterwards."""
    person.click("Start")
    person.phase_is("recording")
    before = positions(follower)
    person.drag(person.tool()[:2] + np.array([0.0, -0.08]))
    wait_until(lambda: float(np.abs(positions(follower) - before).max()) > 40, 60)
    press()
    person.phase_is("halted")
    time.sleep(0.5)
    held = positions(follower)
    person.drag(person.tool()[:2] + np.array([0.0, 0.08]))
    person.press("k")
    time.sleep(1.0)
    assert np.abs(positions(follower) - held).max() < STILL_TICKS
    assert all(follower.servos[name].torque for name in NAMES), "held, not limp"


def _check_dataset(output: Path) -> None:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    dataset = LeRobotDataset("local/page", root=output)
    assert dataset.num_episodes == 1
    rows = dataset.hf_dataset.with_format("numpy")
    actions, states = np.array(rows["action"]), np.array(rows["observation.state"])
    assert np.ptp(actions[:, 0]) > 8.0, "degrees of the base"
    assert np.corrcoef(actions[:-2, 0], states[2:, 0])[0, 1] > 0.9


def test_a_session_that_breaks_says_why_on_the_page(follower: EmulatedBus, tmp_path: Path):
    session = Session(
        LiveCollectConfig(
            robot="so100",
            task="push-cube",
            output=tmp_path / "data",
            operator="browser",
            port=follower.port,
            cameras=("top=emulated:source=moving@64x48",),
        )
    )
    with at_page(session.wait_for_url()) as person:
        person.phase_is("ready")
        person.click("Start")
        person.phase_is("recording")
        follower.silence("elbow_flex")
        person.phase_is("failed")
        assert "servo 'elbow_flex' (number 3)" in person.page.locator("#note").inner_text()
    assert isinstance(session.failure_of(60), HardwareError)
