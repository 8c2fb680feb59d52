"""A leader arm and a follower, both emulated, through the whole session into a dataset."""

from __future__ import annotations

import math
import threading
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lerobot")

from blm.collect import live_workcell
from blm.collect.controls import Control, Controls, Phase
from blm.collect.live_config import LiveCollectConfig
from blm.collect.live_workcell import collect_live
from blm.schemas.embodiment import load_embodiment
from tests.collect.robots.emulated_bus import EmulatedBus
from tests.collect.robots.emulated_camera import plug_in

SWING_DEG = 8.0


def _press_when_ready(controls: Controls, ended: threading.Event) -> None:
    """A person: start, drive for two seconds, mark a success, keep."""
    while not ended.is_set():
        phase = controls.state.phase
        if phase is Phase.READY:
            controls.press(Control.ADVANCE)
        elif phase is Phase.RECORDING:
            ended.wait(2.0)
            controls.press(Control.SUCCESS)
        elif phase is Phase.REVIEW:
            controls.press(Control.ADVANCE)
        ended.wait(0.05)


@pytest.mark.slow
def test_a_follower_repeats_its_leader_and_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    plug_in()
    calibration = tmp_path / "calibration"
    for module in ("lerobot.robots.robot", "lerobot.teleoperators.teleoperator"):
        monkeypatch.setattr(f"{module}.HF_LEROBOT_CALIBRATION", calibration)
    made: list[Controls] = []
    monkeypatch.setattr(live_workcell, "Controls", lambda: made.append(Controls()) or made[0])
    ended = threading.Event()

    def person() -> None:
        while not made and not ended.is_set():
            time.sleep(0.02)
        _press_when_ready(made[0], ended)

    home = dict(zip(load_embodiment("so100").joints, load_embodiment("so100").column("home"), strict=True))
    with EmulatedBus() as follower, EmulatedBus() as leader:
        follower.write_calibration(calibration / "robots/so_follower/arm.json")
        leader.write_calibration(calibration / "teleoperators/so_leader/arm.json")
        leader.place(leader.ticks({name: float(value) for name, value in home.items()}))
        middle = leader.ticks({"shoulder_pan": 0.0})["shoulder_pan"]
        ticks_per_degree = leader.ticks({"shoulder_pan": 1.0})["shoulder_pan"] - middle
        leader.guide(
            {"shoulder_pan": lambda now: middle + ticks_per_degree * SWING_DEG * math.sin(2.0 * now)}
        )
        thread = threading.Thread(target=person, daemon=True)
        thread.start()
        try:
            summary = collect_live(
                LiveCollectConfig(
                    robot="so100",
                    task="push-cube",
                    episodes=1,
                    output=tmp_path / "data",
                    operator="leader",
                    port=follower.port,
                    leader_port=leader.port,
                    cameras=("top=emulated:source=moving@64x48",),
                ),
                announce=lambda line: None,
            )
        finally:
            ended.set()
            thread.join(timeout=5)
    assert (summary.kept, summary.episodes) == (1, 1)
    dataset = LeRobotDataset("local/leader", root=tmp_path / "data")
    rows = dataset.hf_dataset.with_format("numpy")
    actions, states = np.array(rows["action"]), np.array(rows["observation.state"])
    assert len(actions) >= 25
    assert np.ptp(actions[:, 0]) > SWING_DEG
    assert np.abs(states[5:, 0] - actions[5:, 0]).max() < 0.75 * SWING_DEG
    assert np.corrcoef(actions[:-2, 0], states[2:, 0])[0, 1] > 0.9
