"""Held-out axes and mixture weights through a whole build of two robots and two tasks."""

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from blm.curate.episodes.build import build_splits
from blm.curate.episodes.config import read_splits_config
from blm.schemas.errors import ConfigError, DatasetError
from blm.schemas.manifest import read_manifest
from blm.train.shard_reader import ShardBuild
from tests.curate.episodes.editing import as_stock, data_file
from tests.factories import make_dataset

HELD_OUT = [
    {"name": "unseen-task", "task": "pull-cube"},
    {"name": "far-left", "embodiment": "so100", "region": {"object": "cube", "y": [0.0, 1.0]}},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two datasets in one folder: so100 pushing and pulling, panda pushing."""
    folder = tmp_path_factory.mktemp("both")
    tasks = ["push-cube", "pull-cube"] * 4
    make_dataset(folder / "arm", task=tasks, episodes=8, frames=16, image_size=32)
    make_dataset(folder / "panda", embodiment="panda", episodes=4, frames=12, image_size=32, seed=5)
    return folder


def build(folder: Path, output: Path, **settings):
    config = output.with_suffix(".yaml")
    settings |= {"datasets": [str(folder)], "output": str(output), "trim_idle": False}
    config.write_text(yaml.safe_dump(settings))
    return build_splits(read_splits_config(config))


def test_held_out_episodes_are_in_their_own_splits_and_nowhere_else(folder, tmp_path):
    mixture = {"strategy": "balanced", "by": "embodiment"}
    fractions = {"train": 1, "val": 0, "test": 0}
    built = build(folder, tmp_path / "out", held_out=HELD_OUT, mixture=mixture, fractions=fractions)
    manifest = read_manifest(built.output)
    assert list(manifest.splits) == sorted(["train", "val", "test", "test-unseen-task", "test-far-left"])
    assert manifest.splits["test-unseen-task"] == 4
    with ShardBuild(built.output) as shards:
        for segment in shards.segments():
            assert (segment.meta.split == "test-unseen-task") == (segment.meta.task == "pull-cube")
            if segment.meta.embodiment == "so100" and segment.meta.task == "push-cube":
                assert (segment.meta.split == "test-far-left") == (
                    start_y(folder / "arm", segment.meta.episode) >= 0
                )
        training = {segment.meta.embodiment for segment in shards.segments("train")}
    assert manifest.mixture is not None
    assert sum(manifest.mixture.weights.values()) == pytest.approx(1)
    assert {label.split("/")[1] for label in manifest.mixture.weights} == training
    for robot in training:
        shares = [share for label, share in manifest.mixture.weights.items() if f"/{robot}/" in label]
        assert sum(shares) == pytest.approx(1 / len(training))
    card = (built.output / "README.md").read_text()
    assert "split: test_unseen_task" in card
    assert "path: test_unseen_task-so100-" in card


def start_y(root: Path, episode: int) -> float:
    return pq.read_table(data_file(root, episode))["observation.environment_state"][0].as_py()[1]


@pytest.mark.slow
def test_datasets_library_reads_every_split(folder, tmp_path):
    datasets = pytest.importorskip("datasets")
    fractions = {"train": 1, "val": 0, "test": 0}
    built = build(folder, tmp_path / "out", held_out=HELD_OUT, fractions=fractions)
    loaded = datasets.load_dataset(str(built.output), "so100", cache_dir=str(tmp_path / "cache"))
    with ShardBuild(built.output) as shards:
        expected = {
            split.replace("-", "_"): len(segments)
            for split in shards.splits
            if (segments := [s for s in shards.segments(split) if s.meta.embodiment == "so100"])
        }
    assert {split: len(rows) for split, rows in loaded.items()} == expected
    assert "test_unseen_task" in expected


def test_a_region_is_refused_where_starts_are_not_recorded(folder, tmp_path):
    make_dataset(tmp_path / "in/real", episodes=2, frames=12, image_size=32, seed=9)
    as_stock(tmp_path / "in/real")
    with pytest.raises(DatasetError, match=r"dataset 'real' .* does not record where 'cube' starts"):
        build(tmp_path / "in", tmp_path / "out", held_out=[HELD_OUT[1]])


def test_weights_of_what_is_not_there_are_refused(folder, tmp_path):
    mixture = {
        "strategy": "explicit",
        "by": "task",
        "weights": {"push-cube": 1, "pull-cube": 1, "stack-cube": 1},
    }
    with pytest.raises(ConfigError, match=r"task 'stack-cube' has no training samples; there are:"):
        build(folder, tmp_path / "out", mixture=mixture, fractions={"train": 1, "val": 0, "test": 0})


@pytest.mark.slow
def test_statistics_are_those_of_the_samples_also_with_a_stride(folder, tmp_path):
    built = build(folder, tmp_path / "out", frame_stride=3, fractions={"train": 1, "val": 0, "test": 0})
    statistics = read_manifest(built.output).statistics
    with ShardBuild(built.output) as shards:
        for robot, found in statistics.items():
            segments = [segment for segment in shards.segments("train") if segment.meta.embodiment == robot]
            for read, described in ((shards.state, found.state), (shards.action, found.action)):
                values = np.concatenate([read(segment) for segment in segments]).astype(np.float64)
                assert described.count == len(values)
                for name, expected in (
                    ("mean", values.mean(axis=0)),
                    ("std", values.std(axis=0)),
                    ("q01", np.quantile(values, 0.01, axis=0)),
                ):
                    np.testing.assert_allclose(getattr(described, name), expected, rtol=1e-6, atol=1e-7)
    again = build(
        folder, tmp_path / "again", frame_stride=3, workers=2, fractions={"train": 1, "val": 0, "test": 0}
    )
    assert read_manifest(again.output).statistics == statistics
    assert dataclasses.asdict(again)["counts"] == dataclasses.asdict(built)["counts"]
