"""Builds into the folder of an earlier build: what changed is written, and nothing finished is ever lost."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from blm.curate import output_folder
from blm.curate.episodes import build
from blm.curate.episodes.build import build_splits
from blm.curate.shards import read_shard_table
from blm.schemas.errors import OutputExistsError
from blm.schemas.manifest import read_manifest
from blm.train.shard_reader import ShardBuild
from tests.curate.episodes.editing import set_motion, video_file
from tests.curate.episodes.test_build import config, contents
from tests.factories import make_dataset


@pytest.fixture
def other(copy) -> Path:
    """Eight more episodes of the same robot, with other motion."""
    root = copy("again")
    for episode in range(8):
        set_motion(root, episode, np.linspace(0, 30 + episode, 24 * 6).reshape(24, 6))
    return root


def inodes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in folder.glob("*.tar")}


def test_another_dataset_leaves_the_shards_of_the_first_untouched(recorded, other, tmp_path):
    first = build_splits(config(tmp_path / "out", recorded))
    before = inodes(tmp_path / "out")
    both = build_splits(config(tmp_path / "out", recorded, other))
    assert (both.reused, both.counts.kept) == (first.shards, 16)
    assert {name: inodes(tmp_path / "out")[name] for name in before} == before
    build_splits(config(tmp_path / "fresh", other, recorded))
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


@pytest.mark.slow
def test_a_changed_episode_rewrites_shards_of_its_own_dataset_only(recorded, other, tmp_path):
    build_splits(config(tmp_path / "out", recorded, other))
    before = inodes(tmp_path / "out")
    set_motion(other, 3, np.linspace(5, 60, 24 * 6).reshape(24, 6))
    summary = build_splits(config(tmp_path / "out", recorded, other))
    after = inodes(tmp_path / "out")
    untouched = [name for name in before if "pushes" in name]
    assert len(untouched) <= summary.reused < summary.shards  # near-duplicates may change their split with it
    assert all("again" in name for name in after if after[name] != before.get(name))
    build_splits(config(tmp_path / "fresh", recorded, other))
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


@pytest.mark.slow
def test_episodes_added_at_the_end_leave_full_shards_untouched(tmp_path):
    root = make_dataset(tmp_path / "grows", episodes=8, frames=24)
    first = build_splits(config(tmp_path / "out", root))
    shutil.rmtree(root)
    make_dataset(root, episodes=11, frames=24)
    summary = build_splits(config(tmp_path / "out", root))
    assert summary.counts.kept == 11
    # the last shard of each split may have had room
    assert first.shards - 3 <= summary.reused < summary.shards
    build_splits(config(tmp_path / "fresh", root))
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


@pytest.mark.slow
def test_fewer_datasets_or_other_settings_need_to_be_asked_for(recorded, other, tmp_path):
    build_splits(config(tmp_path / "out", recorded, other))
    with pytest.raises(OutputExistsError, match=r"a build that also has again.*--overwrite"):
        build_splits(config(tmp_path / "out", recorded))
    with pytest.raises(OutputExistsError, match="another image_size, jpeg_quality"):
        build_splits(config(tmp_path / "out", recorded, other, image_size=32, jpeg_quality=50))
    halved = [{"path": root / ".." / root.name, "frame_stride": 2} for root in (recorded, other)]
    with pytest.raises(OutputExistsError, match=r"another frame_stride of 'again'.*--overwrite"):
        build_splits(config(tmp_path / "out", *halved))
    spelt_out = [{"path": root, "frame_stride": 1, "name": root.name} for root in (recorded, other)]
    build_splits(config(tmp_path / "out", *spelt_out))
    summary = build_splits(config(tmp_path / "out", recorded, overwrite=True))
    assert summary.reused == summary.shards
    assert not any("again" in path.name for path in (tmp_path / "out").iterdir())


@pytest.mark.slow
def test_a_damaged_shard_is_not_taken_over(recorded, other, tmp_path):
    build_splits(config(tmp_path / "out", recorded))
    damaged = min((tmp_path / "out").glob("train-*.tar"))
    content = bytearray(damaged.read_bytes())
    content[700] ^= 1
    damaged.write_bytes(content)
    build_splits(config(tmp_path / "out", recorded, other))
    build_splits(config(tmp_path / "fresh", recorded, other))
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


def test_unreadable_episodes_are_remembered(copy, other, tmp_path):
    root = copy()
    broken = video_file(root, 2)
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 2])
    first = build_splits(config(tmp_path / "out", root))
    assert first.counts.dropped == {"unreadable_video": 1}
    again = build_splits(config(tmp_path / "out", root, other))
    assert again.counts.dropped == {"unreadable_video": 1}
    assert again.reused >= first.shards


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["packing", "tables", "publishing"])
def test_an_update_cut_short_loses_nothing(recorded, other, tmp_path, monkeypatch, moment):
    build_splits(config(tmp_path / "out", recorded))
    before = contents(tmp_path / "out")

    class Cut(BaseException):
        pass

    def cut(*_, **__):
        raise Cut

    moves = []

    def replace(source, target):
        moves.extend([source] if Path(source).suffix == ".tar" else [])
        if len(moves) == 2:
            raise Cut
        os.rename(source, target)

    if moment == "packing":
        monkeypatch.setattr("blm.curate.shards.OpenShard.finish", cut)
    elif moment == "tables":
        monkeypatch.setattr(build, "write_splits_card", cut)
    else:
        monkeypatch.setattr(output_folder.os, "replace", replace)
    with pytest.raises(Cut):
        build_splits(config(tmp_path / "out", recorded, other))
    monkeypatch.undo()

    if moment == "publishing":
        assert not (tmp_path / "out/manifest.json").exists()
    else:
        after = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir() if path.is_file()}
        assert after == before
        with ShardBuild(tmp_path / "out") as old:
            assert len(old.segments()) == 8
    build_splits(config(tmp_path / "out", recorded, other))
    build_splits(config(tmp_path / "fresh", recorded, other))
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


def test_a_build_interrupted_while_it_was_put_in_place_is_put_in_place_by_any_later_one(
    recorded, other, tmp_path, monkeypatch
):
    monkeypatch.setattr(output_folder.OutputFolder, "_remove_stale_shards", stop)
    with pytest.raises(KeyboardInterrupt):
        build_splits(config(tmp_path / "out", recorded))
    monkeypatch.undo()
    assert not (tmp_path / "out/manifest.json").exists()
    summary = build_splits(config(tmp_path / "out", recorded, other))
    assert summary.reused == len([row for row in read_shard_table(tmp_path / "out") if "pushes" in row.name])
    assert read_manifest(tmp_path / "out").counts.kept == 16


def stop(*_):
    raise KeyboardInterrupt


@pytest.mark.slow
def test_copies_stand_in_where_files_cannot_have_two_names(recorded, other, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("no links here")

    monkeypatch.setattr(output_folder.os, "link", refuse)
    build_splits(config(tmp_path / "out", recorded))
    build_splits(config(tmp_path / "out", recorded, other))
    monkeypatch.undo()
    build_splits(config(tmp_path / "fresh", recorded, other))
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


@pytest.mark.slow
def test_the_updated_build_reads_as_one(recorded, other, tmp_path):
    build_splits(config(tmp_path / "out", recorded))
    build_splits(config(tmp_path / "out", recorded, other))
    with ShardBuild(tmp_path / "out") as found:
        assert len(found.segments()) == 16
        for segment in found.segments():
            assert found.images(segment, "top", [0]).shape == (1, 64, 64, 3)
