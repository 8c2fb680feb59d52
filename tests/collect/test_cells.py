"""Where a person records: a simulated arm is watched as a real one is; a real one serves all tasks and lies down."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from blm.collect.controls import Control, Controls
from blm.collect.live_config import LiveCollectConfig
from blm.collect.safety import Safety
from blm.collect.simulated_cell import SimulatedCell
from blm.schemas.embodiment import load_embodiment
from blm.schemas.errors import HardwareError, UsageError

pytest.importorskip("mujoco")


def test_a_simulated_arm_is_watched_as_a_real_one_is(tmp_path: Path):
    controls = Controls()
    config = LiveCollectConfig(output=tmp_path, task="push-cube", operator="browser", image_size=32)
    cell = SimulatedCell(config, controls)
    environment = cell.environment("push-cube")
    began = time.monotonic()
    state = environment.reset(0).state
    first = environment.step(cell.embodiment.column("upper"))
    largest = Safety(cell.embodiment).max_step
    assert (np.abs(first.action - state) <= largest + 1e-3).all()
    assert np.abs(first.action - state).max() > 0.9 * largest.min()
    assert 0.9 / cell.embodiment.control_rate_hz < first.observation.time_s < time.monotonic() - began
    controls.press(Control.EMERGENCY_STOP)
    held = [environment.step(cell.embodiment.column("upper")).action for _ in range(3)]
    assert np.abs(held[2] - held[1]).max() < np.abs(first.action - state).max() / 2
    controls.press(Control.RERECORD)
    freed = environment.step(cell.embodiment.column("upper")).action
    assert np.abs(freed - held[2]).max() > 0.9 * largest.min()
    assert {"limited_ticks", "watchdog_holds", "late_ticks"} <= set(environment.metrics())  # type: ignore[attr-defined]
    cell.close()


class _Arm:
    """Stands for the connection to a real arm that cannot move any more."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.safety, self.closed = Safety(load_embodiment("so100")), False

    def park(self) -> None:
        raise HardwareError("servo 'elbow_flex' does not answer.")

    def close(self) -> None:
        self.closed = True


def test_an_arm_that_cannot_be_led_back_is_said_and_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("lerobot")
    from blm.collect import hardware_cell

    chosen = SimpleNamespace(embodiment=load_embodiment("so100"), robot=None, links={})
    monkeypatch.setattr(hardware_cell, "choose_robot", lambda *_, **__: chosen)
    monkeypatch.setattr(hardware_cell, "HardwareEnvironment", _Arm)
    controls, told = Controls(), []
    cell = hardware_cell.HardwareCell(
        LiveCollectConfig(output=tmp_path, operator="leader", port="x"), controls, told.append
    )
    cell.park()
    assert "elbow_flex" in told[-1]
    controls.press(Control.EMERGENCY_STOP)
    cell.park()
    assert len(told) == 2, "an arm that was stopped is not moved"
    cell.close()
    assert cell._arm.closed  # type: ignore[attr-defined]


@pytest.mark.parametrize("operator", ["browser", "gamepad"])
def test_a_gripper_is_not_led_without_a_model_and_nothing_is_connected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operator: str
):
    pytest.importorskip("lerobot")
    from blm.collect import hardware_cell

    monkeypatch.setattr(hardware_cell, "choose_robot", lambda *_, **__: pytest.fail("connected"))
    config = LiveCollectConfig(
        output=tmp_path, robot="lerobot:koch_follower", operator=operator, port="x", task="tidy up the desk"
    )
    with pytest.raises(
        UsageError, match=f"'lerobot:koch_follower' has no model, which --operator {operator}"
    ):
        hardware_cell.HardwareCell(config, Controls(), lambda _: None)


@pytest.mark.slow
def test_a_real_arm_serves_all_tasks_and_is_led_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("lerobot")
    from blm.collect.hardware_cell import HardwareCell
    from tests.collect.robots.emulated_bus import EmulatedBus
    from tests.collect.robots.emulated_camera import plug_in

    plug_in()
    monkeypatch.setattr("lerobot.robots.robot.HF_LEROBOT_CALIBRATION", tmp_path)
    told: list[str] = []
    with EmulatedBus() as bus:
        bus.write_calibration(tmp_path / "robots/so_follower/arm.json")
        config = LiveCollectConfig(
            output=tmp_path / "data",
            tasks=("push-cube", "fold the towel"),
            operator="leader",
            port=bus.port,
            cameras=("top=emulated:source=moving@64x48",),
        )
        cell = HardwareCell(config, Controls(), told.append)
        rest = cell._arm.arm.read().state
        for task, instruction in (("fold the towel", "fold the towel"), ("push-cube", None)):
            environment = cell.environment(task)
            observation = environment.reset(0)
            assert environment.describe().instruction == observation.instruction
            assert instruction in (None, observation.instruction)
            environment.close()
        assert np.abs(environment.step(observation.state).observation.state - rest).max() > 5
        cell.park()
        assert cell._arm.arm.read().state[:5] == pytest.approx(rest[:5], abs=9)
        cell.close()
        assert not any(bus.torque_on().values()), "it lies at rest, so it may go limp"
    assert told == ["The arm goes back slowly to where it lay; the emergency stop still holds it."]
