"""A sixth robot and a seventh task, from a package that blm knows nothing of: one file each, and a skill."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from blm.collect.session import CollectConfig, collect
from blm.collect.sim.headless import prepare_rendering
from blm.schemas.embodiment import embodiment_names, load_embodiment
from blm.schemas.errors import ConfigError, SimulationError
from blm.schemas.task import load_task, task_names

EPISODES = 2


@pytest.fixture
def outside_lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The package as installed: importable, and a distribution on the path that names its entry points."""
    package = Path(__file__).parent / "extension"
    site = tmp_path / "site-packages"
    info = site / "outside_lab-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside-lab\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[blm.embodiments]\ncrane4 = outside_lab:CRANE4\n"
        "[blm.tasks]\nhoist-ball = outside_lab:HOIST_BALL\n"
        "[blm.skills]\nhoist-ball = outside_lab.hoist_ball:hoist_ball\n"
    )
    for folder in (site, package):
        monkeypatch.syspath_prepend(str(folder))
    yield package / "outside_lab"
    load_embodiment.cache_clear()
    load_task.cache_clear()
    for module in [name for name in sys.modules if name.split(".")[0] == "outside_lab"]:
        del sys.modules[module]


def test_they_are_known_by_name_once_installed(outside_lab: Path) -> None:
    assert set(embodiment_names()) == {"crane4", "panda", "so100", "widowxai", "xarm6", "xarm7"}
    assert len(task_names()) == 7
    crane = load_embodiment("crane4")
    assert crane.model == str(outside_lab / "crane4.xml"), (
        "a model is looked for beside the file that names it"
    )
    assert len(crane.axes) == 5
    assert np.isinf(crane.torque_limits()[3])
    assert load_embodiment(str(outside_lab / "crane4.yaml")) == crane


def test_a_model_that_is_not_there_is_named(tmp_path: Path, outside_lab: Path) -> None:
    text = (outside_lab / "crane4.yaml").read_text().replace("model: crane4.xml", "model: crane5.xml")
    (tmp_path / "crane5.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"crane5\.xml does not exist"):
        load_embodiment(str(tmp_path / "crane5.yaml"))


@pytest.mark.parametrize("robot", ["crane4", "so100"])
def test_the_new_task_is_collected(robot: str, outside_lab: Path, tmp_path: Path) -> None:
    try:
        prepare_rendering()
    except SimulationError as error:
        pytest.skip(f"no renderer: {error.message}")
    output = tmp_path / robot
    summary = collect(
        CollectConfig(robot=robot, task="hoist-ball", episodes=EPISODES, image_size=64, output=output)
    )
    assert (summary.episodes, summary.succeeded) == (EPISODES, EPISODES)
    assert summary.attempts <= EPISODES + 1, summary.dropped
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    dataset = LeRobotDataset(f"tests/{robot}", root=output, video_backend="pyav")
    assert dataset.num_episodes == EPISODES
    assert dataset.meta.robot_type == robot
    assert dataset.meta.features["action"]["names"] == list(load_embodiment(robot).axis_names)
    last = cast(dict[str, Any], dataset[len(dataset) - 1])
    assert last["action"].shape == (len(load_embodiment(robot).axes),)
    assert last["observation.images.wrist"].shape == (3, 64, 64)
    assert last["task"] in load_task("hoist-ball", robot).instructions
