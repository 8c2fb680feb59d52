from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from blm.curate.episodes.build import build_splits
from blm.curate.episodes.config import SplitsConfig
from blm.schemas.embodiment import load_embodiment
from blm.schemas.manifest import read_manifest
from blm.train.shard_reader import ShardBuild

FRAMES, SIDE, SHADE_STEP = 30, 64, 6
INSTRUCTIONS = ("push the blue cube away from the robot onto the target", "wipe the table")


def shade(episode: int, frame: int) -> int:
    return 20 + 25 * episode + SHADE_STEP * frame


def write_stock_dataset(root: Path, episodes: int) -> Path:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    axes = list(load_embodiment("so100").axis_names)
    vector = {"dtype": "float32", "shape": (len(axes),), "names": axes}
    image = {"dtype": "video", "shape": (SIDE, SIDE, 3), "names": ["height", "width", "channels"]}
    features = {"observation.state": vector, "action": vector, "observation.images.front": image}
    dataset = LeRobotDataset.create(
        "local/stock", fps=30, features=features, root=root, robot_type="so100_follower", use_videos=True
    )
    for episode in range(episodes):
        for frame in range(FRAMES):
            values = (
                np.linspace(0, 60, FRAMES, dtype=np.float32)[frame] * np.ones(len(axes), np.float32) + episode
            )
            dataset.add_frame(
                {
                    "observation.state": values,
                    "action": values + 1,
                    "observation.images.front": np.full((SIDE, SIDE, 3), shade(episode, frame), np.uint8),
                    "task": INSTRUCTIONS[episode % 2],
                }
            )
        dataset.save_episode()
    dataset.finalize()
    return root


@pytest.mark.slow
def test_a_dataset_recorded_with_stock_lerobot_is_built_frame_by_frame(tmp_path):
    root = write_stock_dataset(tmp_path / "stock", 3)
    summary = build_splits(SplitsConfig.model_validate({"datasets": [root], "output": tmp_path / "out"}))
    assert (summary.counts.inputs, summary.counts.kept) == (3, 3)
    assert read_manifest(tmp_path / "out").breakdown == {"so100/push-cube": 2, "so100/wipe-the-table": 1}

    # all episodes share one Parquet and one video file, so that finding the right frames takes their timestamps
    assert len(list(root.glob("videos/**/*.mp4"))) == 1
    recorded = pq.read_table(next(root.glob("data/*/*.parquet")))
    states = np.stack(recorded["observation.state"].to_numpy()).reshape(3, FRAMES, -1)
    with ShardBuild(tmp_path / "out") as build:
        for segment in build.segments():
            episode = segment.meta.episode
            np.testing.assert_array_equal(build.state(segment), states[episode])
            images = build.images(segment, "front", range(FRAMES)).mean(axis=(1, 2, 3))
            wanted = [shade(episode, frame) for frame in range(FRAMES)]
            # AV1 may repeat a picture that differs too little; frames shifted by one would all be off by a step
            assert (np.abs(images - wanted) < SHADE_STEP / 2).mean() > 0.9
            assert (segment.meta.embodiment, segment.meta.rate_hz, segment.meta.subtasks) == (
                "so100",
                30.0,
                ("",),
            )
