"""A policy drives and a person takes over: which frames are whose is in the dataset."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from blm.collect.controls import Control, Controls, Phase
from blm.collect.dataset_writer import DatasetWriter
from blm.collect.live_config import LiveCollectConfig
from blm.collect.live_recorder import LIVE_VIDEO, LiveRecorder
from blm.collect.live_session import LiveConfig, LiveSession, SessionStatus
from blm.collect.operators.take_over import TakeOverAgent
from blm.collect.recording import Recording
from blm.pages.viewer.dataset import ViewedDataset
from blm.pages.viewer.episode import episode_content
from blm.schemas.episode import INTERVENTION
from blm.schemas.errors import DatasetError
from blm.schemas.rollout import Command, EpisodeStart, Observation
from blm.schemas.task import load_task
from tests.collect.workcell import CountingEnvironment, small_robot
from tests.factories import make_dataset

TAKEN, GIVEN_BACK, ENDED = 4, 9, 15
"""Ticks, counted from 1, at which the person presses."""


class Driver:
    """Stays where the arm is."""

    def __init__(self, operator: str) -> None:
        self.operator = operator

    def reset(self, start: EpisodeStart, observation: Observation) -> None: ...

    def act(self, observation: Observation) -> Command:
        return Command(np.asarray(observation.state, dtype=np.float64))

    def metrics(self) -> Mapping[str, int]:
        return {}


class Unsolved(CountingEnvironment):
    """A scene in which only the person ends an episode."""

    def reset(self, seed: int) -> Observation:
        return super().reset(7)


class Watcher(Driver):
    """A policy beside which the person sits: they press at certain ticks, and between episodes."""

    def __init__(self, controls: Controls) -> None:
        super().__init__("policy:run")
        self._controls = controls
        self.ticks = 0

    def ready(self, start: EpisodeStart, observation: Observation) -> None:
        self.ticks = 0

    def show(self, status: SessionStatus) -> None:
        if status.phase in (Phase.READY, Phase.REVIEW):
            self._controls.press(Control.ADVANCE)

    def person_drives(self) -> bool:
        self.ticks += 1
        if self.ticks in (TAKEN, GIVEN_BACK):
            self._controls.press(Control.TAKE_OVER)
        if self.ticks == ENDED:
            self._controls.press(Control.ADVANCE)
        return self._controls.state.take_overs % 2 == 1


def recording(interventions: bool = True) -> Recording:
    return Recording(small_robot(), video=LIVE_VIDEO, interventions=interventions)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two episodes, in each of which the person takes over and gives back."""
    root = tmp_path_factory.mktemp("interventions") / "data"
    controls = Controls()
    policy = Watcher(controls)
    agent = TakeOverAgent(policy, Driver("browser"), policy.person_drives)
    config = LiveConfig(tasks=("push-cube",), episodes=2, seed=7)
    with LiveRecorder(root, recording(), review=True) as recorder:
        LiveSession(
            config,
            lambda task: Unsolved(small_robot(), load_task(task, "so100")),
            agent,
            controls,
            recorder,
            [policy],
        ).run(root)
    return root


EXPECTED = [TAKEN <= tick < GIVEN_BACK for tick in range(1, ENDED + 1)]


def test_every_frame_says_who_drove(recorded: Path):
    for episode in (0, 1):
        frames = pq.read_table(recorded / f"data/chunk-000/file-{episode:03d}.parquet")
        assert frames[INTERVENTION].to_pylist() == EXPECTED
    info = json.loads((recorded / "meta/info.json").read_text())
    assert info["features"][INTERVENTION] == {"dtype": "bool", "shape": [1], "names": None}
    statistics = json.loads((recorded / "meta/stats.json").read_text())
    assert statistics[INTERVENTION]["mean"] == pytest.approx([sum(EXPECTED) / len(EXPECTED)])


def test_the_viewer_and_the_card_show_it(recorded: Path):
    assert episode_content(ViewedDataset(recorded), 1)["interventions"] == [[TAKEN - 1, GIVEN_BACK - 1]]
    card = (recorded / "README.md").read_text()
    assert "| a person drove in the policy's place | 10 of 30 frames, in 2 of 2 episodes |" in card
    assert f"`{INTERVENTION}` marks the frames" in card


def test_who_cannot_take_over_records_no_such_column(tmp_path: Path):
    policy = LiveCollectConfig(output=tmp_path, operator="policy:runs/one")
    assert (policy.can_take_over, policy.device) == (True, "browser")
    leader = LiveCollectConfig(output=tmp_path, operator="leader")
    assert (leader.can_take_over, leader.device) == (False, "leader")
    plain = recording(interventions=False)
    assert INTERVENTION not in plain.features()
    assert "interventions" not in plain.content()


def test_a_dataset_is_continued_with_the_columns_it_has(recorded: Path, tmp_path: Path):
    with pytest.raises(DatasetError, match="recorded from a policy with a person at hand"):
        DatasetWriter.resume(recorded, recording(interventions=False))
    root = make_dataset(tmp_path / "plain", image_size=32, episodes=1, frames=4)
    with pytest.raises(DatasetError, match="has no column 'intervention'"):
        DatasetWriter.resume(root, Recording(small_robot(), interventions=True))


@pytest.mark.slow
def test_stock_lerobot_reads_the_column(recorded: Path):
    datasets = pytest.importorskip("lerobot.datasets.lerobot_dataset")
    dataset = datasets.LeRobotDataset("blm/interventions", root=recorded, video_backend="pyav")
    assert dataset.features[INTERVENTION]["dtype"] == "bool"
    assert [bool(dataset[frame][INTERVENTION]) for frame in range(2 * ENDED)] == 2 * EXPECTED
