import dataclasses
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import simplejpeg

from blm.curate import output_folder
from blm.curate.doctor import diagnose
from blm.curate.episodes import build
from blm.curate.episodes.build import BuildSummary, build_splits
from blm.curate.episodes.config import Fractions, SplitsConfig, Thresholds, read_splits_config
from blm.curate.output_folder import UNFINISHED_FOLDER
from blm.curate.shards import read_shard_table
from blm.schemas.episode import STATE
from blm.schemas.errors import ConfigError, DatasetError, OutputExistsError
from blm.schemas.manifest import read_manifest
from blm.train.shard_reader import ShardBuild
from tests.curate.episodes.editing import as_stock, data_file, edit_info, set_motion, video_file
from tests.factories import as_of_version_1, make_dataset

HALVES = Fractions(train=0.5, val=0.25, test=0.25)
REPOSITORY = Path(__file__).parents[3]


def config(output: Path, *datasets: Path | dict, **changes) -> SplitsConfig:
    settings = {
        "datasets": datasets,
        "output": output,
        "fractions": HALVES,
        "shard_bytes": 120_000,
        **changes,
    }
    return SplitsConfig.model_validate(settings)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def built(recorded, tmp_path_factory) -> BuildSummary:
    return build_splits(config(tmp_path_factory.mktemp("built") / "splits", recorded))


def test_a_build_holds_every_episode_once_and_says_so(built):
    manifest = read_manifest(built.output, "stage2-splits")
    rows = read_shard_table(built.output)
    assert (built.counts.inputs, built.counts.kept, built.counts.dropped) == (8, 8, {})
    assert built.samples == manifest.splits
    assert sum(built.samples.values()) == 8
    assert built.samples["train"]
    assert built.samples["val"] + built.samples["test"]
    assert sum(built.frames.values()) == 8 * 24
    assert built.bytes == sum((built.output / row.name).stat().st_size for row in rows)
    assert built.shards == len(rows) > len(built.samples)
    assert manifest.breakdown == {"so100/push-cube": 8}
    assert manifest.inputs[0].name == "pushes"
    assert not (built.output / UNFINISHED_FOLDER).exists()


def test_samples_hold_what_was_recorded(built, recorded):
    instructions = pq.read_table(recorded / "meta/tasks.parquet")["task"].to_pylist()
    with ShardBuild(built.output) as build:
        segments = build.segments()
        assert sorted(segment.key for segment in segments) == [f"pushes-{number:06d}" for number in range(8)]
        for segment in segments:
            state = recorded_states(recorded, segment.meta.episode)
            np.testing.assert_array_equal(build.state(segment), state)
            assert (segment.meta.start, segment.meta.stop, segment.meta.frames) == (0, 24, 24)
            assert segment.meta.subtasks == ("approach", "push", "retreat")
            assert segment.meta.cameras == ("top", "wrist")
            assert build.images(segment, "wrist", [0, 23]).shape == (2, 64, 64, 3)
            assert segment.meta.instruction in instructions


def test_statistics_are_those_of_the_training_samples(built):
    with ShardBuild(built.output) as build:
        values = np.concatenate([build.action(segment) for segment in build.segments("train")]).astype(
            np.float64
        )
    found = read_manifest(built.output).statistics["so100"]
    assert found.action.count == len(values)
    np.testing.assert_allclose(found.action.mean, values.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(found.action.q99, np.quantile(values, 0.99, axis=0), rtol=1e-6)
    assert (found.rate_hz, found.cameras) == (20.0, ("top", "wrist"))


def test_the_same_build_has_the_same_bytes_with_more_workers_and_other_order(recorded, copy, tmp_path):
    other = copy("again")
    for episode in range(8):
        set_motion(other, episode, np.linspace(0, 30 + episode, 24 * 6).reshape(24, 6))
    build_splits(config(tmp_path / "one", recorded, other))
    build_splits(config(tmp_path / "two", other, recorded, workers=2))
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_an_episode_present_twice_is_kept_once(recorded, copy, tmp_path):
    summary = build_splits(config(tmp_path / "out", recorded, copy("again")))
    assert (summary.counts.kept, summary.counts.dropped) == (8, {"duplicate": 8})


def test_a_finished_build_is_left_alone(built, recorded):
    before = {path: path.stat().st_mtime_ns for path in built.output.iterdir()}
    again = build_splits(config(built.output, recorded))
    assert {path: path.stat().st_mtime_ns for path in built.output.iterdir()} == before
    assert again.reused == again.shards == built.shards
    assert dataclasses.replace(again, seconds=0, reused=0) == dataclasses.replace(built, seconds=0)


KILLED = """
import os, signal, sys
from pathlib import Path
from blm.curate.episodes.build import build_splits
from blm.curate.episodes.config import SplitsConfig

def progress(label, done, total, note=""):
    if label == "encoding frames" and done >= total * 0.6:
        os.kill(os.getpid(), signal.SIGKILL)

build_splits(SplitsConfig.model_validate_json(Path(sys.argv[1]).read_text()), progress)
"""


def test_a_build_under_way_is_not_disturbed(recorded, monkeypatch, tmp_path):
    monkeypatch.setattr(output_folder, "_PATIENCE_S", 0.0)
    with (
        output_folder.OutputFolder(tmp_path / "out", "splits", "other").claimed(),
        pytest.raises(OutputExistsError, match="being written by another build"),
    ):
        build_splits(config(tmp_path / "out", recorded))


def test_a_killed_build_is_finished_to_the_same_bytes(built, recorded, tmp_path):
    asked = config(tmp_path / "out", recorded)
    (tmp_path / "config.json").write_text(asked.model_dump_json())
    command = [sys.executable, "-c", KILLED, str(tmp_path / "config.json")]
    assert subprocess.run(command, cwd=REPOSITORY, check=False).returncode == -signal.SIGKILL
    staging = asked.output / UNFINISHED_FOLDER
    survivors = {path.name: path.stat().st_mtime_ns for path in staging.glob("*.tar")}
    assert survivors
    assert not (asked.output / "manifest.json").exists()

    summary = build_splits(asked)
    assert summary.reused == len(survivors)
    assert {name: (asked.output / name).stat().st_mtime_ns for name in survivors} == survivors
    assert contents(asked.output) == contents(built.output)


@pytest.mark.slow
def test_another_build_is_not_overwritten_unless_told(recorded, tmp_path):
    build_splits(config(tmp_path / "out", recorded))
    before = contents(tmp_path / "out")
    changed = config(tmp_path / "out", recorded, seed=1)
    with pytest.raises(OutputExistsError, match=r"another seed.*--overwrite"):
        build_splits(changed)
    assert contents(tmp_path / "out") == before

    (tmp_path / "out/notes.txt").write_text("mine")
    build_splits(changed.model_copy(update={"overwrite": True}))
    build_splits(config(tmp_path / "fresh", recorded, seed=1))
    after = contents(tmp_path / "out")
    assert after.pop("notes.txt") == b"mine"
    assert after == contents(tmp_path / "fresh")


def test_a_build_whose_splits_follow_an_older_digest_is_not_brought_up_to_date(
    recorded, tmp_path, monkeypatch
):
    monkeypatch.setattr(build, "MANIFEST_VERSION", 1)
    build_splits(config(tmp_path, recorded))
    monkeypatch.undo()
    as_of_version_1(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(OutputExistsError, match=r"by an older blm.*may become test episodes.*--overwrite"):
        build_splits(config(tmp_path, recorded))
    assert contents(tmp_path) == before
    build_splits(config(tmp_path, recorded, overwrite=True))
    assert read_manifest(tmp_path).manifest_version == 2


def test_a_folder_with_other_files_is_refused(recorded, tmp_path):
    (tmp_path / "diary.txt").write_text("dear")
    with pytest.raises(OutputExistsError):
        build_splits(config(tmp_path, recorded))


def test_drops_are_written_with_reasons_also_those_found_while_decoding(copy, tmp_path):
    root = copy()
    set_motion(root, 0, np.full((24, 6), np.nan))
    set_motion(root, 1, np.full((24, 6), 7.0))
    broken = video_file(root, 2)
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 2])
    video_file(root, 3, "wrist").unlink()
    summary = build_splits(config(tmp_path / "out", root))
    dropped = pq.read_table(tmp_path / "out/dropped.parquet").to_pylist()
    assert [(row["episode"], row["reason"]) for row in dropped] == [
        (0, "not_finite"),
        (1, "idle_episode"),
        (2, "unreadable_video"),
        (3, "missing_video"),
    ]
    assert broken.name in dropped[2]["note"]
    assert summary.counts.kept == sum(summary.samples.values()) == 4
    manifest = read_manifest(tmp_path / "out")
    assert sum(manifest.breakdown.values()) == 4


def test_stride_size_and_cameras(recorded, built, tmp_path):
    asked = config(tmp_path / "out", recorded, frame_stride=5, image_size=32, cameras=["wrist"])
    build_splits(asked)
    with ShardBuild(asked.output) as build, ShardBuild(built.output) as whole:
        fulls = {segment.key: segment for segment in whole.segments()}
        for segment in build.segments():
            meta, full = segment.meta, fulls[segment.key]
            assert (meta.rate_hz, meta.frames, meta.image_size) == (4.0, 5, (32, 32))
            assert meta.cameras == ("wrist",)
            assert meta.split == full.meta.split
            np.testing.assert_array_equal(build.state(segment), whole.state(full)[::5])
            np.testing.assert_array_equal(build.action(segment), whole.action(full)[[4, 9, 14, 19, 23]])
            small, large = (
                build.images(segment, "wrist", range(5)),
                whole.images(full, "wrist", range(0, 24, 5)),
            )
            means = large.reshape(5, 32, 2, 32, 2, 3).mean(axis=(2, 4))
            assert np.abs(small - means).mean() < 4
    assert read_manifest(asked.output).statistics["so100"].rate_hz == 4.0


def test_datasets_of_two_rates_are_brought_to_one(recorded, built, tmp_path):
    quick = make_dataset(tmp_path / "quick", episodes=4, frames=24, image_size=64, seed=50, rate_hz=40)
    asked = config(tmp_path / "out", {"path": quick, "frame_stride": 2}, recorded)
    build_splits(asked)
    with ShardBuild(asked.output) as build, ShardBuild(built.output) as whole:
        expected = {segment.key: whole.state(segment) for segment in whole.segments()}
        expected |= {f"quick-{episode:06d}": recorded_states(quick, episode)[::2] for episode in range(4)}
        for segment in build.segments():
            stride = 2 if segment.meta.dataset == "quick" else 1
            assert (segment.meta.stride, segment.meta.rate_hz) == (stride, 20.0)
            np.testing.assert_array_equal(build.state(segment), expected.pop(segment.key))
    assert not expected
    assert read_manifest(asked.output).statistics["so100"].rate_hz == 20.0


def recorded_states(root: Path, episode: int) -> np.ndarray:
    return np.stack(pq.read_table(data_file(root, episode))[STATE].to_numpy())


def test_idle_ends_are_cut_and_the_images_follow(copy, tmp_path):
    root = copy()
    ramp = np.interp(np.arange(24), [10, 16], [0, 40])[:, None] * np.ones(6)
    set_motion(root, 4, ramp)
    build_splits(config(tmp_path / "trimmed", root))
    build_splits(config(tmp_path / "whole", root, trim_idle=False))

    def images(folder: Path) -> tuple[int, np.ndarray]:
        with ShardBuild(folder) as build:
            (segment,) = (one for one in build.segments() if one.meta.episode == 4)
            assert len(build.state(segment)) == segment.meta.frames
            return segment.meta.start, build.images(segment, "top", range(segment.meta.frames))

    start, trimmed = images(tmp_path / "trimmed")
    _, whole = images(tmp_path / "whole")
    # the first window of 4 frames that moves begins at frame 7, less 5 frames of margin
    assert start == 2
    np.testing.assert_array_equal(trimmed, whole[start : start + len(trimmed)])


def test_images_show_the_recorded_scene(built):
    """The synthetic scene is a blue square on grey; JPEG must not have swapped or washed out its colours."""
    with ShardBuild(built.output) as build:
        segment = build.segments("train")[0]
        image = build.images(segment, "top", [0])[0].astype(int)
    blueness = image[..., 2] - image[..., 0]
    assert blueness.max() > 120
    assert np.median(np.abs(blueness)) < 12


def test_datasets_that_do_not_fit_together_are_named_by_build_and_doctor(recorded, copy, tmp_path):
    slow, other = copy("slow"), copy("other")
    edit_info(slow, lambda info: info.update(fps=10))
    with pytest.raises(
        DatasetError, match=r"'pushes' and 'slow' of so100 differ in rate: 20 and 10 Hz"
    ) as refused:
        build_splits(config(tmp_path / "out", recorded, slow))
    assert "`frame_stride: 2` for 'pushes', `frame_stride: 1` for 'slow' in splits.yaml, for 10 Hz" in str(
        refused.value
    )
    shutil.copytree(recorded, slow.parent / "pushes")
    for root, axes in ((slow, "abcdef"), (other, "ghijkl")):
        edit_info(as_stock(root), lambda info, axes=axes: rename_axes(info, list(axes)))
    found = diagnose(slow.parent, fast=True)
    assert [problem.split(":")[0] for problem in found.problems] == [
        "datasets 'other' and 'slow' of so_follower differ in axes"
    ]
    with pytest.raises(
        DatasetError, match=r"'other' and 'slow' of so_follower differ in axes: g\.pos, h\.pos"
    ):
        build_splits(config(tmp_path / "out", recorded, slow, other))


def rename_axes(info: dict, names: list[str]) -> None:
    info |= {"robot_type": "so_follower"}
    for feature in ("observation.state", "action"):
        info["features"][feature]["names"] = names


def test_datasets_of_one_robot_may_have_different_cameras(recorded, copy, tmp_path):
    other = copy("other")
    edit_info(other, lambda info: info["features"].pop("observation.images.wrist"))
    built = build_splits(config(tmp_path / "out", recorded, other, checks={"duplicate": "off"}))
    assert sorted(read_manifest(built.output).statistics["so100"].cameras) == ["top", "wrist"]
    with ShardBuild(built.output) as build:
        cameras = {segment.meta.dataset: segment.meta.cameras for segment in build.segments()}
    assert cameras == {"pushes": ("top", "wrist"), "other": ("top",)}
    datasets = pytest.importorskip("datasets")
    for name, views in cameras.items():
        loaded = datasets.load_dataset(str(built.output), f"so100-{name}", cache_dir=str(tmp_path / "cache"))
        first = next(iter(loaded.values()))
        assert {one for one in first.column_names if one.endswith(".mjpeg")} == {f"{v}.mjpeg" for v in views}


def test_when_nothing_is_left_the_reasons_are_told(recorded, tmp_path):
    strict = Thresholds(min_duration_s=60)
    with pytest.raises(DatasetError, match=r"no episode is left of 8 \(dropped: too_short 8\)"):
        build_splits(config(tmp_path / "out", recorded, thresholds=strict))


def test_the_card_tells_splits_drops_and_lineage(built):
    card = (built.output / "README.md").read_text()
    assert "8 of 8 recorded episodes" in card
    assert f"| train | {built.samples['train']} |" in card
    assert "| state | shoulder_pan.pos |" in card
    assert "Licence: not stated." in card
    assert "path: train-so100-*.tar" in card


def test_progress_ends_where_it_should(recorded, tmp_path):
    seen = []
    build_splits(
        config(tmp_path / "out", recorded),
        lambda label, done, total, note="": seen.append((label, done, total)),
    )
    frames = [entry for entry in seen if entry[0] == "encoding frames"]
    assert frames[-1] == ("encoding frames", 192, 192)
    assert [done for _, done, _ in frames] == sorted(done for _, done, _ in frames)


def test_yaml_settings(tmp_path):
    path = tmp_path / "splits.yaml"
    path.write_text("datasets: [a, {path: b, embodiment: panda}]\noutput: out\nimage_size: 128\n")
    read = read_splits_config(path, seed=3)
    assert [source.path for source in read.datasets] == [Path("a"), Path("b")]
    assert (read.image_size, read.seed) == ((128, 128), 3)
    path.write_text("datasets: [a]\noutput: out\nfractions: {train: 0.8}\n")
    with pytest.raises(ConfigError, match=r"fractions.*add up to 1"):
        read_splits_config(path)
    path.write_text("datasets: [a]\noutput: out\njpeg: 3\n")
    with pytest.raises(ConfigError, match="unknown key 'jpeg'"):
        read_splits_config(path)


def test_golden_manifest_of_a_tiny_build(copy, tmp_path):
    """Everything that does not depend on the video encoder, the place or the version of blm."""
    root = copy("golden")
    for episode in range(8):
        steps = np.arange(24)[:, None] * 0.5 * (1 + np.arange(6)) + episode
        set_motion(root, episode, steps)
    set_motion(root, 6, np.zeros((24, 6)))
    build_splits(config(tmp_path / "out", root, seed=6))
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    for varying in ("fingerprint", "software", "inputs"):
        manifest.pop(varying)
    manifest["config"].pop("datasets")
    golden = Path(__file__).parent / "golden_manifest.json"
    statistics, expected = manifest.pop("statistics"), json.loads(golden.read_text())
    for name, axes in expected.pop("statistics").items():
        for kind in ("state", "action"):
            found = statistics[name].pop(kind)
            for quantity, values in axes.pop(kind).items():
                assert found[quantity] == pytest.approx(values, rel=1e-6)
        assert statistics[name] == axes
    assert manifest == expected


def test_jpeg_members_are_plain_jpeg_images(built):
    with ShardBuild(built.output) as build:
        segment = build.segments("train")[0]
        member = segment.members["top.mjpeg"]
    content = (built.output / member.shard).read_bytes()[member.offset : member.offset + member.size]
    assert simplejpeg.decode_jpeg_header(content)[:2] == (64, 64)
    assert content.count(b"\xff\xd8\xff") == 24
