"""End to end on emulated servos: a hand moves a leader, the follower follows, a recorder records; then parts fail."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blm.collect.robots.hardware import HardwareEnvironment
from blm.collect.rollout import run_episode
from blm.schemas.episode import ACTION, STATE, SUCCESS
from blm.schemas.errors import BlmError, HardwareError
from blm.schemas.rollout import Command, EpisodeStart, Observation, Step
from tests.collect.robots.arms import so100_leader
from tests.collect.robots.emulated_bus import NAMES, EmulatedBus
from tests.collect.robots.emulated_camera import unplug

Open = Callable[..., HardwareEnvironment]
RATE_HZ = 30.0


class _Leader:
    """What a leader arm shows is what is wanted; `at_tick` runs once, at a tick of its own."""

    operator = "leader"

    def __init__(self, leader, axes: tuple[str, ...]) -> None:
        self._leader, self._axes = leader, axes
        self.at_tick: tuple[int, Callable[[], None]] | None = None
        self.ticks = 0

    def reset(self, start: EpisodeStart, observation: Observation) -> None:
        self.ticks = 0

    def act(self, observation: Observation) -> Command:
        if self.at_tick is not None and self.ticks == self.at_tick[0]:
            self.at_tick[1]()
        self.ticks += 1
        shown = self._leader.get_action()
        return Command(np.array([shown[axis] for axis in self._axes]), subtask="follow")

    def metrics(self) -> dict[str, int]:
        return {"ticks": self.ticks}


class _Steps:
    """Keeps the steps of the last episode."""

    def __init__(self) -> None:
        self.steps: list[Step] = []

    def on_start(self, start: EpisodeStart) -> None:
        self.steps = []

    def on_step(self, step: Step) -> None:
        self.steps.append(step)

    def on_end(self, end) -> None: ...


@pytest.fixture
def leader(tmp_path: Path) -> Iterator[_Leader]:
    """A leader whose shoulder a hand swings to and fro by 30° and whose jaw it opens and closes."""
    with EmulatedBus() as bus:
        device = so100_leader(bus, tmp_path / "leader")
        device.connect()
        began = time.monotonic()

        def swing(name: str, centre: float, width: float) -> Callable[[float], float]:
            return lambda now: bus.ticks({name: centre + width * math.sin(1.5 * (now - began))})[name]

        bus.guide({"shoulder_pan": swing("shoulder_pan", 0, 30), "gripper": swing("gripper", 50, 30)})
        yield _Leader(device, tuple(f"{name}.pos" for name in NAMES))
        device.disconnect()


def _read(root: Path) -> dict[str, np.ndarray]:
    """The dataset's columns, read by stock LeRobot, with one picture decoded."""
    from lerobot.datasets import LeRobotDataset

    dataset = LeRobotDataset("emulated/so100", root=root, video_backend="pyav")
    last: Any = dataset[len(dataset) - 1]
    assert last["observation.images.top"].shape == (3, 48, 64)
    table = dataset.hf_dataset.with_format("numpy")
    return {
        key: np.array(table[key]) for key in (STATE, ACTION, SUCCESS, "episode_index", "timing.monotonic_s")
    }


@pytest.mark.slow
def test_a_leader_drives_the_follower_into_a_dataset(
    bus: EmulatedBus, leader: _Leader, open_environment: Open, tmp_path: Path
) -> None:
    from blm.collect.recorder import Recorder
    from blm.collect.recording import Recording

    environment = open_environment(task="swing to and fro", control_rate_hz=RATE_HZ)
    kept = _Steps()
    root = tmp_path / "dataset"
    with Recorder(root, Recording(environment.embodiment, simulated=False)) as recorder:
        leader.at_tick = (50, lambda: environment.mark(True))
        end = run_episode(environment, leader, [recorder, kept], seed=0, max_steps=100)
    assert end.reason == "success"
    assert {"ticks", "late_ticks", "bus_retries", "watchdog_holds", "repeated_frames"} <= set(end.metrics)
    columns = _read(root)
    assert len(columns[ACTION]) == end.steps == 53

    goals = iter([goals for _, goals in bus.goals])
    for row in columns[ACTION]:
        wanted = pytest.approx(bus.ticks(dict(zip(NAMES, row.tolist(), strict=True))), abs=1.5)
        assert any(sent == wanted for sent in goals), "an action that was not sent, or not in this order"
    pan_state, pan_action = columns[STATE][:, 0], columns[ACTION][:, 0]
    lags = [np.abs(pan_state[lag:] - pan_action[: len(pan_action) - lag]).mean() for lag in range(8)]
    assert 1 <= int(np.argmin(lags)) <= 4
    assert min(lags) < 1.5
    assert np.ptp(pan_state) > 20
    periods = np.diff(columns["timing.monotonic_s"])
    assert np.median(periods) == pytest.approx(1 / RATE_HZ, rel=0.5)
    assert columns[SUCCESS][-1]
    assert not columns[SUCCESS][0]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        pytest.param("servo", "'wrist_flex'", marks=pytest.mark.slow),
        ("camera", "camera 'top'"),
        ("bus", "is gone"),
    ],
)
def test_a_fault_ends_the_episode_and_keeps_what_was_saved(
    bus: EmulatedBus, leader: _Leader, open_environment: Open, tmp_path: Path, fault: str, message: str
) -> None:
    from blm.collect.recorder import Recorder
    from blm.collect.recording import Recording

    environment = open_environment(task="swing to and fro", control_rate_hz=RATE_HZ)
    root, kept = tmp_path / "dataset", _Steps()
    breaks = {"servo": lambda: bus.silence("wrist_flex"), "camera": unplug, "bus": bus.unplug}[fault]
    with Recorder(root, Recording(environment.embodiment, simulated=False)) as recorder:
        leader.at_tick = (8, lambda: environment.mark(True))
        first = run_episode(environment, leader, [recorder], seed=0, max_steps=100)
        leader.at_tick = (8, breaks)
        with pytest.raises(BlmError, match=message) as raised:
            run_episode(environment, leader, [recorder, kept], seed=1, max_steps=100)
    assert isinstance(raised.value, HardwareError)
    assert len(kept.steps) <= 9
    columns = _read(root)
    assert len(columns[ACTION]) == first.steps
    assert set(columns["episode_index"]) == {0}
